"""`geofix worker`: one Celery worker per queue, started again when it dies, and the sweep beside them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import psycopg

from geofix.database.engine import connect
from geofix.database.queries.workers import list_workers
from geofix.errors import GeofixError
from geofix.jobs import broker
from geofix.jobs.settings import JobSettings
from geofix.jobs.specs import QUEUES
from geofix.jobs.sweep import sweep_until
from geofix.log import get_logger
from geofix.settings import get_settings
from geofix_workers.devices import gpu_devices, visible_gpus

# Forked children answer while another works; CUDA does not survive a fork, so the GPU worker has none.
POOLS = {"interactive": "prefork", "cpu": "prefork", "gpu": "solo"}
# A child is replaced after so many jobs, which gives back what libraries leak, and loads its models anew.
JOBS_PER_CHILD = {"interactive": 1000, "cpu": 50}
_BACKOFF_S = (1.0, 30.0)

_log = get_logger(__name__)


@dataclass
class Child:
    """A worker process of one queue.

    Attributes:
        queue: What it serves.
        command: How it is started.
        environment: What is added to this process's own.
        process: The running one.
        due: When it may be started again, by the monotonic clock.
        pause_s: How long to wait after the next early death.
    """

    queue: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    due: float = 0.0
    pause_s: float = _BACKOFF_S[0]
    started: float = field(default=0.0)
    environment: dict[str, str] = field(default_factory=dict)

    def look(self) -> None:
        """Start it where it does not run and may."""
        now = time.monotonic()
        if self.process is not None and self.process.poll() is not None:
            if now - self.started > 60:
                self.pause_s = _BACKOFF_S[0]
            _log.warning(
                "worker ended", queue=self.queue, status=self.process.returncode, again_s=self.pause_s
            )
            self.process, self.due = None, now + self.pause_s
            self.pause_s = min(2 * self.pause_s, _BACKOFF_S[1])
        if self.process is None and now >= self.due:
            own = {**os.environ, **self.environment}
            self.process, self.started = subprocess.Popen(self.command, env=own), now

    def restart(self) -> None:
        """Ask the running process to end; it is started again when it has."""
        if self.process is not None and self.process.poll() is None:
            _log.warning("worker is idle while messages wait; starting it again", queue=self.queue)
            self.process.send_signal(signal.SIGTERM)


class Watch:
    """Finds workers that live but no longer listen to the broker, as happens after an outage (celery#10302).

    Nobody at this host's processes of a queue works, and yet a message is there: at two looks in a row, one
    redelivery time apart. An idle worker takes a message within milliseconds.
    """

    def __init__(self) -> None:
        self._every_s = max(JobSettings().redeliver_s, 2 * JobSettings().presence_s)
        self._next = time.monotonic() + self._every_s
        self._suspects: set[str] = set()

    def deaf(self, children: list[Child]) -> list[Child]:
        """Children that are to be started again."""
        if time.monotonic() < self._next:
            return []
        self._next = time.monotonic() + self._every_s
        suspects = {queue for queue in {child.queue for child in children} if self._is_left_alone(queue)}
        found = [child for child in children if child.queue in suspects & self._suspects]
        self._suspects = suspects - self._suspects
        return found

    @staticmethod
    def _is_left_alone(queue: str) -> bool:
        if not broker.waiting(queue):
            return False
        try:
            with connect("writer") as conn:
                rows = list_workers(conn)
        except (GeofixError, psycopg.Error):
            return False
        here = [
            row for row in rows if row["queues"] == [queue] and f"@{socket.gethostname()}:" in row["name"]
        ]
        return all(row["job_id"] is None for row in here)


def supervise(queues: list[str], concurrency: int, *, beat: bool, command: list[str] | None = None) -> None:
    """Run until SIGTERM or SIGINT; then wait for jobs to end or be given back.

    Args:
        queues: Some of interactive, cpu, gpu.
        concurrency: Jobs at a time of the queue cpu.
        beat: Sweep too.
        command: What starts one worker; the queue and the concurrency are appended.

    Raises:
        KeyboardInterrupt: It was SIGINT that ended it; the workers have ended by then.
    """
    with connect("writer"):  # a clear error now, instead of workers that die one by one
        pass
    stop, received = threading.Event(), []

    def end(number: int, _: FrameType | None) -> None:
        received.append(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    start = command or [sys.executable, "-m", "geofix_workers", "one"]
    children = [child for queue in queues for child in _children(queue, start, concurrency)]
    sweeper = threading.Thread(target=sweep_until, args=(stop,), name="sweep", daemon=True)
    if beat:
        sweeper.start()
    watch = Watch()
    while not stop.is_set():
        for child in children:
            child.look()
        for child in watch.deaf(children):
            child.restart()
        stop.wait(0.5)
    _end(children)
    if received[:1] == [signal.SIGINT]:
        raise KeyboardInterrupt


def _children(queue: str, start: list[str], concurrency: int) -> list[Child]:
    """The worker of a queue; of the queue gpu one per GPU."""
    if queue != "gpu":
        return [Child(queue, [*start, queue, str(concurrency if queue == "cpu" else 1)])]
    devices = gpu_devices(get_settings().device, visible_gpus())
    return [Child(queue, [*start, queue, "1"], environment={"GEOFIX_DEVICE": item}) for item in devices]


def _end(children: list[Child]) -> None:
    """SIGTERM to all, patience for the drain time and a little more, then SIGKILL."""
    running = [child.process for child in children if child.process is not None]
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    settings = JobSettings()
    deadline = time.monotonic() + settings.drain_s + 5 * settings.heartbeat_s + 10
    for process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _log.warning("worker does not end; killing it, its job is taken up later", pid=process.pid)
            process.kill()


def serve_queue(queue: str, concurrency: int) -> None:
    """Be the Celery worker of one queue, in this process, until it is told to stop."""
    from celery.exceptions import SecurityWarning

    from geofix.jobs.broker import queue_name
    from geofix_workers import lifecycle
    from geofix_workers.app import app

    # Celery warns root of pickled messages; this application takes JSON alone.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    lifecycle.serve([queue])
    worker: Any = app.Worker(
        hostname=f"{queue}-{os.getpid()}@%h",
        pool_cls=POOLS[queue],
        concurrency=concurrency if POOLS[queue] == "prefork" else 1,
        queues=[queue_name(queue)],
        max_tasks_per_child=JOBS_PER_CHILD.get(queue),
        without_mingle=True,
        without_gossip=True,
        without_heartbeat=True,
        quiet=True,
    )
    end_with(os.getppid())
    worker.start()
    sys.exit(worker.exitcode)


def end_with(parent: int) -> None:
    """Shut this process down warmly when the process that started it is gone."""
    threading.Thread(target=_end_with_parent, args=(parent,), name="parent", daemon=True).start()


def _end_with_parent(parent: int) -> None:
    """Shut down warmly when whoever started this process is gone, even killed."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: list[str]) -> None:
    """`one QUEUE CONCURRENCY`, or `all QUEUE,QUEUE CONCURRENCY BEAT [PARENT]`; called by `geofix worker`.

    With the id of a parent process the workers end with it; `geofix demo` gives its own.
    """
    if arguments[:1] == ["one"] and len(arguments) == 3 and arguments[1] in QUEUES:
        serve_queue(arguments[1], int(arguments[2]))
    elif arguments[:1] == ["all"] and len(arguments) in (4, 5):
        for parent in arguments[4:]:
            end_with(int(parent))
        supervise(arguments[1].split(","), int(arguments[2]), beat=arguments[3] == "beat")
    else:
        sys.exit("usage: geofix worker --queues cpu,gpu,interactive")
