"""Learned prototypes, one leaf per model, and the snapshot that a model was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from geofix.database.bulk import copy_rows, read_columns, read_vectors, vector_rows
from geofix.database.engine import Connection
from geofix.database.queries import leaves
from geofix.database.queries.models import ModelRow

LEVEL = "SELECT geofix.s2_level(s2_id) FROM geofix.prototype WHERE model_id = %(model_id)s LIMIT 1"
IDS = "SELECT s2_id, photos FROM geofix.prototype WHERE model_id = {model_id} ORDER BY s2_id"
READ = "SELECT s2_id, embedding FROM geofix.prototype WHERE model_id = {model_id} ORDER BY s2_id"
READ_SOME = """
SELECT s2_id, embedding FROM geofix.prototype WHERE model_id = {model_id} AND s2_id = ANY ({ids}) ORDER BY s2_id
"""
SNAPSHOT_OF = "SELECT snapshot_id FROM geofix.snapshot WHERE sha256 = %(sha256)s"
LINK_SNAPSHOT = """
UPDATE geofix.model SET snapshot_id = %(snapshot_id)s WHERE model_id = %(model_id)s AND snapshot_id IS NULL
"""


def prototype_level(conn: Connection, model_id: int) -> int | None:
    """Level of a model's prototypes; None where it has none."""
    row = conn.execute(LEVEL, {"model_id": model_id}).fetchone()
    return None if row is None else int(row[0])


def store_prototypes(
    conn: Connection,
    model_id: int,
    ids: NDArray[np.int64],
    vectors: NDArray[np.floating[Any]],
    photos: NDArray[np.int32],
) -> int:
    """Fill a model's leaf, once; the caller commits.

    Args:
        conn: Open connection of the owner.
        model_id: Key of the model.
        ids: (n,) S2 ids, ascending.
        vectors: (n, D) unit vectors, stored as fp16.
        photos: (n,) training photos per cell.

    Returns:
        Rows stored; 0 when the model's prototypes are there already.
    """
    if prototype_level(conn, model_id) is not None:
        return 0
    leaf = leaves.create_leaf(conn, "prototype", model_id, vectors.shape[1])
    columns = {"model_id": "int8", "s2_id": "int8", "embedding": "halfvec", "photos": "int4"}
    rows = ((model_id, *row) for row in vector_rows(ids, vectors, photos.tolist()))
    sent = copy_rows(conn, leaf, columns, rows)
    leaves.index_leaf_keys(conn, "prototype", model_id)
    leaves.attach_leaf(conn, "prototype", model_id)
    return sent


def prototype_cells(conn: Connection, model: ModelRow) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Cells (n,) that have a prototype, ascending, and their training photos (n,)."""
    query = sql.SQL(IDS).format(model_id=sql.Literal(model.model_id))
    found = read_columns(conn, query, {"s2_id": "i8", "photos": "i4"})
    return found["s2_id"], found["photos"]


def read_prototypes(
    conn: Connection, model: ModelRow, ids: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Cells (n,), ascending, and prototypes (n, D) of a model; with `ids` only those of these cells."""
    if ids is None:
        query = sql.SQL(READ).format(model_id=sql.Literal(model.model_id))
    else:
        query = sql.SQL(READ_SOME).format(
            model_id=sql.Literal(model.model_id), ids=sql.Literal([int(item) for item in ids])
        )
    return read_vectors(conn, query, dimension=model.dimension)


def link_snapshot(conn: Connection, model_id: int, sha256: str) -> int | None:
    """Note which stored snapshot a model was trained on; None when this database does not know it."""
    row = conn.execute(SNAPSHOT_OF, {"sha256": sha256}).fetchone()
    if row is None:
        return None
    conn.execute(LINK_SNAPSHOT, {"snapshot_id": row[0], "model_id": model_id})
    return int(row[0])
