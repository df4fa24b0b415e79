"""Servers and workers that a command brings up for itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from geofix.cli.output import say
from geofix.errors import ServiceError

# Such a command queues its own work and no other; whoever wants beat's starts `geofix worker`.
_NO_SCHEDULE = {"GEOFIX_JOB_RECALL_EVERY_H": "0", "GEOFIX_JOB_RETENTION_EVERY_H": "0"}


def bring_up(*, queue: bool = True) -> None:
    """Servers up, schema in place.

    Args:
        queue: Jobs are going to be queued.

    Raises:
        ServiceError: A server does not start, or what the queue needs is not installed.
    """
    from geofix.database import cluster
    from geofix.database.upkeep import migrate_safely
    from geofix.jobs.broker import celery_app
    from geofix.settings import get_settings

    if queue:
        celery_app()  # a clear error where Celery is not installed
    settings = get_settings()
    cluster.start(settings)
    backup = settings.home_dir / "backups" / f"before-migrate-{time.strftime('%Y%m%dT%H%M%S')}.dump"
    migrate_safely(cluster.database_url(settings, "owner"), settings, backup_to=backup)


@contextmanager
def own_workers(command: str) -> Iterator[tuple[Callable[[], None], Path]]:
    """Workers of the queues cpu and gpu, which end with this process however it ends; others may help.

    Args:
        command: That they work for; they write to GEOFIX_HOME/log/COMMAND-workers.log.

    Yields:
        What raises when they have ended, and the file they write to.
    """
    from geofix.settings import get_settings

    log = get_settings().home_dir / "log" / f"{command}-workers.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    # In a session of their own: Ctrl-C reaches this process alone, which then ends them in good order.
    arguments = ["all", "cpu,gpu", "1", "beat", str(os.getpid())]
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "geofix_workers", *arguments],
            env={**_NO_SCHEDULE, **os.environ},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )

    def alive() -> None:
        if process.poll() is not None:
            raise ServiceError(
                f"The workers of this {command} ended with status {process.returncode}.",
                hint=f"See {log}; run the same command again to continue.",
            )

    try:
        yield alive, log
    except KeyboardInterrupt:
        say("stopping; a training leaves a checkpoint first")
        raise
    finally:
        process.terminate()
        process.wait()


def built_in_world(size: str, seed: int) -> Path:
    """The folder of the built-in world of a size, rendered where it is not there yet."""
    from geofix.settings import get_settings
    from geofix.world.write import create_world

    world = get_settings().home_dir / "worlds" / f"{size}-{seed}"
    summary = create_world(world, size=size, seed=seed)
    say(
        f"    {summary.photos:,} photos, {summary.aerial_rasters} aerial rasters, {summary.regions} regions "
        f"in {world}"
    )
    return world
