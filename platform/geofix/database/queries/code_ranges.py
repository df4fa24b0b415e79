"""What the codes of a range of cells are made of, and the table that such codes wait in until all are there."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from geofix.database.bulk import copy_arrays, read_columns, read_vectors
from geofix.database.engine import Connection
from geofix.database.queries import leaves
from geofix.database.queries.models import ModelRow

TRAINING_LEAVES = """
SELECT p.s2_id FROM geofix.snapshot_photo s JOIN geofix.photo_record p USING (photo_id)
WHERE s.snapshot_id = {snapshot_id} AND s.split = 'train'
  AND EXISTS (SELECT FROM geofix.photo_embedding e WHERE e.model_id = {model_id} AND e.photo_id = s.photo_id)
"""
# In an order that is the same in every range: sums of floats depend on it.
TRAINING_PHOTOS = """
SELECT p.s2_id, e.embedding FROM geofix.photo_record p JOIN geofix.photo_embedding e USING (photo_id)
JOIN geofix.snapshot_photo s USING (photo_id)
WHERE e.model_id = {model_id} AND s.snapshot_id = {snapshot_id} AND s.split = 'train'
  AND p.s2_id BETWEEN {first} AND {last} ORDER BY p.photo_id
"""
NEWEST_TILE = "SELECT max(aerial_tile_id) FROM geofix.aerial_embedding WHERE model_id = %(model_id)s"
TILES = """
FROM geofix.aerial_tile t JOIN geofix.aerial_embedding e USING (aerial_tile_id)
WHERE e.model_id = {model_id} AND t.level = {level} AND ({newest}::bigint IS NULL OR t.aerial_tile_id <= {newest})
  AND ({datasets}::text[] IS NULL
       OR t.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY ({datasets}::text[])))
"""
TILE_IDS = f"SELECT t.s2_id {TILES}"
TILES_BETWEEN = f"""
SELECT t.s2_id, e.embedding {TILES} AND t.s2_id BETWEEN {{first}} AND {{last}} ORDER BY t.aerial_tile_id
"""
PROTOTYPES_BETWEEN = """
SELECT s2_id, embedding FROM geofix.prototype
WHERE model_id = {model_id} AND s2_id BETWEEN {first} AND {last} ORDER BY s2_id
"""
# Codes of a set in the making: nothing refers to this table but the job that it is named after.
CREATE_MAKING = """
CREATE TABLE {making} (
  s2_id bigint CONSTRAINT {key} PRIMARY KEY,
  code public.halfvec NOT NULL,
  has_prototype boolean NOT NULL,
  has_aerial boolean NOT NULL
) WITH (autovacuum_enabled = false)
"""
MAKING_EXISTS = "SELECT to_regclass(%(making)s) IS NOT NULL"
FORGET = "DELETE FROM {making} WHERE s2_id BETWEEN {first} AND {last}"
ANALYZE_MAKING = "ANALYZE {making}"
# By its index: a sort of all codes would write them to disk once more.
NO_SORT = "SELECT set_config('enable_sort', %(value)s, true)"
ASSEMBLE = """
INSERT INTO {leaf} (code_set_id, s2_id, code, has_prototype, has_aerial)
SELECT {code_set_id}, s2_id, code, has_prototype, has_aerial FROM {making} ORDER BY s2_id
"""
DROP_MAKING = "DROP TABLE IF EXISTS {making}"
# One whose job has not ended, or may soon be tried again, may still be completed.
UNFINISHED = """
SELECT c.relname, greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid) FROM pg_class c
WHERE c.relnamespace = 'geofix_leaf'::regnamespace AND starts_with(c.relname, 'cell_code_making_')
  AND c.relkind = 'r' AND NOT EXISTS (
    SELECT FROM geofix.job j WHERE c.relname = 'cell_code_making_' || replace(j.job_id::text, '-', '')
      AND (j.state IN ('queued', 'running', 'lost', 'paused') OR j.finished_at > now() - %(grace)s::interval))
ORDER BY 1
"""
CODE = {"s2_id": "int8", "code": "halfvec", "has_prototype": "bool", "has_aerial": "bool"}


class CodeBlock(NamedTuple):
    """Codes of some cells, ascending: ids (n,), completed codes (n, D + 2) and two flags (n,)."""

    ids: NDArray[np.int64]
    codes: NDArray[np.floating[Any]]
    has_prototype: NDArray[np.bool_]
    has_aerial: NDArray[np.bool_]


def training_leaves(conn: Connection, model: ModelRow, snapshot_id: int) -> NDArray[np.int64]:
    """Leaf ids (n,) of a snapshot's training photos that a model has embedded, in any order."""
    query = sql.SQL(TRAINING_LEAVES).format(
        model_id=sql.Literal(model.model_id), snapshot_id=sql.Literal(snapshot_id)
    )
    return read_columns(conn, query, {"s2_id": "i8"})["s2_id"]


def training_photos(
    conn: Connection, model: ModelRow, snapshot_id: int, first: int, last: int
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Leaf ids (n,) and embeddings (n, D) of those in a closed range of leaf ids, by photo id."""
    query = sql.SQL(TRAINING_PHOTOS).format(
        model_id=sql.Literal(model.model_id),
        snapshot_id=sql.Literal(snapshot_id),
        first=sql.Literal(first),
        last=sql.Literal(last),
    )
    return read_vectors(conn, query, dimension=model.dimension)


def newest_tile(conn: Connection, model: ModelRow) -> int | None:
    """The tile of the highest key that a model has embedded."""
    row = conn.execute(NEWEST_TILE, {"model_id": model.model_id}).fetchone()
    return None if row is None or row[0] is None else int(row[0])


def tile_ids(
    conn: Connection, model: ModelRow, level: int, datasets: list[str] | None, newest: int | None
) -> NDArray[np.int64]:
    """Cells (n,) of a level, once per tile that a model has embedded, in any order."""
    query = sql.SQL(TILE_IDS).format(**_tiles(model, level, datasets, newest))
    return read_columns(conn, query, {"s2_id": "i8"})["s2_id"]


def tiles_between(
    conn: Connection,
    model: ModelRow,
    level: int,
    first: int,
    last: int,
    datasets: list[str] | None,
    newest: int | None,
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Cells (n,), once per tile, and embeddings (n, D) of a closed range of cells, by tile id."""
    given = _tiles(model, level, datasets, newest)
    query = sql.SQL(TILES_BETWEEN).format(first=sql.Literal(first), last=sql.Literal(last), **given)
    return read_vectors(conn, query, dimension=model.dimension)


def _tiles(
    model: ModelRow, level: int, datasets: list[str] | None, newest: int | None
) -> dict[str, sql.Composable]:
    return {
        "model_id": sql.Literal(model.model_id),
        "level": sql.Literal(level),
        "datasets": sql.Literal(datasets),
        "newest": sql.Literal(newest),
    }


def prototypes_between(
    conn: Connection, model: ModelRow, first: int, last: int
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Cells (n,), ascending, and prototypes (n, D) of a closed range of a model's prototype cells."""
    query = sql.SQL(PROTOTYPES_BETWEEN).format(
        model_id=sql.Literal(model.model_id), first=sql.Literal(first), last=sql.Literal(last)
    )
    return read_vectors(conn, query, dimension=model.dimension)


def fill_leaf(conn: Connection, code_set_id: int, dimension: int, blocks: Iterable[CodeBlock]) -> int:
    """Create the stand-alone leaf of a code set and COPY codes into it; the caller commits.

    Args:
        conn: Open connection.
        code_set_id: Key of the code set.
        dimension: D + 2.
        blocks: In the order of the cells.
    """
    leaf = leaves.create_leaf(conn, "cell_code", code_set_id, dimension)
    sent = 0
    for block in blocks:  # a COPY for each: the next block may be read over this very connection
        own = np.full(len(block.ids), code_set_id, np.int64)
        sent += copy_arrays(conn, leaf, {"code_set_id": "int8", **CODE}, [(own, *block)])
    leaves.index_leaf_keys(conn, "cell_code", code_set_id)
    return sent


def create_making(conn: Connection, job_id: UUID) -> None:
    """The table in which a job's chunks collect codes; the caller commits."""
    conn.execute(
        sql.SQL(CREATE_MAKING).format(making=_making(job_id), key=sql.Identifier(f"{_table(job_id)}_key"))
    )


def has_making(conn: Connection, job_id: UUID) -> bool:
    """Whether that table is there."""
    row = conn.execute(MAKING_EXISTS, {"making": f"geofix_leaf.{_table(job_id)}"}).fetchone()
    return bool(row and row[0])


def add_to_making(conn: Connection, job_id: UUID, first: int, last: int, blocks: Iterable[CodeBlock]) -> int:
    """COPY the codes of a closed range, in place of what is there; the caller commits."""
    conn.execute(
        sql.SQL(FORGET).format(making=_making(job_id), first=sql.Literal(first), last=sql.Literal(last))
    )
    table = f"geofix_leaf.{_table(job_id)}"
    return sum(copy_arrays(conn, table, CODE, [block]) for block in blocks)


def assemble(conn: Connection, job_id: UUID, code_set_id: int, dimension: int) -> int:
    """Make a code set's leaf of what a job's chunks have collected, which then goes; the caller commits.

    Returns:
        Cells.
    """
    making = _making(job_id)
    conn.execute(sql.SQL(ANALYZE_MAKING).format(making=making))
    leaves.create_leaf(conn, "cell_code", code_set_id, dimension)
    leaf = sql.Identifier("geofix_leaf", f"cell_code_{code_set_id}")
    conn.execute(NO_SORT, {"value": "off"})
    filled = conn.execute(
        sql.SQL(ASSEMBLE).format(leaf=leaf, code_set_id=sql.Literal(code_set_id), making=making)
    )
    conn.execute(NO_SORT, {"value": "on"})
    leaves.index_leaf_keys(conn, "cell_code", code_set_id)
    conn.execute(sql.SQL(DROP_MAKING).format(making=making))
    return filled.rowcount


def unfinished(conn: Connection, grace: timedelta) -> list[tuple[str, int, int]]:
    """(table, about how many codes, bytes) of what jobs have left that ended without success some time ago."""
    return conn.execute(UNFINISHED, {"grace": grace}).fetchall()


def drop_unfinished(conn: Connection, table: str) -> None:
    """Remove one; the caller commits."""
    conn.execute(sql.SQL(DROP_MAKING).format(making=sql.Identifier("geofix_leaf", table)))


def _table(job_id: UUID) -> str:
    return f"cell_code_making_{job_id.hex}"


def _making(job_id: UUID) -> sql.Identifier:
    return sql.Identifier("geofix_leaf", _table(job_id))
