"""Run a pipeline, or one stage of it: skipped while its inputs and outputs are as they were."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geofix.database.engine import Connection, connect
from geofix.database.queries import stage_runs
from geofix.errors import UsageError
from geofix.log import get_logger
from geofix.pipeline.context import Context
from geofix.pipeline.file import Pipeline, Stage, load_pipeline
from geofix.pipeline.inputs import beginning, digest
from geofix.pipeline.stages import REPORTS, STAGES
from geofix.plain import plain
from geofix.settings import get_settings

Lend = Callable[[], AbstractContextManager[Connection]]

_log = get_logger(__name__)


@dataclass(frozen=True)
class StageResult:
    """One stage as it went.

    Attributes:
        stage: Number and kind, for example `03-snapshot`.
        skipped: Nothing had changed, the stored result is shown.
        seconds: Wall time of the run that made the result.
        result: What the stage said.
    """

    stage: str
    skipped: bool
    seconds: float
    result: dict[str, Any]


@dataclass(frozen=True)
class _Plan:
    """A pipeline file, read, with the places where its results go."""

    pipeline: Pipeline
    out: Path
    home: Path

    @classmethod
    def read(cls, path: Path, variables: Mapping[str, str] | None, home: Path | None) -> _Plan:
        home = home or get_settings().home_dir
        pipeline, out = load_pipeline(path, variables, home)
        out.mkdir(parents=True, exist_ok=True)
        return cls(pipeline, out, home)

    def step(self, number: int, inputs: str, lend: Lend, *, force: bool) -> StageResult:
        """Stage `number`, from 0, run unless it is known; `inputs` is the hash of what it depends on."""
        names = stage_names(self.pipeline)
        known = None if force else _known(self.pipeline, names[number], inputs, lend)
        if known is not None:
            return known
        stage = self.pipeline.stages[number]
        last = number + 1 if isinstance(stage, REPORTS) else len(names)
        return _run(self, stage, names[number:last], inputs, lend)

    def write_summary(self, results: Mapping[str, Any]) -> None:
        (self.out / "summary.json").write_text(
            json.dumps(dict(results), indent=2, default=str), encoding="utf-8"
        )


def stage_names(pipeline: Pipeline) -> list[str]:
    """Names of the stages of a pipeline, in order: `03-snapshot`."""
    return [f"{number:02d}-{stage.do}" for number, stage in enumerate(pipeline.stages, start=1)]


def run_pipeline(
    path: Path,
    *,
    variables: Mapping[str, str] | None = None,
    force: bool = False,
    lend: Lend = connect,
) -> list[StageResult]:
    """Run a pipeline file from files to answers.

    A stage is skipped when its parameters, its input files, the stages before it and the software version
    are those of its last finished run, and what it made is still there. A stage that runs is forgotten
    first, with all that follow unless it only reports: a run that is killed goes on with the stage in which
    it died, and nothing stays that was made from older inputs. Every stage can be repeated without harm.

    Args:
        path: Pipeline file.
        variables: Further ${variables} of the file.
        force: Run every stage, whatever is known of it.
        lend: Gives connections.

    Raises:
        GeofixError: Of the stage that failed; the ones before it stay done.
    """
    plan = _Plan.read(path, variables, None)
    results: list[StageResult] = []
    chain = beginning(plan.pipeline)
    for number, stage in enumerate(plan.pipeline.stages):
        chain = digest(chain, stage)
        results.append(plan.step(number, chain, lend, force=force))
    plan.write_summary({item.stage: item.result for item in results})
    return results


def run_stage(
    path: Path,
    number: int,
    *,
    variables: Mapping[str, str] | None = None,
    home: Path | None = None,
    lend: Lend = connect,
) -> StageResult:
    """Run one stage of a pipeline file as `run_pipeline` does; those before it have been run.

    Args:
        path: Pipeline file.
        number: Of the stage, from 1. After the last one the run's summary is written.
        variables: Further ${variables} of the file.
        home: Where the run's files are, in place of GEOFIX_HOME.
        lend: Gives connections.

    Raises:
        UsageError: The file has no such stage.
        GeofixError: Of the stage.
    """
    plan = _Plan.read(path, variables, home)
    stages = plan.pipeline.stages
    if not 1 <= number <= len(stages):
        raise UsageError(f"{path} has no stage {number}.", hint=f"It has {len(stages)}.")
    chain = beginning(plan.pipeline)
    for stage in stages[:number]:
        chain = digest(chain, stage)
    result = plan.step(number - 1, chain, lend, force=False)
    if number == len(stages):
        with lend() as conn:
            known = {
                name: stage_runs.find(conn, plan.pipeline.name, name) for name in stage_names(plan.pipeline)
            }
        plan.write_summary({name: run.result for name, run in known.items() if run is not None})
    return result


def _known(pipeline: Pipeline, name: str, inputs: str, lend: Lend) -> StageResult | None:
    """What the last run of a stage said, if it still holds."""
    with lend() as conn:
        known = stage_runs.find(conn, pipeline.name, name)
        if known is None or known.inputs_sha256 != inputs:
            return None
        if not stage_runs.outputs_exist(conn, known.result.get("outputs", [])):
            return None
    _log.info("stage unchanged", pipeline=pipeline.name, stage=name)
    return StageResult(name, True, known.seconds, known.result)


def _run(plan: _Plan, stage: Stage, names: list[str], inputs: str, lend: Lend) -> StageResult:
    """Run one stage; `names` are its own and those of the stages that its run makes out of date."""
    pipeline = plan.pipeline
    _log.info("stage", pipeline=pipeline.name, stage=names[0])
    with lend() as conn:
        stage_runs.forget(conn, pipeline.name, names)
    started = time.perf_counter()
    with lend() as conn:
        result = plain(STAGES[type(stage)](Context(conn, pipeline, plan.out, plan.home), stage))
        seconds = time.perf_counter() - started
        stage_runs.store(conn, pipeline.name, names[0], inputs, result, seconds)
    return StageResult(names[0], False, seconds, result)
