"""Fill the pieces of a code set: rows in batches, indexes on all servers at once, counts and checksums."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from decimal import Decimal
from typing import TypeVar

import psycopg

from geofix.database.engine import Connection
from geofix.database.queries import shard_indexes as indexes
from geofix.database.queries import shard_pieces as queries
from geofix.database.queries.codes import CodeSet
from geofix.database.queries.shard_pieces import Piece
from geofix.database.shard_links import Link
from geofix.errors import ServiceError, TransientError
from geofix.log import progress

_BATCH_BYTES = 8 << 20  # held in memory at a time, so that a batch can be sent again
_ATTEMPTS = 6  # at a change that searches stand in the way of

T = TypeVar("T")
Measured = tuple[int, Decimal, int]  # cells, checksum, bytes


def fill(
    conn: Connection, code_set: CodeSet, pieces: Sequence[Piece], links: Mapping[int | None, Link]
) -> None:
    """Copy every piece's cells that have not arrived yet; each batch is committed where it arrives.

    Nothing changes in what is read: leaves of code sets are never updated in place.

    Raises:
        TransientError: A server stayed away.
    """
    rows = max(100, _BATCH_BYTES // (2 * code_set.dimension + 64))
    with progress("moving codes", code_set.cells, "cells") as advance:
        for piece in pieces:
            link = links[piece.shard_id]
            first = _prepared(link, piece, code_set.dimension)
            if first > piece.lo:
                advance(
                    queries.batch_end(conn, piece, piece.lo, code_set.cells)[1]
                    - _left(conn, piece, first, code_set)
                )
            while first <= piece.hi:
                last, count = queries.batch_end(conn, piece, first, rows)
                if last is None:
                    break
                data = queries.read_batch(conn, piece, first, last)
                conn.commit()
                _send(link, piece, last, data)
                first = last + 1
                advance(count)


def _left(conn: Connection, piece: Piece, first: int, code_set: CodeSet) -> int:
    return queries.batch_end(conn, piece, first, code_set.cells)[1]


def _prepared(link: Link, piece: Piece, dimension: int) -> int:
    """Make the table, and say from which id on cells are missing."""

    def work(remote: Connection, _again: bool) -> int:
        queries.wait_for_earlier(remote, piece)
        queries.create_piece(remote, link.schema, piece, dimension)
        last = queries.last_id(remote, link.schema, piece)
        return piece.lo if last is None else last + 1

    return link.run(work)


def _send(link: Link, piece: Piece, last: int, data: bytes) -> None:
    """Write a batch once: after a lost connection it is first asked whether it had arrived."""

    def work(remote: Connection, again: bool) -> None:
        queries.wait_for_earlier(remote, piece)
        arrived = queries.last_id(remote, link.schema, piece) if again else None
        if arrived is None or arrived < last:
            queries.receive(remote, link.schema, piece, data)

    link.run(work)


def finish(
    conn: Connection,
    code_set: CodeSet,
    pieces: Sequence[Piece],
    links: Mapping[int | None, Link],
    *,
    memory_bytes: int,
) -> list[Piece]:
    """Build keys and HNSW on all servers at once, and prove that each piece is what the code set holds.

    Args:
        conn: Connection of the owner; commits.
        code_set: Its `index_parameters` say how the index is built, if at all.
        pieces: Filled ones.
        links: Server of each piece.
        memory_bytes: For building an index.

    Returns:
        The pieces with their cells and bytes.

    Raises:
        ServiceError: A count or a checksum differs; the message names the shard.
        TransientError: A server stayed away.
    """

    def build(link: Link, piece: Piece) -> Measured:
        return link.run(lambda remote, _again: _built(remote, link, piece, code_set, memory_bytes))

    wanted: dict[int, tuple[int, Decimal]] = {}
    with _on_all(pieces, links, build) as results:
        with progress("counting and summing up", len(pieces), "pieces") as advance:
            for piece in pieces:
                wanted[piece.piece] = queries.checksum(conn, piece)
                conn.commit()
                advance(1)
        measured = results()
    for piece in pieces:
        cells, total, size = measured[piece.piece]
        if (cells, total) != wanted[piece.piece]:
            raise ServiceError(
                f"{links[piece.shard_id].name} holds {cells:,} cells of {piece.table} with checksum {total}; "
                f"the code set has {wanted[piece.piece][0]:,} with {wanted[piece.piece][1]}.",
                hint=f"Give the move up (`geofix codes distribute {code_set.name} --cancel`) and begin again.",
            )
        queries.store_measured(conn, piece, cells, total, size)
    conn.commit()
    return [
        piece._replace(cells=measured[piece.piece][0], bytes=measured[piece.piece][2]) for piece in pieces
    ]


def index_anew(
    conn: Connection,
    code_set: CodeSet,
    pieces: Sequence[Piece],
    links: Mapping[int | None, Link],
    *,
    memory_bytes: int,
) -> int:
    """Build the HNSW of pieces that are searched again, on all servers at once; returns the bytes of the pieces.

    The old index answers until the new one is whole. What a piece holds is neither read nor noted: its checksum stays
    the one that was proved when it was written.

    Raises:
        TransientError: A server stayed away, or long queries held a table through every attempt; the new index waits
            beside the old one, and building again replaces it.
    """

    def build(link: Link, piece: Piece) -> int:
        m, ef = (int(code_set.index_parameters[key]) for key in ("m", "ef_construction"))
        _shortly(link, piece, indexes.drop_beside)
        link.run(
            lambda remote, _again: indexes.create_hnsw(
                remote, link.schema, piece, code_set.dimension, m, ef, memory_bytes, beside=True
            )
        )
        _shortly(link, piece, indexes.replace_hnsw)
        return link.run(lambda remote, _again: queries.piece_bytes(remote, link.schema, piece))

    with _on_all(pieces, links, build) as results:
        sizes = results()
    for piece in pieces:
        queries.store_bytes(conn, piece, sizes[piece.piece])
    conn.commit()
    return sum(sizes.values())


def _shortly(link: Link, piece: Piece, change: Callable[[Connection, str, Piece], None]) -> None:
    """A change for which searches of this piece stop for a moment; long ones are not waited for at length.

    Raises:
        TransientError: They held the table through every attempt.
    """
    for attempt in range(_ATTEMPTS):
        try:
            link.run(lambda remote, _again: change(remote, link.schema, piece))
            return
        except psycopg.errors.LockNotAvailable:
            time.sleep(0.5 * (attempt + 1))
    raise TransientError(
        f"{piece.table} on {link.name} is held by long queries.", hint="Run the same command again later."
    )


@contextmanager
def _on_all(
    pieces: Sequence[Piece], links: Mapping[int | None, Link], work: Callable[[Link, Piece], T]
) -> Iterator[Callable[[], dict[int, T]]]:
    """Work on the pieces, all servers at once, one piece after another on each; gives what waits for the results.

    An error of one, or of the caller, stops what runs on the others.
    """
    groups: dict[int | None, list[Piece]] = {}
    for piece in pieces:
        groups.setdefault(piece.shard_id, []).append(piece)

    def one_server(link: Link, mine: Sequence[Piece]) -> dict[int, T]:
        return {piece.piece: work(link, piece) for piece in mine}

    pool = ThreadPoolExecutor(max_workers=len(groups))
    try:
        futures = {pool.submit(one_server, links[key], group) for key, group in groups.items()}
        yield lambda: _joined(futures)
    except BaseException:
        for link in links.values():
            link.cancel()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _joined(futures: Collection[Future[dict[int, T]]]) -> dict[int, T]:
    """Results of all threads; an error of one, or a stop of the job, ends the waiting at once."""
    found: dict[int, T] = {}
    waiting = set(futures)
    with progress("building indexes", len(futures), "servers") as advance:
        while waiting:
            done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
            for future in done:
                found |= future.result()
            advance(len(done))
    return found


def _built(remote: Connection, link: Link, piece: Piece, code_set: CodeSet, memory_bytes: int) -> Measured:
    parameters = code_set.index_parameters
    queries.wait_for_earlier(remote, piece)
    indexes.create_keys(remote, link.schema, piece)
    if "m" in parameters:
        m, ef = int(parameters["m"]), int(parameters["ef_construction"])
        indexes.create_hnsw(remote, link.schema, piece, code_set.dimension, m, ef, memory_bytes)
    counted = queries.checksum(remote, piece, link.schema)
    return (*counted, queries.piece_bytes(remote, link.schema, piece))
