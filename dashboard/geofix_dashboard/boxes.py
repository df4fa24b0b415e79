"""Boxes around GeoJSON coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def boxes_of(shapes: Sequence[Any]) -> NDArray[np.float64]:
    """West, south, east and north (n, 4) of GeoJSON coordinates, NaN of those that hold no position.

    Squares, the most of them, are done all at once.
    """
    if (corners := squares_of(shapes)) is not None:
        return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    boxes = np.full((len(shapes), 4), np.nan)
    square = [i for i, shape in enumerate(shapes) if is_square(shape)]
    if square:
        corners = np.array([shapes[i][0] for i in square], np.float64)
        boxes[square] = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    for i in set(range(len(shapes))).difference(square):
        if found := _box(shapes[i]):
            boxes[i] = found
    return boxes


def squares_of(shapes: Sequence[Any]) -> NDArray[np.float64] | None:
    """The rings (n, 5, 2) of coordinates that are one ring of four flat corners each; None: not all are."""
    try:
        found = np.array(shapes, np.float64)
    except (TypeError, ValueError):  # of different lengths and depths
        return None
    return found[:, 0] if found.shape[1:] == (1, 5, 2) else None


def is_square(shape: Any) -> bool:
    """Whether coordinates are one ring of four flat corners, as a cell has."""
    ring = shape[0] if shape and isinstance(shape[0], list) else ()
    return (
        bool(ring)
        and len(shape) == 1
        and len(ring) == 5
        and all(isinstance(at, list) and len(at) == 2 for at in ring)
    )


def _box(coordinates: Any) -> tuple[float, float, float, float] | None:
    """The box around GeoJSON coordinates of any depth; None where they hold no position."""
    if not coordinates:
        return None
    if isinstance(coordinates[0], int | float):
        return coordinates[0], coordinates[1], coordinates[0], coordinates[1]
    found = [box for box in map(_box, coordinates) if box]
    if not found:
        return None
    west, south, east, north = zip(*found, strict=True)
    return min(west), min(south), max(east), max(north)
