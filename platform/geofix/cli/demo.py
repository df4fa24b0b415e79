"""geofix demo: the whole way on the built-in world, without any configuration."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from geofix.cli.output import JsonOption, command, emit, say
from geofix.errors import ServiceError

app = typer.Typer(no_args_is_help=False)

# A demo queues its own work and no other; whoever wants beat's starts `geofix worker`.
_NO_SCHEDULE = {"GEOFIX_JOB_RECALL_EVERY_H": "0", "GEOFIX_JOB_RETENTION_EVERY_H": "0"}


@app.command()
@command
def demo(
    size: Annotated[str, typer.Option(help="tiny, demo, study or bench.")] = "demo",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the world.")] = 0,
    no_serve: Annotated[bool, typer.Option("--no-serve", help="End without serving the dashboard.")] = False,
    port: Annotated[int, typer.Option(help="Port of the dashboard.")] = 8501,
    json: JsonOption = False,
) -> None:
    """World, ingest, snapshot, train, embed, codes, evaluate; ends with the table and the dashboard.

    Every stage is a job of the queue, done by workers that this command starts and stops. Run again, also
    after it was killed, it goes on where it was and skips what is there.

    Example: geofix demo --size tiny --no-serve
    """
    began = time.monotonic()
    _up()
    with _workers() as (alive, log):
        world = _world(size, seed)
        stages = _run(world, f"demo-{size}-{seed}", alive, log)
        emit({"evaluation": _by_localizer(stages)}, as_json=json, human=lambda: _show(stages))
    say(f"{time.monotonic() - began:,.0f} s in all.")
    if not no_serve:
        from geofix.cli.dashboard import serve

        serve(port=port)


def _up() -> None:
    """Servers up, schema in place."""
    from geofix.database import cluster
    from geofix.database.upkeep import migrate_safely
    from geofix.jobs.broker import celery_app
    from geofix.settings import get_settings

    celery_app()  # a clear error where Celery is not installed
    settings = get_settings()
    say("1/3 servers, schema and workers")
    cluster.start(settings)
    backup = settings.home_dir / "backups" / f"before-migrate-{time.strftime('%Y%m%dT%H%M%S')}.dump"
    migrate_safely(cluster.database_url(settings, "owner"), settings, backup_to=backup)


@contextmanager
def _workers() -> Iterator[tuple[Callable[[], None], Path]]:
    """Workers of the queues cpu and gpu, which end with this process however it ends; others may help.

    Yields:
        What raises when they have ended, and the file they write to.
    """
    from geofix.settings import get_settings

    log = get_settings().home_dir / "log" / "demo-workers.log"
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
                f"The demo's workers ended with status {process.returncode}.",
                hint=f"See {log}; run the demo again to continue.",
            )

    try:
        yield alive, log
    except KeyboardInterrupt:
        say("stopping; a training leaves a checkpoint first")
        raise
    finally:
        process.terminate()
        process.wait()


def _world(size: str, seed: int) -> Path:
    """The world, rendered."""
    from geofix.settings import get_settings
    from geofix.world.write import create_world

    world = get_settings().home_dir / "worlds" / f"{size}-{seed}"
    say(f"2/3 the world in {world}")
    summary = create_world(world, size=size, seed=seed)
    say(f"    {summary.photos:,} photos, {summary.aerial_rasters} aerial rasters, {summary.regions} regions")
    return world


def _run(world: Path, name: str, alive: Callable[[], None], log: Path) -> list[dict[str, Any]]:
    """The pipeline as a pipeline of jobs, watched to its end; one that was left unfinished is taken up."""
    from geofix.cli.stages import follow, require_all
    from geofix.jobs import service
    from geofix.jobs.run_stage import staged
    from geofix.settings import get_settings

    file = Path(str(files("geofix.pipeline") / "demo.yaml"))
    home = get_settings().home_dir
    job, is_old = service.join(staged(file, home, {"world": str(world), "name": name}))
    goes_on = ", which goes on" if is_old else ""
    say(f"3/3 ingest, snapshot, train, embed, codes, evaluate: job {job.job_id}{goes_on}")
    rows = follow(job, alive)
    require_all(job, rows, str(log))
    return [row.result for row in rows if row.result is not None]


def _by_localizer(stages: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """LOCALIZER -> SPLIT -> result of `evaluate run`, at the finest level where there are several."""
    found: dict[str, dict[str, Any]] = {}
    for stage in stages:
        for row in stage["result"].get("evaluations", {}).values():
            found.setdefault(row["localizer"], {})[row["split"]] = row
    return found


def _show(stages: list[dict[str, Any]]) -> None:
    """The results table, as the stage `table` made it."""
    from geofix.cli.run import show_table

    for stage in stages:
        if stage["stage"].endswith("-table"):
            show_table(stage["result"]["rows"], "built-in world")
