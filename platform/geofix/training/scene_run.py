"""What classifiers with scenes and semantic maps begin with: labels, planes, and the network itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geofix.errors import BadInputError, GeofixError
from geofix.imagery.semantics import ClassList
from geofix.log import get_logger
from geofix.models.classifier import Classifier
from geofix.models.classifier_dir import TrainedClassifier, load_classifier
from geofix.models.config import EncoderConfig
from geofix.models.encoder import Encoder
from geofix.models.groups import freeze_trunk
from geofix.models.scene_classifier import SceneClassifier
from geofix.models.scene_networks import SceneNetworks
from geofix.models.translocator import Design, TransLocator
from geofix.partitions.partition import Partition
from geofix.training.classify_config import ClassifierConfig
from geofix.training.config import EncoderSection
from geofix.training.places import TrainingPhotos
from geofix.training.planes import MapPlanes, Planes, ScenePlanes
from geofix.training.samples import read_photo
from geofix.training.scene_labels import NONE, S3, SceneLabels
from geofix.training.semantic_cache import cached_maps

_log = get_logger(__name__)


@dataclass
class Extras:
    """What a run has beside photos and partitions.

    Attributes:
        planes: Of labels behind the photos.
        classes: Of semantic maps.
        labels: Scene labels by photo.
        counts: Of scenes that are learned.
        own: Scenes with a network of their own.
        base: Classifier that scene networks begin at.
    """

    planes: Planes | None = None
    classes: ClassList | None = None
    labels: SceneLabels | None = None
    counts: tuple[int, ...] = ()
    own: tuple[int, ...] = ()
    base: TrainedClassifier | None = field(default=None, repr=False)

    def scenes_of(self, photos: TrainingPhotos) -> NDArray[np.int64] | None:
        """Labels (n, counts) of photos, -1 for none; None where no scene is learned."""
        if self.labels is None or not self.counts:
            return None
        return self.labels.table([photos.uri[i] for i in range(len(photos))], self.counts)


def prepare_extras(
    config: ClassifierConfig, photos: TrainingPhotos, val: TrainingPhotos | None, out: Path
) -> tuple[TrainingPhotos, Extras]:
    """Read labels and maps; photos that a run cannot use without them are left out, or the run is refused.

    Args:
        config: The run.
        photos: Training photos.
        val: Photos that are looked at after an epoch: a segmentation network makes their maps too.
        out: Maps of a segmentation network are kept in `OUT/semantics`.

    Returns:
        The photos that are trained on, and what goes with them.

    Raises:
        NotFoundError: A file that the configuration names is not there.
        BadInputError: Photos have no map, or none has a label.
    """
    extras = Extras()
    if config.kind == "translocator":
        photos = _with_maps(config, photos, val, out, extras)
    if config.kind == "isn":
        return _by_scene(config, photos, extras), extras
    if config.kind in ("vit_mt", "translocator") and config.scenes.heads:
        assert config.scenes.labels is not None
        extras.labels, extras.counts = SceneLabels(config.scenes.labels), tuple(config.scenes.heads)
        found = extras.scenes_of(photos)
        assert found is not None
        for count, own in zip(extras.counts, found.T, strict=True):
            _say_unlabelled(own, count, config.scenes.labels)
    return photos, extras


def _with_maps(
    config: ClassifierConfig, photos: TrainingPhotos, val: TrainingPhotos | None, out: Path, extras: Extras
) -> TrainingPhotos:
    section = config.semantics
    planes = MapPlanes(section, None)
    if planes.maps is None:
        planes = cached_maps(planes, [photos, *([] if val is None else [val])], out / "semantics")
    extras.planes, extras.classes = planes, planes.classes
    assert planes.maps is not None
    maps = planes.maps
    _try_some(planes, photos)
    lacking = np.array([maps.file_of(photos.uri[i]) is None for i in range(len(photos))], bool)
    if not lacking.any():
        return photos
    first = photos.uri[int(np.flatnonzero(lacking)[0])]
    told = (
        f"{int(lacking.sum()):,} of {len(photos):,} training photos have no semantic map, the first {first}"
    )
    if section.missing == "refuse" or lacking.all():
        raise BadInputError(
            f"{told}.", hint="Make their maps, or leave them out by `semantics.missing: leave_out`."
        )
    _log.warning("photos without a semantic map are left out", told=told)
    return photos.take(np.flatnonzero(~lacking))


def _try_some(planes: MapPlanes, photos: TrainingPhotos, most: int = 32) -> None:
    """Look at some maps before hours are spent: maps of other classes or proportions are mostly all so."""
    assert planes.maps is not None
    for row in range(0, len(photos), max(1, len(photos) // most)):
        uri = photos.uri[row]
        if planes.maps.file_of(uri) is None:
            continue
        try:
            pixels = read_photo(uri, planes.section.transform)
        except (GeofixError, OSError, ValueError):
            continue  # named when it is trained on
        planes.image(uri, pixels)


def _say_unlabelled(own: NDArray[np.int64], count: int, path: Path) -> None:
    unknown = int((own == NONE).sum())
    if unknown == len(own):
        raise BadInputError(
            f"{path} gives none of the {len(own):,} training photos one of {count} scenes.",
            hint="Its first column must hold the end of each photo's path, or its sha256.",
        )
    if unknown:
        _log.warning("photos without a scene take no part in its term", photos=unknown, of=len(own))


def _by_scene(config: ClassifierConfig, photos: TrainingPhotos, extras: Extras) -> TrainingPhotos:
    """Photos of scenes with photos enough for a network."""
    path, section = config.scenes.labels, config.networks
    assert path is not None
    extras.labels, extras.counts = SceneLabels(path), (len(S3),)
    found = extras.scenes_of(photos)
    assert found is not None
    _say_unlabelled(found[:, 0], len(S3), path)
    counts = np.bincount(found[found[:, 0] >= 0, 0], minlength=len(S3))
    extras.own = tuple(int(scene) for scene in np.flatnonzero(counts >= section.least))
    if not extras.own:
        told = ", ".join(f"{name} {count}" for name, count in zip(S3, counts, strict=True))
        raise BadInputError(f"No scene has {section.least} training photos: {told}.")
    for scene in set(range(len(S3))) - set(extras.own):
        _log.warning("a scene gets no network", scene=S3[scene], photos=int(counts[scene]))
    if section.route == "labels":
        extras.planes = ScenePlanes(path, extras.own)
    if section.start is not None:
        extras.base = _base(section.start, len(config.partitions.tau_max))
    return photos.take(np.flatnonzero(np.isin(found[:, 0], extras.own)))


def _base(directory: Path, partitions: int) -> TrainedClassifier:
    base = load_classifier(directory)
    if base.kind != "softmax" or len(base.partitions) != partitions:
        raise BadInputError(
            f"{directory} holds a classifier of kind {base.kind} with {len(base.partitions)} partitions.",
            hint=f"`networks.start` wants `kind: softmax` with the {partitions} of this run.",
        )
    return base


def trunk_section(section: EncoderSection, kind: str) -> EncoderSection:
    """The encoder's section as a ViT needs it: positions for the input's size, and the class token."""
    changes: dict[str, object] = {}
    if kind in ("vit_mt", "translocator") and "aggregation" not in section.model_fields_set:
        changes["aggregation"] = "token"
    sized = section.size is not None and "img_size" not in section.trunk_options
    if sized and section.trunk.startswith("vit_"):
        assert section.size is not None
        size = section.size if isinstance(section.size, tuple) else (section.size, section.size)
        changes["trunk_options"] = {**section.trunk_options, "img_size": list(size)}
    return section.model_copy(update=changes)


def layer_sizes(config: ClassifierConfig, classes: list[int], width: int, extras: Extras) -> tuple[int, int]:
    """Classes of all layers together, and the length of what they see."""
    if config.kind == "isn":
        return sum(classes) * len(extras.own) + len(S3) * (config.networks.route == "trained"), width
    return sum(classes) + sum(extras.counts), width * (2 if config.kind == "translocator" else 1)


def scene_network(
    config: ClassifierConfig, encoder: Encoder, partitions: tuple[Partition, ...], extras: Extras
) -> SceneClassifier:
    """The network of a run, its trunks frozen where the configuration says so."""
    classes = [len(item) for item in partitions]
    network: SceneClassifier
    if config.kind == "isn":
        routed = config.networks.route == "trained"
        network = SceneNetworks(encoder, classes, extras.own, routed=routed, seed=config.seed)
        if extras.base is not None:
            assert isinstance(extras.base.network, Classifier)
            network.begin_at(extras.base.network)
    else:
        network = TransLocator(encoder, classes, _design(config, encoder.config, extras), config.seed)
    for one in network.encoders():
        freeze_trunk(one)
    return network


def _design(config: ClassifierConfig, photo: EncoderConfig, extras: Extras) -> Design:
    if config.kind == "vit_mt" or extras.classes is None:
        return Design(scenes=extras.counts)
    changes: dict[str, object] = {"seed": photo.seed + 7919}
    if config.semantics.input == "channels":
        # No pretrained weights know these channels, so all of the branch is trained.
        options = {**photo.trunk_kwargs, "in_chans": len(extras.classes)}
        changes |= {
            "trunk_kwargs": options,
            "weights_uri": None,
            "weights_sha256": None,
            "train_blocks": None,
        }
    return Design(
        semantic=photo.model_copy(update=changes),
        maps=config.semantics.input,
        colours=extras.classes.colours,
        least_share=config.semantics.least_share,
        fuse=config.fusion.layers,
        combine=config.fusion.combine,
        width=config.fusion.width,
        scenes=extras.counts,
    )
