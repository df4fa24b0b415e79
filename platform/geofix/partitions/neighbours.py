"""Which places are neighbours on the sphere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull, QhullError, cKDTree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_NEAREST = 6


def sphere_neighbours(vectors: Floats) -> Ints:
    """Pairs (a < b) of neighbours among unit vectors (n, 3), each once, shape (e, 2); the graph is connected.

    The edges of the convex hull, which are those of the Delaunay triangulation on the sphere; points that the
    hull leaves out to rounding (all lie on it in theory) are tied to their six nearest. Few points, or all on
    one circle, are each tied to the nearest.
    """
    n = len(vectors)
    if n < 2:
        return np.empty((0, 2), np.int64)
    tree = cKDTree(vectors)
    try:
        triangles = ConvexHull(vectors, qhull_options="Qt").simplices
        pairs = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    except (QhullError, ValueError):
        pairs = np.empty((0, 2), np.int64)
    alone = np.setdiff1d(np.arange(n), pairs)
    if alone.size:
        near = np.atleast_2d(tree.query(vectors[alone], k=min(_NEAREST + 1, n))[1])
        pairs = np.concatenate([pairs, np.stack([np.repeat(alone, near.shape[1]), near.ravel()], axis=1)])
    return _joined(vectors, _once(pairs))


def _once(pairs: Ints) -> Ints:
    ordered = np.sort(np.asarray(pairs, np.int64), axis=1)
    return np.unique(ordered[ordered[:, 0] != ordered[:, 1]], axis=0)


def _joined(vectors: Floats, pairs: Ints) -> Ints:
    """With each part that stands alone tied to its nearest place elsewhere, until there is one part."""
    n = len(vectors)
    while True:
        graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
        parts, part = connected_components(graph, directed=False)
        if parts == 1:
            return pairs
        biggest = int(np.argmax(np.bincount(part)))
        inside, outside = np.flatnonzero(part == biggest), np.flatnonzero(part != biggest)
        far, near = cKDTree(vectors[inside]).query(vectors[outside])
        # One tie per part: its place nearest to the biggest part.
        order = np.lexsort((far, part[outside]))
        first = order[np.flatnonzero(np.diff(part[outside][order], prepend=-1))]
        pairs = _once(np.concatenate([pairs, np.stack([outside[first], inside[near[first]]], axis=1)]))
