"""Run a pipeline: every stage in order, skipped while its inputs and outputs are as they were."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geofix import __version__
from geofix.database.engine import Connection, connect
from geofix.database.queries import stage_runs
from geofix.log import get_logger
from geofix.pipeline.context import Context
from geofix.pipeline.file import Pipeline, Stage, load_pipeline
from geofix.pipeline.inputs import digest
from geofix.pipeline.stages import REPORTS, STAGES
from geofix.plain import plain

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


def run_pipeline(
    path: Path,
    *,
    variables: Mapping[str, str] | None = None,
    force: bool = False,
    lend: Callable[[], AbstractContextManager[Connection]] = connect,
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
    pipeline, out = load_pipeline(path, variables)
    out.mkdir(parents=True, exist_ok=True)
    names = [f"{number:02d}-{stage.do}" for number, stage in enumerate(pipeline.stages, start=1)]
    results: list[StageResult] = []
    chain = __version__
    for number, stage in enumerate(pipeline.stages):
        chain = digest(chain, stage)
        known = None if force else _known(pipeline, names[number], chain, lend)
        if known is None:
            last = number + 1 if isinstance(stage, REPORTS) else len(names)
            known = _run(pipeline, out, stage, names[number:last], chain, lend)
        results.append(known)
    (out / "summary.json").write_text(
        json.dumps({item.stage: item.result for item in results}, indent=2, default=str), encoding="utf-8"
    )
    return results


def _known(
    pipeline: Pipeline, name: str, inputs: str, lend: Callable[[], AbstractContextManager[Connection]]
) -> StageResult | None:
    """What the last run of a stage said, if it still holds."""
    with lend() as conn:
        known = stage_runs.find(conn, pipeline.name, name)
        if known is None or known.inputs_sha256 != inputs:
            return None
        if not stage_runs.outputs_exist(conn, known.result.get("outputs", [])):
            return None
    _log.info("stage unchanged", pipeline=pipeline.name, stage=name)
    return StageResult(name, True, known.seconds, known.result)


def _run(
    pipeline: Pipeline,
    out: Path,
    stage: Stage,
    names: list[str],
    inputs: str,
    lend: Callable[[], AbstractContextManager[Connection]],
) -> StageResult:
    """Run one stage; `names` are its own and those of the stages that its run makes out of date."""
    _log.info("stage", pipeline=pipeline.name, stage=names[0])
    with lend() as conn:
        stage_runs.forget(conn, pipeline.name, names)
    started = time.perf_counter()
    with lend() as conn:
        result = plain(STAGES[type(stage)](Context(conn, pipeline, out), stage))
        seconds = time.perf_counter() - started
        stage_runs.store(conn, pipeline.name, names[0], inputs, result, seconds)
    return StageResult(names[0], False, seconds, result)
