"""Indexes of the pieces of distributed code sets: keys, HNSW, and a new HNSW in the place of an old one."""

from __future__ import annotations

from psycopg import sql

from geofix.database.engine import Connection
from geofix.database.queries.shard_pieces import ANALYZE, EXISTS, LOCK_TIMEOUT, Piece, wait_for_earlier

UNIQUE_KEY = "CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {table} (s2_id)"
PARENT_KEY = "CREATE INDEX IF NOT EXISTS {index} ON {table} (code_set_id, s2_id)"
HNSW = """
CREATE INDEX IF NOT EXISTS {index} ON {table} USING hnsw ((code::public.halfvec({dimension})) public.halfvec_ip_ops)
WITH (m = {m}, ef_construction = {ef})
"""
DROP_INDEX = "DROP INDEX IF EXISTS {index}"
RENAME_INDEX = "ALTER INDEX {index} RENAME TO {name}"
INDEXES = """
SELECT count(*) FILTER (WHERE i.indisunique), count(*) FILTER (WHERE a.amname = 'hnsw')
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
WHERE i.indrelid = to_regclass(%(table)s) AND i.indisvalid
"""


def create_keys(conn: Connection, schema: str, piece: Piece) -> None:
    """Unique key and statistics of a filled piece."""
    base, table = piece.table, sql.Identifier(schema, piece.table)
    conn.execute(sql.SQL(UNIQUE_KEY).format(index=sql.Identifier(f"{base}_key"), table=table))
    if piece.shard_id is None:
        conn.execute(sql.SQL(PARENT_KEY).format(index=sql.Identifier(f"{base}_parent_key"), table=table))
    conn.execute(sql.SQL(ANALYZE).format(table=table))


def create_hnsw(
    conn: Connection,
    schema: str,
    piece: Piece,
    dimension: int,
    m: int,
    ef: int,
    memory_bytes: int,
    *,
    beside: bool = False,
) -> None:
    """Build the HNSW index of a piece where there is none; `beside` the one that answers meanwhile."""
    wait_for_earlier(conn, piece)
    conn.execute("SELECT set_config('maintenance_work_mem', %s, true)", (f"{max(64, memory_bytes >> 20)}MB",))
    conn.execute(
        sql.SQL(HNSW).format(
            index=sql.Identifier(_beside(piece) if beside else f"{piece.table}_hnsw"),
            table=sql.Identifier(schema, piece.table),
            dimension=sql.Literal(dimension),
            m=sql.Literal(m),
            ef=sql.Literal(ef),
        )
    )


def drop_beside(conn: Connection, schema: str, piece: Piece) -> None:
    """Remove the new index that an interrupted building left; searches are waited for, five seconds at most."""
    wait_for_earlier(conn, piece)
    conn.execute(LOCK_TIMEOUT)
    conn.execute(sql.SQL(DROP_INDEX).format(index=sql.Identifier(schema, _beside(piece))))


def replace_hnsw(conn: Connection, schema: str, piece: Piece) -> None:
    """Let the new index take the old one's place; searches are waited for, five seconds at most."""
    row = conn.execute(EXISTS, {"table": f"{schema}.{_beside(piece)}"}).fetchone()
    if not (row and row[0]):
        return  # it has: the connection was lost after the commit
    name = f"{piece.table}_hnsw"
    conn.execute(LOCK_TIMEOUT)
    conn.execute(sql.SQL(DROP_INDEX).format(index=sql.Identifier(schema, name)))
    conn.execute(
        sql.SQL(RENAME_INDEX).format(index=sql.Identifier(schema, _beside(piece)), name=sql.Identifier(name))
    )


def index_counts(conn: Connection, schema: str, piece: Piece) -> tuple[int, int]:
    """Valid unique and HNSW indexes of a piece."""
    row = conn.execute(INDEXES, {"table": f"{schema}.{piece.table}"}).fetchone()
    return (0, 0) if row is None else (int(row[0]), int(row[1]))


def _beside(piece: Piece) -> str:
    return f"{piece.table}_hnsw_new"
