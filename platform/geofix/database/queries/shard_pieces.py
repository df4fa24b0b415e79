"""Pieces of distributed code sets: their rows in the registry and their tables, here or on a shard."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from psycopg import sql
from psycopg.types.json import Jsonb

from geofix.database.engine import Connection

LOWEST, HIGHEST = -(2**63), 2**63 - 1
LEAF_SCHEMA = "geofix_leaf"

# Registry.
MOVE = "SELECT generation, target FROM geofix.shard_move WHERE code_set_id = %(code_set_id)s"
# A generation is never used again: the name of a table says for ever which move made it.
INSERT_MOVE = """
INSERT INTO geofix.shard_move (code_set_id, generation, target)
VALUES (%(code_set_id)s, nextval('geofix.shard_generation'), %(target)s) RETURNING generation
"""
DELETE_MOVE = "DELETE FROM geofix.shard_move WHERE code_set_id = %(code_set_id)s"
INSERT_PIECE = """
INSERT INTO geofix.shard_piece (code_set_id, generation, piece, shard_id, lo, hi, state)
VALUES (%(code_set_id)s, %(generation)s, %(piece)s, %(shard_id)s, %(lo)s, %(hi)s, 'filling')
"""
PIECES = """
SELECT p.code_set_id, p.generation, p.piece, p.shard_id, p.lo, p.hi, p.cells, p.checksum, p.bytes, p.state
FROM geofix.shard_piece p
WHERE (%(code_set_id)s::bigint IS NULL OR p.code_set_id = %(code_set_id)s)
  AND (%(shard_id)s::bigint IS NULL OR p.shard_id = %(shard_id)s) AND p.state = ANY (%(states)s)
ORDER BY p.code_set_id, p.generation, p.piece
"""
GONE = """
SELECT DISTINCT code_set_id FROM geofix.shard_piece WHERE state = 'gone' ORDER BY 1
"""
HOLD_GONE = """
SELECT p.code_set_id, p.generation, p.piece, p.shard_id, p.lo, p.hi, p.cells, p.checksum, p.bytes, p.state
FROM geofix.shard_piece p WHERE p.code_set_id = %(code_set_id)s AND p.state = 'gone'
ORDER BY p.generation, p.piece FOR UPDATE
"""
NAMES_ON = """
SELECT coalesce(c.name, p.code_set_id::text) FROM geofix.shard_piece p LEFT JOIN geofix.code_set c USING (code_set_id)
WHERE p.shard_id = %(shard_id)s AND p.state = ANY (%(states)s) ORDER BY 1
"""
# A piece whose code set was dropped, or whose move was, is of no use any more.
MARK_GONE = """
UPDATE geofix.shard_piece p SET state = 'gone'
WHERE p.state <> 'gone'
  AND (NOT EXISTS (SELECT FROM geofix.code_set c WHERE c.code_set_id = p.code_set_id)
       OR (p.state = 'filling' AND NOT EXISTS (SELECT FROM geofix.shard_move m
             WHERE m.code_set_id = p.code_set_id AND m.generation = p.generation)))
"""
DELETE_PIECE = """
DELETE FROM geofix.shard_piece
WHERE code_set_id = %(code_set_id)s AND generation = %(generation)s AND piece = %(piece)s
"""
DELETE_GONE_ON = """
DELETE FROM geofix.shard_piece WHERE shard_id = %(shard_id)s AND state = 'gone'
RETURNING code_set_id, generation, piece, shard_id, lo, hi, cells, checksum, bytes, state
"""
MEASURED = """
UPDATE geofix.shard_piece SET cells = %(cells)s, checksum = %(checksum)s, bytes = %(bytes)s
WHERE code_set_id = %(code_set_id)s AND generation = %(generation)s AND piece = %(piece)s
"""
MEASURED_BYTES = """
UPDATE geofix.shard_piece SET bytes = %(bytes)s
WHERE code_set_id = %(code_set_id)s AND generation = %(generation)s AND piece = %(piece)s
"""
IS_DISTRIBUTED = (
    "SELECT EXISTS (SELECT FROM geofix.shard_piece WHERE code_set_id = %(code_set_id)s AND state = 'live')"
)
# Held by the session, so that it is free when its process is gone, however that ended.
TRY_LOCK = "SELECT pg_try_advisory_lock(hashtext('geofix.shard_move'), %(key)s)"
# Until the transaction ends, beside whoever holds the same in this session.
LOCK_FOR_NOW = "SELECT pg_advisory_xact_lock(hashtext('geofix.shard_move'), %(key)s)"
UNLOCK = "SELECT pg_advisory_unlock(hashtext('geofix.shard_move'), %(key)s)"
NOTICE_DEATH = "SELECT set_config('client_connection_check_interval', '1s', false)"

# Reading the code set, wherever it is.
SPLITS = """
SELECT percentile_disc(%(fractions)s::float8[]) WITHIN GROUP (ORDER BY s2_id) FROM geofix.cell_code
WHERE code_set_id = {code_set_id}
"""
BATCH_END = """
SELECT max(s2_id), count(*) FROM (
  SELECT s2_id FROM geofix.cell_code WHERE code_set_id = {code_set_id} AND s2_id BETWEEN {first} AND {hi}
  ORDER BY s2_id LIMIT {rows}) AS batch
"""
SEND = """
COPY (SELECT code_set_id, s2_id, code, has_prototype, has_aerial FROM geofix.cell_code
      WHERE code_set_id = {code_set_id} AND s2_id BETWEEN {first} AND {last} ORDER BY s2_id) TO STDOUT (FORMAT BINARY)
"""
# Independent of the order of rows and of the server: what is stored, byte by byte.
CHECKSUM = """
SELECT count(*), coalesce(sum(('x' || encode(substr(sha256(
  int8send(s2_id) || public.halfvec_send(code) || boolsend(has_prototype) || boolsend(has_aerial)), 1, 8), 'hex')
  )::bit(64)::bigint::numeric), 0)
FROM {table} WHERE code_set_id = {code_set_id} AND s2_id BETWEEN {lo} AND {hi}
"""

# Writing a piece, on this server or on a shard.
CREATE_PIECE = """
CREATE TABLE IF NOT EXISTS {table} (
  code_set_id bigint NOT NULL, s2_id bigint NOT NULL, code public.halfvec NOT NULL,
  has_prototype boolean NOT NULL, has_aerial boolean NOT NULL,
  CONSTRAINT {parent_check} CHECK (code_set_id = {code_set_id}),
  CONSTRAINT {vector_check} CHECK (public.vector_dims(code) = {dimension}
    AND public.l2_norm(code) BETWEEN 0.99 AND 1.01),
  CONSTRAINT {range_check} CHECK (s2_id BETWEEN {lo} AND {hi})
) WITH (autovacuum_enabled = false)
"""
# The planner here wants to know how many cells there are and where, and would read every code to count them.
CREATE_KEYS = """
CREATE OR REPLACE VIEW {keys} AS
SELECT code_set_id, s2_id, NULL::public.halfvec AS code, has_prototype, has_aerial FROM {table}
"""
LAST = "SELECT max(s2_id) FROM {table}"
WAIT_FOR_EARLIER = "SELECT pg_advisory_xact_lock(hashtext({name}))"
RECEIVE = "COPY {table} (code_set_id, s2_id, code, has_prototype, has_aerial) FROM STDIN (FORMAT BINARY)"
ANALYZE = "ANALYZE {table}"
BYTES = "SELECT coalesce(pg_total_relation_size(to_regclass(%(table)s)), 0)"
EXISTS = "SELECT to_regclass(%(table)s) IS NOT NULL"
DROP_PIECE = "DROP TABLE IF EXISTS {table} CASCADE"
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '5s'"


class Piece(NamedTuple):
    """One range of cells of a code set and the table that holds it."""

    code_set_id: int
    generation: int
    piece: int
    shard_id: int | None
    lo: int
    hi: int
    cells: int
    checksum: Decimal | None
    bytes: int
    state: str

    @property
    def table(self) -> str:
        """Name of its table, the same here and on the shard."""
        return f"cell_code_{self.code_set_id}_{self.generation}_{self.piece}"


def move_of(conn: Connection, code_set_id: int) -> tuple[int, dict[str, Any]] | None:
    """Generation and target of a move under way."""
    row = conn.execute(MOVE, {"code_set_id": code_set_id}).fetchone()
    return None if row is None else (int(row[0]), dict(row[1]))


def begin_move(conn: Connection, code_set_id: int, target: dict[str, Any]) -> int:
    """Enter a move; returns its generation. The caller commits."""
    row = conn.execute(INSERT_MOVE, {"code_set_id": code_set_id, "target": Jsonb(target)}).fetchone()
    assert row is not None
    return int(row[0])


def add_piece(
    conn: Connection, code_set_id: int, generation: int, piece: int, shard_id: int | None, lo: int, hi: int
) -> None:
    """Enter a piece that is to be filled."""
    values = locals().copy()
    values.pop("conn")
    conn.execute(INSERT_PIECE, values)


def pieces(
    conn: Connection,
    *,
    code_set_id: int | None = None,
    shard_id: int | None = None,
    states: Sequence[str] = ("filling", "live", "gone"),
) -> list[Piece]:
    """Pieces in order, of one code set or shard, or all."""
    values = {"code_set_id": code_set_id, "shard_id": shard_id, "states": list(states)}
    return [Piece(*row) for row in conn.execute(PIECES, values)]


def gone(conn: Connection) -> list[int]:
    """Code sets, or what they were, with tables that are to be removed."""
    return [int(row[0]) for row in conn.execute(GONE)]


def hold_gone(conn: Connection, code_set_id: int) -> list[Piece]:
    """Pieces of a code set whose tables are to be removed, as they are now; held until the transaction ends."""
    return [Piece(*row) for row in conn.execute(HOLD_GONE, {"code_set_id": code_set_id})]


def is_distributed(conn: Connection, code_set_id: int) -> bool:
    """Whether a code set consists of pieces."""
    row = conn.execute(IS_DISTRIBUTED, {"code_set_id": code_set_id}).fetchone()
    return bool(row and row[0])


def try_lock(conn: Connection, code_set_id: int) -> bool:
    """Keep every other move of this code set out until `unlock` or the end of the session."""
    conn.execute(NOTICE_DEATH)
    row = conn.execute(TRY_LOCK, {"key": code_set_id % 2**31}).fetchone()
    return bool(row and row[0])


def lock_for_now(conn: Connection, code_set_id: int) -> None:
    """Wait for every move and refresh of this code set to end, and keep them out until this transaction does."""
    conn.execute(LOCK_FOR_NOW, {"key": code_set_id % 2**31})


def unlock(conn: Connection, code_set_id: int) -> None:
    """Let the next move in."""
    conn.execute(UNLOCK, {"key": code_set_id % 2**31})


def splits(conn: Connection, code_set_id: int, parts: int) -> list[int]:
    """The last id of every part but the last, when a code set is cut into parts of equal size."""
    statement = sql.SQL(SPLITS).format(code_set_id=sql.Literal(code_set_id))
    row = conn.execute(statement, {"fractions": [i / parts for i in range(1, parts)]}).fetchone()
    return [int(item) for item in (row[0] if row and row[0] else [])]


def batch_end(conn: Connection, piece: Piece, first: int, rows: int) -> tuple[int | None, int]:
    """Last id and number of the next cells of a piece from `first` on."""
    statement = sql.SQL(BATCH_END).format(
        code_set_id=sql.Literal(piece.code_set_id),
        first=sql.Literal(first),
        hi=sql.Literal(piece.hi),
        rows=sql.Literal(rows),
    )
    row = conn.execute(statement).fetchone()
    return (None, 0) if row is None else (row[0], int(row[1]))


def read_batch(conn: Connection, piece: Piece, first: int, last: int) -> bytes:
    """Cells of a closed range as binary COPY writes them."""
    statement = sql.SQL(SEND).format(
        code_set_id=sql.Literal(piece.code_set_id), first=sql.Literal(first), last=sql.Literal(last)
    )
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        return b"".join(bytes(block) for block in copy)


def checksum(conn: Connection, piece: Piece, schema: str | None = None) -> tuple[int, Decimal]:
    """Rows of a piece and their checksum: of its table in `schema`, or of the code set as it is searched now."""
    table = sql.Identifier("geofix", "cell_code") if schema is None else sql.Identifier(schema, piece.table)
    statement = sql.SQL(CHECKSUM).format(
        table=table,
        code_set_id=sql.Literal(piece.code_set_id),
        lo=sql.Literal(piece.lo),
        hi=sql.Literal(piece.hi),
    )
    row = conn.execute(statement).fetchone()
    assert row is not None
    return int(row[0]), Decimal(row[1])


def store_measured(conn: Connection, piece: Piece, cells: int, total: Decimal, size: int) -> None:
    """Note what a piece holds."""
    conn.execute(MEASURED, {**piece._asdict(), "cells": cells, "checksum": total, "bytes": size})


def store_bytes(conn: Connection, piece: Piece, size: int) -> None:
    """Note how much space a piece takes, and nothing of what it holds."""
    conn.execute(MEASURED_BYTES, {**piece._asdict(), "bytes": size})


def mark_gone(conn: Connection) -> None:
    """Mark the pieces that nothing refers to."""
    conn.execute(MARK_GONE)


def delete_piece(conn: Connection, piece: Piece) -> None:
    """Forget a piece whose table is gone."""
    conn.execute(DELETE_PIECE, piece._asdict())


def delete_move(conn: Connection, code_set_id: int) -> None:
    """Forget a move."""
    conn.execute(DELETE_MOVE, {"code_set_id": code_set_id})


def forget_gone(conn: Connection, shard_id: int) -> list[Piece]:
    """Forget what is to be removed from a shard that will never be asked again; returns it."""
    return [Piece(*row) for row in conn.execute(DELETE_GONE_ON, {"shard_id": shard_id})]


def names_on(
    conn: Connection, shard_id: int, states: Sequence[str] = ("filling", "live", "gone")
) -> list[str]:
    """Name of the code set of every piece on a shard."""
    return [row[0] for row in conn.execute(NAMES_ON, {"shard_id": shard_id, "states": list(states)})]


def create_piece(conn: Connection, schema: str, piece: Piece, dimension: int) -> None:
    """Make the table of a piece with its CHECKs, and the view of its keys."""
    base = piece.table
    conn.execute(
        sql.SQL(CREATE_PIECE).format(
            table=sql.Identifier(schema, base),
            code_set_id=sql.Literal(piece.code_set_id),
            dimension=sql.Literal(dimension),
            lo=sql.Literal(piece.lo),
            hi=sql.Literal(piece.hi),
            parent_check=sql.Identifier(f"{base}_parent_check"),
            vector_check=sql.Identifier(f"{base}_vector_check"),
            range_check=sql.Identifier(f"{base}_range_check"),
        )
    )
    if piece.shard_id is not None:
        conn.execute(
            sql.SQL(CREATE_KEYS).format(
                keys=sql.Identifier(schema, f"{base}_keys"), table=sql.Identifier(schema, base)
            )
        )


def last_id(conn: Connection, schema: str, piece: Piece) -> int | None:
    """The highest id that has arrived: batches come in the order of ids, whole or not at all."""
    row = conn.execute(sql.SQL(LAST).format(table=sql.Identifier(schema, piece.table))).fetchone()
    return row[0] if row else None


def receive(conn: Connection, schema: str, piece: Piece, data: bytes) -> int:
    """Write a batch as `read_batch` read it."""
    with conn.cursor() as cursor:
        with cursor.copy(sql.SQL(RECEIVE).format(table=sql.Identifier(schema, piece.table))) as copy:
            copy.write(data)
        return cursor.rowcount


def wait_for_earlier(conn: Connection, piece: Piece) -> None:
    """Wait until an earlier session that was writing this piece has committed or is gone."""
    conn.execute(sql.SQL(WAIT_FOR_EARLIER).format(name=sql.Literal(f"geofix.{piece.table}")))


def piece_bytes(conn: Connection, schema: str, piece: Piece) -> int:
    """Size of a piece's table with its indexes."""
    row = conn.execute(BYTES, {"table": f"{schema}.{piece.table}"}).fetchone()
    return int(row[0]) if row else 0


def piece_exists(conn: Connection, schema: str, piece: Piece) -> bool:
    """Whether the table of a piece is there."""
    row = conn.execute(EXISTS, {"table": f"{schema}.{piece.table}"}).fetchone()
    return bool(row and row[0])


def drop_piece(conn: Connection, schema: str, piece: Piece) -> None:
    """Remove the table of a piece; whoever reads it is waited for, five seconds at most."""
    conn.execute(LOCK_TIMEOUT)
    conn.execute(sql.SQL(DROP_PIECE).format(table=sql.Identifier(schema, piece.table)))
