"""`up`, `down` and `status` of the servers: embedded ones below GEOFIX_HOME, or real ones by URL."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import psycopg

from geofix.database.embedded import bootstrap, broker, postgres
from geofix.database.embedded.paths import ClusterPaths, locate, prepare
from geofix.database.embedded.processes import exclusive, processes_in, require_proc
from geofix.database.urls import admin_url, broker_url, database_url, without_secret
from geofix.errors import ServiceError, TransientError
from geofix.settings import Settings, get_settings

__all__ = [
    "BrokerState",
    "ClusterState",
    "DatabaseState",
    "admin_url",
    "broker_url",
    "database_url",
    "start",
    "status",
    "stop",
]

State = Literal["running", "starting", "stopped", "unreachable"]
Managed = Literal["embedded", "external"]

SERVER_VERSIONS = """
SELECT current_setting('server_version') AS postgres,
       (SELECT extversion FROM pg_extension WHERE extname = 'postgis') AS postgis,
       (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS pgvector
"""
_CONNECT_S = 5


@dataclass(frozen=True)
class DatabaseState:
    """The database as `status` shows it; the URL carries no password."""

    state: State
    managed: Managed
    url: str
    postgres: str | None = None
    postgis: str | None = None
    pgvector: str | None = None
    data_dir: str | None = None
    socket_dir: str | None = None
    log_dir: str | None = None
    pid: int | None = None
    message: str = ""


@dataclass(frozen=True)
class BrokerState:
    """The broker as `status` shows it; the URL carries no password."""

    state: State
    managed: Managed
    url: str
    version: str | None = None
    data_dir: str | None = None
    socket_dir: str | None = None
    pid: int | None = None
    message: str = ""


@dataclass(frozen=True)
class ClusterState:
    """Both servers."""

    database: DatabaseState
    broker: BrokerState
    changed: list[str] = field(default_factory=list)  # what this call started or stopped

    def as_json(self) -> dict[str, Any]:
        """The keys of the contract's `status --json`; the workers are added by the command line."""
        return {"database": asdict(self.database), "broker": asdict(self.broker)}


def start(settings: Settings | None = None) -> ClusterState:
    """Start what is embedded and not running; twice, concurrently or after a kill -9 changes nothing.

    Raises:
        ServiceError: Binaries or extensions are missing, or a server does not start.
        SpaceError: Too little room for a new data directory.
    """
    settings = settings or get_settings()
    began = []
    with _embedded(settings) as paths:
        if paths is not None:
            prepare(paths)
            if settings.database_url is None:
                if postgres.start(paths, settings):
                    began.append("database")
                _bootstrap(settings)
            if settings.broker_url is None and broker.start(paths):
                began.append("broker")
    return replace(status(settings), changed=began)


def stop(settings: Settings | None = None) -> ClusterState:
    """Stop the embedded servers of this home; real servers are left alone.

    Raises:
        ServiceError: A server does not end.
    """
    settings = settings or get_settings()
    ended = []
    if settings.home_dir.exists():
        with _embedded(settings) as paths:
            if paths is not None:
                if settings.broker_url is None and broker.stop(paths):
                    ended.append("broker")
                if settings.database_url is None and postgres.stop(paths, settings):
                    ended.append("database")
    return replace(status(settings), changed=ended)


def status(settings: Settings | None = None) -> ClusterState:
    """What runs where, asked of the servers themselves; starts nothing and never fails on a dead server."""
    settings = settings or get_settings()
    return ClusterState(_database_state(settings), _broker_state(settings))


@contextmanager
def _embedded(settings: Settings) -> Iterator[ClusterPaths | None]:
    """The embedded cluster's places under its lock; None when both servers are real ones."""
    if settings.database_url is not None and settings.broker_url is not None:
        yield None
        return
    require_proc()
    home = settings.home_dir
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServiceError(f"{home} cannot be created: {error.strerror}.", hint="Set GEOFIX_HOME.") from error
    paths = locate(settings)
    if _is_strangers(paths):
        raise ServiceError(
            f"The servers of {home} belong to user {paths.account.name}.",
            hint=f"Run as {paths.account.name} or root, or set GEOFIX_HOME to a folder of your own.",
        )
    with exclusive(paths.lock):
        yield paths


def _is_strangers(paths: ClusterPaths) -> bool:
    """Whether the servers are another user's, whose sockets we cannot open."""
    return not paths.account.is_caller and os.geteuid() != 0


def _bootstrap(settings: Settings) -> None:
    """Create roles, database and extensions where they are missing."""
    try:
        with psycopg.connect(admin_url(settings), autocommit=True) as conn:
            bootstrap.create_roles(conn)
            bootstrap.create_database(conn)
        with psycopg.connect(admin_url(settings, bootstrap.DATABASE), autocommit=True) as conn:
            bootstrap.create_extensions(conn)
    except psycopg.OperationalError as error:
        raise TransientError(
            f"The embedded PostgreSQL does not answer: {error}".strip(), hint="Try `geofix up` again."
        ) from error


def _database_state(settings: Settings) -> DatabaseState:
    url = without_secret(database_url(settings))
    if settings.database_url is not None:
        return _asked(settings, DatabaseState("unreachable", "external", url))
    paths = locate(settings)
    known = DatabaseState(
        "stopped",
        "embedded",
        url,
        data_dir=str(paths.data),
        socket_dir=str(paths.run),
        log_dir=str(paths.log),
    )
    if _is_strangers(paths):
        return replace(known, state="unreachable", message=f"it belongs to user {paths.account.name}")
    if not postgres.is_running(paths):
        return known
    return _asked(settings, replace(known, state="starting", pid=postgres.postmaster_pid(paths)))


def _asked(settings: Settings, known: DatabaseState) -> DatabaseState:
    """`known`, completed by what the server says of itself."""
    try:
        with psycopg.connect(database_url(settings), connect_timeout=_CONNECT_S) as conn:
            row = conn.execute(SERVER_VERSIONS).fetchone()
    except psycopg.Error as error:
        return replace(known, message=str(error).strip())
    assert row is not None
    return replace(known, state="running", postgres=row[0].split()[0], postgis=row[1], pgvector=row[2])


def _broker_state(settings: Settings) -> BrokerState:
    url = without_secret(broker_url(settings))
    if settings.broker_url is not None:
        reached, message = _reach_broker(settings.broker_url.get_secret_value())
        return BrokerState("running" if reached else "unreachable", "external", url, message=message)
    paths = locate(settings)
    answer = broker.ask(paths, "PING")
    pids = processes_in(paths.redis, broker.PROGRAMS)
    state: State = "running" if answer == "+PONG" else "starting" if pids else "stopped"
    strangers = _is_strangers(paths)
    if strangers:
        state = "unreachable"
    return BrokerState(
        state,
        "embedded",
        url,
        version=broker.version(paths) if state == "running" else None,
        data_dir=str(paths.redis),
        socket_dir=str(paths.run),
        pid=pids[0] if pids else None,
        message=f"it belongs to user {paths.account.name}" if strangers else "",
    )


def _reach_broker(url: str) -> tuple[bool, str]:
    """Whether a real broker of any kind answers, through the library that will talk to it."""
    try:
        kombu = importlib.import_module("kombu")
    except ImportError:
        return False, "not asked: install geofix[workers]"
    try:
        with kombu.Connection(url, connect_timeout=_CONNECT_S) as link:
            link.ensure_connection(max_retries=1, timeout=_CONNECT_S)
    except Exception as error:  # every transport raises its own kind
        return False, f"{type(error).__name__}: {error}".strip()
    return True, ""
