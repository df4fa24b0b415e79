"""The intersection of partitions: regions within which every partition has one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from geofix.errors import BadInputError, UsageError
from geofix.partitions.classes import class_means, photo_leaves
from geofix.partitions.containment import assign_cells
from geofix.partitions.partition import Ints, Partition, Position
from geofix.spatial import s2


def overlay_cells(partitions: Sequence[Partition]) -> tuple[Ints, Ints]:
    """Cells on which every partition is constant, and the classes there.

    Cells may be of different levels. The leaf ranges of all cells cut each other into intervals of leaves; an
    interval that is no cell is cut into the fewest cells it can be.

    Returns:
        Disjoint cells (m,) in ascending order that together cover all that any partition covers, and their
        classes (m, K), -1 where a partition has none.

    Raises:
        UsageError: No partition, or one without cells.
    """
    if not partitions:
        raise UsageError("There are no partitions to intersect.")
    for partition in partitions:
        if partition.codes is not None:
            raise UsageError(f"Partition {partition.name!r} is administrative: it has no cells to intersect.")
    # Leaf ids are odd, so half of them counts leaves; ends are exclusive and cannot overflow.
    bounds = [s2.range_of(p.cells) for p in partitions]
    cuts = np.unique(np.concatenate([part for low, high in bounds for part in (low >> 1, (high >> 1) + 1)]))
    start, end = cuts[:-1], cuts[1:]
    # Two of eight numbers of faces are none; an interval that begins there is a gap.
    real = s2.is_valid(start * 2 + 1)
    start, end = start[real], end[real]
    classes = np.stack([p.assign(leaf_ids=start * 2 + 1) for p in partitions], axis=1)
    covered = (classes >= 0).any(axis=1)
    cells, interval = _as_cells(start[covered], end[covered])
    return cells, classes[covered][interval]


def _as_cells(start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """The fewest cells of intervals of leaves (end exclusive), ascending, and the interval of each."""
    cells, owner = [], []
    row, at = np.arange(len(start)), start.copy()
    while row.size:
        left = end[row] - at
        # The largest cell that begins here and ends in time; 4^k leaves begin at a multiple of 4^k.
        k = np.minimum(_trailing_zeros(at), _floor_log2(left)) >> 1
        leaves = np.int64(1) << (2 * np.minimum(k, s2.MAX_LEVEL))
        cells.append(at * 2 + leaves)
        owner.append(row)
        at = at + leaves
        more = at < end[row]
        row, at = row[more], at[more]
    ids = np.concatenate(cells) if cells else np.empty(0, np.int64)
    order = np.argsort(ids)
    return ids[order], (np.concatenate(owner) if owner else ids)[order]


def _trailing_zeros(values: Ints) -> Ints:
    # A power of two is exact in a float; 0 is a multiple of everything.
    low = np.where(values == 0, np.int64(1) << 62, values & -values)
    return np.asarray(np.frexp(low.astype(np.float64))[1] - 1, np.int64)


def _floor_log2(values: Ints) -> Ints:
    # The float may be rounded up to the next power of two.
    k = np.asarray(np.frexp(values.astype(np.float64))[1] - 1, np.int64)
    return k - ((np.int64(1) << k) > values)


def intersect(
    name: str,
    partitions: Sequence[Partition],
    lon: ArrayLike,
    lat: ArrayLike,
    *,
    position: Position = "sphere",
    parameters: Mapping[str, Any] | None = None,
) -> Partition:
    """The regions of several partitions: all cells with the same classes are one region.

    A region without training photos cannot be an answer and is dropped with its cells. Any partitions of S2
    cells can be intersected, so PlaNet's cells can be a further set.

    Args:
        name: Name of the intersection.
        partitions: At least two.
        lon: Degrees of the training photos, (n,).
        lat: Degrees, (n,).
        position: How a region's position is averaged.
        parameters: Further entries of the result's parameters.

    Returns:
        A partition of kind combinatorial; row r of `members` holds the class of each set, unique per region.

    Raises:
        UsageError: Fewer than two partitions, or one without cells.
        BadInputError: No photo lies in any region.
    """
    if len(partitions) < 2:
        raise UsageError("An intersection needs at least two partitions.")
    x, y, leaves = photo_leaves(lon, lat)
    cells, classes = overlay_cells(partitions)
    members, region = np.unique(classes, axis=0, return_inverse=True)
    region = region.ravel()
    owner = assign_cells(leaves, cells)
    label = np.where(owner >= 0, region[owner], -1)
    answering = np.bincount(label[label >= 0], minlength=len(members)) > 0
    if not answering.any():
        raise BadInputError(
            "No photo lies in any region of the intersection.", hint="Use the sets' own photos."
        )
    number = np.where(answering, np.cumsum(answering) - 1, -1)
    kept = answering[region]
    label = np.where(label >= 0, number[label], -1)
    mean_lon, mean_lat, photos = class_means(label, int(answering.sum()), x, y, position)
    return Partition(
        name=name,
        kind="combinatorial",
        cells=cells[kept],
        cell_class=number[region[kept]].astype(np.int64),
        lon=mean_lon,
        lat=mean_lat,
        photos=photos,
        parameters={**(parameters or {}), "position": position},
        sets=tuple(p.name for p in partitions),
        members=members[answering],
    )
