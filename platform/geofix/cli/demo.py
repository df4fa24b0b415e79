"""geofix demo: the whole way on the built-in world, without any configuration."""

from __future__ import annotations

import time
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from geofix.cli.output import JsonOption, command, emit, say
from geofix.errors import JobFailedError

app = typer.Typer(no_args_is_help=False)


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

    Run again, it skips what is there.

    Example: geofix demo --size tiny --no-serve
    """
    began = time.monotonic()
    world = _prepare(size, seed)
    stages = _run(world, size, seed)
    document = {"evaluation": _by_localizer(stages)}
    emit(document, as_json=json, human=lambda: _show(stages))
    say(f"{time.monotonic() - began:,.0f} s in all.")
    if not no_serve:
        from geofix.cli.dashboard import serve

        serve(port=port)


def _prepare(size: str, seed: int) -> Path:
    """Servers up, schema in place, world rendered."""
    from geofix.database import cluster
    from geofix.database.upkeep import migrate_safely
    from geofix.settings import get_settings
    from geofix.world.write import create_world

    settings = get_settings()
    say("1/3 servers and schema")
    cluster.start(settings)
    backup = settings.home_dir / "backups" / f"before-migrate-{time.strftime('%Y%m%dT%H%M%S')}.dump"
    migrate_safely(cluster.database_url(settings, "owner"), settings, backup_to=backup)
    world = settings.home_dir / "worlds" / f"{size}-{seed}"
    say(f"2/3 the world in {world}")
    summary = create_world(world, size=size, seed=seed)
    say(f"    {summary.photos:,} photos, {summary.aerial_rasters} aerial rasters, {summary.regions} regions")
    return world


def _run(world: Path, size: str, seed: int) -> list[dict[str, Any]]:
    """The pipeline as a job of the queue, worked off by this process."""
    from geofix.jobs.runner import run_inline
    from geofix.jobs.service import submit
    from geofix.jobs.specs import parse

    say("3/3 ingest, snapshot, train, embed, codes, evaluate (a job; see `geofix jobs list`)")
    file = Path(str(files("geofix.pipeline") / "demo.yaml"))
    variables = {"world": str(world), "name": f"demo-{size}-{seed}"}
    job = submit(parse("run", {"file": str(file), "variables": variables}), publish=False)
    done = run_inline(job.job_id)
    if done.state != "succeeded" or done.result is None:
        raise JobFailedError(
            f"The demo's job {done.job_id} ended as {done.state}: {done.error}.",
            hint=f"See `geofix jobs logs {done.job_id}`; run the demo again to continue.",
        )
    return list(done.result["stages"])


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
