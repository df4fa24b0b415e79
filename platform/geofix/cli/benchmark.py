"""geofix benchmark-localizers: every localizer on one snapshot, with one budget."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geofix.cli.output import JsonOption, command, emit, line, say

if TYPE_CHECKING:
    from geofix.pipeline.benchmark import Plan

app = typer.Typer(no_args_is_help=False)


@app.command(name="benchmark-localizers")
@command
def benchmark_localizers(
    config: Annotated[Path, typer.Argument(help="Benchmark (YAML), as configs/benchmark.yaml.")],
    snapshot: Annotated[
        Path | None, typer.Option(help="Registered snapshot; in place of the file's own stages.")
    ] = None,
    world: Annotated[
        str | None, typer.Option(help="Render the built-in world for it: tiny, demo, study or bench.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of that world.")] = 0,
    jobs: Annotated[
        bool, typer.Option("--jobs", help="Queue every stage as a job; starts workers for it.")
    ] = False,
    without: Annotated[
        list[str] | None, typer.Option(help="Leave a training of the file out; repeatable.")
    ] = None,
    photos: Annotated[
        int | None, typer.Option(min=1, help="Budget: photos each training sees; in place of the file's.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Budget: minutes of steps; likewise.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Run every stage again.")] = False,
    var: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for ${NAME} in the file; repeatable.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train all localizers of a file on one snapshot with one budget, evaluate and compare them.

    Finished parts are skipped, also after it was killed. With --world it needs no database of yours: embedded
    servers are started. The comparison is in GEOFIX_HOME/runs/NAME: benchmark.md, .svg and .json.

    Example: geofix benchmark-localizers configs/benchmark.yaml --world tiny
    """
    from geofix.cli.ingest import mapping
    from geofix.database.engine import connect
    from geofix.errors import UsageError
    from geofix.pipeline.benchmark import read_benchmark
    from geofix.pipeline.benchmark_run import run_benchmark, write_comparison
    from geofix.training.budget import Budget

    if snapshot is not None and world is not None:
        raise UsageError("Give --snapshot or --world, not both.")
    if photos is not None and minutes is not None:
        raise UsageError("Give --photos or --minutes, not both.")
    if jobs and force:
        raise UsageError("--force is for a run without --jobs.", hint="Leave one of them out.")
    given = dict(mapping(var, commas=False) or {})
    if world is not None:
        given = {**_rendered(config, world, seed, queue=jobs), **given}
    elif snapshot is not None:
        given.setdefault(
            "of", re.sub(r"[^a-z0-9_-]+", "-", snapshot.absolute().name.lower()).strip("-") or "it"
        )
    budget = None if photos is None and minutes is None else Budget(photos=photos, minutes=minutes)
    plan = read_benchmark(config, variables=given, snapshot=snapshot, without=without or (), budget=budget)
    if jobs:
        _queue(plan)
    else:
        for name, stages in run_benchmark(plan, force=force).items():
            fresh = sum(not item.skipped for item in stages)
            say(f"{name}: {fresh} of {len(stages)} stages run, the others unchanged")
    with connect("reader") as conn:
        document = write_comparison(conn, plan)
    emit(document, as_json=json, human=lambda: _show(document))
    say(f"The comparison is in {plan.out}.")


def _rendered(config: Path, size: str, seed: int, *, queue: bool) -> dict[str, str]:
    """The folder of the world, and of its semantic maps and scenes where the file asks for them."""
    from geofix.cli.local import bring_up, built_in_world
    from geofix.world.semantics import write_semantics

    bring_up(queue=queue)
    world = built_in_world(size, seed)
    given = {"world": str(world), "of": f"{size}-{seed}"}
    text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
    if "${maps}" in text or "${scenes}" in text:
        write_semantics(world)
        given |= {"maps": str(world / "semantics"), "scenes": str(world / "scenes.csv")}
    return given


def _queue(plan: Plan) -> None:
    """All of it as jobs, watched to their end; what was left unfinished is taken up.

    Raises:
        JobFailedError: A stage did not succeed.
    """
    from geofix.cli.local import own_workers
    from geofix.cli.stages import follow, require_all
    from geofix.jobs import service
    from geofix.jobs.benchmark import staged_benchmark

    with own_workers("benchmark") as (alive, log):
        job, is_old = service.join(staged_benchmark(plan))
        say(f"job {job.job_id}{', which goes on' if is_old else ''}")
        rows = follow(job, alive)
    require_all(job, rows, str(log))


def _show(document: dict[str, Any]) -> None:
    from geofix.evaluation.benchmark_report import overview

    for text in overview(document):
        line(text)
