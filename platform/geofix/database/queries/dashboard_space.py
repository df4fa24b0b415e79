"""What the embedding page reads: mean vectors per cell of a level, of a code set or of a model's prototypes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from psycopg import sql

from geofix.database.bulk import read_vectors
from geofix.database.engine import Connection
from geofix.database.queries.codes import find_ready
from geofix.database.queries.dashboard import frame
from geofix.database.queries.models import find_model

# Both kinds of vectors that can be looked at, with the cells they have and the level these are of.
SPACES = """
SELECT * FROM (
  SELECT 'codes' AS kind, c.name, c.recipe, c.level::integer AS level, c.cells, c.created_at FROM geofix.code_set c
  WHERE c.state IN ('ready', 'stale') AND c.cells > 0
  UNION ALL
  SELECT 'prototypes', m.name, 'prototype', geofix.s2_level(p.s2_id), p.cells, m.created_at FROM geofix.model m
  CROSS JOIN LATERAL (SELECT min(s2_id) AS s2_id, count(*) AS cells FROM geofix.prototype WHERE model_id = m.model_id) AS p
  WHERE p.cells > 0
) AS s
ORDER BY kind, array_position(ARRAY['hybrid', 'prototype', 'cellmean', 'aerial'], recipe), created_at DESC
"""
# Means of the server: as many rows leave it as are drawn, however many codes there are. The parent is written as bits,
# as `s2_parent` computes it once it has checked the id: the planner knows the cost of these, hashes in parallel and
# needs half the time.
CODE_MEANS = """
SELECT (s2_id & -{bit}::bigint) | {bit}::bigint, avg(code)::public.halfvec({dimension}) FROM geofix.cell_code
WHERE code_set_id = {key} GROUP BY 1 ORDER BY 1
"""
PROTOTYPE_MEANS = """
SELECT (s2_id & -{bit}::bigint) | {bit}::bigint, avg(embedding)::public.halfvec({dimension}) FROM geofix.prototype
WHERE model_id = {key} GROUP BY 1 ORDER BY 1
"""
# In the order of the index, how many levels of the 31 tell a cell from the one before it: at each of them it begins a
# parent. Two ids have the same parent at level L when no bit from 2 (30 - L) + 1 upwards differs.
_STEPS = """
SELECT steps, count(*) FROM (
  SELECT CASE WHEN differs < 0 THEN 31 ELSE width_bucket(differs, %(bits)s::bigint[]) END AS steps
  FROM (SELECT s2_id # lag(s2_id) OVER (ORDER BY s2_id) AS differs FROM {of}) AS pair WHERE differs IS NOT NULL) AS step
GROUP BY 1
"""
CODE_STEPS = _STEPS.replace("{of}", "geofix.cell_code WHERE code_set_id = %(key)s")
PROTOTYPE_STEPS = _STEPS.replace("{of}", "geofix.prototype WHERE model_id = %(key)s")


def spaces(conn: Connection) -> pd.DataFrame:
    """Code sets and models with prototypes: kind, name, recipe, level, cells."""
    return frame(conn, SPACES)


def level_below(conn: Connection, kind: str, name: str, level: int, most: int) -> int:
    """The finest level, at most `level`, at which the cells of codes or prototypes have at most so many parents.

    Their ids alone are read, by the server.

    Args:
        conn: Open connection.
        kind: `codes` (of a ready code set) or `prototypes` (of a model).
        name: Of the code set or the model.
        level: Level of the cells.
        most: Parents that are few enough.

    Raises:
        NotFoundError: There is none of this name.
    """
    codes = kind == "codes"
    key = find_ready(conn, name).code_set_id if codes else find_model(conn, name).model_id
    bits = [1 << (2 * (30 - at) + 1) for at in range(30, -1, -1)]
    rows = conn.execute(CODE_STEPS if codes else PROTOTYPE_STEPS, {"key": key, "bits": bits}).fetchall()
    while level > 0 and 1 + sum(count for steps, count in rows if steps > 30 - level) > most:
        level -= 1
    return level


def code_means(conn: Connection, name: str, level: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Cells (n,) of a level, no finer than the codes, and the mean of their codes (n, D) without completion.

    Raises:
        NotFoundError: No ready code set has the name.
    """
    code_set = find_ready(conn, name)
    ids, codes = _read(conn, CODE_MEANS, level, code_set.dimension, code_set.code_set_id)
    return ids, codes[:, :-2] * np.float32(code_set.scale)


def prototype_means(
    conn: Connection, model: str, level: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Cells (n,) of a level, no finer than the prototypes, and the mean of their prototypes (n, D).

    Raises:
        NotFoundError: No model has the name.
    """
    row = find_model(conn, model)
    return _read(conn, PROTOTYPE_MEANS, level, row.dimension, row.model_id)


def _read(
    conn: Connection, statement: Any, level: int, dimension: int, key: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    query = sql.SQL(statement).format(
        bit=sql.Literal(1 << (2 * (30 - level))), dimension=sql.Literal(dimension), key=sql.Literal(key)
    )
    ids, vectors = read_vectors(conn, query, dimension=dimension)
    return ids, vectors.astype(np.float32)
