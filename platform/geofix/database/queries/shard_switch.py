"""The switch of a code set to its pieces: foreign tables beforehand, then one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from geofix.database.engine import Connection
from geofix.database.queries import leaves
from geofix.database.queries.shard_indexes import RENAME_INDEX, index_counts
from geofix.database.queries.shard_pieces import (
    ANALYZE,
    HIGHEST,
    LEAF_SCHEMA,
    LOCK_TIMEOUT,
    LOWEST,
    Piece,
    delete_move,
    delete_piece,
    drop_piece,
)
from geofix.errors import ServiceError

CREATE_FOREIGN = """
CREATE FOREIGN TABLE IF NOT EXISTS {leaf} (
  code_set_id bigint NOT NULL, s2_id bigint NOT NULL, code public.halfvec NOT NULL,
  has_prototype boolean NOT NULL, has_aerial boolean NOT NULL
) SERVER {server} OPTIONS (schema_name 'geofix_shard', table_name {keys})
"""
POINT_AT = "ALTER FOREIGN TABLE {leaf} OPTIONS (SET table_name {name})"
COUNT = "SELECT count(*) FROM {leaf}"
DROP_FOREIGN = "DROP FOREIGN TABLE IF EXISTS {leaf}"
HOLD = "SELECT state, cells FROM geofix.code_set WHERE code_set_id = %(code_set_id)s FOR NO KEY UPDATE"
PREPARED = """
SELECT p.code_set_id, p.generation, p.piece, p.shard_id, p.lo, p.hi, p.cells, p.checksum, p.bytes, p.state
FROM geofix.shard_piece p
WHERE p.code_set_id = %(code_set_id)s AND p.generation = %(generation)s AND p.state = 'filling' ORDER BY p.lo FOR UPDATE
"""
DETACH = "ALTER TABLE geofix.cell_code DETACH PARTITION {whole}"
DROP_WHOLE = "DROP TABLE {whole}"
CREATE_WHOLE = """
CREATE TABLE {whole} (LIKE geofix.cell_code INCLUDING DEFAULTS) PARTITION BY RANGE (s2_id)
"""
ATTACH_PIECE = "ALTER TABLE {whole} ATTACH PARTITION {leaf} FOR VALUES FROM ({start}) TO ({stop})"
RENAME_TABLE = "ALTER TABLE {leaf} RENAME TO {name}"
DROP_RANGE_CHECK = "ALTER TABLE {leaf} DROP CONSTRAINT {range_check}"
OLD_GONE = """
UPDATE geofix.shard_piece SET state = 'gone'
WHERE code_set_id = %(code_set_id)s AND generation <> %(generation)s
"""
NEW_LIVE = """
UPDATE geofix.shard_piece SET state = 'live' WHERE code_set_id = %(code_set_id)s AND generation = %(generation)s
"""
SET_BYTES = """
UPDATE geofix.code_set SET bytes = %(bytes)s WHERE code_set_id = %(code_set_id)s
"""


def create_foreign(conn: Connection, piece: Piece, server: str) -> int:
    """Make the foreign table of a piece, with statistics, and count through it; the caller commits."""
    leaf = sql.Identifier(LEAF_SCHEMA, piece.table)
    keys, name = sql.Literal(f"{piece.table}_keys"), sql.Literal(piece.table)
    conn.execute(sql.SQL(DROP_FOREIGN).format(leaf=leaf))
    conn.execute(sql.SQL(CREATE_FOREIGN).format(leaf=leaf, server=sql.Identifier(server), keys=keys))
    conn.execute(sql.SQL(ANALYZE).format(table=leaf))
    conn.execute(sql.SQL(POINT_AT).format(leaf=leaf, name=name))
    row = conn.execute(sql.SQL(COUNT).format(leaf=leaf)).fetchone()
    return int(row[0]) if row else 0


def drop_staged(conn: Connection, piece: Piece) -> None:
    """Remove what a move has prepared here for a piece; the caller commits."""
    if piece.shard_id is None:
        drop_piece(conn, LEAF_SCHEMA, piece)
    else:
        conn.execute(sql.SQL(DROP_FOREIGN).format(leaf=sql.Identifier(LEAF_SCHEMA, piece.table)))


def hold(conn: Connection, code_set_id: int) -> tuple[str, int] | None:
    """State and cells of a code set, which nobody changes before this transaction ends; None when it is gone."""
    conn.execute(LOCK_TIMEOUT)
    row = conn.execute(HOLD, {"code_set_id": code_set_id}).fetchone()
    return None if row is None else (str(row[0]), int(row[1]))


def require_whole(pieces: Sequence[Piece], cells: int | None = None) -> None:
    """Refuse pieces that leave a gap, overlap, or do not hold all cells.

    Args:
        pieces: Of one move, in any order.
        cells: Of the code set; None before the pieces are filled.

    Raises:
        ServiceError: With what is wrong; nothing was changed.
    """
    ordered = sorted(pieces, key=lambda piece: piece.lo)
    starts = [piece.lo for piece in ordered] + [HIGHEST + 1]
    wanted = [LOWEST] + [piece.hi + 1 for piece in ordered]
    held = sum(piece.cells for piece in ordered)
    wrong = ""
    if starts != wanted:
        at = next(i for i, (a, b) in enumerate(zip(starts, wanted, strict=True)) if a != b)
        wrong = f"a piece begins at {starts[at]} where one had to begin at {wanted[at]}"
    elif cells is not None and held != cells:
        wrong = f"they hold {held:,} cells of {cells:,}"
    if wrong:
        raise ServiceError(
            f"The {len(ordered)} pieces of the move are not the whole code set: {wrong}.",
            hint="Give the move up with `geofix codes distribute NAME --cancel` and begin again.",
        )


def switch(conn: Connection, code_set_id: int, generation: int, cells: int) -> None:
    """Put the pieces of a move in the place of what the code set was; the caller commits, all or nothing.

    Raises:
        ServiceError: The pieces are not the whole code set.
    """
    key = {"code_set_id": code_set_id, "generation": generation}
    made = [Piece(*row) for row in conn.execute(PREPARED, key)]
    require_whole(made, cells)
    name = f"cell_code_{code_set_id}"
    whole = sql.Identifier(LEAF_SCHEMA, name)
    conn.execute(sql.SQL(DETACH).format(whole=whole))
    conn.execute(sql.SQL(DROP_WHOLE).format(whole=whole))
    if len(made) == 1 and made[0].shard_id is None:
        _make_plain(conn, made[0], name)
    else:
        _make_partitioned(conn, made, name)
    leaves.attach_leaf(conn, "cell_code", code_set_id)
    conn.execute(OLD_GONE, key)
    if len(made) == 1 and made[0].shard_id is None:
        delete_piece(conn, made[0])
    else:
        conn.execute(NEW_LIVE, key)
    conn.execute(SET_BYTES, {"code_set_id": code_set_id, "bytes": sum(piece.bytes for piece in made)})
    delete_move(conn, code_set_id)


def _make_plain(conn: Connection, piece: Piece, name: str) -> None:
    """One piece on this server becomes an ordinary leaf under the names that one has."""
    leaf = sql.Identifier(LEAF_SCHEMA, piece.table)
    conn.execute(
        sql.SQL(DROP_RANGE_CHECK).format(leaf=leaf, range_check=sql.Identifier(f"{piece.table}_range_check"))
    )
    for suffix in ("key", "parent_key", *(["hnsw"] if index_counts(conn, LEAF_SCHEMA, piece)[1] else [])):
        conn.execute(
            sql.SQL(RENAME_INDEX).format(
                index=sql.Identifier(LEAF_SCHEMA, f"{piece.table}_{suffix}"),
                name=sql.Identifier(f"{name}_{suffix}"),
            )
        )
    conn.execute(sql.SQL(RENAME_TABLE).format(leaf=leaf, name=sql.Identifier(name)))


def _make_partitioned(conn: Connection, made: Sequence[Piece], name: str) -> None:
    whole = sql.Identifier(LEAF_SCHEMA, name)
    conn.execute(sql.SQL(CREATE_WHOLE).format(whole=whole))
    for piece in made:
        low = sql.SQL("MINVALUE") if piece.lo == LOWEST else sql.Literal(piece.lo)
        high = sql.SQL("MAXVALUE") if piece.hi == HIGHEST else sql.Literal(piece.hi + 1)
        conn.execute(
            sql.SQL(ATTACH_PIECE).format(
                whole=whole, leaf=sql.Identifier(LEAF_SCHEMA, piece.table), start=low, stop=high
            )
        )
