"""What the codes of a range of cells are made of, and the table that such codes wait in until all are there."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from geofix.database.bulk import copy_arrays, read_columns, read_vectors
from geofix.database.engine import Connection
from geofix.database.queries import leaves
from geofix.database.queries.models import ModelRow

# Ranges as literals, each a look-up in the index whose rows the planner can tell beforehand.
WITHIN = "{key} BETWEEN {first} AND {last}"
TRAINING_CELLS = """
SELECT geofix.s2_parent(p.s2_id, {level}), count(*)
FROM geofix.snapshot_photo s JOIN geofix.photo_record p USING (photo_id)
WHERE s.snapshot_id = {snapshot_id} AND s.split = 'train' AND {within}
  AND EXISTS (SELECT FROM geofix.photo_embedding e WHERE e.model_id = {model_id} AND e.photo_id = s.photo_id)
GROUP BY 1 ORDER BY 1
"""
# In an order that is the same in every range: sums of floats depend on it.
TRAINING_PHOTOS = """
SELECT p.s2_id, e.embedding FROM geofix.photo_record p JOIN geofix.photo_embedding e USING (photo_id)
JOIN geofix.snapshot_photo s USING (photo_id)
WHERE e.model_id = {model_id} AND s.snapshot_id = {snapshot_id} AND s.split = 'train'
  AND {within} ORDER BY p.photo_id
"""
NEWEST_TILE = "SELECT max(aerial_tile_id) FROM geofix.aerial_embedding WHERE model_id = %(model_id)s"
TILES = """
FROM geofix.aerial_tile t JOIN geofix.aerial_embedding e USING (aerial_tile_id)
WHERE e.model_id = {model_id} AND t.level = {level} AND ({newest}::bigint IS NULL OR t.aerial_tile_id <= {newest})
  AND ({datasets}::text[] IS NULL
       OR t.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY ({datasets}::text[])))
  AND {within}
"""
TILE_CELLS = f"SELECT t.s2_id, count(*) {TILES} GROUP BY 1 ORDER BY 1"
TILES_WITHIN = f"SELECT t.s2_id, e.embedding {TILES} ORDER BY t.aerial_tile_id"
PROTOTYPES_WITHIN = """
SELECT s2_id, embedding FROM geofix.prototype WHERE model_id = {model_id} AND {within} ORDER BY s2_id
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
# One whose codes are published, and that a running backup holds on to, says so.
MARK_COMPLETE = "COMMENT ON TABLE {making} IS 'complete'"
MAKING_EXISTS = """
SELECT to_regclass(%(making)s) IS NOT NULL
  AND obj_description(to_regclass(%(making)s), 'pg_class') IS DISTINCT FROM 'complete'
"""
FORGET = "DELETE FROM {making} WHERE s2_id BETWEEN {first} AND {last}"
ANALYZE_MAKING = "ANALYZE {making}"
# By its index: a sort of all codes would write them to disk once more.
NO_SORT = "SELECT set_config('enable_sort', %(value)s, true)"
ASSEMBLE = """
INSERT INTO {leaf} (code_set_id, s2_id, code, has_prototype, has_aerial)
SELECT {code_set_id}, s2_id, code, has_prototype, has_aerial FROM {making} ORDER BY s2_id
"""
DROP_MAKING = "DROP TABLE IF EXISTS {making}"
LOCK_TIMEOUT = "SELECT current_setting('lock_timeout'), set_config('lock_timeout', %(value)s, true)"
# One whose job has not ended, or may soon be tried again, may still be completed.
UNFINISHED = """
SELECT c.relname, greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid) FROM pg_class c
WHERE c.relnamespace = 'geofix_leaf'::regnamespace AND starts_with(c.relname, 'cell_code_making_')
  AND c.relkind = 'r' AND (obj_description(c.oid, 'pg_class') = 'complete' OR NOT EXISTS (
    SELECT FROM geofix.job j WHERE c.relname = 'cell_code_making_' || replace(j.job_id::text, '-', '')
      AND (j.state IN ('queued', 'running', 'lost', 'paused') OR j.finished_at > now() - %(grace)s::interval)))
ORDER BY 1
"""
_DROP_WAITS = "1s"  # for a running backup, which reads every table until it ends
CODE = {"s2_id": "int8", "code": "halfvec", "has_prototype": "bool", "has_aerial": "bool"}

Ints = NDArray[np.int64]


class CodeBlock(NamedTuple):
    """Codes of some cells, ascending: ids (n,), completed codes (n, D + 2) and two flags (n,)."""

    ids: Ints
    codes: NDArray[np.floating[Any]]
    has_prototype: NDArray[np.bool_]
    has_aerial: NDArray[np.bool_]


def training_cells(
    conn: Connection, model: ModelRow, snapshot_id: int, level: int, ranges: Ints | None
) -> tuple[Ints, Ints]:
    """Cells (n,), ascending, of a snapshot's training photos that a model has embedded, and how many (n,).

    Args:
        conn: Open connection.
        model: Whose embeddings.
        snapshot_id: Whose training photos.
        level: Of the cells.
        ranges: (r, 2) closed, disjoint ranges of leaf ids in which the photos lie; None: everywhere.
    """
    query = sql.SQL(TRAINING_CELLS).format(
        model_id=sql.Literal(model.model_id),
        snapshot_id=sql.Literal(snapshot_id),
        level=sql.Literal(level),
        within=_within(sql.Identifier("p", "s2_id"), ranges),
    )
    return _counted(conn, query)


def training_photos(
    conn: Connection, model: ModelRow, snapshot_id: int, ranges: Ints
) -> tuple[Ints, NDArray[np.float16]]:
    """Leaf ids (n,) and embeddings (n, D) of those in some ranges of leaf ids, by photo id."""
    query = sql.SQL(TRAINING_PHOTOS).format(
        model_id=sql.Literal(model.model_id),
        snapshot_id=sql.Literal(snapshot_id),
        within=_within(sql.Identifier("p", "s2_id"), ranges),
    )
    return read_vectors(conn, query, dimension=model.dimension)


def newest_tile(conn: Connection, model: ModelRow) -> int | None:
    """The tile of the highest key that a model has embedded."""
    row = conn.execute(NEWEST_TILE, {"model_id": model.model_id}).fetchone()
    return None if row is None or row[0] is None else int(row[0])


def tile_cells(
    conn: Connection,
    model: ModelRow,
    level: int,
    ranges: Ints | None,
    datasets: list[str] | None,
    newest: int | None,
) -> tuple[Ints, Ints]:
    """Cells (n,) of a level, ascending, and how many tiles (n,) of each a model has embedded."""
    return _counted(conn, sql.SQL(TILE_CELLS).format(**_tiles(model, level, ranges, datasets, newest)))


def tiles_within(
    conn: Connection,
    model: ModelRow,
    level: int,
    ranges: Ints,
    datasets: list[str] | None,
    newest: int | None,
) -> tuple[Ints, NDArray[np.float16]]:
    """Cells (n,), once per tile, and embeddings (n, D) of some ranges of ids, by tile id."""
    query = sql.SQL(TILES_WITHIN).format(**_tiles(model, level, ranges, datasets, newest))
    return read_vectors(conn, query, dimension=model.dimension)


def _tiles(
    model: ModelRow, level: int, ranges: Ints | None, datasets: list[str] | None, newest: int | None
) -> dict[str, sql.Composable]:
    return {
        "within": _within(sql.Identifier("t", "s2_id"), ranges),
        "model_id": sql.Literal(model.model_id),
        "level": sql.Literal(level),
        "datasets": sql.Literal(datasets),
        "newest": sql.Literal(newest),
    }


def prototypes_within(conn: Connection, model: ModelRow, ranges: Ints) -> tuple[Ints, NDArray[np.float16]]:
    """Cells (n,), ascending, and prototypes (n, D) of a model's prototype cells in some ranges of ids."""
    query = sql.SQL(PROTOTYPES_WITHIN).format(
        model_id=sql.Literal(model.model_id), within=_within(sql.Identifier("s2_id"), ranges)
    )
    return read_vectors(conn, query, dimension=model.dimension)


def _counted(conn: Connection, query: sql.Composable) -> tuple[Ints, Ints]:
    found = read_columns(conn, query, {"s2_id": "i8", "pictures": "i8"})
    return found["s2_id"], found["pictures"]


def _within(key: sql.Identifier, ranges: Ints | None) -> sql.Composable:
    """That a key lies in one of some ranges (r, 2); in none where there are none, in all for None."""
    if ranges is None or not len(ranges):
        return sql.Literal(ranges is None)
    spans = [
        sql.SQL(WITHIN).format(key=key, first=sql.Literal(first), last=sql.Literal(last))
        for first, last in ranges.tolist()
    ]
    return sql.SQL("({})").format(sql.SQL(" OR ").join(spans))


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
    """Whether that table is there, and its codes are not published yet."""
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

    Where a running backup keeps the table from going, it is marked as complete and left to `geofix gc`.

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
    if not _drop(conn, making):
        conn.execute(sql.SQL(MARK_COMPLETE).format(making=making))
    return filled.rowcount


def unfinished(conn: Connection, grace: timedelta) -> list[tuple[str, int, int]]:
    """(table, about how many codes, bytes) of what jobs have left that ended without success some time ago."""
    return conn.execute(UNFINISHED, {"grace": grace}).fetchall()


def drop_unfinished(conn: Connection, table: str) -> bool:
    """Remove one; False where another session reads it, as a backup does. The caller commits."""
    return _drop(conn, sql.Identifier("geofix_leaf", table))


def _drop(conn: Connection, making: sql.Identifier) -> bool:
    """Without waiting for long: whoever reads the table goes on reading, and the transaction stays whole."""
    try:
        with conn.transaction():
            row = conn.execute(LOCK_TIMEOUT, {"value": _DROP_WAITS}).fetchone()
            conn.execute(sql.SQL(DROP_MAKING).format(making=making))
            conn.execute(LOCK_TIMEOUT, {"value": row[0] if row else "0"})
    except psycopg.errors.LockNotAvailable:
        return False
    return True


def _table(job_id: UUID) -> str:
    return f"cell_code_making_{job_id.hex}"


def _making(job_id: UUID) -> sql.Identifier:
    return sql.Identifier("geofix_leaf", _table(job_id))
