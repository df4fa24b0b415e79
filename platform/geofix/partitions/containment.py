"""Which cell of a partition holds each photo: by S2 ids, the way labels are made (polygons are for maps)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geofix.errors import BadInputError
from geofix.spatial import s2


def assign_cells(leaf_ids: ArrayLike, cells: ArrayLike) -> NDArray[np.intp]:
    """Index into `cells` of the one that contains each leaf, -1 outside all of them.

    Args:
        leaf_ids: Leaf ids (or ids of cells no coarser than the partition's), two's complement, shape (n,).
        cells: Disjoint cells of any levels, shape (m,), in any order.

    Raises:
        BadInputError: Two cells overlap.
    """
    ids = np.asarray(cells, dtype=np.int64)
    leaves = np.asarray(leaf_ids, dtype=np.int64)
    if ids.size == 0:
        return np.full(leaves.shape, -1, dtype=np.intp)
    first, last = s2.range_of(ids)
    order = np.argsort(first, kind="stable")
    first, last = first[order], last[order]
    clash = np.flatnonzero(first[1:] <= last[:-1])
    if clash.size:
        pair = s2.token(ids[order[[clash[0], clash[0] + 1]]])
        raise BadInputError(
            f"The partition's cells overlap: {pair[0]} and {pair[1]} ({clash.size} such pairs).",
            hint="A partition needs disjoint cells; a cell and its child cannot both be classes.",
        )
    at = np.searchsorted(first, leaves, side="right") - 1
    inside = (at >= 0) & (leaves <= last[np.maximum(at, 0)])
    return np.where(inside, order[np.maximum(at, 0)], -1).astype(np.intp)
