"""Run a pipeline: every stage in order, skipped while its inputs and outputs are as they were."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from geofix import __version__
from geofix.database.engine import Connection, connect
from geofix.database.queries import stage_runs
from geofix.log import get_logger
from geofix.pipeline.context import Context
from geofix.pipeline.file import Pipeline, Stage, load_pipeline
from geofix.pipeline.stages import STAGES

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
    only: Iterable[str] | None = None,
    lend: Callable[[], AbstractContextManager[Connection]] = connect,
) -> list[StageResult]:
    """Run a pipeline file from files to answers.

    A stage is skipped when its parameters, its input files (path, size, time), the stages before it and the
    software version are those of its last finished run, and what it made is still there. A run that is killed
    goes on with the stage in which it died; every stage can itself be repeated without harm.

    Args:
        path: Pipeline file.
        variables: Further ${variables} of the file.
        force: Run every stage, whatever is known of it.
        only: Kinds of stages to run; the others must have run before.
        lend: Gives connections.

    Raises:
        GeofixError: Of the stage that failed; the ones before it stay done.
    """
    pipeline, out = load_pipeline(path, variables)
    out.mkdir(parents=True, exist_ok=True)
    results: list[StageResult] = []
    chain = f"{__version__}"
    wanted = set(only) if only is not None else None
    for number, stage in enumerate(pipeline.stages, start=1):
        name = f"{number:02d}-{stage.do}"
        chain = _digest(chain, stage)
        skip = wanted is not None and stage.do not in wanted
        results.append(_one(pipeline, out, name, stage, chain, force and not skip, lend))
    (out / "summary.json").write_text(
        json.dumps({item.stage: item.result for item in results}, indent=2, default=str), encoding="utf-8"
    )
    return results


def _one(
    pipeline: Pipeline,
    out: Path,
    name: str,
    stage: Stage,
    inputs: str,
    force: bool,
    lend: Callable[[], AbstractContextManager[Connection]],
) -> StageResult:
    """Run one stage, or tell what its last run said."""
    with lend() as conn:
        known = stage_runs.find(conn, pipeline.name, name)
        same = known is not None and known.inputs_sha256 == inputs and not force
        if known is not None and same and stage_runs.outputs_exist(conn, known.result.get("outputs", [])):
            _log.info("stage unchanged", pipeline=pipeline.name, stage=name)
            return StageResult(name, True, known.seconds, known.result)
    _log.info("stage", pipeline=pipeline.name, stage=name)
    started = time.perf_counter()
    with lend() as conn:
        result = STAGES[type(stage)](Context(conn, pipeline, out), stage)
    seconds = time.perf_counter() - started
    with lend() as conn:
        stage_runs.store(conn, pipeline.name, name, inputs, result, seconds)
    return StageResult(name, False, seconds, result)


def _digest(before: str, stage: Stage) -> str:
    """Hash of everything that a stage depends on."""
    parts = [before, stage.model_dump_json()]
    for value in stage.model_dump().values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Path):
                parts.append(_stamp(item))
    return sha256("\0".join(parts).encode()).hexdigest()


def _stamp(path: Path) -> str:
    """Files below a path with size and time of change, hashed; a missing path has a stamp too."""
    if path.is_file():
        stat = path.stat()
        return f"{path}:{stat.st_size}:{stat.st_mtime_ns}"
    digest = sha256(str(path).encode())
    for item in sorted(path.rglob("*")) if path.is_dir() else []:
        if item.is_file():
            stat = item.stat()
            digest.update(f"{item.relative_to(path)!r}:{stat.st_size}:{stat.st_mtime_ns}".encode())
    return digest.hexdigest()
