"""Boxes around GeoJSON coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def boxes_of(shapes: Sequence[Any]) -> NDArray[np.float64]:
    """West, south, east and north (n, 4) of GeoJSON coordinates; squares, the most of them, all at once."""
    boxes = np.empty((len(shapes), 4))
    square = [i for i, shape in enumerate(shapes) if is_square(shape)]
    if square:
        corners = np.array([shapes[i][0] for i in square], np.float64)
        boxes[square] = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    for i in set(range(len(shapes))).difference(square):
        boxes[i] = _box(shapes[i])
    return boxes


def is_square(shape: Any) -> bool:
    """Whether coordinates are one ring of four flat corners, as a cell has."""
    ring = shape[0] if shape and isinstance(shape[0], list) else ()
    return len(shape) == 1 and len(ring) == 5 and all(isinstance(at, list) and len(at) == 2 for at in ring)


def _box(coordinates: Any) -> tuple[float, float, float, float]:
    """The box around GeoJSON coordinates of any depth."""
    if isinstance(coordinates[0], int | float):
        return coordinates[0], coordinates[1], coordinates[0], coordinates[1]
    west, south, east, north = zip(*(_box(part) for part in coordinates), strict=True)
    return min(west), min(south), max(east), max(north)
