"""Leaves of the partitioned vector tables: one stand-alone table per model or code set, then ATTACHed.

A leaf CHECKs its parent id, its dimension and its norm, and is unique by key; the parents carry no
PRIMARY KEY, so that a leaf may later be a foreign table on another server.
"""

from __future__ import annotations

import time
from typing import Literal

import psycopg
from psycopg import sql

from geofix.database.engine import Connection
from geofix.errors import TransientError

Parent = Literal["photo_embedding", "aerial_embedding", "prototype", "cell_code"]

# parent -> (column of the partition key, column of the row key, vector column)
COLUMNS: dict[Parent, tuple[str, str, str]] = {
    "photo_embedding": ("model_id", "photo_id", "embedding"),
    "aerial_embedding": ("model_id", "aerial_tile_id", "embedding"),
    "prototype": ("model_id", "s2_id", "embedding"),
    "cell_code": ("code_set_id", "s2_id", "code"),
}

CREATE_LEAF = """
CREATE TABLE IF NOT EXISTS {leaf} (
  LIKE geofix.{parent} INCLUDING DEFAULTS,
  CONSTRAINT {parent_check} CHECK ({parent_column} = {parent_id}),
  CONSTRAINT {vector_check} CHECK (public.vector_dims({vector}) = {dimension}
    AND public.l2_norm({vector}) BETWEEN 0.99 AND 1.01)
) WITH (autovacuum_enabled = false, vacuum_index_cleanup = off)
"""
UNIQUE_KEY = "CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {leaf} ({key})"
PARENT_INDEX = "CREATE INDEX IF NOT EXISTS {index} ON {leaf} ({parent_column}, {key})"
ATTACH = "ALTER TABLE geofix.{parent} ATTACH PARTITION {leaf} FOR VALUES IN ({parent_id})"
DETACH = "ALTER TABLE geofix.{parent} DETACH PARTITION {leaf} CONCURRENTLY"
FINALIZE = "ALTER TABLE geofix.{parent} DETACH PARTITION {leaf} FINALIZE"
IS_ATTACHED = """
SELECT inhdetachpending FROM pg_inherits
WHERE inhrelid = to_regclass(%(leaf)s) AND inhparent = to_regclass(%(parent)s)
"""
LEAF_EXISTS = "SELECT to_regclass(%(leaf)s) IS NOT NULL"
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '5s'"
# Codes that jobs collect are those of `code_ranges`.
ORPHAN_LEAVES = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = 'geofix_leaf'::regnamespace AND c.relkind IN ('r', 'p', 'f')
  AND NOT c.relispartition
  AND NOT starts_with(c.relname, 'cell_code_making_')
  AND NOT EXISTS (SELECT FROM geofix.shard_move m
                  WHERE starts_with(c.relname, format('cell_code_%s_%s_', m.code_set_id, m.generation)))
ORDER BY 1
"""
LEAF_BYTES = "SELECT pg_total_relation_size(to_regclass(%(leaf)s))"


def leaf_name(parent: Parent, parent_id: int) -> str:
    """Schema-qualified name of the leaf."""
    return f"geofix_leaf.{parent}_{parent_id}"


def _parts(parent: Parent, parent_id: int, dimension: int = 0) -> dict[str, sql.Composable]:
    parent_column, key, vector = COLUMNS[parent]
    base = f"{parent}_{parent_id}"
    return {
        "leaf": sql.Identifier("geofix_leaf", base),
        "parent": sql.Identifier(parent),
        "parent_column": sql.Identifier(parent_column),
        "parent_id": sql.Literal(parent_id),
        "key": sql.Identifier(key),
        "vector": sql.Identifier(vector),
        "dimension": sql.Literal(dimension),
        "parent_check": sql.Identifier(f"{base}_parent_check"),
        "vector_check": sql.Identifier(f"{base}_vector_check"),
    }


def is_attached(conn: Connection, parent: Parent, parent_id: int) -> bool:
    """Whether queries on the parent see the leaf."""
    row = conn.execute(
        IS_ATTACHED, {"leaf": leaf_name(parent, parent_id), "parent": f"geofix.{parent}"}
    ).fetchone()
    return row is not None and not row[0]


def create_leaf(conn: Connection, parent: Parent, parent_id: int, dimension: int) -> str:
    """Make the stand-alone table of a leaf if it is not there; returns its name."""
    parts = _parts(parent, parent_id, dimension)
    conn.execute(sql.SQL(CREATE_LEAF).format(**parts))
    return leaf_name(parent, parent_id)


def index_leaf_keys(conn: Connection, parent: Parent, parent_id: int) -> None:
    """Add the key indexes; cheapest after the rows are in."""
    parts = _parts(parent, parent_id)
    base = f"{parent}_{parent_id}"
    conn.execute(sql.SQL(UNIQUE_KEY).format(index=sql.Identifier(f"{base}_key"), **parts))
    conn.execute(sql.SQL(PARENT_INDEX).format(index=sql.Identifier(f"{base}_parent_key"), **parts))
    # Autovacuum is off on leaves, so nobody else would tell the planner how many rows there are.
    conn.execute(sql.SQL("ANALYZE {leaf}").format(**parts))


def attach_leaf(conn: Connection, parent: Parent, parent_id: int) -> None:
    """Let queries on the parent see the leaf.

    Raises:
        TransientError: Another session held the parent for more than five seconds.
    """
    if is_attached(conn, parent, parent_id):
        return
    try:
        conn.execute(LOCK_TIMEOUT)
        conn.execute(sql.SQL(ATTACH).format(**_parts(parent, parent_id)))
    except psycopg.errors.LockNotAvailable as error:
        raise TransientError(
            f"geofix.{parent} is locked by another session; {leaf_name(parent, parent_id)} was not attached.",
            hint="Try again when long queries on it have ended.",
        ) from error


def ensure_leaf(conn: Connection, parent: Parent, parent_id: int, dimension: int) -> str:
    """A leaf that exists, is indexed by key and attached: for tables that grow, such as embeddings."""
    name = create_leaf(conn, parent, parent_id, dimension)
    index_leaf_keys(conn, parent, parent_id)
    attach_leaf(conn, parent, parent_id)
    return name


def drop_leaf(conn: Connection, parent: Parent, parent_id: int, *, attempts: int = 5) -> bool:
    """Detach a leaf without blocking readers, then drop it; False when there was none.

    DETACH CONCURRENTLY cannot run inside a transaction: the connection is committed first and used in
    autocommit meanwhile. A detach that an earlier crash left half done is finished.

    Raises:
        TransientError: The parent stayed locked through every attempt.
    """
    name = leaf_name(parent, parent_id)
    parts = _parts(parent, parent_id)
    conn.commit()
    conn.autocommit = True
    try:
        exists = conn.execute(LEAF_EXISTS, {"leaf": name}).fetchone()
        if exists is None or not exists[0]:
            return False
        for attempt in range(attempts):
            try:
                conn.execute("SET lock_timeout = '5s'")
                row = conn.execute(IS_ATTACHED, {"leaf": name, "parent": f"geofix.{parent}"}).fetchone()
                if row is not None:
                    conn.execute(sql.SQL(FINALIZE if row[0] else DETACH).format(**parts))
                conn.execute(sql.SQL("DROP TABLE IF EXISTS {leaf}").format(**parts))
                return True
            except psycopg.errors.LockNotAvailable:
                time.sleep(0.5 * (attempt + 1))
        raise TransientError(
            f"{name} could not be dropped: its parent stayed locked.",
            hint="Try again when long queries have ended.",
        )
    finally:
        if not conn.closed:
            conn.execute("RESET lock_timeout")
            conn.autocommit = False


def leaf_bytes(conn: Connection, parent: Parent, parent_id: int) -> int:
    """Size of a leaf with its indexes, in bytes; 0 when there is none."""
    row = conn.execute(LEAF_BYTES, {"leaf": leaf_name(parent, parent_id)}).fetchone()
    return int(row[0] or 0) if row else 0


def orphan_leaves(conn: Connection) -> list[str]:
    """Names of leaves that belong to no parent: left by an interrupted build or drop."""
    return [row[0] for row in conn.execute(ORPHAN_LEAVES)]
