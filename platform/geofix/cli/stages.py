"""Stages of a queued pipeline as they run: bars on a terminal, a line per event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from geofix.cli.output import say
from geofix.database.engine import connect
from geofix.database.queries.jobs import JobRow, list_jobs
from geofix.errors import JobFailedError
from geofix.jobs import service

EVERY_S = 0.5
_MARKS = {
    "succeeded": "[green]done[/]",
    "failed": "[bold red]failed[/]",
    "parked": "[bold red]parked[/]",
    "lost": "[yellow]lost[/]",
    "paused": "[yellow]paused[/]",
    "cancelled": "[yellow]cancelled[/]",
}


def follow(job: JobRow, alive: Callable[[], None]) -> list[JobRow]:
    """Show the stages of a pipeline until it has ended; their rows, in order.

    Args:
        job: The pipeline.
        alive: Called at every look; raises when nobody is left to work.
    """
    assert job.result is not None
    names = {UUID(item): name for name, item in job.result["jobs"].items()}
    view: _Lines | _Bars = _Bars(names) if Console(stderr=True).is_terminal else _Lines(names)
    with view:
        while True:
            row = service.find(job.job_id)
            with connect("writer") as conn:
                stages = {stage.job_id: stage for stage in list_jobs(conn, parent=job.job_id, limit=1000)}
            found = [stages[item] for item in sorted(names, key=lambda item: names[item])]
            view.show(found)
            if row.is_finished:
                return found
            alive()
            time.sleep(EVERY_S)


def require_all(job: JobRow, stages: list[JobRow], log: str) -> None:
    """Refuse a pipeline that did not succeed.

    Args:
        job: The pipeline.
        stages: Its stages.
        log: Where its workers wrote.

    Raises:
        JobFailedError: It ended otherwise; the message names the stage, and the hint its log.
    """
    if all(stage.state == "succeeded" for stage in stages):
        return
    assert job.result is not None
    names = {UUID(item): name for name, item in job.result["jobs"].items()}
    bad = [stage for stage in stages if stage.state not in ("succeeded", "queued")]
    first = next((stage for stage in bad if stage.started_at is not None), bad[0] if bad else stages[0])
    raise JobFailedError(
        f"Stage {names[first.job_id]} is {first.state}: {first.error or 'no error was noted'}",
        hint=f"See `geofix jobs logs {first.job_id}`, and {log} for what its worker said; then run the same "
        "command again, which goes on with this stage.",
    )


def _seconds(stage: JobRow) -> float:
    """How long a stage has worked, or did."""
    if stage.started_at is None:
        return 0.0
    return ((stage.finished_at or datetime.now(UTC)) - stage.started_at).total_seconds()


def _is_unchanged(stage: JobRow) -> bool:
    return stage.state == "succeeded" and bool((stage.result or {}).get("skipped"))


class _Lines:
    """For files and pipes: a line when a stage begins and when it has ended."""

    def __init__(self, names: dict[UUID, str]) -> None:
        self._names = names
        self._seen: dict[UUID, str] = {}

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def show(self, stages: list[JobRow]) -> None:
        """Say what has changed since the last look."""
        for stage in stages:
            state = "unchanged" if _is_unchanged(stage) else stage.state
            if self._seen.get(stage.job_id, "queued") == state:
                continue
            self._seen[stage.job_id] = state
            name = self._names[stage.job_id]
            if state == "unchanged":
                say(f"    {name}: stage unchanged")
            elif state == "succeeded":
                say(f"    {name}: done in {_seconds(stage):,.1f} s")
            elif state == "running":
                say(f"    {name}: running, job {stage.job_id}")
            elif stage.started_at is not None:
                say(f"    {name}: {state}")


class _Bars:
    """For terminals: one bar per stage, which stays when it is done."""

    def __init__(self, names: dict[UUID, str]) -> None:
        self._bars = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[state]}"),
            TextColumn("{task.fields[detail]}"),
            console=Console(stderr=True, emoji=False, highlight=False),
        )
        self._tasks = {
            item: self._bars.add_task(name, total=1, start=False, state="waits", detail="")
            for item, name in sorted(names.items(), key=lambda pair: pair[1])
        }

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bars.stop()

    def show(self, stages: list[JobRow]) -> None:
        """Bring every bar up to date."""
        for stage in stages:
            task = self._tasks[stage.job_id]
            if stage.started_at is not None:
                self._bars.start_task(task)
            ended = stage.state == "succeeded"
            # A piece of a stage that is whole is not yet the stage: rich would call the bar finished.
            total = stage.progress_total if stage.progress_done < (stage.progress_total or 0) else None
            state = "unchanged" if _is_unchanged(stage) else _MARKS.get(stage.state, stage.state)
            self._bars.update(
                task,
                total=1 if ended or stage.started_at is None else total,
                completed=1 if ended else stage.progress_done,
                state="waits" if stage.state == "queued" else state,
                detail=_detail(stage),
            )


def _detail(stage: JobRow) -> str:
    """Time, count and what is being done, as far as there is something to say."""
    if stage.started_at is None or _is_unchanged(stage):
        return ""
    parts = [f"{_seconds(stage):,.0f} s"]
    if stage.state == "running" and stage.progress_total:
        parts.append(f"{stage.progress_done:,}/{stage.progress_total:,} {stage.progress_unit}".rstrip())
    if stage.state == "running":
        parts.append(escape(stage.progress_message))
    return "  ".join(part for part in parts if part)
