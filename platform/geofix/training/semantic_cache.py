"""Maps by a segmentation network made once, before training, and kept as files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geofix.errors import GeofixError
from geofix.imagery.photo_keys import photo_sha256
from geofix.imagery.semantics import SemanticMaps
from geofix.log import get_logger, progress
from geofix.training.places import TrainingPhotos
from geofix.training.planes import MapPlanes
from geofix.training.samples import read_photo

_log = get_logger(__name__)


class CachedMaps(MapPlanes):
    """Maps of a network from the folder in which they are kept; described as the network's."""

    def __init__(self, network: MapPlanes, folder: Path) -> None:
        self.section, self.classes, self.network = network.section, network.classes, None
        self.maps = SemanticMaps(folder, network.classes)

    def image(self, uri: str, photo: NDArray[np.uint8]) -> Image.Image:
        """See `Planes.image`."""
        assert self.maps is not None
        return self.maps.read(uri, (photo.shape[1], photo.shape[0]))


def cached_maps(network: MapPlanes, groups: Sequence[TrainingPhotos], folder: Path) -> CachedMaps:
    """Make the maps of all photos that have none in the folder yet; a photo that cannot be read gets none.

    Raises:
        BadInputError: The network's output cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    uris = [photos.uri[i] for photos in groups for i in range(len(photos))]
    with progress("semantic maps", len(uris), "photos") as advance:
        for uri in uris:
            path = folder / f"{photo_sha256(uri)}.png"
            if not path.exists():
                _make(network, uri, path)
            advance(1)
    return CachedMaps(network, folder)


def _make(network: MapPlanes, uri: str, path: Path) -> None:
    engine: Any = network.network
    try:
        photo = read_photo(uri, engine.transform)
    except (GeofixError, OSError, ValueError) as error:
        _log.warning("photo without a semantic map", photo=uri, reason=str(error))
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        engine.map_of(photo).save(beside, format="PNG")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
