"""Planes of labels that a network is shown behind a photo: its semantic map, or its scene.

A plane goes through the same crop, mirror and resize as its photo, by nearest pixels, so it stands in the
batch as a further channel whose values are class numbers; the network makes colours or channels of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geofix.errors import BadInputError, NotFoundError
from geofix.imagery.semantics import ClassList, SemanticMaps, fitted, read_class_list
from geofix.imagery.transforms import InputTransform
from geofix.settings import get_settings
from geofix.training.colour import jitter
from geofix.training.pictures import Pictures, Pixels, fits
from geofix.training.places import TrainingPhotos
from geofix.training.samples import Augmentation, Pairs, _box, read_photo
from geofix.training.scene_labels import NONE, S3, SceneLabels
from geofix.training.scene_sections import SemanticSection


class Planes(Protocol):
    """Where planes come from."""

    def image(self, uri: str, photo: NDArray[np.uint8]) -> Image.Image:
        """The grey plane of a photo (h, w, 3), of its size.

        Raises:
            GeofixError: It has none, or one that cannot be used.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Whence, as plain JSON that `read_planes` takes."""
        ...


class MapPlanes:
    """Semantic maps from files, or by a segmentation network."""

    def __init__(self, section: SemanticSection, classes: ClassList | None = None) -> None:
        self.section = section
        self.maps: SemanticMaps | None = None
        self.network: Any = None
        if classes is None and section.classes is not None:
            classes = read_class_list(section.classes)
        if section.maps is not None:
            self.maps = SemanticMaps(section.maps, classes)
            self.classes = self.maps.classes
        else:
            from geofix.models.segmenter import Segmenter

            assert section.network is not None and section.sha256 is not None and classes is not None
            self.classes = classes
            self.network = Segmenter(section.network, section.sha256, self.classes, section.transform)

    def image(self, uri: str, photo: NDArray[np.uint8]) -> Image.Image:
        """See `Planes.image`."""
        size = (photo.shape[1], photo.shape[0])
        if self.maps is not None:
            return self.maps.read(uri, size)
        return fitted(self.network.map_of(photo), size, f"of {uri}")

    def describe(self) -> dict[str, Any]:
        """See `Planes.describe`."""
        section = self.section.model_dump(mode="json")
        for key in ("maps", "network", "classes"):
            if section[key] is not None:
                section[key] = str(Path(section[key]).resolve())
        return {"semantics": section, "classes": self.classes.as_dict()}


class ScenePlanes:
    """A photo's scene all over a plane, from a file of labels."""

    def __init__(self, path: Path, own: tuple[int, ...]) -> None:
        self.labels, self.own = SceneLabels(path), own

    def image(self, uri: str, photo: NDArray[np.uint8]) -> Image.Image:
        """See `Planes.image`."""
        scene = self.labels.of(uri, len(S3))
        if scene == NONE:
            raise NotFoundError(f"{self.labels.path} has no scene of photo {uri}.")
        if scene not in self.own:
            raise BadInputError(f"Photo {uri} is {S3[scene]}; no network was trained for this scene.")
        return Image.new("L", (photo.shape[1], photo.shape[0]), scene)

    def describe(self) -> dict[str, Any]:
        """See `Planes.describe`."""
        return {"scenes": str(self.labels.path.resolve()), "own": list(self.own)}


def read_planes(described: Mapping[str, Any] | None) -> Planes | None:
    """What `describe` gave, opened again; `GEOFIX_SEMANTIC_MAPS` and `GEOFIX_SCENE_LABELS` go before it.

    Raises:
        NotFoundError: Maps or labels are no longer where they were.
        BadInputError: They cannot be used.
    """
    if not described:
        return None
    settings = get_settings()
    if "scenes" in described:
        return ScenePlanes(settings.scene_labels or Path(described["scenes"]), tuple(described["own"]))
    section = SemanticSection.model_validate(described["semantics"])
    if settings.semantic_maps is not None:
        section = section.model_copy(update={"maps": settings.semantic_maps, "network": None})
    return MapPlanes(section, ClassList.from_dict(described["classes"], "the model's description"))


def photo_input(uri: str, transform: InputTransform, planes: Planes | None) -> Pixels:
    """A photo as it is embedded, with its plane behind it: (3 or 4, H, W).

    Raises:
        GeofixError: The photo or its plane cannot be used.
    """
    pixels = read_photo(uri, transform)
    shown = transform.apply(pixels)
    if planes is None:
        return shown
    return behind(shown, transform.apply_plane(planes.image(uri, pixels)))


def behind(photo: Pixels, plane: Pixels) -> Pixels:
    """A photo (3, H, W) and a plane (H, W) as one input."""
    return np.concatenate([photo, plane[None]])


class PlanePairs(Pairs):
    """Batches whose photos have a plane of labels behind them; a photo without one gives its place away."""

    planes: Planes

    def _picture(self, row: int, rng: np.random.Generator) -> NDArray[np.float32]:
        uri, varied = self.photos.uri[row], self.augmentation
        pixels = read_photo(uri, self.ground)
        image, plane = Image.fromarray(pixels), self.planes.image(uri, pixels)
        if varied.scale < 1.0:
            part = _box(image.size, varied.scale, rng)
            image, plane = image.crop(part), plane.crop(part)
        out = self.ground.apply(image)
        if varied.jitter is not None:
            out = jitter(out, self.ground, varied.jitter, rng)
        return behind(out, self.ground.apply_plane(plane))


def pairs_with(
    planes: Planes | None,
    photos: TrainingPhotos,
    plan: NDArray[np.int64],
    ground: InputTransform,
    *,
    seed: int,
    epoch: int,
    augmentation: Augmentation,
) -> Pairs:
    """The batches of one epoch, with planes where there are any."""
    if planes is None:
        return Pairs(photos, plan, ground, seed=seed, epoch=epoch, augmentation=augmentation)
    pairs = PlanePairs(photos, plan, ground, seed=seed, epoch=epoch, augmentation=augmentation)
    pairs.planes = planes
    return pairs


def plane_pictures(
    photos: TrainingPhotos, transform: InputTransform, planes: Planes | None, *, threads: int
) -> Pictures:
    """The photos with their planes, kept in memory where they are few."""

    def load(row: int) -> Pixels:
        return photo_input(photos.uri[row], transform, planes)

    return Pictures(load, len(photos), threads, fits(len(photos) * 4 // 3, transform))
