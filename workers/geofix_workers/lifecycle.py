"""What a worker process does besides its jobs: logs, its heartbeat row, giving back its job at shutdown."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
from celery import signals

from geofix import __version__
from geofix.database.engine import connect, dispose
from geofix.database.queries import presence
from geofix.errors import GeofixError
from geofix.jobs.runner import process_name, release_running
from geofix.jobs.settings import JobSettings
from geofix.log import configure, get_logger
from geofix.settings import get_settings

_log = get_logger(__name__)


class Presence(threading.Thread):
    """Keeps the row of this process in the table `worker`: alive, and at which job.

    A process whose parent has died finishes its job and ends; nobody would give it another.
    """

    def __init__(self, queues: list[str]) -> None:
        super().__init__(name="presence", daemon=True)
        self.worker = f"{','.join(queues)}@{process_name()}"
        self._queues = queues
        self._job: UUID | None = None
        self._wake = threading.Event()
        self._ended = False
        self._parent = os.getppid()

    def at(self, job_id: UUID | None) -> None:
        """Note which job is running."""
        self._job = job_id
        self._wake.set()

    def run(self) -> None:
        """Write the row now and then, and at once when the job changes."""
        every = JobSettings().presence_s
        while not self._ended:
            self._write()
            self._wake.wait(every)
            self._wake.clear()
            if os.getppid() != self._parent and self._job is None:
                self.leave()
                os._exit(1)

    def leave(self) -> None:
        """Remove the row: this process ends in good order."""
        self._ended = True
        try:
            with connect("writer") as conn:
                presence.worker_gone(conn, self.worker)
        except (GeofixError, psycopg.Error) as error:
            _log.warning("worker row not removed", error=str(error))

    def _write(self) -> None:
        values = {
            "name": self.worker,
            "queues": self._queues,
            "device": get_settings().device,
            "software_version": __version__,
            "job_id": self._job,
        }
        try:
            with connect("writer") as conn:
                presence.worker_seen(conn, values)
        except (GeofixError, psycopg.Error) as error:
            _log.warning("worker row not written", error=str(error))


_present: Presence | None = None
_queues: list[str] = []
_pool: Any = None
_is_solo = False


def serve(queues: list[str]) -> None:
    """Say which queues this process and its children serve, before Celery starts."""
    _queues[:] = queues


def worker_name() -> str:
    """Name of this process, as in the table `worker` and in a job's lease."""
    return _present.worker if _present is not None else f"worker@{process_name()}"


@contextmanager
def working_on(job_id: UUID) -> Iterator[None]:
    """Show the job in the worker's row."""
    if _present is not None:
        _present.at(job_id)
    try:
        yield
    finally:
        if _present is not None:
            _present.at(None)


@contextmanager
def ending_on_interrupt() -> Iterator[None]:
    """Training takes SIGTERM for itself, to end between two steps; in the solo pool the worker was meant.

    The job has been given back by then, and the worker shuts down as it would have.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not _is_solo:
            raise
        from celery.worker import state

        state.should_stop = 0


def connect_signals() -> None:
    """Attach to Celery's signals; strong references, since Celery keeps weak ones."""
    signals.setup_logging.connect(_set_up_logs, weak=False)
    signals.worker_ready.connect(_ready, weak=False)
    signals.worker_process_init.connect(_begin_child, weak=False)
    signals.worker_process_shutdown.connect(_leave, weak=False)
    signals.worker_shutting_down.connect(_shutting_down, weak=False)
    signals.worker_shutdown.connect(_leave, weak=False)


def _set_up_logs(**_: Any) -> None:
    settings = get_settings()
    configure(settings.log_level, json=settings.log_json)


def _ready(sender: Any, **_: Any) -> None:
    """The worker takes messages. In the solo pool this is the process that works."""
    global _pool, _is_solo
    _pool = getattr(sender.pool, "_pool", None)
    _is_solo = _pool is None
    if _is_solo:
        _be_present()
    _log.info("worker ready", queues=_queues, pool=type(sender.pool).__module__.rpartition(".")[2])


def _begin_child(**_: Any) -> None:
    """A prefork child: connections of its own, and the parent's word that the worker shuts down."""
    dispose()
    signal.signal(signal.SIGUSR2, lambda *_: release_running(JobSettings().drain_s))
    _be_present()


def _be_present() -> None:
    global _present
    _present = Presence(list(_queues))
    _present.start()


def _shutting_down(**_: Any) -> None:
    """SIGTERM: short jobs end, long ones are given back, so that another worker can go on."""
    release_running(JobSettings().drain_s)
    for child in list(getattr(_pool, "_pool", None) or []):
        os.kill(child.pid, signal.SIGUSR2)


def _leave(**_: Any) -> None:
    if _present is not None and _present.ident is not None:
        _present.leave()
