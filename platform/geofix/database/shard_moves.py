"""Spread a code set over several servers by ranges of S2 ids, or bring it home.

What is searched stays untouched until one transaction on this server puts the filled, indexed and proved pieces in its
place. Interrupted before that, the same call goes on where it was: the registry says what is to be moved, and each
piece itself how far it has come.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import psycopg

from geofix.database import shard_copy, shard_pieces
from geofix.database.engine import Connection, connect
from geofix.database.queries import codes as code_queries
from geofix.database.queries import shard_pieces as queries
from geofix.database.queries import shard_switch
from geofix.database.queries import shards as registry
from geofix.database.queries.codes import CodeSet
from geofix.database.queries.shard_pieces import LEAF_SCHEMA, Piece
from geofix.database.shard_links import Link
from geofix.database.shard_pieces import alone
from geofix.database.shards import HERE, find_shard
from geofix.errors import NotFoundError, ServiceError, SpaceError, TransientError, UsageError
from geofix.log import get_logger, progress

_log = get_logger(__name__)


def distribute(
    conn: Connection, name: str, shards: Sequence[str], *, memory_bytes: int = 512 << 20, wait_s: float = 60.0
) -> dict[str, Any]:
    """Move a code set to shards, one range of about equally many cells each; commits.

    Args:
        conn: Connection of the owner.
        name: A code set that can be searched; it can be all the while.
        shards: Names in the order of the ranges; `local` is this server, and by itself brings the set home.
        memory_bytes: For building the index, on each server.
        wait_s: How long a server that went away is waited for.

    Returns:
        code_set, cells, pieces (shard, cells, bytes), resumed.

    Raises:
        NotFoundError: No such code set or shard.
        UsageError: No shard, one twice, or more than there are cells.
        TransientError: A server stayed away, or the tables stayed locked; the same call goes on.
        ServiceError: What arrived is not what was sent.
    """
    code_set = code_queries.find_ready(conn, name)
    _check_names(conn, code_set, shards)
    _check_memory(code_set, len(shards), memory_bytes)
    with alone(conn, code_set.code_set_id, code_set.name):
        if _is_there(conn, code_set, shards):
            shard_pieces.clean(conn)
            live = queries.pieces(conn, code_set_id=code_set.code_set_id, states=["live"])
            return _report(conn, code_set, live, resumed=False)
        generation, resumed = _planned(conn, code_set, list(shards))
        pieces = [
            piece
            for piece in queries.pieces(conn, code_set_id=code_set.code_set_id, states=["filling"])
            if piece.generation == generation
        ]
        conn.commit()
        shard_switch.require_whole(pieces)
        with _links(conn, pieces, wait_s) as links:
            shard_copy.fill(conn, code_set, pieces, links)
            made = shard_copy.finish(conn, code_set, pieces, links, memory_bytes=memory_bytes)
        _stage(conn, made)
        _switch(conn, code_set, generation)
        shard_pieces.clean(conn)
    _log.info("code set distributed", name=name, shards=list(shards))
    return _report(conn, code_set, made, resumed=resumed)


def _report(conn: Connection, code_set: CodeSet, made: Sequence[Piece], *, resumed: bool) -> dict[str, Any]:
    names = {shard.shard_id: shard.name for shard in registry.shards(conn)}
    conn.commit()
    return {
        "code_set": code_set.name,
        "cells": code_set.cells,
        "pieces": [
            {
                "shard": HERE if piece.shard_id is None else names[piece.shard_id],
                "cells": piece.cells,
                "bytes": piece.bytes,
            }
            for piece in made
        ],
        "resumed": resumed,
    }


def give_up(conn: Connection, name: str) -> bool:
    """Roll an interrupted move back: what it had copied is removed; False when there was none. Commits."""
    code_set = code_queries.find_code_set(conn, name)
    with alone(conn, code_set.code_set_id, code_set.name):
        found = _dropped(conn, code_set)
        shard_pieces.clean(conn)
    return found


def index_pieces(
    conn: Connection,
    code_set: CodeSet,
    *,
    m: int,
    ef_construction: int,
    memory_bytes: int,
    wait_s: float = 60.0,
) -> int:
    """Build the HNSW index of a distributed code set anew on every server; returns its bytes.

    Args:
        conn: Connection of the owner; commits.
        code_set: A distributed one.
        m: Links per cell.
        ef_construction: Candidates kept while building.
        memory_bytes: On each server.
        wait_s: How long a server that went away is waited for.

    Raises:
        SpaceError: The graph of a part cannot fit in `memory_bytes`.
        TransientError: A server stayed away.
    """
    parameters = {"method": "hnsw", "m": m, "ef_construction": ef_construction}
    code_set = replace(code_set, index_parameters=parameters)
    with alone(conn, code_set.code_set_id, code_set.name):
        pieces = queries.pieces(conn, code_set_id=code_set.code_set_id, states=["live"])
        conn.commit()
        _check_memory(code_set, len(pieces), memory_bytes)
        with _links(conn, pieces, wait_s) as links:
            size = shard_copy.index_anew(conn, code_set, pieces, links, memory_bytes=memory_bytes)
        code_queries.set_index(conn, code_set.code_set_id, parameters, size)
        conn.commit()
    return size


def _check_names(conn: Connection, code_set: CodeSet, shards: Sequence[str]) -> None:
    if not shards:
        raise UsageError(
            "No shard is named.", hint="Give --shards with names of `geofix shards list`, or --back."
        )
    if len(set(shards)) < len(shards):
        raise UsageError(f"A shard is named twice: {', '.join(shards)}.", hint="Name each once.")
    if len(shards) > max(1, code_set.cells):
        raise UsageError(
            f"{code_set.name} has {code_set.cells:,} cells for {len(shards)} shards.", hint="Name fewer."
        )
    for name in shards:
        if name != HERE:
            find_shard(conn, name)


def memory_needed_mb(code_set: CodeSet, parts: int) -> int:
    """Mebibytes that building the index of each of so many parts takes; 0 where there is no index."""
    if "m" not in code_set.index_parameters:
        return 0
    m = int(code_set.index_parameters["m"])
    need = code_queries.hnsw_bytes(code_set.cells // parts + 1, code_set.dimension, m)
    return -(-need >> 20)


def _check_memory(code_set: CodeSet, parts: int, memory_bytes: int) -> None:
    need = memory_needed_mb(code_set, parts)
    if need > memory_bytes >> 20:
        raise SpaceError(
            f"The graph of each part of {code_set.name} needs about {need:,} MB, "
            f"{memory_bytes >> 20:,} MB are allowed.",
            hint=f"Give --memory-mb {need}, or name more shards.",
        )


def _is_there(conn: Connection, code_set: CodeSet, shards: Sequence[str]) -> bool:
    """Whether the code set lies on these shards already and nothing is under way."""
    names = {shard.shard_id: shard.name for shard in registry.shards(conn)}
    live = queries.pieces(conn, code_set_id=code_set.code_set_id, states=["live"])
    where = [HERE if piece.shard_id is None else names[piece.shard_id] for piece in live]
    under_way = queries.move_of(conn, code_set.code_set_id) is not None
    at_home = not live and list(shards) == [HERE]
    conn.commit()
    return not under_way and (at_home or (where == list(shards) and where != [HERE]))


def _planned(conn: Connection, code_set: CodeSet, shards: list[str]) -> tuple[int, bool]:
    """Generation of the move to these shards, and whether it had begun; one to others is rolled back."""
    known = queries.move_of(conn, code_set.code_set_id)
    if known is not None:
        if known[1].get("shards") == shards:
            return known[0], True
        _dropped(conn, code_set)
        shard_pieces.clean(conn)
    key = code_set.code_set_id
    generation = queries.begin_move(conn, key, {"shards": shards})
    ends = queries.splits(conn, key, len(shards)) if len(shards) > 1 else []
    lows = [queries.LOWEST, *(end + 1 for end in ends)]
    highs = [*ends, queries.HIGHEST]
    for number, (shard, lo, hi) in enumerate(zip(shards, lows, highs, strict=True)):
        shard_id = None if shard == HERE else find_shard(conn, shard).shard_id
        queries.add_piece(conn, key, generation, number, shard_id, lo, hi)
    conn.commit()
    return generation, False


def _dropped(conn: Connection, code_set: CodeSet) -> bool:
    """Take a move and what it prepared on this server away; commits."""
    known = queries.move_of(conn, code_set.code_set_id)
    for piece in queries.pieces(conn, code_set_id=code_set.code_set_id, states=["filling"]):
        shard_switch.drop_staged(conn, piece)
    queries.delete_move(conn, code_set.code_set_id)
    conn.commit()
    return known is not None


@contextmanager
def _links(conn: Connection, pieces: Sequence[Piece], wait_s: float) -> Iterator[dict[int | None, Link]]:
    """A link to every server that the pieces go to; this one has one too."""
    found: dict[int | None, Link] = {}
    with ExitStack() as stack:
        wanted = {piece.shard_id for piece in pieces}
        for shard in registry.shards(conn):
            if shard.shard_id in wanted:
                found[shard.shard_id] = Link.to_shard(conn, shard, wait_s=wait_s)
        if None in wanted:
            info = conn.info
            parts = {"host": info.host, "port": str(info.port), "dbname": info.dbname, "user": info.user}
            secret = {"password": info.password} if info.password else {}
            found[None] = Link(parts | secret, "This server", wait_s=wait_s, schema=LEAF_SCHEMA)
        conn.commit()
        for link in found.values():
            stack.callback(link.close)
        yield found


def _stage(conn: Connection, made: Sequence[Piece]) -> None:
    """Make the foreign tables, which nobody searches yet, and count through each, as owner and as reader.

    Raises:
        ServiceError: A count differs, or the reader's login on a shard does not work.
    """
    servers: dict[int | None, str] = {shard.shard_id: shard.server for shard in registry.shards(conn)}
    away = [piece for piece in made if piece.shard_id is not None]
    with progress("foreign tables", len(made), "pieces") as advance, ExitStack() as stack:
        advance(len(made) - len(away))
        reader = stack.enter_context(connect("reader")) if away else conn
        if away and registry.identity(reader) != registry.identity(conn):
            reader = conn  # a replica, which learns of the tables later
        for piece in away:
            server = servers[piece.shard_id]
            counted = {shard_switch.create_foreign(conn, piece, server)}
            conn.commit()
            try:
                counted.add(shard_pieces.count_through(reader, piece))
            except psycopg.Error as error:
                raise ServiceError(
                    f"{reader.info.user} cannot read {piece.table} through {server}: {' '.join(str(error).split())}.",
                    hint="Mend its user mapping or its rights on the shard, then run the same command again.",
                ) from None
            if counted != {piece.cells}:
                raise ServiceError(
                    f"{server} shows {min(counted):,} cells of {piece.cells:,} in {piece.table}.",
                    hint="Ask `geofix shards check`.",
                )
            advance(1)


def _switch(conn: Connection, code_set: CodeSet, generation: int, attempts: int = 6) -> None:
    """Search the pieces from now on, in one transaction that waits for no long query.

    Raises:
        NotFoundError: The code set was dropped or replaced meanwhile.
        ServiceError: The pieces are not the whole code set.
        TransientError: Long queries held the tables through every attempt.
    """
    for attempt in range(attempts):
        try:
            held = shard_switch.hold(conn, code_set.code_set_id)
            if held is None or held[0] not in code_queries.SEARCHABLE:
                conn.rollback()
                raise NotFoundError(
                    f"Code set {code_set.name} was dropped or replaced meanwhile.",
                    hint="Distribute the new one.",
                )
            shard_switch.switch(conn, code_set.code_set_id, generation, held[1])
            conn.commit()
            return
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, TransientError):
            conn.rollback()
            time.sleep(0.5 * (attempt + 1))
    raise TransientError(
        f"The tables of {code_set.name} are held by long queries.", hint="Run the same command again later."
    )
