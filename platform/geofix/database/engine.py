"""Connections: one SQLAlchemy engine per process, role and URL, and psycopg connections from its pool."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import psycopg
from pgvector.psycopg import register_vector
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from geofix.database.cluster import database_url
from geofix.database.versions import require_versions
from geofix.errors import ServiceError
from geofix.settings import get_settings

PARTIAL_ANSWERS = "SET geofix.partial_answers = on"
Role = Literal["owner", "writer", "reader"]
Connection = psycopg.Connection[tuple[Any, ...]]

# psycopg prepares a statement that comes again, and PostgreSQL may then plan it without its values. Readers ask large
# statements whose filters are often empty: planned without values, such a one took 4 s instead of 0.1 s.
_NEVER_PREPARED: dict[str, Any] = {"prepare_threshold": None}

_engines: dict[tuple[int, str], Engine] = {}
_checked: set[tuple[int, str]] = set()


def _prepare(dbapi_connection: Any, _record: Any) -> None:
    """Set the search path and register pgvector's types on a fresh connection."""
    connection: Connection = dbapi_connection
    with connection.cursor() as cursor:
        cursor.execute("SET search_path = geofix, public")
        cursor.execute("SELECT 1 FROM pg_type WHERE typname = 'halfvec'")
        known = cursor.fetchone() is not None
        if get_settings().partial_answers:
            cursor.execute(PARTIAL_ANSWERS)
    connection.commit()
    if known:
        register_vector(connection)
        connection.commit()


def engine(role: Role = "owner") -> Engine:
    """The engine of this process for a role; a forked child gets its own (psycopg sockets must not be shared)."""
    url = database_url(get_settings(), role)
    key = (os.getpid(), url)
    if key not in _engines:
        made = create_engine(
            make_url(url).set(drivername="postgresql+psycopg"),
            pool_size=4,
            max_overflow=8,
            pool_pre_ping=True,
            connect_args=_NEVER_PREPARED if role == "reader" else {},
        )
        event.listen(made, "connect", _prepare)
        _engines[key] = made
    return _engines[key]


def dispose() -> None:
    """Close every pooled connection of this process."""
    for key in [key for key in _engines if key[0] == os.getpid()]:
        _engines.pop(key).dispose()
    _checked.clear()


def check_once(connection: Connection, url: str) -> None:
    """Refuse a database whose versions or schema are not this version's; asked once per process and URL.

    Raises:
        SchemaError: Every failing check with the command that mends it.
    """
    key = (os.getpid(), url)
    if key not in _checked:
        require_versions(connection, notes=False)
        connection.rollback()
        _checked.add(key)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _rolled_back(connection: Connection) -> bool:
    """Whether a connection could be made usable again; the error that ended its work is the one to raise."""
    try:
        connection.rollback()
    except psycopg.Error:
        return False
    return not (connection.closed or connection.autocommit)


@contextmanager
def connect(role: Role = "owner", *, check: bool = True) -> Iterator[Connection]:
    """Lend a psycopg connection: committed on success, rolled back on an exception.

    Args:
        role: Whose rights it has.
        check: Ask once per process whether the database is what this version needs; off for the commands
            that report on or mend one that is not.

    Raises:
        ServiceError: No server answers; the message names the address without its password.
        SchemaError: The server, an extension or the schema is too old; the message names what mends it.
    """
    try:
        lent = engine(role).raw_connection()
    except (OperationalError, psycopg.OperationalError) as error:
        shown = make_url(database_url(get_settings(), role)).render_as_string(hide_password=True)
        raise ServiceError(
            f"No database answers at {shown}: {_first_line(error.__cause__ or error)}.",
            hint="Start the embedded one with `geofix up`, or check GEOFIX_DATABASE_URL.",
        ) from error
    connection: Connection = lent.driver_connection  # type: ignore[assignment]
    try:
        if check:
            check_once(connection, database_url(get_settings(), role))
        yield connection
        connection.commit()
    except BaseException:
        if not _rolled_back(connection):
            lent.invalidate()
        raise
    finally:
        lent.close()
