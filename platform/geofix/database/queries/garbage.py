"""Rows and leaves that nothing refers to any more, or that are older than they are kept."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Literal, NamedTuple, get_args

import psycopg
from psycopg import sql

from geofix.database.engine import Connection
from geofix.database.queries import leaves

LOCK = "SELECT pg_try_advisory_lock(hashtext('geofix.gc'))"
UNLOCK = "SELECT pg_advisory_unlock(hashtext('geofix.gc'))"
# A build commits its row and its leaf together; what is visible in state `building` is a build in pieces, or dead.
UNFINISHED = """
SELECT name, state, coalesce(pg_total_relation_size(to_regclass('geofix_leaf.cell_code_' || code_set_id)), 0)
FROM geofix.code_set
WHERE state = 'dropping' OR (state = 'building' AND created_at < now() - %(grace)s::interval) ORDER BY name
"""
# One whose job has not ended may still be completed, however old it is.
UNFINISHED_EVALUATIONS = """
SELECT e.evaluation_id, e.name, e.n FROM geofix.evaluation e
WHERE e.config ? 'in_the_making' AND e.created_at < now() - %(grace)s::interval
  AND NOT EXISTS (SELECT FROM geofix.job j WHERE j.job_id::text = e.config ->> 'in_the_making'
                    AND j.state IN ('queued', 'running', 'lost', 'paused')) ORDER BY e.name
"""
DELETE_EVALUATION = "DELETE FROM geofix.evaluation WHERE evaluation_id = %(evaluation_id)s"
# A leaf is named after its parent row. Code sets are listed above while they have a row; codes that jobs collect,
# in `code_ranges`.
LEAVES = """
SELECT c.relname, c.relkind = 'f', c.relispartition, pg_total_relation_size(c.oid)
FROM pg_class c
WHERE c.relnamespace = 'geofix_leaf'::regnamespace AND c.relkind IN ('r', 'p', 'f')
  AND NOT starts_with(c.relname, 'cell_code_making_')
  AND NOT EXISTS (SELECT FROM geofix.shard_move m
                  WHERE starts_with(c.relname, format('cell_code_%s_%s_', m.code_set_id, m.generation))) ORDER BY 1
"""
MODEL_IDS = "SELECT model_id FROM geofix.model"
CODE_SET_IDS = "SELECT code_set_id FROM geofix.code_set"
DROP_TABLE = "DROP TABLE IF EXISTS {leaf}"
DROP_FOREIGN = "DROP FOREIGN TABLE IF EXISTS {leaf}"
# Bytes are those of the vectors; the space is used again after the vacuum below.
LOST_EMBEDDINGS = {
    "photo_embedding": """
SELECT e.model_id, count(*), coalesce(sum(pg_column_size(e.embedding)), 0)::bigint FROM geofix.photo_embedding e
WHERE NOT EXISTS (SELECT FROM geofix.photo_record p WHERE p.photo_id = e.photo_id) GROUP BY 1 ORDER BY 1
""",
    "aerial_embedding": """
SELECT e.model_id, count(*), coalesce(sum(pg_column_size(e.embedding)), 0)::bigint FROM geofix.aerial_embedding e
WHERE NOT EXISTS (SELECT FROM geofix.aerial_tile t WHERE t.aerial_tile_id = e.aerial_tile_id) GROUP BY 1 ORDER BY 1
""",
}
DELETE_LOST = {
    "photo_embedding": """
DELETE FROM geofix.photo_embedding e
WHERE NOT EXISTS (SELECT FROM geofix.photo_record p WHERE p.photo_id = e.photo_id)
""",
    "aerial_embedding": """
DELETE FROM geofix.aerial_embedding e
WHERE NOT EXISTS (SELECT FROM geofix.aerial_tile t WHERE t.aerial_tile_id = e.aerial_tile_id)
""",
}
Dated = Literal["query", "audit", "job_event"]
DATED = {
    "query": """
SELECT count(*), coalesce(sum(pg_column_size(q)), 0)::bigint FROM geofix.query q WHERE q.asked_at < now() - %(age)s::interval
""",
    "audit": """
SELECT count(*), coalesce(sum(pg_column_size(a)), 0)::bigint FROM geofix.audit a WHERE a.at < now() - %(age)s::interval
""",
    "job_event": """
SELECT count(*), coalesce(sum(pg_column_size(e)), 0)::bigint FROM geofix.job_event e
JOIN geofix.job j USING (job_id)
WHERE j.state IN ('succeeded', 'failed', 'cancelled', 'parked') AND greatest(j.finished_at, e.at) < now() - %(age)s::interval
""",
}
DELETE_DATED = {
    "query": "DELETE FROM geofix.query WHERE asked_at < now() - %(age)s::interval",
    "audit": "DELETE FROM geofix.audit WHERE at < now() - %(age)s::interval",
    "job_event": """
DELETE FROM geofix.job_event e USING geofix.job j
WHERE j.job_id = e.job_id AND j.state IN ('succeeded', 'failed', 'cancelled', 'parked')
  AND greatest(j.finished_at, e.at) < now() - %(age)s::interval
""",
}
# Autovacuum is off on leaves. One with an HNSW index is never vacuumed (pgvector#450): it is dropped as a whole.
# Codes in the making are copied, and their table dropped.
BLOATED = """
SELECT c.relname, s.n_dead_tup, pg_total_relation_size(c.oid) FROM pg_class c
JOIN pg_stat_all_tables s ON s.relid = c.oid
WHERE c.relnamespace = 'geofix_leaf'::regnamespace AND c.relkind = 'r' AND s.n_dead_tup > 0
  AND NOT starts_with(c.relname, 'cell_code_making_')
  AND NOT EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am a ON a.oid = x.relam
                  WHERE i.indrelid = c.oid AND a.amname = 'hnsw')
ORDER BY 1
"""
# Leaves forbid it: a vacuum that PostgreSQL itself begins, against wraparound, must not touch an HNSW index.
VACUUM = "VACUUM (ANALYZE, INDEX_CLEANUP ON) {leaf}"
SIZE = "SELECT pg_total_relation_size(to_regclass(%(leaf)s))"

_PIECE = re.compile(r"cell_code_\d+_\d+_\d+$")
_LEAF = re.compile(rf"({'|'.join(get_args(leaves.Parent))})_(\d+)$")


class Leaf(NamedTuple):
    """A table of the leaf schema that belongs to no row; `parent` is None when its name says nothing."""

    name: str
    parent: leaves.Parent | None
    parent_id: int
    foreign: bool
    bytes: int

    @property
    def is_piece(self) -> bool:
        """Whether it was a piece of a distributed code set; what a shard holds of it is removed by another step."""
        return _PIECE.match(self.name) is not None


def lock(conn: Connection) -> bool:
    """Keep a second collection out of this database; False when one is at work."""
    row = conn.execute(LOCK).fetchone()
    return bool(row and row[0])


def unlock(conn: Connection) -> None:
    """Let the next collection in."""
    conn.execute(UNLOCK)


def unfinished_code_sets(conn: Connection, grace: timedelta) -> list[tuple[str, str, int]]:
    """(name, state, bytes) of code sets that an interrupted build or drop left."""
    return conn.execute(UNFINISHED, {"grace": grace}).fetchall()


def unfinished_evaluations(conn: Connection, grace: timedelta) -> list[tuple[int, str, int]]:
    """(id, name, photos) of evaluations that a job in chunks has left."""
    return conn.execute(UNFINISHED_EVALUATIONS, {"grace": grace}).fetchall()


def delete_evaluation(conn: Connection, evaluation_id: int) -> None:
    """Remove an evaluation with its predictions."""
    conn.execute(DELETE_EVALUATION, {"evaluation_id": evaluation_id})


def orphan_leaves(conn: Connection) -> list[Leaf]:
    """Leaves, attached or not, whose model or code set has no row, and stray tables that are not attached."""
    models = {int(row[0]) for row in conn.execute(MODEL_IDS)}
    code_sets = {int(row[0]) for row in conn.execute(CODE_SET_IDS)}
    found = []
    for name, foreign, attached, size in conn.execute(LEAVES).fetchall():
        match = _LEAF.match(name)
        if match is None:
            if not attached:
                found.append(Leaf(name, None, 0, foreign, int(size)))
            continue
        parent_id = int(match[2])
        if parent_id not in (code_sets if match[1] == "cell_code" else models):
            found.append(Leaf(name, match[1], parent_id, foreign, int(size)))  # type: ignore[arg-type]
    return found


def drop_orphan(conn: Connection, leaf: Leaf) -> None:
    """Detach and drop a leaf; commits."""
    if leaf.parent is not None:
        leaves.drop_leaf(conn, leaf.parent, leaf.parent_id)
    else:
        conn.execute(
            sql.SQL(DROP_FOREIGN if leaf.foreign else DROP_TABLE).format(
                leaf=sql.Identifier("geofix_leaf", leaf.name)
            )
        )
        conn.commit()


def lost_embeddings(conn: Connection) -> list[tuple[str, int, int, int]]:
    """(table, model id, rows, bytes) of embeddings whose photo or tile is gone."""
    return [(table, *row) for table, query in LOST_EMBEDDINGS.items() for row in conn.execute(query)]


def delete_lost_embeddings(conn: Connection) -> int:
    """Remove them; the caller commits."""
    return sum(conn.execute(statement).rowcount for statement in DELETE_LOST.values())


def older_than(conn: Connection, table: Dated, age: timedelta) -> tuple[int, int]:
    """Rows and bytes of queries, audit rows or log lines of ended jobs that are older than they are kept."""
    row = conn.execute(DATED[table], {"age": age}).fetchone()
    return (0, 0) if row is None else (int(row[0]), int(row[1]))


def delete_older(conn: Connection, table: Dated, age: timedelta) -> int:
    """Remove them; the caller commits."""
    return conn.execute(DELETE_DATED[table], {"age": age}).rowcount


def bloated_leaves(conn: Connection) -> list[tuple[str, int, int]]:
    """(name, dead rows, bytes) of leaves without an HNSW index that hold deleted rows."""
    return conn.execute(BLOATED).fetchall()


def vacuum_leaf(conn: Connection, name: str) -> int:
    """Wipe deleted rows off a leaf; returns the bytes given back to the disk, 0 when it is gone. Commits."""
    leaf = {"leaf": f"geofix_leaf.{name}"}
    conn.commit()
    conn.autocommit = True
    try:
        before = conn.execute(SIZE, leaf).fetchone()
        conn.execute(sql.SQL(VACUUM).format(leaf=sql.Identifier("geofix_leaf", name)))
        after = conn.execute(SIZE, leaf).fetchone()
    except psycopg.errors.UndefinedTable:  # dropped since it was listed
        return 0
    finally:
        conn.autocommit = False
    return max(0, int(before[0] or 0) - int(after[0] or 0)) if before and after else 0
