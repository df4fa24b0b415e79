"""Fill the pieces of a code set: rows in batches, indexes on all servers at once, counts and checksums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from decimal import Decimal
from typing import Any

from geofix.database.engine import Connection
from geofix.database.queries import shard_pieces as queries
from geofix.database.queries.codes import CodeSet
from geofix.database.queries.shard_pieces import Piece
from geofix.database.shard_links import Link
from geofix.errors import ServiceError
from geofix.log import progress

_BATCH_BYTES = 8 << 20  # held in memory at a time, so that a batch can be sent again

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
    anew: bool = False,
) -> list[Piece]:
    """Build keys and HNSW on all servers at once, and prove that each piece is what the code set holds.

    Args:
        conn: Connection of the owner; commits.
        code_set: Its `index_parameters` say how the index is built, if at all.
        pieces: Filled ones.
        links: Server of each piece.
        memory_bytes: For building an index.
        anew: The pieces are searched already: build their index again, and prove nothing.

    Returns:
        The pieces with their cells and bytes.

    Raises:
        ServiceError: A count or a checksum differs; the message names the shard.
        TransientError: A server stayed away.
    """
    groups: dict[int | None, list[Piece]] = {}
    for piece in pieces:
        groups.setdefault(piece.shard_id, []).append(piece)
    pool = ThreadPoolExecutor(max_workers=len(groups))
    try:
        futures = {
            pool.submit(_build, links[shard_id], group, code_set, memory_bytes, anew): shard_id
            for shard_id, group in groups.items()
        }
        wanted: dict[int, tuple[int, Decimal]] = {}
        with progress("counting and summing up", len(pieces), "pieces") as advance:
            for piece in [] if anew else pieces:
                wanted[piece.piece] = queries.checksum(conn, piece)
                conn.commit()
                advance(1)
        measured = _joined(futures)
    except BaseException:
        for link in links.values():
            link.cancel()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    for piece in pieces:
        cells, total, size = measured[piece.piece]
        if not anew and (cells, total) != wanted[piece.piece]:
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


def _joined(futures: Mapping[Future[dict[int, Measured]], int | None]) -> dict[int, Measured]:
    """Results of all threads; an error of one, or a stop of the job, ends the waiting at once."""
    found: dict[int, Measured] = {}
    waiting = set(futures)
    with progress("building indexes", len(futures), "servers") as advance:
        while waiting:
            done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
            for future in done:
                found |= future.result()
            advance(len(done))
    return found


def _build(
    link: Link, pieces: Sequence[Piece], code_set: CodeSet, memory_bytes: int, anew: bool
) -> dict[int, Measured]:
    parameters: dict[str, Any] = code_set.index_parameters
    found = {}
    for piece in pieces:

        def work(remote: Connection, _again: bool, piece: Piece = piece) -> Measured:
            queries.wait_for_earlier(remote, piece)
            queries.create_keys(remote, link.schema, piece)
            if "m" in parameters:
                m, ef = int(parameters["m"]), int(parameters["ef_construction"])
                queries.create_hnsw(
                    remote, link.schema, piece, code_set.dimension, m, ef, memory_bytes, anew=anew
                )
            counted = queries.checksum(remote, piece, link.schema)
            return (*counted, queries.piece_bytes(remote, link.schema, piece))

        found[piece.piece] = link.run(work)
    return found
