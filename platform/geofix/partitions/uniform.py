"""All S2 cells of one level that hold photos."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from geofix.errors import BadInputError, UsageError
from geofix.partitions.classes import of_cells, photo_leaves
from geofix.partitions.partition import Partition, Position
from geofix.spatial import s2


def uniform_partition(
    name: str,
    lon: ArrayLike,
    lat: ArrayLike,
    *,
    level: int,
    tau_min: int = 0,
    position: Position = "sphere",
) -> Partition:
    """One class per cell of a level with more than `tau_min` photos.

    Args:
        name: Name of the partition.
        lon: Degrees of the training photos, shape (n,).
        lat: Degrees, shape (n,).
        level: 0..30.
        tau_min: Cells with this many photos or fewer are dropped.
        position: How a class's position is averaged (`class_means`).

    Raises:
        UsageError: The level is out of range or `tau_min` negative.
        BadInputError: No photo, or no cell is left.
    """
    if isinstance(level, bool) or not 0 <= level <= s2.MAX_LEVEL:
        raise UsageError(f"Level {level} is not 0..{s2.MAX_LEVEL}.")
    if tau_min < 0:
        raise UsageError(f"tau_min {tau_min} is negative.")
    x, y, leaves = photo_leaves(lon, lat)
    cells, photos = np.unique(s2.parent(leaves, level), return_counts=True)
    kept = cells[photos > tau_min]
    if not kept.size:
        raise BadInputError(
            f"No cell of level {level} has more than {tau_min} photos; the fullest has {photos.max()}.",
            hint="Give a lower tau_min or a coarser level.",
        )
    return of_cells(
        name,
        "uniform",
        kept,
        x,
        y,
        leaves,
        parameters={"level": level, "tau_min": tau_min},
        position=position,
    )
