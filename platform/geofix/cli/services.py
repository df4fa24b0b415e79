"""`geofix up`, `down` and `status`: the embedded servers, or the real ones that the URLs name."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import psycopg
import typer

from geofix.cli.output import JsonOption, command, emit, say, table
from geofix.database import cluster
from geofix.database.cluster import BrokerState, ClusterState, DatabaseState
from geofix.database.queries.job_health import queue_health
from geofix.database.queries.workers import list_workers
from geofix.database.versions import Check, check_versions
from geofix.errors import ServiceError
from geofix.settings import get_settings

app = typer.Typer(help="Start, stop and inspect the servers.", rich_markup_mode=None)


def register(root: typer.Typer) -> None:
    """Add the three commands to another Typer app."""
    for function in (up, down, status):
        root.command(function.__name__)(function)


@app.command()
@command
def up(json: JsonOption = False) -> None:
    """Start the embedded PostgreSQL and Redis below GEOFIX_HOME; safe to run again at any time.

    With GEOFIX_DATABASE_URL or GEOFIX_BROKER_URL set, those servers are used, and only asked for an answer.

    Example: geofix up
    """
    state = cluster.start()
    _require_running("database", state.database)
    _require_running("broker", state.broker)
    document, checks = _document(state)
    _show(document, state, "started", as_json=json)
    for check in checks:
        if check.note:
            say(check.note)
    _say_failing(checks)


@app.command()
@command
def down(json: JsonOption = False) -> None:
    """Stop the embedded servers; the data stay. Real servers are left alone.

    Example: geofix down
    """
    state = cluster.stop()
    _show(_document(state)[0], state, "stopped", as_json=json)


@app.command()
@command
def status(json: JsonOption = False) -> None:
    """Show the state of database, broker, workers and queues.

    Example: geofix status --json
    """
    state = cluster.status()
    document, checks = _document(state)
    _show(document, state, None, as_json=json)
    _say_failing(checks)


def _say_failing(checks: list[Check]) -> None:
    for check in checks:
        if not check.ok:
            say(str(check))


def _require_running(name: str, server: DatabaseState | BrokerState) -> None:
    if server.state == "running":
        return
    if server.managed == "external" and server.message.startswith("not asked"):
        say(f"{name}: {server.url} was {server.message}")
        return
    variable = f"GEOFIX_{name.upper()}_URL"
    mend = (
        f"Check {variable}, or unset it to use the embedded server." if server.managed == "external" else ""
    )
    raise ServiceError(
        f"The {name} at {server.url} is {server.state}: {server.message or 'no answer'}.", hint=mend
    )


def _document(state: ClusterState) -> tuple[dict[str, Any], list[Check]]:
    """The contract's JSON and the version checks; both as far as the database answers."""
    workers: list[dict[str, Any]] = []
    queues: list[dict[str, Any]] = []
    checks: list[Check] = []
    if state.database.state == "running":
        try:
            with psycopg.connect(cluster.database_url(get_settings()), connect_timeout=5) as conn:
                workers = list_workers(conn)
                queues = queue_health(conn)
                checks = check_versions(conn)
        except psycopg.Error as error:
            say(f"The database answers, but not this: {error}")
    document = state.as_json() | {
        "workers": workers,
        "queues": queues,
        "checks": [asdict(check) for check in checks],
    }
    return document, checks


def _show(document: dict[str, Any], state: ClusterState, verb: str | None, *, as_json: bool) -> None:
    def human() -> None:
        table(("", ""), [*_database_rows(state.database), *_broker_rows(state.broker)], header=False)
        if document["workers"]:
            columns = ("worker", "queues", "device", "job", "seen", "alive")
            table(columns, map(_worker_row, document["workers"]))
        if document["queues"]:
            heads = ("queue", "waiting", "blocked", "running", "paused", "oldest waits", "workers")
            table(heads, map(_queue_row, document["queues"]))
        if verb:
            say(_sentence(state, verb))

    emit(document, as_json=as_json, human=human)


def _worker_row(worker: dict[str, Any]) -> tuple[Any, ...]:
    job = None if worker["job_id"] is None else str(worker["job_id"])[:8]
    seen = f"{worker['seen_at']:%Y-%m-%d %H:%M:%S}"
    return worker["name"], worker["queues"], worker["device"], job, seen, worker["alive"]


def _queue_row(queue: dict[str, Any]) -> tuple[Any, ...]:
    oldest = queue["oldest_waits"]
    age = None if oldest is None else f"{oldest.total_seconds():,.0f} s"
    return (
        *(queue[key] for key in ("queue", "waiting", "blocked", "running", "paused")),
        age,
        queue["workers"],
    )


def _database_rows(server: DatabaseState) -> list[tuple[str, str]]:
    rows = [("database", f"{server.state} ({server.managed})")]
    if server.postgres:
        extensions = f"PostGIS {server.postgis or 'missing'}, pgvector {server.pgvector or 'missing'}"
        rows.append(("", f"PostgreSQL {server.postgres}, {extensions}"))
    return rows + _places(server)


def _broker_rows(server: BrokerState) -> list[tuple[str, str]]:
    rows = [("broker", f"{server.state} ({server.managed})")]
    if server.version:
        rows.append(("", f"Redis {server.version}"))
    return rows + _places(server)


def _places(server: DatabaseState | BrokerState) -> list[tuple[str, str]]:
    rows = [("url", server.url)]
    if server.managed == "embedded":
        rows += [("data", str(server.data_dir)), ("socket", str(server.socket_dir))]
    if server.message:
        rows.append(("", server.message))
    return rows


def _sentence(state: ClusterState, verb: str) -> str:
    """What this call changed, and which servers it left alone because they are real ones."""
    parts = [f"{verb}: {', '.join(state.changed)}" if state.changed else f"nothing had to be {verb}"]
    for name, server in (("database", state.database), ("broker", state.broker)):
        if server.managed == "external":
            parts.append(f"{name} is a server of your own (GEOFIX_{name.upper()}_URL) and was left alone")
    return "; ".join(parts)
