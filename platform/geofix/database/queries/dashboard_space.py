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
# Means of the server: as many rows leave it as are drawn, however many codes there are.
CODE_MEANS = """
SELECT geofix.s2_parent(s2_id, {level}), avg(code)::public.halfvec({dimension}) FROM geofix.cell_code
WHERE code_set_id = {key} GROUP BY 1 ORDER BY 1
"""
PROTOTYPE_MEANS = """
SELECT geofix.s2_parent(s2_id, {level}), avg(embedding)::public.halfvec({dimension}) FROM geofix.prototype
WHERE model_id = {key} GROUP BY 1 ORDER BY 1
"""


def spaces(conn: Connection) -> pd.DataFrame:
    """Code sets and models with prototypes: kind, name, recipe, level, cells."""
    return frame(conn, SPACES)


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
        level=sql.Literal(level), dimension=sql.Literal(dimension), key=sql.Literal(key)
    )
    ids, vectors = read_vectors(conn, query, dimension=dimension)
    return ids, vectors.astype(np.float32)
