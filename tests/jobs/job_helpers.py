"""Workers as real processes, and looking at what they did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import psycopg

from geofix.database.engine import connect
from geofix.database.queries.jobs import JobRow, list_jobs
from geofix.jobs import service
from servers import Database

HERE = Path(__file__).parent
# Short enough for tests; far apart enough for a busy machine.
TIMING = {
    "LEASE_S": "3",
    "HEARTBEAT_S": "0.3",
    "SWEEP_S": "0.5",
    "REDELIVER_S": "2",
    "DRAIN_S": "0.5",
    "RETRY_S": "0.5",
    "RETRY_MAX_S": "2",
    "RECALL_EVERY_H": "0",
    "RETENTION_EVERY_H": "0",
}


class Workers:
    """Worker processes of one test; each is a process group of its own, killed at the end."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A worker of the product that also knows the test's kinds of jobs; waits until it is there."""
        own = [sys.executable, str(HERE / "worker_with_probes.py")]
        return self.begin([*own, *(arguments or ("one", "cpu", "1"))])

    def begin(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Any command that is a worker; waits until there is one row more in the table of workers."""
        before = self._alive()
        process = subprocess.Popen(command, start_new_session=True)
        self._started.append(process)
        deadline = time.monotonic() + 30
        while self._alive() <= before:
            assert process.poll() is None and time.monotonic() < deadline, "the worker did not start"
            time.sleep(0.05)
        return process

    def _alive(self) -> int:
        with connect("writer") as conn:
            return conn.execute("SELECT count(*) FROM worker").fetchone()[0]

    @staticmethod
    def kill(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
        """A signal to the worker and all its children."""
        os.killpg(process.pid, number)

    def end(self) -> None:
        """Nothing stays behind."""
        for process in self._started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def wait_for(look: Callable[[], object], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"{what} did not come about in {seconds} s"
        time.sleep(0.05)


def wait_state(job_id: UUID, *states: str, seconds: float = 20) -> JobRow:
    wait_for(lambda: service.find(job_id).state in states, f"{states} of {service.find(job_id)}", seconds)
    return service.find(job_id)


def chunks_of(job_id: UUID) -> list[JobRow]:
    with connect("reader") as conn:
        return sorted(list_jobs(conn, parent=job_id, limit=1000), key=lambda row: row.chunk or 0)


def steps(database: Database, key: str) -> list[int]:
    """What the probes of a key have written."""
    with psycopg.connect(database.url()) as conn:
        rows = conn.execute("SELECT step FROM geofix.probe WHERE key = %s ORDER BY step", (key,))
        return [row[0] for row in rows]


def make_table(database: Database) -> None:
    """Where probe jobs write: duplicates are possible, so that a test would see them."""
    with psycopg.connect(database.url()) as conn:
        conn.execute("CREATE TABLE geofix.probe (key text, step int, attempt int)")
