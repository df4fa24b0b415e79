"""What the training of a classifier works with: photos, partitions, labels, network, optimiser."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geofix.errors import BadInputError
from geofix.log import get_logger
from geofix.models.classifier import Classifier, product_rule
from geofix.models.classifier_dir import class_points
from geofix.models.encoder import build_encoder
from geofix.models.geoclasses import region_votes
from geofix.models.groups import freeze_trunk, parameter_groups
from geofix.models.mvmf import Mixture, kappa_of_cells
from geofix.models.scene_classifier import SceneClassifier
from geofix.partitions.adaptive import nested_partitions
from geofix.partitions.hierarchy import ancestors
from geofix.partitions.partition import Partition
from geofix.settings import get_settings
from geofix.snapshots.reader import Snapshot, load_snapshot
from geofix.spatial import s2
from geofix.spatial.distance import great_circle_m, unit_vectors
from geofix.training.classify_config import ClassifierConfig
from geofix.training.geoclasses import cut_sets
from geofix.training.journal import Journal
from geofix.training.memory import check_classes
from geofix.training.networks import encoder_config
from geofix.training.pictures import Pictures
from geofix.training.places import TrainingPhotos
from geofix.training.planes import Planes, plane_pictures
from geofix.training.scene_run import Extras, layer_sizes, prepare_extras, scene_network, trunk_section
from geofix.training.scene_sections import SCENE_KINDS
from geofix.training.state import Clock

_log = get_logger(__name__)
NAME = "adaptive"


@dataclass
class Checked:
    """Photos of `val`, looked at after every epoch.

    Attributes:
        photos: Their places.
        labels: (n, partitions) classes, -1 for none.
        pictures: Their pixels.
        scenes: (n, counts of scenes), -1 for none; None where no scene is learned.
    """

    photos: TrainingPhotos
    labels: NDArray[np.int64]
    pictures: Pictures
    scenes: NDArray[np.int64] | None = None


@dataclass
class ClassifierRun:
    """A run: what it works with, and what changes (network, optimiser, clock).

    Attributes:
        config: As asked for.
        snapshot: Where photos come from.
        out: Directory of model, checkpoint and curves.
        photos: Training photos.
        labels: (n, partitions) class of each training photo, -1 for none.
        partitions: Coarse to fine.
        ancestors: Class in every partition of each finest class, or region.
        network: What is trained.
        optimiser: With `highest_lr` in every group.
        checked: Photos of `val`; None: there are none.
        journal: Curves.
        device: Where it is trained.
        clock: Where it stands.
        unreadable: Files that could not be read, with the reason.
        planes: Of labels that the network sees behind the photos.
        scenes: (n, counts of scenes) of the training photos, -1 for none.
        regions: What sets of classes vote for, if they do.
    """

    config: ClassifierConfig
    snapshot: Snapshot
    out: Path
    photos: TrainingPhotos
    labels: Tensor
    partitions: tuple[Partition, ...]
    ancestors: Tensor
    network: Classifier | Mixture
    optimiser: torch.optim.Optimizer
    checked: Checked | None
    journal: Journal
    device: torch.device
    clock: Clock = field(default_factory=Clock)
    unreadable: dict[str, str] = field(default_factory=dict)
    planes: Planes | None = None
    scenes: Tensor | None = None
    regions: Partition | None = None

    @property
    def stored(self) -> tuple[Partition, ...]:
        """Partitions that belong to the model; the last one is that of its answers."""
        return self.partitions if self.regions is None else (*self.partitions, self.regions)

    def class_scores(self, log_probabilities: list[Tensor]) -> Tensor:
        """Of every class that can be answered, (B, classes)."""
        if self.regions is None:
            return product_rule(log_probabilities, self.ancestors)
        normalise = self.config.geoclasses.normalise
        return region_votes(log_probabilities, self.regions, normalise=normalise)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return max(1, len(self.photos) // self.config.batch.photos)


def prepare_run(
    config: ClassifierConfig, snapshot_dir: Path, out: Path, device: torch.device
) -> ClassifierRun:
    """Read the snapshot, cut the earth into classes, label the photos, and make the first state.

    Raises:
        BadInputError: The snapshot has no photos with pixels, or too few for two classes.
        UsageError: The classes do not fit into memory.
    """
    snapshot = load_snapshot(snapshot_dir)
    torch.manual_seed(config.seed)
    photos = _share(TrainingPhotos.from_snapshot(snapshot, ["train"]), config)
    val = _val_photos(config, snapshot)
    photos, extras = prepare_extras(config, photos, val, out)
    partitions = cut(config, photos) if extras.base is None else extras.base.partitions
    partitions, regions = (
        (partitions[:-1], partitions[-1]) if config.kind == "cplanet" else (partitions, None)
    )
    labels = label(partitions, photos)
    _say_left_out(partitions, labels)
    network = _network(config, partitions, device, extras)
    scenes = extras.scenes_of(photos)
    return ClassifierRun(
        regions=regions,
        config=config,
        snapshot=snapshot,
        out=out,
        photos=photos,
        labels=torch.from_numpy(labels),
        partitions=partitions,
        ancestors=torch.from_numpy(_held(partitions, regions)).to(device),
        network=network,
        optimiser=_optimiser(config, network),
        checked=None if val is None else _checked(config, val, partitions, network, extras),
        journal=Journal(out),
        device=device,
        planes=extras.planes,
        scenes=None if scenes is None else torch.from_numpy(scenes),
    )


def cut(config: ClassifierConfig, photos: TrainingPhotos) -> tuple[Partition, ...]:
    """The adaptive partitions of the training photos, coarse to fine; of CPlaNet sets, then regions.

    Raises:
        BadInputError: No cell has photos enough, or the finest partition has one class alone.
        UsageError: A set would have more classes than atoms.
    """
    if config.kind == "cplanet":
        return cut_sets(config, photos)
    section = config.partitions
    made = nested_partitions(
        NAME,
        photos.lon,
        photos.lat,
        tau_min=section.tau_min,
        tau_max=section.tau_max,
        max_level=section.max_level,
        position=section.position,
    )
    if len(made[-1]) < 2:
        raise BadInputError(
            f"{len(photos)} training photos give one class at tau_max {section.tau_max[-1]}.",
            hint="Lower partitions.tau_max, or tau_min.",
        )
    return made


def _held(partitions: tuple[Partition, ...], regions: Partition | None) -> NDArray[np.int64]:
    if regions is None:
        return ancestors(partitions)
    assert regions.members is not None
    return regions.members


def label(partitions: tuple[Partition, ...], photos: TrainingPhotos) -> NDArray[np.int64]:
    """Class of every photo in every partition, -1 for none, (n, partitions)."""
    return np.stack([item.assign(leaf_ids=photos.s2_id) for item in partitions], axis=1)


def _say_left_out(partitions: tuple[Partition, ...], labels: NDArray[np.int64]) -> None:
    for item, own in zip(partitions, labels.T, strict=True):
        if (outside := int((own < 0).sum())) > 0:
            _log.warning(
                "photos outside every class take no part in a partition's term",
                partition=item.name,
                photos=outside,
                of=len(own),
            )


def _share(photos: TrainingPhotos, config: ClassifierConfig) -> TrainingPhotos:
    if config.share == 1.0:
        return photos
    count = max(1, round(config.share * len(photos)))
    rng = np.random.default_rng([config.seed, 0x7368617265])
    return photos.take(np.sort(rng.permutation(len(photos))[:count]))


def _network(
    config: ClassifierConfig, partitions: tuple[Partition, ...], device: torch.device, extras: Extras
) -> Classifier | Mixture:
    trunk = trunk_section(config.encoder, config.kind)
    described = encoder_config(trunk, config.dimension, seed=config.seed, role="ground")
    encoder = build_encoder(described)
    freeze_trunk(encoder)
    classes = [len(item) for item in partitions]
    count, width = layer_sizes(config, classes, encoder.dimension, extras)
    check_classes(
        count,
        width,
        config.batch.photos,
        kind=config.kind,
        moments=2 if config.optimiser.kind == "adamw" else 1,
        device=device,
        limit_gb=config.memory_gb,
    )
    if config.kind in ("softmax", "cplanet"):
        return Classifier(encoder, classes, config.seed).to(device)
    if config.kind in SCENE_KINDS:
        return scene_network(config, encoder, partitions, extras).to(device)
    section = config.mixture
    finest = partitions[-1]
    prekappa: Any = section.prekappa
    if prekappa == "cells":
        prekappa = np.log(kappa_of_cells(cell_edges_m(finest), section.share))
    return Mixture(
        encoder,
        class_points(finest),
        prekappa,
        train_centres=section.train_centres,
        train_kappa=section.train_kappa,
        seed=config.seed,
    ).to(device)


def cell_edges_m(partition: Partition) -> NDArray[np.float64]:
    """Mean edge in metres of the cell of each class, shape (n,)."""
    corners = s2.corners(partition.class_cells())
    lon, lat = corners[..., 0], corners[..., 1]
    edges = great_circle_m(lon, lat, np.roll(lon, -1, axis=-1), np.roll(lat, -1, axis=-1))
    return np.asarray(edges.mean(axis=-1), np.float64)


def _optimiser(config: ClassifierConfig, network: Classifier | Mixture) -> torch.optim.Optimizer:
    rates = config.optimiser
    encoders = network.encoders() if isinstance(network, SceneClassifier) else [network.encoder]
    groups = [
        group
        for encoder in encoders
        for group in parameter_groups(encoder, rates.trunk_lr, rates.head_lr, rates.weight_decay)
    ]
    held = {id(parameter) for encoder in encoders for parameter in encoder.parameters()}
    own = {"centres": config.mixture.centre_lr, "prekappa": config.mixture.kappa_lr}
    for name, parameter in network.named_parameters():
        if id(parameter) in held or not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and name not in own
        groups.append(
            {
                "name": name,
                "params": [parameter],
                "lr": own.get(name, rates.head_lr),
                "weight_decay": rates.weight_decay if decays else 0.0,
            }
        )
    for group in groups:
        group["highest_lr"] = group["lr"]
    if rates.kind == "adamw":
        return torch.optim.AdamW(groups)
    return torch.optim.SGD(groups, momentum=rates.momentum)


def _val_photos(config: ClassifierConfig, snapshot: Snapshot) -> TrainingPhotos | None:
    """Photos that are looked at after an epoch."""
    try:
        photos = TrainingPhotos.from_snapshot(snapshot, ["val"])
    except BadInputError:
        _log.warning("the snapshot has no photo of val: the last epoch's weights are kept")
        return None
    if len(photos) > config.validation.photos:
        rng = np.random.default_rng([config.seed, 0x76616C])
        photos = photos.take(np.sort(rng.permutation(len(photos))[: config.validation.photos]))
    return photos


def _checked(
    config: ClassifierConfig,
    photos: TrainingPhotos,
    partitions: tuple[Partition, ...],
    network: Classifier | Mixture,
    extras: Extras,
) -> Checked:
    threads = config.workers or get_settings().workers or os.cpu_count() or 1
    transform = network.encoder.transform
    pictures = plane_pictures(photos, transform, extras.planes, threads=threads)
    return Checked(photos, label(partitions, photos), pictures, extras.scenes_of(photos))


def points_of(photos: TrainingPhotos, rows: NDArray[np.int64]) -> Tensor:
    """Positions of some photos as unit vectors (B, 3), float64."""
    return torch.from_numpy(unit_vectors(photos.lon[rows], photos.lat[rows]))
