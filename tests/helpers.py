"""Small makers that several tests share."""

from __future__ import annotations

import numpy as np

from geofix.database.queries.models import insert_model
from geofix.spatial import s2


def add_model(conn, name: str, dimension: int) -> int:
    """Register a model row without weights on disk."""
    return insert_model(
        conn,
        {
            "name": name,
            "kind": "encoder",
            "dimension": dimension,
            "directory_uri": "nowhere",
            "weights_sha256": "0" * 64,
            "config": {},
            "input_transform": {},
            "snapshot_id": None,
            "metrics": {},
        },
    )


def random_codes(n: int, dimension: int, *, level: int, seed: int = 0, bounds=(5.0, 45.0, 10.0, 50.0)):
    """n unique cells in a box (west, south, east, north) and n random unit vectors."""
    rng = np.random.default_rng(seed)
    west, south, east, north = bounds
    ids: np.ndarray = np.empty(0, np.int64)
    while len(ids) < n:
        more = s2.cell_at(rng.uniform(west, east, 2 * n), rng.uniform(south, north, 2 * n), level)
        ids = np.unique(np.concatenate([ids, more]))
    ids = rng.permutation(ids)[:n]
    vectors = rng.normal(size=(n, dimension)).astype(np.float32)
    return ids, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
