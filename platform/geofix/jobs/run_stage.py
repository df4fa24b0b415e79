"""A pipeline file as jobs: the whole of it under one claim, or every stage a job of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from geofix.database.engine import Connection
from geofix.jobs.pipeline import Pipeline, Stage
from geofix.jobs.specs import AbsolutePath, Specification, Structured, Work, register

if TYPE_CHECKING:
    from geofix.pipeline.run import Lend, StageResult

ON_GPU = (
    "train",
    "train_classifier",
    "embed",
    "localize",
)  # stages that compute where a GPU is, when there is one


@register
class Run(Specification):
    """Run a pipeline file; a killed attempt goes on with the stage in which it died."""

    resumable = True

    kind: Literal["run"] = "run"
    file: AbsolutePath
    variables: Structured[dict[str, str]] = Field(default_factory=dict)
    force: bool = False

    def run(self, work: Work) -> dict[str, Any]:
        """Every stage in order, each committed by itself."""
        from geofix.pipeline.run import run_pipeline

        lend = lending(work)
        results = run_pipeline(self.file, variables=self.variables, force=self.force, lend=lend)
        return {"stages": [document(item) for item in results]}


@register
class RunStage(Specification):
    """Run one stage of a pipeline file, after those before it; skipped when nothing has changed.

    `home` is that of whoever submitted it: the files of a run stay together whichever worker made them.
    """

    resumable = True

    kind: Literal["stage"] = "stage"
    file: AbsolutePath
    number: int = Field(ge=1)
    home: AbsolutePath
    variables: Structured[dict[str, str]] = Field(default_factory=dict)

    def run(self, work: Work) -> dict[str, Any]:
        """The stage, committed by itself."""
        from geofix.pipeline.run import run_stage

        lend = lending(work)
        made = run_stage(self.file, self.number, variables=self.variables, home=self.home, lend=lend)
        return document(made)


def staged(file: Path, home: Path, variables: Mapping[str, str]) -> Pipeline:
    """A pipeline file as a pipeline of jobs, one per stage, each after the one before it.

    Raises:
        NotFoundError: There is no such file.
        BadInputError: It is no pipeline file.
    """
    return Pipeline(stages=stages_of(file, home, variables))


def stages_of(
    file: Path, home: Path, variables: Mapping[str, str], *, before: str = "", after: Sequence[str] = ()
) -> list[Stage]:
    """The stages of a pipeline file as jobs, each after the one before it.

    Args:
        file: Pipeline file.
        home: Where its files are.
        variables: Further ${variables}.
        before: What the names of the jobs begin with.
        after: Jobs that the first stage waits for.
    """
    from geofix.pipeline.file import load_pipeline
    from geofix.pipeline.run import stage_names

    pipeline, _ = load_pipeline(file, variables, home)
    names = [f"{before}{name}" for name in stage_names(pipeline)]
    given = {"file": str(file.absolute()), "home": str(home), "variables": dict(variables)}
    return [
        Stage(
            name=name,
            kind="stage",
            parameters={**given, "number": number},
            after=[names[number - 2]] if number > 1 else list(after),
            queue="gpu" if stage.do in ON_GPU else None,
        )
        for number, (name, stage) in enumerate(zip(names, pipeline.stages, strict=True), start=1)
    ]


def document(result: StageResult) -> dict[str, Any]:
    """A stage as it went, for a job's result."""
    return {
        "stage": result.stage,
        "skipped": result.skipped,
        "seconds": round(result.seconds, 1),
        "result": result.result,
    }


def lending(work: Work) -> Lend:
    """What lends a job's own connection, and commits after each use."""

    @contextmanager
    def lend() -> Iterator[Connection]:
        work.check()
        yield work.conn
        work.conn.commit()

    return lend
