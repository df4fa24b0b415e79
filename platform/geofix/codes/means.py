"""Mean vector per cell: the simplest cell code, and the start of every prototype."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from geofix.errors import BadInputError
from geofix.spatial import s2

_CHUNK = 65_536


def cell_means(
    embeddings: npt.NDArray[Any], s2_ids: npt.ArrayLike, level: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Unit mean vector of each cell, to the last bit the same whatever other cells are given with it.

    Sums are float64, in the order given; beyond them and the ids, memory does not grow with the photos.

    Returns:
        Cell ids (c,) in signed order, unit means (c, D), photos per cell (c,).

    Raises:
        BadInputError: Ids and embeddings differ in number.
    """
    leaves = np.asarray(s2_ids, dtype=np.int64)
    if embeddings.ndim != 2 or leaves.shape != (len(embeddings),):
        raise BadInputError(
            f"embeddings {embeddings.shape} and cell ids {leaves.shape} do not belong together.",
            hint="Give (n, D) and (n,).",
        )
    ids, cell, counts = np.unique(s2.parent(leaves, level), return_inverse=True, return_counts=True)
    sums = np.zeros((len(ids), embeddings.shape[1]))
    order = np.argsort(cell, kind="stable")
    # Pieces of one cell, cut from its own first photo on: which photos are summed together is its own affair.
    pieces = -(-counts // _CHUNK)
    own = np.repeat(np.arange(len(ids)), pieces)
    number = np.arange(len(own)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    starts = (np.cumsum(counts) - counts)[own] + _CHUNK * number
    ends = np.minimum(starts + _CHUNK, np.cumsum(counts)[own])
    first = 0
    while first < len(own):
        last = int(np.searchsorted(ends, starts[first] + _CHUNK, side="right"))
        rows = order[starts[first] : ends[last - 1]]
        group = slice(first, last)
        sums[own[group]] += np.add.reduceat(
            embeddings[rows].astype(np.float64), starts[group] - starts[first], axis=0
        )
        first = last
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    means = sums / np.maximum(lengths, 1e-12)
    return ids, means.astype(np.float32), counts.astype(np.int64)


def prototype_means(
    embeddings: npt.NDArray[Any], s2_ids: npt.ArrayLike, level: int, learned: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """What stands in for learned prototypes: means of photos in the numbers that prototypes fill.

    Where prototypes and tiles have separate halves of the vector, that is the prototypes' half.

    Args:
        embeddings: (n, D) of photos.
        s2_ids: (n,) their leaf cells.
        level: Of the prototypes.
        learned: (m, D) some learned prototypes of the same model; without any, all numbers count.

    Returns:
        Cell ids (c,) in signed order, unit vectors (c, D).
    """
    filled = learned.any(axis=0) if len(learned) else np.ones(embeddings.shape[1], bool)
    ids, means, _ = cell_means(embeddings * filled.astype(embeddings.dtype), s2_ids, level)
    return ids, means
