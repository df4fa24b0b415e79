"""Look at a stored snapshot again for leaks, with a model's eyes too."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geofix.database.engine import Connection
from geofix.database.queries import models as model_queries
from geofix.snapshots.build import stored_snapshot
from geofix.snapshots.leaks import Leak, find_leaks
from geofix.snapshots.reader import load_snapshot
from geofix.snapshots.split import SPLITS


def audit_snapshot(
    conn: Connection, directory: Path, *, model: str | None = None, min_cosine: float = 0.999
) -> list[Leak]:
    """Every leak of a snapshot directory that this database knows.

    Args:
        conn: Open connection.
        directory: Snapshot directory.
        model: Its embeddings show photos of different sequences that look alike across the split; photos that
            it has not embedded are compared as zero vectors, so with none.
        min_cosine: Cosine from which two photos look alike.
    """
    row = stored_snapshot(conn, directory)
    snapshot = load_snapshot(directory, verify=False)
    table = snapshot.read().to_pandas()
    embeddings = None
    if model is not None:
        found = model_queries.find_model(conn, model)
        ids, vectors = model_queries.read_split_embeddings(conn, found, row.snapshot_id, list(SPLITS))
        embeddings = np.zeros((len(table), found.dimension), np.float16)
        place = np.searchsorted(ids, table["photo_id"].to_numpy())
        known = np.isin(table["photo_id"].to_numpy(), ids)
        embeddings[known] = vectors[place[known]]
    config = snapshot.manifest["config"]
    return find_leaks(
        table,
        buffer_m=float(config["buffer_m"]),
        sequences=config["mode"] == "blocks",
        embeddings=embeddings,
        min_cosine=min_cosine,
    )
