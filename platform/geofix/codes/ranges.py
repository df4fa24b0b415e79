"""The cells of a code set cut into ranges of S2 ids by the data alone, and where in a range a region lies."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from geofix.spatial import s2
from geofix.spatial.covering import cover

Ints = NDArray[np.int64]

# Cells that are made together: at D = 512 some 300 MB with all copies.
RANGE = 32_768
_PICTURES = 4  # per cell of a range, beyond which it is cut short: what is read together stays small


class Span(NamedTuple):
    """A closed range of cell ids, the cells in it, and the pictures that these are made of."""

    first: int
    last: int
    cells: int
    pictures: int


def cut(ids: Ints, pictures: Ints, size: int) -> list[Span]:
    """Ranges of at most `size` cells and 4 `size` pictures, in order; a cell with more stands alone.

    Args:
        ids: (n,) cells, ascending.
        pictures: (n,) how many photos and tiles each is made of.
        size: Cells per range.
    """
    total = np.concatenate([[0], np.cumsum(pictures)])
    spans: list[Span] = []
    first = 0
    while first < len(ids):
        within = int(np.searchsorted(total, total[first] + _PICTURES * size, side="right")) - 1
        end = max(first + 1, min(first + size, within, len(ids)))
        held = int(total[end] - total[first])
        spans.append(Span(int(ids[first]), int(ids[end - 1]), end - first, held))
        first = end
    return spans


def covering(region_ewkb: bytes | None, level: int) -> Ints | None:
    """Few ranges of leaf ids (n, 2) with all cells of a level whose centre lies in a region, each cell whole.

    Sorted and disjoint; cells around the region lie in them too. None where there is no region.
    """
    return None if region_ewkb is None else _covering(region_ewkb, level)


def covering_between(region_ewkb: bytes | None, level: int, first: int, last: int) -> Ints:
    """The same between two cells of the level, both included; of the whole range where there is no region.

    Neighbours on the ground may lie far apart on the curve, and most of a continent between their ids.
    """
    low, high = int(s2.range_of(first)[0]), int(s2.range_of(last)[1])
    if region_ewkb is None:
        return np.array([[low, high]], np.int64)
    ranges = _covering(region_ewkb, level)
    return ranges[(ranges[:, 1] >= low) & (ranges[:, 0] <= high)].clip(low, high)


@lru_cache(maxsize=8)
def _covering(region_ewkb: bytes, level: int) -> Ints:
    leaves = cover(shapely.from_wkb(region_ewkb))
    if not len(leaves):
        return leaves
    ends = s2.range_of(s2.parent(leaves, level))
    low, high = ends[0][:, 0], ends[1][:, 1]
    starts = np.concatenate([[True], low[1:] > high[:-1]])
    return np.stack([low[starts], high[np.concatenate([starts[1:], [True]])]], axis=1)
