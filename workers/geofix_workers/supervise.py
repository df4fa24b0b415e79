"""`geofix worker`: one Celery worker per queue, started again when it dies, and the sweep beside them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from geofix.database.engine import connect
from geofix.jobs.settings import JobSettings
from geofix.jobs.specs import QUEUES
from geofix.jobs.sweep import sweep_until
from geofix.log import get_logger

# Forked children answer while another works; CUDA does not survive a fork, so the GPU worker has none.
POOLS = {"interactive": "prefork", "cpu": "prefork", "gpu": "solo"}
_BACKOFF_S = (1.0, 30.0)

_log = get_logger(__name__)


@dataclass
class Child:
    """A worker process of one queue.

    Attributes:
        queue: What it serves.
        command: How it is started.
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
            self.process, self.started = subprocess.Popen(self.command), now


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
    children = [Child(queue, [*start, queue, str(concurrency if queue == "cpu" else 1)]) for queue in queues]
    sweeper = threading.Thread(target=sweep_until, args=(stop,), name="sweep", daemon=True)
    if beat:
        sweeper.start()
    while not stop.is_set():
        for child in children:
            child.look()
        stop.wait(0.5)
    _end(children)
    if received[:1] == [signal.SIGINT]:
        raise KeyboardInterrupt


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
        without_mingle=True,
        without_gossip=True,
        without_heartbeat=True,
        quiet=True,
    )
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), name="parent", daemon=True).start()
    worker.start()
    sys.exit(worker.exitcode)


def _end_with_parent(parent: int) -> None:
    """Shut down warmly when whoever started this process is gone, even killed."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: list[str]) -> None:
    """`one QUEUE CONCURRENCY`, or `all QUEUE,QUEUE CONCURRENCY BEAT`; called by `geofix worker`."""
    if arguments[:1] == ["one"] and len(arguments) == 3 and arguments[1] in QUEUES:
        serve_queue(arguments[1], int(arguments[2]))
    elif arguments[:1] == ["all"] and len(arguments) == 4:
        supervise(arguments[1].split(","), int(arguments[2]), beat=arguments[3] == "beat")
    else:
        sys.exit("usage: geofix worker --queues cpu,gpu,interactive")
