"""geofix demo: the whole way on the built-in world, without any configuration."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from geofix.cli.local import bring_up, built_in_world, own_workers
from geofix.cli.output import JsonOption, command, emit, say

app = typer.Typer(no_args_is_help=False)


def _workers() -> AbstractContextManager[tuple[Callable[[], None], Path]]:
    return own_workers("demo")


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
    say("1/3 servers, schema and workers")
    bring_up()
    with _workers() as (alive, log):
        say("2/3 the world")
        world = built_in_world(size, seed)
        stages = _run(world, f"demo-{size}-{seed}", alive, log)
        emit({"evaluation": _by_localizer(stages)}, as_json=json, human=lambda: _show(stages))
    say(f"{time.monotonic() - began:,.0f} s in all.")
    if not no_serve:
        from geofix.cli.dashboard import serve

        serve(port=port)


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
