"""What must stay together: photos of one sequence, and exact copies of a photo."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

EARTH_RADIUS_M = 6_371_000.0

Ints = NDArray[np.int64]


def photo_groups(table: pd.DataFrame) -> Ints:
    """Number the groups of photos that may not straddle splits, shape (n,).

    Photos share a group when they share (dataset, sequence_key) or a sha256, directly or through others. A
    photo without sequence is its own. Numbers follow the order of first appearance.
    """
    n = len(table)
    dataset = table["dataset"].astype(object) if "dataset" in table else pd.Series("", index=table.index)
    links = []
    if "sequence_key" in table:
        key = table["sequence_key"].astype(object)
        known = (key.notna() & (key.astype(str) != "")).to_numpy()
        links.append(
            _links(pd.MultiIndex.from_arrays([dataset.fillna("").astype(str), key.astype(str)]), known)
        )
    if "sha256" in table:
        sha = table["sha256"].astype(object)
        known = (sha.notna() & (sha.astype(str) != "")).to_numpy()
        links.append(_links(pd.Index(sha.map(_text)), known))
    rows, columns, offset = [], [], n
    for row, code in links:
        rows.append(row)
        columns.append(code + offset)
        offset += int(code.max(initial=-1)) + 1
    if not rows:
        return np.arange(n, dtype=np.int64)
    row, column = np.concatenate(rows), np.concatenate(columns)
    graph = coo_matrix((np.ones(len(row), dtype=np.int8), (row, column)), shape=(offset, offset))
    _, labels = connected_components(graph, directed=False)
    codes, _ = pd.factorize(labels[:n])
    return np.asarray(codes, dtype=np.int64)


def unit_vectors(lon: ArrayLike, lat: ArrayLike) -> NDArray[np.float64]:
    """Points on the unit sphere, shape (n, 3), of positions in degrees."""
    x, y = np.radians(np.asarray(lon, dtype=np.float64)), np.radians(np.asarray(lat, dtype=np.float64))
    return np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], axis=-1)


def chord(distance_m: float) -> float:
    """Straight distance on the unit sphere that spans a great-circle distance in metres; exact."""
    return float(2.0 * np.sin(min(distance_m / EARTH_RADIUS_M, np.pi) / 2.0))


def arc_m(chords: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of `chord`, elementwise; infinite chords stay infinite."""
    near = (
        2.0 * EARTH_RADIUS_M * np.arcsin(np.clip(np.where(np.isfinite(chords), chords, 0.0) / 2.0, 0.0, 1.0))
    )
    return np.where(np.isfinite(chords), near, np.inf)


def nearest_m(
    from_points: NDArray[np.float64], to_points: NDArray[np.float64], within_m: float = np.inf
) -> tuple[NDArray[np.float64], Ints]:
    """Metres to the nearest of `to_points`, and its index; (inf, -1) beyond `within_m`.

    Args:
        from_points: Unit vectors, shape (n, 3).
        to_points: Unit vectors, shape (m, 3).
        within_m: Metres; a finite bound makes the search much faster.
    """
    if len(to_points) == 0 or len(from_points) == 0:
        return np.full(len(from_points), np.inf), np.full(len(from_points), -1, dtype=np.int64)
    # The tree's bound is exclusive; one part in 1e9 more keeps points at exactly the bound.
    bound = np.inf if not np.isfinite(within_m) else chord(within_m) * (1 + 1e-9) + 1e-15
    found, index = cKDTree(to_points).query(from_points, distance_upper_bound=bound)
    return arc_m(found), np.where(np.isfinite(found), index, -1).astype(np.int64)


def _links(keys: pd.Index, known: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    codes, _ = pd.factorize(keys[known])
    return np.flatnonzero(known).astype(np.int64), codes.astype(np.int64)


def _text(value: object) -> str:
    return value.hex() if isinstance(value, (bytes, bytearray, memoryview)) else str(value)
