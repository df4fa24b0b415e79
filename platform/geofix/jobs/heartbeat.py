"""The heartbeat of one running job: renews its lease, carries progress and log lines, hears of cancels."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import psycopg
import structlog

from geofix.database.fenced import FencedConnection
from geofix.database.queries import job_flow, jobs
from geofix.database.queries.jobs import JobRow
from geofix.errors import GeofixError
from geofix.jobs.brief import connect_briefly
from geofix.jobs.service import as_json
from geofix.jobs.settings import JobSettings
from geofix.log import get_logger

Reason = Literal["cancelled", "paused", "lost", "released"]
MAX_LOG_LINES = 10_000  # of one claim; what comes after is in the worker's own log
_MAX_LINE = 4_000

_log = get_logger(__name__)


class JobStoppedError(BaseException):
    """The job is to stop now.

    No `Exception`, so that code which goes on after a bad item does not go on after this.

    Attributes:
        leaves_nothing: The claim is lost: not even a checkpoint may be written, another may have written one.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.leaves_nothing = reason == "lost"


def clock() -> float:
    """Seconds that also pass while this process is stopped or the machine sleeps, and that nobody can set."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Heartbeat(threading.Thread):
    """A thread beside the work, with database connections of its own.

    It runs while the work is inside C code that releases the interpreter lock (SQL, NumPy, torch). When the
    job is to stop it sets `reason` and cancels the statement that the work's connection is running; the work
    learns of it there, or at its next step of progress.
    """

    def __init__(self, job: JobRow, settings: JobSettings) -> None:
        super().__init__(name=f"heartbeat-{job.job_id}", daemon=True)
        self.job = job
        self.reason: Reason | None = None
        self._settings = settings
        self._conn: FencedConnection | None = None
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._progress: dict[str, Any] = {"done": 0, "total": None, "unit": "", "message": ""}
        self._events: list[tuple[str, str, str]] = []
        self._lines = 0
        self._good_until = clock() + settings.lease_s
        self._release_at: float | None = None

    @property
    def stage(self) -> str:
        """What the work said last that it is doing."""
        return str(self._progress["message"])

    def attach(self, conn: FencedConnection) -> None:
        """The connection whose statement is cancelled when the job is to stop."""
        self._conn = conn

    def __call__(self, done: int, total: int | None, message: str = "", unit: str = "") -> None:
        """Take progress; a sink of `geofix.log.progress`.

        Raises:
            JobStoppedError: The job is to stop.
        """
        with self._lock:
            if message != self._progress["message"]:
                self._events.append(("progress", message, as_json({"total": total, "unit": unit})))
            self._progress.update(done=done, total=total, unit=unit, message=message)
        self.check()

    def check(self) -> None:
        """Go on, or raise; a process that slept longer than its lease asks first whether it still has it.

        Raises:
            JobStoppedError: The job is to stop.
        """
        if self.reason is None and clock() > self._good_until:
            self._beat()
        if self.reason is not None:
            raise JobStoppedError(self.reason)

    def event(self, kind: str, message: str, data: dict[str, Any] | None = None) -> None:
        """Keep a line for the job's log."""
        with self._lock:
            self._lines += 1
            if self._lines <= MAX_LOG_LINES:
                self._events.append((kind, message[:_MAX_LINE], as_json(data or {})))

    def release_in(self, seconds: float) -> None:
        """Stop the work after some time and give the job back: this process is to end."""
        self._release_at = clock() + seconds

    def close(self) -> None:
        """End the thread and write the progress and the lines that it still holds."""
        self._ended.set()
        if self.is_alive():
            self.join()
            self._beat()
        self.flush()

    def run(self) -> None:
        """Beat until closed."""
        while not self._ended.wait(self._settings.heartbeat_s):
            self._beat()
            if self.reason is not None and not self._ended.is_set():
                self._cancel_statement()

    def _beat(self) -> None:
        asked = clock()
        try:
            with connect_briefly(self._settings) as conn:
                asked_for = jobs.renew(
                    conn, self.job.job_id, self.job.fencing_token, self._settings.lease_s, self._snapshot()
                )
        except (GeofixError, psycopg.Error) as error:
            _log.warning("heartbeat failed", job_id=str(self.job.job_id), error=str(error))
            if asked > self._good_until:
                self.reason = self.reason or "lost"
            return
        if asked_for is None:
            self.reason = "lost"
            return
        cancel, pause = asked_for
        self._good_until = asked + self._settings.lease_s
        if cancel:
            self.reason = self.reason or "cancelled"
        elif pause:
            self.reason = self.reason or "paused"
        elif self._release_at is not None and asked > self._release_at:
            self.reason = self.reason or "released"
        self.flush()
        self._sum_up()

    def _sum_up(self) -> None:
        """Let the container of a chunk know how far its chunks are."""
        if self.job.chunk is None or self.job.parent_job_id is None:
            return
        try:
            with connect_briefly(self._settings) as conn:
                job_flow.settle(conn, self.job.parent_job_id, self.job.kind, wait=False)
        except (GeofixError, psycopg.Error) as error:
            _log.debug("progress not summed", job_id=str(self.job.job_id), error=str(error))

    def _snapshot(self) -> dict[str, Any]:
        with self._lock:
            return dict(self._progress)

    def flush(self) -> None:
        """Write the lines kept so far."""
        with self._lock:
            events, self._events = self._events, []
        if not events:
            return
        try:
            with connect_briefly(self._settings) as conn:  # an event's key to its job locks the job's row
                jobs.add_events(conn, self.job.job_id, events)
        except (GeofixError, psycopg.Error) as error:
            _log.warning("log lines not stored", job_id=str(self.job.job_id), error=str(error))

    def _cancel_statement(self) -> None:
        conn = self._conn
        if conn is None or conn.closed:
            return
        try:
            conn.cancel_safe(timeout=2)
        except psycopg.Error as error:
            _log.debug("statement not cancelled", error=str(error))


@contextmanager
def log_lines_to(beat: Heartbeat) -> Iterator[None]:
    """While inside, log lines are kept with the job too, and every line carries its id."""
    before = structlog.get_config()["processors"]

    def keep(_logger: Any, level: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
        data = {key: value for key, value in line.items() if key not in ("event", "job_id", "timestamp")}
        beat.event("log", str(line.get("event", "")), {"level": level, **data})
        return line

    with structlog.contextvars.bound_contextvars(job_id=str(beat.job.job_id)):
        structlog.configure(processors=[*before[:-1], keep, before[-1]])
        try:
            yield
        finally:
            structlog.configure(processors=before)
