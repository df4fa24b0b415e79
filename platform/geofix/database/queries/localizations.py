"""What users localized: the query row, its audit row, and the evidence behind an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from geofix.database.engine import Connection

SEARCH = """
SELECT rank, s2_id, geofix.s2_token(s2_id), public.ST_X(geom), public.ST_Y(geom), score, method, cells_in_scope
FROM geofix.search_cells(%(query)s, %(k)s, %(code_set)s, public.ST_GeomFromEWKB(%(region)s))
ORDER BY rank
"""
INSERT = """
INSERT INTO geofix.query (photo_sha256, photo_name, code_set_id, localizer, k, region_geom, search_method, cells_in_scope,
                          in_coverage, software_version, answer)
VALUES (%(photo_sha256)s, %(photo_name)s, %(code_set_id)s, %(localizer)s, %(k)s, public.ST_GeomFromEWKB(%(region)s),
        %(search_method)s, %(cells_in_scope)s, %(in_coverage)s, %(software_version)s, %(answer)s)
RETURNING query_id
"""
AUDIT = """
INSERT INTO geofix.audit (actor, action, object_kind, object_id, detail)
VALUES (coalesce(%(actor)s::text, session_user::text), %(action)s, %(object_kind)s, %(object_id)s, %(detail)s)
"""
TILE_VECTORS = """
SELECT t.s2_id, e.embedding FROM geofix.aerial_embedding e JOIN geofix.aerial_tile t USING (aerial_tile_id)
WHERE e.model_id = %(model_id)s AND t.s2_id = ANY (%(ids)s)
  AND (%(datasets)s::text[] IS NULL
       OR t.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY (%(datasets)s)))
"""


# rank, s2_id, token, lon, lat, score, method, cells in scope
SearchRow = tuple[int, int, str, float, float, float, str, int]


def search(conn: Connection, query: Any, k: int, code_set: str, region: bytes | None) -> list[SearchRow]:
    """Rows (rank, s2_id, token, lon, lat, score, method, cells in scope) of `search_cells`."""
    return conn.execute(SEARCH, {"query": query, "k": k, "code_set": code_set, "region": region}).fetchall()


def store_query(conn: Connection, values: Mapping[str, Any]) -> int:
    """Store a localization without the photo itself; returns its id."""
    row = conn.execute(INSERT, {**values, "answer": Jsonb(values["answer"])}).fetchone()
    assert row is not None
    return int(row[0])


def audit(
    conn: Connection,
    action: str,
    object_kind: str,
    object_id: str,
    detail: Mapping[str, Any],
    *,
    actor: str | None = None,
) -> None:
    """Append one row to the audit table; without an actor it names the connection's login."""
    values = {"actor": actor, "action": action, "object_kind": object_kind, "object_id": object_id}
    conn.execute(AUDIT, values | {"detail": Jsonb(dict(detail))})


def tile_vectors(
    conn: Connection, model_id: int, ids: Sequence[int], datasets: Sequence[str] | None
) -> dict[int, NDArray[np.float32]]:
    """Cell -> embeddings (t, D) of its aerial tiles over sources and dates; cells without one are left out."""
    values = {
        "model_id": model_id,
        "ids": list(ids),
        "datasets": None if datasets is None else list(datasets),
    }
    found: dict[int, list[NDArray[np.float32]]] = {}
    for cell, vector in conn.execute(TILE_VECTORS, values):
        found.setdefault(int(cell), []).append(np.asarray(vector.to_numpy(), np.float32))
    return {cell: np.stack(rows) for cell, rows in found.items()}
