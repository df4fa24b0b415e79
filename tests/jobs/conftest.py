"""A queue with timing short enough for tests, and workers for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import structlog
from job_helpers import TIMING, Workers, make_table

from geofix.database import engine
from geofix.database.cluster import broker_url
from geofix.jobs.sweep import sweep_until
from geofix.settings import Settings, get_settings
from servers import Database, Servers


@pytest.fixture(autouse=True)
def _fresh_logs() -> Iterator[None]:
    """A command that a test ran had its own stderr, which is closed by now."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def timing(clean_environment: pytest.MonkeyPatch) -> None:
    for name, value in TIMING.items():
        clean_environment.setenv(f"GEOFIX_JOB_{name}", value)


@pytest.fixture
def queue(db: Database, broker: str, timing: None) -> Database:
    """A fresh database and an empty broker."""
    make_table(db)
    return db


@pytest.fixture
def workers(queue: Database) -> Iterator[Workers]:
    made = Workers()
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def beat(queue: Database) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=sweep_until, args=(stop,))
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.fixture(scope="module")
def running(cluster: Servers, request: pytest.FixtureRequest) -> Iterator[Database]:
    """One database, one broker and one worker with its sweep, for tests that break nothing.

    A module's PACE_S is how long each step of a training takes in that worker.
    """
    patch = pytest.MonkeyPatch()
    for name in list(os.environ):
        if name.startswith(("PG", "GEOFIX_")):
            patch.delenv(name)
    for name, value in TIMING.items():
        patch.setenv(f"GEOFIX_JOB_{name}", value)
    patch.setenv("PROBE_PACE_S", str(getattr(request.module, "PACE_S", 0)))
    patch.setitem(Settings.model_config, "env_file", None)
    cluster.flush_broker()
    patch.setenv("GEOFIX_BROKER_URL", broker_url(cluster.settings))
    made = Workers()
    with cluster.database() as database:
        for role, variable in (("owner", "DATABASE"), ("writer", "WRITER"), ("reader", "READER")):
            patch.setenv(f"GEOFIX_{variable}_URL", database.url(role))
        get_settings.cache_clear()
        make_table(database)
        try:
            made.start("all", "interactive,cpu,gpu", "1", "beat")
            yield database
        finally:
            made.end()
            engine.dispose()
            patch.undo()
            get_settings.cache_clear()
