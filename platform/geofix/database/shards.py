"""Other PostgreSQL servers that hold parts of code sets: add, list, check and remove them."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from geofix.database import shard_pieces
from geofix.database.embedded.bootstrap import ROLES
from geofix.database.engine import Connection
from geofix.database.queries import shards as queries
from geofix.database.queries.shard_pieces import forget_gone
from geofix.database.queries.shards import Shard
from geofix.database.shard_links import (
    address,
    opened,
    password_of,
    read_url,
    require_token,
    server_options,
)
from geofix.database.versions import MIN_PGVECTOR, version_tuple
from geofix.errors import NotFoundError, SchemaError, ServiceError, UsageError

EF_SEARCH = 100
_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
HERE = "local"  # stands for this server where shards are named


@dataclass(frozen=True)
class ShardState:
    """One shard as `check` found it."""

    name: str
    ok: bool
    address: str
    postgres: str | None
    pgvector: str | None
    latency_ms: float | None
    cells: int
    message: str


def add_shard(
    conn: Connection,
    name: str,
    url: str,
    *,
    reader_url: str | None = None,
    password_file: Path | None = None,
    ef_search: int = EF_SEARCH,
    take_over: bool = False,
) -> dict[str, Any]:
    """Register a server after both logins were tried; commits.

    Passwords are kept in the user mappings of the foreign server alone.

    Args:
        conn: Connection of the owner.
        name: Letters, digits and underscores.
        url: Of the login that owns the tables there; needs CREATE on the database.
        reader_url: Of the login that only reads; default: geofix_reader at the same place.
        password_file: libpq's passfile for both, when the URLs hold no passwords.
        ef_search: Candidates that a search keeps on this shard.
        take_over: Also when another database had added it, which then must not use it any more; never while it holds
            tables of codes.

    Raises:
        UsageError: The name is taken or unfit, the server asks for no password, or it is a shard already.
        SchemaError: postgres_fdw or pgvector is missing here or there.
        ServiceError: The server does not answer or refuses a login.
    """
    if not _NAME.fullmatch(name) or name == HERE:
        raise UsageError(
            f"{name!r} is no name for a shard.", hint="Use lower-case letters, digits and _; not `local`."
        )
    if any(shard.name == name for shard in queries.shards(conn)):
        raise UsageError(f"A shard named {name} exists.", hint="`geofix shards list` shows where it is.")
    _require_wrapper(conn)
    parts = read_url(url, password_file)
    reading = (
        {**{k: v for k, v in parts.items() if k != "password"}, "user": ROLES["reader"]}
        if reader_url is None
        else read_url(reader_url, password_file)
    )
    if reading["user"] == parts["user"]:
        raise UsageError(
            f"{parts['user']} would own and read.", hint="Give --reader-url with a login of its own."
        )
    token = uuid4()
    with opened(parts, f"Shard {name}") as remote:
        owner = (str(parts["user"]), password_of(remote, f"Shard {name}"))
        found = _fit(conn, remote, name)
        with opened(reading, f"Shard {name}") as reader:
            login = (str(reading["user"]), password_of(reader, f"Shard {name}"))
            if queries.identity(reader) != queries.identity(remote):
                raise UsageError("The two URLs lead to different databases.", hint="Give both of one shard.")
        queries.prepare(remote, login[0])
        _require_free(conn, remote, name, take_over)
        queries.set_token(remote, token)
        values = {
            "name": name,
            "server": f"geofix_shard_{name}",
            "address": address(parts),
            "reader": login[0],
            "token": token,
        }
        logins = {_current_user(conn): owner, ROLES["reader"]: login, ROLES["writer"]: login}
        queries.register(conn, values, server_options(parts, ef_search), logins)
        remote.commit()
    conn.commit()
    return {"added": name, "address": values["address"], "reader": login[0], **found}


def find_shard(conn: Connection, name: str) -> Shard:
    """The shard of a name.

    Raises:
        NotFoundError: There is none; the message lists those there are.
    """
    known = queries.shards(conn)
    for shard in known:
        if shard.name == name:
            return shard
    names = ", ".join(shard.name for shard in known)
    raise NotFoundError(
        f"No shard is named {name!r}.",
        hint=f"There are: {names}." if names else "Add one with `geofix shards add`.",
    )


def remove_shard(conn: Connection, name: str, *, lost: bool = False) -> dict[str, Any]:
    """Forget a shard that holds nothing any more; commits.

    Args:
        conn: Connection of the owner.
        name: Of the shard.
        lost: It will not answer again, or is another server by now: also forget tables that were to be removed there.

    Returns:
        removed, note, and left: tables that may still be there.

    Raises:
        UsageError: It holds parts of code sets, one is being moved there, or tables are to be removed there first.
    """
    shard = find_shard(conn, name)
    shard_pieces.clean(conn)
    live = shard_pieces.pieces_on(conn, shard.shard_id, ["live"])
    if live:
        raise UsageError(
            f"Shard {name} holds {sum(live.values())} pieces of code sets {', '.join(sorted(live))}.",
            hint="Distribute them over other shards, or bring them home with --back, then remove it. If it is lost with "
            "them: `geofix codes drop`, then remove it with --lost.",
        )
    filling = shard_pieces.pieces_on(conn, shard.shard_id, ["filling"])
    if filling:
        raise UsageError(
            f"Code sets {', '.join(sorted(filling))} are being moved to shard {name}.",
            hint="Give the moves up: `geofix codes distribute NAME --cancel`.",
        )
    left = [piece.table for piece in forget_gone(conn, shard.shard_id)]
    if left and not lost:
        conn.rollback()
        raise UsageError(
            f"{len(left)} tables are to be removed from shard {name}, which does not answer or is another server by now.",
            hint="`geofix shards check` says which; if it will not come back, give --lost.",
        )
    note = "" if lost else _forgotten_there(conn, shard)
    queries.unregister(conn, shard)
    conn.commit()
    return {"removed": name, "note": note, "left": left}


def _forgotten_there(conn: Connection, shard: Shard) -> str:
    """Remove our schema from a shard that holds nothing; says why not."""
    parts = queries.login(conn, shard)
    if parts is None:
        return ""
    try:
        with opened(parts, f"Shard {shard.name}") as remote:
            if queries.token(remote) == shard.token:
                queries.forget(remote)
                remote.commit()
    except ServiceError as error:
        return f"its schema geofix_shard was left there: {error.message}"
    return ""


def check_shards(conn: Connection, reader: Connection, *, full: bool = False) -> list[ShardState]:
    """Ask every shard whether it holds what the registry says; tables left over are removed.

    Args:
        conn: Connection of the owner.
        reader: Connection of the reader here, by which every piece is counted as an analyst would.
        full: Compare checksums too, which reads every code.
    """
    shard_pieces.clean(conn)
    return [_checked(conn, reader, shard, full) for shard in queries.shards(conn)]


def _checked(conn: Connection, reader: Connection, shard: Shard, full: bool) -> ShardState:
    values: dict[str, Any] = {"cells": 0, "message": "", "ok": True}
    try:
        parts = queries.login(conn, shard)
        if parts is None:
            raise ServiceError("no user mapping of the owner")
        with opened(parts, f"Shard {shard.name}") as remote:
            began = time.perf_counter()
            row = remote.execute(queries.REMOTE).fetchone()
            assert row is not None
            values |= {
                "postgres": row[0].split()[0],
                "pgvector": row[2],
                "latency_ms": round(1000 * (time.perf_counter() - began), 2),
            }
            require_token(remote, shard.token, f"Shard {shard.name}")
            if queries.may_write(remote, shard.reader):
                raise ServiceError(f"login {shard.reader} may write there")
            wrong, values["cells"] = shard_pieces.compare(conn, reader, shard, remote, full=full)
            if wrong:
                raise ServiceError("; ".join(wrong))
    except (ServiceError, psycopg.Error) as error:
        reader.rollback()  # the next shard is asked by the same connection
        said = error.message if isinstance(error, ServiceError) else " ".join(str(error).split())
        values |= {"ok": False, "message": said}
    known = {"postgres": None, "pgvector": None, "latency_ms": None}
    return ShardState(name=shard.name, address=shard.address, **{**known, **values})


def _require_wrapper(conn: Connection) -> None:
    present, usable = queries.wrapper_state(conn)
    if not (present and usable):
        raise SchemaError(
            "postgres_fdw is not in this database." if not present else "This role may not use postgres_fdw.",
            hint="`geofix up` sees to it on the embedded server; on your own, as a superuser: CREATE EXTENSION "
            f"postgres_fdw; GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {_current_user(conn)};",
        )


def _fit(conn: Connection, remote: Connection, name: str) -> dict[str, Any]:
    """Versions of a server that can be a shard of this database."""
    row = remote.execute(queries.REMOTE).fetchone()
    assert row is not None
    if row[2] is None or version_tuple(row[2]) < MIN_PGVECTOR:
        raise SchemaError(
            f"Shard {name} has pgvector {row[2] or 'not installed'}; {'.'.join(map(str, MIN_PGVECTOR))} is needed.",
            hint="There, as a superuser: CREATE EXTENSION vector;",
        )
    if row[3] is None:
        raise SchemaError(
            f"Shard {name} has no PostGIS.", hint="There, as a superuser: CREATE EXTENSION postgis;"
        )
    if queries.identity(remote) == queries.identity(conn):
        raise UsageError(
            "This is the database itself.", hint="Name it `local` when you distribute; it need not be added."
        )
    return {"postgres": row[0].split()[0], "pgvector": row[2]}


def _require_free(conn: Connection, remote: Connection, name: str, take_over: bool) -> None:
    """Refuse a prepared server that is a shard already: two owners would remove each other's tables.

    Raises:
        UsageError: With whose it is, as far as that is known.
    """
    known = {shard.token: shard.name for shard in queries.shards(conn)}
    mark, tables = queries.token(remote), queries.held(remote)
    if mark in known:
        raise UsageError(
            f"This server is shard {known[mark]} already.", hint="One database can be one shard only."
        )
    if tables:
        raise UsageError(
            f"The schema geofix_shard of {name} holds {tables} tables of another database.",
            hint="Use another database on that server, or drop the schema there if nobody needs it.",
        )
    if mark is not None and not take_over:
        raise UsageError(
            f"Another database has added {name} as its shard: token {mark}.",
            hint="Remove it there (`geofix shards remove`); if that database is gone or has lost it, give --take-over.",
        )


def _current_user(conn: Connection) -> str:
    return conn.info.user
