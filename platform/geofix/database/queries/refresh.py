"""Codes of one region replaced: in their leaf, or in a successor to which the server copies all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from psycopg import sql
from psycopg.types.json import Jsonb

from geofix.database.bulk import copy_arrays, read_columns, read_vectors
from geofix.database.engine import Connection
from geofix.database.queries import codes as code_queries
from geofix.database.queries import leaves
from geofix.database.queries.codes import CodeSet
from geofix.database.queries.models import ModelRow
from geofix.errors import NotFoundError

LOCK = "SELECT state, code_set_id FROM geofix.code_set WHERE name = %(name)s FOR NO KEY UPDATE"
CELLS = "SELECT s2_id FROM geofix.cell_code WHERE code_set_id = {code_set_id} ORDER BY s2_id"
CODES_OF = """
SELECT c.s2_id, c.code FROM geofix.cell_code c
WHERE c.code_set_id = {code_set_id} AND c.s2_id = ANY ({ids}) ORDER BY c.s2_id
"""
PARTS_OF = """
SELECT c.has_prototype, c.has_aerial FROM geofix.cell_code c
WHERE c.code_set_id = {code_set_id} AND c.s2_id = ANY ({ids}) ORDER BY c.s2_id
"""
# A photo may make codes when this snapshot trains on it, or when no snapshot at all holds it back for judging and it
# came after this one: what the split dropped (photos in the buffer around held-out blocks) stays dropped.
PHOTOS = """
SELECT p.s2_id, e.embedding FROM geofix.photo_embedding e JOIN geofix.photo_record p USING (photo_id)
WHERE e.model_id = {model_id}
  AND p.geom OPERATOR(public.&&) public.ST_MakeEnvelope({west}, {south}, {east}, {north}, 4326)
  AND ({datasets}::text[] IS NULL
       OR p.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY ({datasets}::text[])))
  AND (EXISTS (SELECT FROM geofix.snapshot_photo t
               WHERE t.photo_id = p.photo_id AND t.snapshot_id = {snapshot_id}::bigint AND t.split = 'train')
       OR NOT EXISTS (SELECT FROM geofix.snapshot_photo h WHERE h.photo_id = p.photo_id AND h.split <> 'train')
      AND NOT EXISTS (SELECT FROM geofix.snapshot o JOIN geofix.dataset d ON o.config -> 'datasets' ? d.name
                      WHERE o.snapshot_id = {snapshot_id}::bigint AND d.dataset_id = p.dataset_id
                        AND p.ingested_at <= o.created_at))
ORDER BY p.photo_id
"""
# A few ranges of the cell index that cover the region: s2_center of every tile there is would take minutes.
TILES = """
SELECT t.s2_id, e.embedding
FROM unnest({low}::int8[], {high}::int8[]) AS span (low, high)
JOIN geofix.aerial_tile t ON t.s2_id BETWEEN span.low AND span.high
JOIN geofix.aerial_embedding e USING (aerial_tile_id)
WHERE e.model_id = {model_id} AND t.level = {level}
  AND ({datasets}::text[] IS NULL
       OR t.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY ({datasets}::text[])))
ORDER BY t.aerial_tile_id
"""
STAGE = """
CREATE TEMP TABLE IF NOT EXISTS refreshed_code (
  s2_id bigint, code public.halfvec, has_prototype boolean, has_aerial boolean) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS replaced_cell (s2_id bigint) ON COMMIT DELETE ROWS;
TRUNCATE pg_temp.refreshed_code, pg_temp.replaced_cell
"""
FILL = """
INSERT INTO {leaf} (code_set_id, s2_id, code, has_prototype, has_aerial)
SELECT {code_set_id}, s2_id, code, has_prototype, has_aerial FROM (
  SELECT c.s2_id, c.code, c.has_prototype, c.has_aerial FROM geofix.cell_code c
  WHERE c.code_set_id = {old_id} AND NOT EXISTS (SELECT FROM pg_temp.replaced_cell r WHERE r.s2_id = c.s2_id)
  UNION ALL SELECT s2_id, code, has_prototype, has_aerial FROM pg_temp.refreshed_code) AS every
ORDER BY s2_id
"""
ANALYZE = "ANALYZE pg_temp.refreshed_code, pg_temp.replaced_cell"
# What a transaction that was rolled back has left in the index, only the server's statistics know.
DEAD = """
SELECT greatest(coalesce((index_parameters ->> 'dead_entries')::bigint, 0),
  pg_stat_get_dead_tuples(to_regclass(%(leaf)s)) - coalesce((index_parameters ->> 'dead_before')::bigint, 0))
FROM geofix.code_set WHERE code_set_id = %(code_set_id)s
"""
REMOVE = """
WITH gone AS (
  DELETE FROM {leaf} AS c USING pg_temp.replaced_cell AS r WHERE c.s2_id = r.s2_id RETURNING c.has_prototype, c.has_aerial
)
SELECT count(*), count(*) FILTER (WHERE has_prototype), count(*) FILTER (WHERE has_aerial) FROM gone
"""
ADD = """
INSERT INTO {leaf} (code_set_id, s2_id, code, has_prototype, has_aerial)
SELECT {code_set_id}, s2_id, code, has_prototype, has_aerial FROM pg_temp.refreshed_code ORDER BY s2_id
"""
TOUCHED_BLOCKS = """
CREATE TEMP TABLE touched_block ON COMMIT DROP AS
SELECT DISTINCT geofix.s2_parent(s2_id, {level}) AS s2_id
FROM (SELECT s2_id FROM pg_temp.replaced_cell UNION ALL SELECT s2_id FROM pg_temp.refreshed_code) AS touched
"""
REMOVE_BLOCKS = """
DELETE FROM geofix.cell_block AS b USING pg_temp.touched_block AS t
WHERE b.code_set_id = %(code_set_id)s AND b.s2_id = t.s2_id
"""
ADD_BLOCKS = """
INSERT INTO geofix.cell_block (code_set_id, s2_id, lo, hi, cells, geom)
SELECT {code_set_id}, t.s2_id, r.lo, r.hi, c.cells, geofix.s2_polygon(t.s2_id)
FROM pg_temp.touched_block AS t
CROSS JOIN LATERAL geofix.s2_range(t.s2_id) AS r
CROSS JOIN LATERAL (SELECT count(*) AS cells FROM {leaf} WHERE s2_id BETWEEN r.lo AND r.hi) AS c
WHERE c.cells > 0
"""
# A time of its own, by which whoever holds the codes in memory or in a file sees that they are others now.
RENEW = """
UPDATE geofix.code_set SET
  ready_at = greatest(clock_timestamp(), ready_at + interval '1 microsecond'), config = %(config)s,
  cells = cells - %(gone)s + %(cells)s,
  with_prototype = with_prototype - %(gone_prototype)s + %(with_prototype)s,
  with_aerial = with_aerial - %(gone_aerial)s + %(with_aerial)s,
  bytes = pg_total_relation_size(to_regclass(%(leaf)s)),
  index_parameters = CASE WHEN index_parameters ? 'm'
    THEN index_parameters || jsonb_build_object('dead_entries', %(dead_entries)s::bigint) ELSE index_parameters END
WHERE code_set_id = %(code_set_id)s
"""
# They were made with other codes.
DETACH_EVALUATIONS = "UPDATE geofix.evaluation SET code_set_id = NULL WHERE code_set_id = %(code_set_id)s"

Box = tuple[float, float, float, float]


class NewRows(NamedTuple):
    """Rows of codes, ascending by cell.

    Attributes:
        ids: (n,) cells.
        codes: (n, D + 2) completed by the scale of their set.
        has_prototype: (n,) flags.
        has_aerial: (n,) flags.
    """

    ids: NDArray[np.int64]
    codes: NDArray[np.floating[Any]]
    has_prototype: NDArray[np.bool_]
    has_aerial: NDArray[np.bool_]


def lock_code_set(conn: Connection, code_set: CodeSet) -> None:
    """Let no second refresh of the same code set begin before this transaction ends.

    Raises:
        NotFoundError: It was replaced or dropped meanwhile.
    """
    row = conn.execute(LOCK, {"name": code_set.name}).fetchone()
    if row is None or row[1] != code_set.code_set_id or row[0] not in code_queries.SEARCHABLE:
        raise NotFoundError(f"Code set {code_set.name} was replaced or dropped meanwhile.", hint="Try again.")


def cells_of(conn: Connection, code_set: CodeSet) -> NDArray[np.int64]:
    """All cells (n,) of a code set, ascending."""
    query = sql.SQL(CELLS).format(code_set_id=sql.Literal(code_set.code_set_id))
    return read_columns(conn, query, {"s2_id": "i8"})["s2_id"]


def codes_of(
    conn: Connection, code_set: CodeSet, ids: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Codes (n, D + 2) of some cells of a set, by cell."""
    query = sql.SQL(CODES_OF).format(
        code_set_id=sql.Literal(code_set.code_set_id), ids=sql.Literal([int(item) for item in ids])
    )
    return read_vectors(conn, query, dimension=code_set.dimension)


def parts_of(
    conn: Connection, code_set: CodeSet, ids: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of some cells have a prototype, and which a tile: (n,) each, by cell."""
    query = sql.SQL(PARTS_OF).format(
        code_set_id=sql.Literal(code_set.code_set_id), ids=sql.Literal([int(item) for item in ids])
    )
    found = read_columns(conn, query, {"has_prototype": "?", "has_aerial": "?"})
    return found["has_prototype"], found["has_aerial"]


def dead_entries(conn: Connection, code_set: CodeSet) -> int:
    """Entries of a set's index whose rows are gone, which every search meets and passes over."""
    leaf = leaves.leaf_name("cell_code", code_set.code_set_id)
    row = conn.execute(DEAD, {"code_set_id": code_set.code_set_id, "leaf": leaf}).fetchone()
    return int(row[0] or 0) if row else 0


def photos_in_box(
    conn: Connection, model: ModelRow, box: Box, *, snapshot_id: int | None, datasets: Sequence[str] | None
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Leaf ids (n,) and embeddings (n, D) of photos that may make codes, in a box of degrees.

    Held back are the photos of any snapshot's val and test splits, and those that the code set's own snapshot dropped.

    Args:
        conn: Open connection.
        model: Whose embeddings.
        box: West, south, east, north.
        snapshot_id: Snapshot whose training photos take part whatever other snapshots say.
        datasets: Only photos of these data sets.
    """
    query = sql.SQL(PHOTOS).format(
        model_id=sql.Literal(model.model_id),
        snapshot_id=sql.Literal(snapshot_id),
        datasets=sql.Literal(None if datasets is None else list(datasets)),
        **dict(zip(("west", "south", "east", "north"), map(sql.Literal, box), strict=True)),
    )
    return read_vectors(conn, query, dimension=model.dimension)


def tiles_in_ranges(
    conn: Connection, model: ModelRow, level: int, ranges: NDArray[np.int64], datasets: Sequence[str] | None
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Cells (n,) of a level in disjoint ranges of leaf ids (r, 2), repeated per tile, and the embeddings (n, D)."""
    query = sql.SQL(TILES).format(
        model_id=sql.Literal(model.model_id),
        level=sql.Literal(level),
        datasets=sql.Literal(None if datasets is None else list(datasets)),
        low=sql.Literal(ranges[:, 0].tolist()),
        high=sql.Literal(ranges[:, 1].tolist()),
    )
    return read_vectors(conn, query, dimension=model.dimension)


def replace_rows(
    conn: Connection,
    code_set: CodeSet,
    config: dict[str, Any],
    replaced: NDArray[np.int64],
    rows: NewRows,
    *,
    dead_entries: int,
) -> None:
    """Replace codes in their leaf, with counts and blocks; the caller commits.

    Evaluations made with the old codes keep their rows and lose the reference.

    Args:
        conn: Open connection of the owner.
        code_set: Whose codes; of one leaf on this server.
        config: Its configuration from now on.
        replaced: Cells (r,) whose row goes.
        rows: New rows.
        dead_entries: Entries of the index without a row, from now on.
    """
    key = code_set.code_set_id
    name = leaves.leaf_name("cell_code", key)
    parts = {"leaf": sql.Identifier(*name.split(".")), "code_set_id": sql.Literal(key)}
    _stage(conn, replaced, rows)
    gone = conn.execute(sql.SQL(REMOVE).format(**parts)).fetchone()
    assert gone is not None
    conn.execute(sql.SQL(ADD).format(**parts))
    conn.execute(sql.SQL(TOUCHED_BLOCKS).format(level=sql.Literal(code_queries.block_level(code_set.level))))
    conn.execute(REMOVE_BLOCKS, {"code_set_id": key})
    conn.execute(sql.SQL(ADD_BLOCKS).format(**parts))
    counts = {"cells": len(rows.ids), "with_prototype": int(rows.has_prototype.sum())}
    counts |= {"with_aerial": int(rows.has_aerial.sum()), "dead_entries": dead_entries}
    counts |= dict(zip(("gone", "gone_prototype", "gone_aerial"), map(int, gone), strict=True))
    conn.execute(RENEW, {"code_set_id": key, "leaf": name, "config": Jsonb(config), **counts})
    conn.execute(DETACH_EVALUATIONS, {"code_set_id": key})


def write_successor(
    conn: Connection,
    old: CodeSet,
    name: str,
    config: dict[str, Any],
    replaced: NDArray[np.int64],
    rows: NewRows,
) -> int:
    """Write and publish a code set that is `old` with some cells replaced; the caller commits.

    Args:
        conn: Open connection of the owner.
        old: The code set that is searched until the commit.
        name: Of the new one.
        config: Its configuration.
        replaced: Cells of `old` that are left out.
        rows: New rows.

    Returns:
        Key of the new code set.
    """
    values = {key: getattr(old, key) for key in code_queries.CodeSet.__dataclass_fields__}
    block_level = code_queries.block_level(old.level)
    made = code_queries.insert_code_set(
        conn, {**values, "name": name, "block_level": block_level, "config": config}
    )
    _stage(conn, replaced, rows)
    leaves.create_leaf(conn, "cell_code", made, old.dimension)
    conn.execute(
        sql.SQL(FILL).format(
            leaf=sql.Identifier("geofix_leaf", f"cell_code_{made}"),
            code_set_id=sql.Literal(made),
            old_id=sql.Literal(old.code_set_id),
        )
    )
    leaves.index_leaf_keys(conn, "cell_code", made)
    code_queries.publish(conn, made, block_level)
    if old.state == "stale":  # what made it stale may lie outside the region
        code_queries.set_state(conn, made, "stale", old.stale_reason)
    return made


def _stage(conn: Connection, replaced: NDArray[np.int64], rows: NewRows) -> None:
    conn.execute(STAGE)
    columns = {"s2_id": "int8", "code": "halfvec", "has_prototype": "bool", "has_aerial": "bool"}
    copy_arrays(conn, "pg_temp.refreshed_code", columns, [tuple(rows)])
    copy_arrays(conn, "pg_temp.replaced_cell", {"s2_id": "int8"}, [(replaced,)])
    conn.execute(ANALYZE)
