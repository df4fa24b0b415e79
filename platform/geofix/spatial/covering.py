"""From a region to cells: few ranges of leaf ids that cover it, or all cells of a level in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geofix.errors import UsageError
from geofix.spatial import s2
from geofix.spatial.region import Region

Ints = NDArray[np.int64]

_FACES = np.sort((np.arange(6, dtype=np.int64) << 61) + (np.int64(1) << 60))
_BORDER_PER_RANGE = 8
_BLOCK_LEVELS = 7
_BLOCKS_AT_ONCE = 16


def cover(geometry: Any, *, max_ranges: int = 64, max_level: int = 16, interior: bool = False) -> Ints:
    """Sorted, disjoint ranges of leaf ids, both ends inclusive, that cover a region.

    No point of the planar region is missed. Cells are refined along the border until there are eight times as
    many as ranges wanted, then joined over the smallest gaps: no other choice of ranges over those cells is
    smaller.

    Args:
        geometry: Any shapely geometry in degrees; see `geofix.spatial.region.Region` for the 180th meridian.
        max_ranges: At most this many rows.
        max_level: Finest cells used.
        interior: Only cells that lie wholly inside; the longest ranges where there are too many.

    Returns:
        (n, 2) first and last leaf id; a cell lies in a range when its id lies between the two.

    Raises:
        BadInputError: An invalid region or coordinates out of range.
    """
    if max_ranges < 1:
        raise UsageError(f"max_ranges is {max_ranges}; it must be at least 1.")
    _checked_level(max_level)
    region = Region(geometry)
    inside: list[Ints] = []
    border = np.empty(0, np.int64) if region.empty else _FACES
    for level in range(max_level + 1):
        is_inside, is_border = region.sides(border)
        inside.append(border[is_inside])
        border = border[is_border]
        if level == max_level or not 0 < border.size <= _BORDER_PER_RANGE * max_ranges:
            break
        border = s2.children(border).ravel()
    ranges = merge(np.concatenate(inside if interior else [*inside, border]))
    return _longest(ranges, max_ranges) if interior else _closed(ranges, max_ranges)


def merge(cells: ArrayLike) -> Ints:
    """Disjoint cells of any levels as sorted ranges of leaf ids (n, 2), neighbouring ones joined."""
    ids = np.sort(np.asarray(cells, np.int64).ravel())
    if ids.size == 0:
        return np.empty((0, 2), np.int64)
    low, high = s2.range_of(ids)
    starts = np.concatenate([[True], low[1:] != high[:-1] + 2])
    return np.stack([low[starts], high[np.concatenate([starts[1:], [True]])]], axis=1)


def in_ranges(ids: ArrayLike, ranges: Ints) -> NDArray[np.bool_]:
    """Whether each cell id lies in one of sorted, disjoint ranges."""
    cells = np.asarray(ids, np.int64)
    if len(ranges) == 0:
        return np.zeros(cells.shape, bool)
    row = np.searchsorted(ranges[:, 0], cells, side="right") - 1
    inside: NDArray[np.bool_] = (row >= 0) & (cells <= ranges[np.maximum(row, 0), 1])
    return inside


def cells_in(geometry: Any, level: int) -> Ints:
    """Ids, sorted, of all cells of a level whose centre lies in the planar region or on its border."""
    return _all(iter_cells_in(geometry, level))


def cells_touching(geometry: Any, level: int) -> Ints:
    """Ids, sorted, of all cells of a level that share a point with the planar region.

    None is missed; one that only comes within the margin of `Region.sides` may be among them.
    """
    return _all(_iter_cells(geometry, level, by_center=False))


def iter_cells_in(geometry: Any, level: int) -> Iterator[Ints]:
    """Like `cells_in`, in sorted pieces of at most 262,144 ids: memory stays flat for whole continents."""
    return _iter_cells(geometry, level, by_center=True)


def _iter_cells(geometry: Any, level: int, *, by_center: bool) -> Iterator[Ints]:
    _checked_level(level)
    region = Region(geometry)
    if region.empty:
        return
    block_level = max(0, level - _BLOCK_LEVELS)
    inside, border = _refine(region, _FACES, 0, block_level)
    blocks = np.concatenate([inside, border])
    is_border = np.arange(blocks.size) >= inside.size
    order = np.argsort(blocks)
    for start in range(0, order.size, _BLOCKS_AT_ONCE):
        rows = order[start : start + _BLOCKS_AT_ONCE]
        within, on_border = _refine(region, blocks[rows[is_border[rows]]], block_level, level)
        if by_center:
            on_border = on_border[region.holds(*s2.center(on_border))]
        whole = _descendants(blocks[rows[~is_border[rows]]], level)
        found = np.sort(np.concatenate([whole, within, on_border]))
        if found.size:
            yield found


def _refine(region: Region, cells: Ints, level: int, wanted: int) -> tuple[Ints, Ints]:
    """Cells of the wanted level wholly inside, and those on the border, below cells of one level."""
    inside: list[Ints] = []
    border = cells
    for here in range(level, wanted + 1):
        is_inside, is_border = region.sides(border)
        inside.append(_descendants(border[is_inside], wanted))
        border = border[is_border]
        if here < wanted:
            border = s2.children(border).ravel()
    return np.concatenate(inside), border


def _descendants(cells: Ints, level: int) -> Ints:
    """All descendants at a level of cells of one level, in the order of their ancestors."""
    if cells.size == 0:
        return cells
    low, high = s2.range_of(cells)
    lsb = 1 << 2 * (s2.MAX_LEVEL - level)
    count = (int(high[0]) - int(low[0])) // (2 * lsb) + 1
    return (low[:, None] + (lsb - 1) + 2 * lsb * np.arange(count)).ravel()


def _closed(ranges: Ints, at_most: int) -> Ints:
    """Joined over the smallest gaps until few enough."""
    if len(ranges) <= at_most:
        return ranges
    # Unsigned, because the distance between two signed ids may exceed 2**63.
    gaps = ranges[1:, 0].astype(np.uint64) - ranges[:-1, 1].astype(np.uint64)
    kept = np.sort(np.argsort(gaps, kind="stable")[gaps.size - (at_most - 1) :])
    starts = np.concatenate([[0], kept + 1])
    ends = np.concatenate([kept, [len(ranges) - 1]])
    return np.stack([ranges[starts, 0], ranges[ends, 1]], axis=1)


def _longest(ranges: Ints, at_most: int) -> Ints:
    if len(ranges) <= at_most:
        return ranges
    length = ranges[:, 1] - ranges[:, 0]
    return ranges[np.sort(np.argsort(length, kind="stable")[-at_most:])]


def _all(pieces: Iterator[Ints]) -> Ints:
    return np.concatenate([np.empty(0, np.int64), *pieces])


def _checked_level(level: int) -> None:
    if not 0 <= level <= s2.MAX_LEVEL:
        raise UsageError(f"Level {level!r} is not within 0..{s2.MAX_LEVEL}.")
