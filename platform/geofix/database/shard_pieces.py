"""What a shard holds: kept from two processes at once, compared with the registry, cleared of what nothing refers to."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import psycopg
from psycopg import sql

from geofix.database.engine import Connection
from geofix.database.queries import shard_pieces as queries
from geofix.database.queries import shard_switch, shards
from geofix.database.queries.shard_pieces import LEAF_SCHEMA, Piece
from geofix.database.queries.shards import REMOTE_SCHEMA, Shard
from geofix.database.shard_links import opened
from geofix.errors import ServiceError, TransientError
from geofix.log import get_logger

_LOCK_S = 10.0
_log = get_logger(__name__)


def pieces_on(
    conn: Connection, shard_id: int, states: Sequence[str] = ("filling", "live", "gone")
) -> dict[str, int]:
    """Code sets that have tables on a shard, with their number."""
    return dict(Counter(queries.names_on(conn, shard_id, states)))


@contextmanager
def alone(conn: Connection, code_set_id: int, name: str) -> Iterator[None]:
    """Let no other process move, refresh or index this code set, or clear its pieces, meanwhile; commits.

    Raises:
        TransientError: One does.
    """
    until = time.monotonic() + _LOCK_S
    while not queries.try_lock(conn, code_set_id):
        conn.commit()
        if time.monotonic() > until:
            raise TransientError(
                f"Another process is moving, refreshing or indexing code set {name}.",
                hint="Wait until it has ended.",
            )
        time.sleep(0.2)
    conn.commit()
    try:
        yield
    finally:
        _let_go(conn, code_set_id)


def clean(conn: Connection) -> int:
    """Remove tables of dropped code sets and given-up moves from the shards that answer; commits.

    What a shard that is down holds stays in the registry and is removed by a later call; so does what belongs to a
    code set that another process is moving.

    Returns:
        How many tables are gone.
    """
    queries.mark_gone(conn)
    keys = queries.gone(conn)
    conn.commit()
    removed = 0
    with ExitStack() as stack:
        asked = _Asked(conn, stack)
        for key in keys:
            if not queries.try_lock(conn, key):
                conn.commit()
                continue
            conn.commit()
            try:
                removed += _cleaned(conn, key, asked)
            finally:
                _let_go(conn, key)
    return removed


def _let_go(conn: Connection, code_set_id: int) -> None:
    if not conn.closed:
        conn.rollback()
        queries.unlock(conn, code_set_id)
        conn.commit()


def _cleaned(conn: Connection, code_set_id: int, asked: _Asked) -> int:
    """Remove what is gone of one code set, as the registry has it now that nobody else changes it; commits."""
    removed = 0
    for piece in queries.hold_gone(conn, code_set_id):
        if piece.shard_id is not None:
            remote = asked.of(piece.shard_id)
            if remote is None or not _dropped(remote, piece):
                continue
            removed += 1
        queries.delete_piece(conn, piece)
    conn.commit()
    return removed


def _dropped(remote: Connection, piece: Piece) -> bool:
    try:
        queries.drop_piece(remote, REMOTE_SCHEMA, piece)
        remote.commit()
    except psycopg.Error as error:
        _log.warning("a table is left on a shard", table=piece.table, reason=" ".join(str(error).split()))
        if not remote.closed:
            remote.rollback()
        return False
    return True


class _Asked:
    """Connections to the shards that answer and are ours; each is tried once."""

    def __init__(self, conn: Connection, stack: ExitStack) -> None:
        self._conn, self._stack = conn, stack
        self._known = {shard.shard_id: shard for shard in shards.shards(conn)}
        self._open: dict[int, Connection | None] = {}
        conn.commit()

    def of(self, shard_id: int) -> Connection | None:
        if shard_id not in self._open:
            self._open[shard_id] = self._opened(self._known[shard_id]) if shard_id in self._known else None
        remote = self._open[shard_id]
        return None if remote is None or remote.closed else remote

    def _opened(self, shard: Shard) -> Connection | None:
        parts = shards.login(self._conn, shard)
        if parts is None:
            return None
        try:
            remote = self._stack.enter_context(opened(parts, f"Shard {shard.name}"))
            ours = shards.token(remote) == shard.token
            remote.commit()
        except (ServiceError, psycopg.Error) as error:
            _log.warning("tables left on a shard", shard=shard.name, reason=str(error))
            return None
        return remote if ours else None


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
        counted = count_through(reader, piece)
        cells += counted
        if counted != piece.cells:
            wrong.append(f"{piece.table} has {counted:,} cells, {piece.cells:,} were written")
        if full and queries.checksum(remote, piece, REMOTE_SCHEMA)[1] != piece.checksum:
            wrong.append(f"{piece.table} has another checksum than when it was written")
    return wrong, cells


def count_through(reader: Connection, piece: Piece) -> int:
    """Cells of a piece as a role of this server sees them through its foreign table."""
    leaf = sql.Identifier(LEAF_SCHEMA, piece.table)
    row = reader.execute(sql.SQL(shard_switch.COUNT).format(leaf=leaf)).fetchone()
    reader.commit()
    return int(row[0]) if row else 0
