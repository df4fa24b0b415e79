"""geofix jobs: submit, watch, cancel, pause and retry what is queued."""

from __future__ import annotations

import json as json_text
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geofix.cli.output import JsonOption, command, emit, pairs, say, table
from geofix.plain import plain

if TYPE_CHECKING:
    from geofix.database.queries.jobs import JobRow

app = typer.Typer(no_args_is_help=True)

STATES = ("queued", "running", "paused", "succeeded", "failed", "cancelled", "lost", "parked")
COLUMNS = ("id", "kind", "state", "queue", "progress", "attempts", "submitted", "error")
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The job's id, or its unique beginning.")]


@app.command()
@command
def submit(
    kind: Annotated[str, typer.Argument(help="ingest, snapshot, embed, codes, evaluate, pipeline ...")],
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="NAME=VALUE; repeated: a list; JSON is read.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="YAML or JSON with the parameters; --param wins over it.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same work under it is queued once.")
    ] = None,
    after: Annotated[
        list[str] | None, typer.Option(help="Job that must have succeeded before; repeatable.")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="interactive, cpu or gpu; default: by kind.")] = None,
    attempts: Annotated[int, typer.Option(min=1, help="Attempts before it is parked.")] = 3,
    wait: Annotated[bool, typer.Option("--wait", help="Watch it to its end.")] = False,
    json: JsonOption = False,
) -> None:
    """Queue a job; wrong parameters are refused at once.

    Example: geofix jobs submit snapshot -p datasets=wuhan -p out=snapshots/wuhan -p mode=track
    """
    from geofix.jobs import service
    from geofix.jobs.specs import parse

    specification = parse(kind, {**_from_file(file), **_parameters(param or [])})
    row = service.submit(
        specification,
        idempotency_key=key,
        after=[service.find(item).job_id for item in after or []],
        queue=queue,  # type: ignore[arg-type]
        max_attempts=attempts,
    )
    if wait:
        row = _watched(row)
    emit({"job": row.job_id, "state": row.state}, as_json=json)
    if wait:
        service.require_success(row)


@app.command("list")
@command
def list_(
    state: Annotated[list[str] | None, typer.Option(help="Only jobs in this state; repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The newest so many.")] = 50,
    json: JsonOption = False,
) -> None:
    """List jobs, newest first.

    Example: geofix jobs list --state queued --state running
    """
    from geofix.database.engine import connect
    from geofix.database.queries.jobs import list_jobs
    from geofix.errors import UsageError

    unknown = sorted(set(state or []) - set(STATES))
    if unknown:
        raise UsageError(f"There is no state {', '.join(unknown)!r}.", hint=f"States: {', '.join(STATES)}.")
    with connect("reader") as conn:
        rows = list_jobs(conn, states=state, limit=limit)
    emit(
        [document(row) for row in rows],
        as_json=json,
        human=lambda: table(COLUMNS, [_line(row) for row in rows]),
    )


@app.command()
@command
def show(job: IdArgument, json: JsonOption = False) -> None:
    """Show one job, and the stages of a pipeline.

    Example: geofix jobs show 3f2a
    """
    from geofix.database.engine import connect
    from geofix.database.queries.jobs import list_jobs
    from geofix.jobs import service

    row = service.find(job)
    shown = document(row)
    with connect("reader") as conn:
        stages = list_jobs(conn, parent=row.job_id, limit=1000)
    stages.sort(key=lambda stage: stage.chunk or 0, reverse=True)
    if stages:
        shown["stages"] = [document(stage) for stage in reversed(stages)]
    emit(shown, as_json=json, human=lambda: _show_job(row, stages))


@app.command()
@command
def watch(job: IdArgument, json: JsonOption = False) -> None:
    """Follow a job's progress to its end; exit code 5 when it did not succeed.

    Example: geofix jobs watch 3f2a
    """
    from geofix.jobs import service

    row = _watched(service.find(job))
    emit(document(row), as_json=json, human=lambda: _show_job(row, []))
    service.require_success(row)


@app.command()
@command
def cancel(job: IdArgument, json: JsonOption = False) -> None:
    """Cancel a job: at once when it waits, within seconds when it runs; a pipeline with all its stages.

    Example: geofix jobs cancel 3f2a
    """
    from geofix.jobs import service

    row = service.cancel(job)
    emit({"job": row.job_id, "state": row.state, "cancel_requested": row.cancel_requested}, as_json=json)


@app.command()
@command
def pause(job: IdArgument, json: JsonOption = False) -> None:
    """Pause a job: it waits, or leaves its last checkpoint behind; of a pipeline, every stage that can.

    Example: geofix jobs pause 3f2a
    """
    from geofix.jobs import service

    row = service.pause(job)
    emit({"job": row.job_id, "state": row.state, "pause_requested": row.pause_requested}, as_json=json)


@app.command()
@command
def resume(job: IdArgument, json: JsonOption = False) -> None:
    """Queue a paused job again; training goes on from its last checkpoint.

    Example: geofix jobs resume 3f2a
    """
    from geofix.jobs import service

    row = service.resume(job)
    emit({"job": row.job_id, "state": row.state}, as_json=json)


@app.command()
@command
def retry(job: IdArgument, json: JsonOption = False) -> None:
    """Queue a failed, cancelled or parked job again, with what was not begun because of it.

    Example: geofix jobs retry 3f2a
    """
    from geofix.jobs import service

    row = service.retry(job)
    emit({"job": row.job_id, "state": row.state}, as_json=json)


@app.command()
@command
def logs(
    job: IdArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job has ended.")] = False,
    json: JsonOption = False,
) -> None:
    """Print what happened to a job: states, stages, log lines, in order.

    Example: geofix jobs logs 3f2a --follow
    """
    from geofix.database.engine import connect
    from geofix.database.queries.jobs import read_events
    from geofix.jobs import service

    row = service.find(job)
    events: list[dict[str, Any]] = []
    while True:
        last = events[-1]["job_event_id"] if events else 0
        with connect("reader") as conn:
            new = read_events(conn, row.job_id, last)
        if not json:
            for event in new:
                _print_event(event)
        events += new
        if not follow or (row.is_finished and not new):
            break
        time.sleep(0.5)
        row = service.find(row.job_id)
    if json:
        emit(events, as_json=True)


def document(row: JobRow) -> dict[str, Any]:
    """A job as the contract shows it, and more."""
    return {
        "id": row.job_id,
        "kind": row.kind,
        "state": row.state,
        "progress": {
            "done": row.progress_done,
            "total": row.progress_total,
            "unit": row.progress_unit,
            "message": row.progress_message,
            "eta_s": _eta_s(row),
        },
        "attempts": row.attempts,
        "submitted_at": row.submitted_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "result": row.result,
        "error": row.error,
        "queue": row.queue,
        "worker": row.lease_owner,
        "cancel_requested": row.cancel_requested,
        "pause_requested": row.pause_requested,
        "not_before": row.not_before,
        "chunk": row.chunk,
        "parent": row.parent_job_id,
        "depends_on": row.depends_on,
        "specification": row.specification,
        "submitted_by": row.submitted_by,
    }


def _eta_s(row: JobRow) -> float | None:
    """Seconds that are left at the speed so far; None where nothing is known."""
    began = row.claimed_at or row.started_at
    if row.state != "running" or began is None or not row.progress_done or not row.progress_total:
        return None
    passed = (datetime.now(UTC) - began).total_seconds()
    return round(max(0.0, passed * (row.progress_total / row.progress_done - 1)), 1)


def _from_file(file: Path | None) -> dict[str, Any]:
    import yaml

    from geofix.errors import BadInputError, NotFoundError

    if file is None:
        return {}
    if not file.is_file():
        raise NotFoundError(f"{file} does not exist.", hint="Give a YAML or JSON file of parameters.")
    try:
        read = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise BadInputError(f"{file} is no YAML: {error}.") from error
    if not isinstance(read, dict):
        raise BadInputError(f"{file} holds no mapping of parameters.", hint="Write NAME: VALUE lines.")
    return read


def _parameters(items: list[str]) -> dict[str, Any]:
    """NAME=VALUE options; a name given twice is a list, a value in brackets is JSON."""
    from geofix.errors import UsageError

    found: dict[str, Any] = {}
    for item in items:
        name, sign, text = item.partition("=")
        if not sign or not name:
            raise UsageError(f"--param {item!r} is not NAME=VALUE.")
        value: Any = text
        if text[:1] in ("[", "{"):
            try:
                value = json_text.loads(text)
            except ValueError as error:
                raise UsageError(f"--param {name}: {text!r} is no JSON ({error}).") from None
        if name in found:
            before = found[name]
            value = [*(before if isinstance(before, list) else [before]), value]
        found[name] = value
    return found


def _show_job(row: JobRow, stages: list[JobRow]) -> None:
    """Print what is known of a job, and its stages in their order."""
    shown = document(row) | {"progress": _progress(row)}
    pairs({key: value for key, value in plain(shown).items() if value not in (None, [], "")})
    if stages:
        table(COLUMNS, [_line(stage) for stage in reversed(stages)], title="stages")


def _progress(row: JobRow) -> str:
    done, total = row.progress_done, row.progress_total
    progress = f"{done:,}/{total:,}" if total else (f"{done:,}" if done else "")
    left = _eta_s(row)
    eta = "" if left is None else f"(about {timedelta(seconds=round(left))} left)"
    return " ".join(part for part in (progress, row.progress_unit, row.progress_message, eta) if part)


def _line(row: JobRow) -> list[Any]:
    text = _progress(row)
    first = (row.error or "").splitlines()[:1]
    stamp = row.submitted_at.strftime("%m-%d %H:%M:%S")
    return [str(row.job_id)[:8], row.kind, row.state, row.queue, text, row.attempts, stamp, *(first or [""])]


def _print_event(event: dict[str, Any]) -> None:
    data = event["data"]
    trace = data.pop("traceback", "")
    rest = " ".join(f"{name}={value}" for name, value in data.items() if name not in ("level", "module"))
    typer.echo(f"{event['at']:%H:%M:%S} {event['kind']:8} {event['message']} {rest}".rstrip())
    if trace:
        typer.echo(trace)


def _watched(row: JobRow) -> JobRow:
    """Draw the job's progress on a terminal until it has ended."""
    from rich.console import Console
    from rich.progress import Progress

    from geofix.jobs import service

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(row.kind, total=None)

        def tell(seen: JobRow) -> None:
            text = " ".join(part for part in (seen.kind, seen.state, seen.progress_message) if part)
            bar.update(task, description=text, completed=seen.progress_done, total=seen.progress_total)

        try:
            return service.wait(row.job_id, tell=tell)
        except KeyboardInterrupt:
            say(f"job {row.job_id} goes on; `geofix jobs cancel {row.job_id}` stops it")
            raise
