"""Real workers as subprocesses, with timing short enough for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from geofix.database import engine
from geofix.database.cluster import broker_url
from geofix.database.queries.jobs import JobRow
from geofix.jobs import service
from geofix.settings import Settings, get_settings
from servers import Database, Servers

HERE = Path(__file__).parent
TIMING = {"LEASE_S": "3", "HEARTBEAT_S": "0.3", "SWEEP_S": "0.5", "REDELIVER_S": "2", "DRAIN_S": "1"}


class Workers:
    """Worker processes of one test; each is a process group of its own, killed at the end."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A worker of the product that also knows the test's kinds of jobs; waits until it is there."""
        before = self._alive()
        command = [sys.executable, str(HERE / "worker_with_probes.py"), *(arguments or ("one", "cpu", "1"))]
        process = subprocess.Popen(command, start_new_session=True)
        self._started.append(process)
        deadline = time.monotonic() + 30
        while self._alive() <= before:
            assert process.poll() is None and time.monotonic() < deadline, "the worker did not start"
            time.sleep(0.05)
        return process

    def _alive(self) -> int:
        with engine.connect("writer") as conn:
            return conn.execute("SELECT count(*) FROM worker").fetchone()[0]

    @staticmethod
    def kill(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
        """A signal to the worker and all its children."""
        os.killpg(process.pid, number)

    def end(self) -> None:
        """Nothing stays behind."""
        for process in self._started:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait(10)


@pytest.fixture
def timing(clean_environment: pytest.MonkeyPatch) -> None:
    for name, value in TIMING.items():
        clean_environment.setenv(f"GEOFIX_JOB_{name}", value)


@pytest.fixture
def queue(db: Database, broker: str, timing: None) -> Database:
    """A fresh database and an empty broker."""
    return db


@pytest.fixture
def workers(queue: Database) -> Iterator[Workers]:
    made = Workers()
    try:
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def shared(cluster: Servers) -> Iterator[Database]:
    """One database, one broker and one worker with its sweep, for the tests of a module that break neither."""
    patch = pytest.MonkeyPatch()
    for name in list(os.environ):
        if name.startswith(("PG", "GEOFIX_")):
            patch.delenv(name)
    for name, value in TIMING.items():
        patch.setenv(f"GEOFIX_JOB_{name}", value)
    patch.setitem(Settings.model_config, "env_file", None)
    cluster.flush_broker()
    patch.setenv("GEOFIX_BROKER_URL", broker_url(cluster.settings))
    made = Workers()
    with cluster.database() as database:
        for role, variable in (("owner", "DATABASE"), ("writer", "WRITER"), ("reader", "READER")):
            patch.setenv(f"GEOFIX_{variable}_URL", database.url(role))
        get_settings.cache_clear()
        try:
            made.start("all", "interactive,cpu,gpu", "1", "beat")
            yield database
        finally:
            made.end()
            engine.dispose()
            patch.undo()
            get_settings.cache_clear()


def wait_for(look: Callable[[], object], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"{what} did not come about in {seconds} s"
        time.sleep(0.05)


def wait_state(job_id: UUID, *states: str, seconds: float = 20) -> JobRow:
    wait_for(lambda: service.find(job_id).state in states, f"{states} of {service.find(job_id)}", seconds)
    return service.find(job_id)


def steps(database: Database, key: str) -> list[int]:
    """What the probes of a key have written."""
    with psycopg.connect(database.url()) as conn:
        rows = conn.execute("SELECT step FROM public.probe WHERE key = %s ORDER BY step", (key,))
        return [row[0] for row in rows]


@pytest.fixture
def probes(db: Database) -> None:
    """The table that probe jobs write to."""
    make_table(db)


def make_table(database: Database) -> None:
    with psycopg.connect(database.url()) as conn:
        conn.execute("CREATE SCHEMA IF NOT EXISTS probes")
