"""`geofix worker` and `geofix beat`: the processes that run what is queued."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Annotated

import typer

from geofix.cli.output import command, say

app = typer.Typer(no_args_is_help=True)


@app.command()
@command
def worker(
    queues: Annotated[str, typer.Option(help="Some of interactive, cpu, gpu.")] = "interactive,cpu,gpu",
    concurrency: Annotated[int, typer.Option(min=1, help="Jobs at a time of the queue cpu.")] = 1,
    beat: Annotated[bool, typer.Option("--beat/--no-beat", help="Also do what `geofix beat` does.")] = True,
) -> None:
    """Run jobs until SIGTERM: one process per queue, so that interactive jobs never wait for long ones.

    A job still running GEOFIX_JOB_DRAIN_S seconds after SIGTERM is given back to the queue.

    Example: geofix worker --queues cpu,interactive --concurrency 4
    """
    from geofix.errors import UsageError
    from geofix.jobs.broker import celery_app
    from geofix.jobs.specs import QUEUES

    names = [name.strip() for name in queues.split(",") if name.strip()]
    unknown = [name for name in names if name not in QUEUES]
    if unknown or not names:
        raise UsageError(f"There is no queue {', '.join(unknown)!r}.", hint=f"Queues: {', '.join(QUEUES)}.")
    celery_app()  # a clear error where Celery is not installed
    arguments = ["all", ",".join(dict.fromkeys(names)), str(concurrency), "beat" if beat else "no-beat"]
    os.execv(sys.executable, [sys.executable, "-m", "geofix_workers", *arguments])


@app.command()
@command
def beat() -> None:
    """Take jobs back from workers that died, and send messages again that the broker lost, until SIGTERM.

    Every `geofix worker` does this too unless told otherwise; any number may run at once.

    Example: geofix beat
    """
    from geofix.database.engine import connect
    from geofix.jobs.sweep import sweep_until

    with connect("writer"):
        pass
    stop, received = threading.Event(), []

    def end(number: int, _: FrameType | None) -> None:
        received.append(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    say("beat: sweeping for lost jobs and messages")
    sweep_until(stop)
    if received[:1] == [signal.SIGINT]:
        raise KeyboardInterrupt
