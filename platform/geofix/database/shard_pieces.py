"""What a shard holds: compared with the registry, and cleared of what nothing refers to."""

from __future__ import annotations

from collections import Counter

import psycopg
from psycopg import sql

from geofix.database.engine import Connection
from geofix.database.queries import shard_pieces as queries
from geofix.database.queries import shard_switch, shards
from geofix.database.queries.shard_pieces import LEAF_SCHEMA, Piece
from geofix.database.queries.shards import REMOTE_SCHEMA, Shard
from geofix.database.shard_links import opened
from geofix.errors import ServiceError
from geofix.log import get_logger

_log = get_logger(__name__)


def pieces_on(conn: Connection, shard_id: int) -> dict[str, int]:
    """Code sets that have tables on a shard, with their number."""
    return dict(Counter(queries.names_on(conn, shard_id)))


def clean(conn: Connection) -> int:
    """Remove tables of dropped code sets and given-up moves from the shards that answer; commits.

    What a shard that is down holds stays in the registry and is removed by a later call.

    Returns:
        How many tables are gone.
    """
    queries.mark_gone(conn)
    conn.commit()
    removed = 0
    gone = queries.pieces(conn, states=["gone"])
    for shard in shards.shards(conn):
        mine = [piece for piece in gone if piece.shard_id == shard.shard_id]
        parts = shards.login(conn, shard) if mine else None
        if parts is None:
            continue
        try:
            with opened(parts, f"Shard {shard.name}") as remote:
                if shards.token(remote) != shard.token:
                    continue
                for piece in mine:
                    queries.drop_piece(remote, REMOTE_SCHEMA, piece)
                remote.commit()
        except (ServiceError, psycopg.Error) as error:
            _log.warning("tables left on a shard", shard=shard.name, tables=len(mine), reason=str(error))
            continue
        for piece in mine:
            queries.delete_piece(conn, piece)
        removed += len(mine)
    for piece in gone:
        if piece.shard_id is None:
            queries.delete_piece(conn, piece)
    conn.commit()
    return removed


def compare(
    conn: Connection, reader: Connection, shard: Shard, remote: Connection, *, full: bool
) -> tuple[list[str], int]:
    """What is wrong with a shard's pieces, and how many cells it holds.

    Args:
        conn: Connection of the owner.
        reader: Connection of the reader on this server.
        shard: Which one.
        remote: Connection of its owner.
        full: Compare checksums too.
    """
    wrong: list[str] = []
    cells = 0
    for piece in queries.pieces(conn, shard_id=shard.shard_id, states=["live"]):
        if not queries.piece_exists(remote, REMOTE_SCHEMA, piece):
            wrong.append(f"table {piece.table} is missing")
            continue
        counted = _counted(reader, piece)
        cells += counted
        if counted != piece.cells:
            wrong.append(f"{piece.table} has {counted:,} cells, {piece.cells:,} were written")
        if full and queries.checksum(remote, piece, REMOTE_SCHEMA)[1] != piece.checksum:
            wrong.append(f"{piece.table} has another checksum than when it was written")
    return wrong, cells


def _counted(reader: Connection, piece: Piece) -> int:
    leaf = sql.Identifier(LEAF_SCHEMA, piece.table)
    row = reader.execute(sql.SQL(shard_switch.COUNT).format(leaf=leaf)).fetchone()
    reader.commit()
    return int(row[0]) if row else 0
