"""Several jobs that depend on each other, submitted and watched as one."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from geofix.errors import UsageError
from geofix.jobs.specs import Queue, Specification, Structured, Work, parse, register


class Stage(BaseModel):
    """One job of a pipeline.

    Attributes:
        name: How other stages and the result call it.
        kind: Kind of the job.
        parameters: Its parameters, checked like those of a job submitted alone.
        after: Stages that must have succeeded before.
        queue: Other than the kind's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    kind: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    after: list[str] = Field(default_factory=list)
    queue: Queue | None = None

    def specification(self) -> Specification:
        """The checked specification.

        Raises:
            UsageError: As `parse`.
        """
        return parse(self.kind, self.parameters)


@register
class Pipeline(Specification):
    """Stages with dependencies. Its row is never claimed: its state follows from its stages' rows."""

    kind: Literal["pipeline"] = "pipeline"
    stages: Structured[list[Stage]] = Field(min_length=1)

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        names = [stage.name for stage in self.stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"stages: name {twice[0]!r} occurs twice")
        for stage in self.stages:
            unknown = [name for name in stage.after if name not in names]
            if unknown:
                raise ValueError(f"stages: {stage.name} comes after {unknown[0]!r}, which is no stage")
            if stage.kind == "pipeline":  # settled by other rules than chunks, and no deeper
                raise ValueError(f"stages: {stage.name} is itself a pipeline")
            try:
                stage.specification()
            except UsageError as error:
                raise ValueError(f"stages: {stage.name}: {error.message}") from None
        self.ordered()
        return self

    def ordered(self) -> list[Stage]:
        """Stages, each after those it depends on."""
        by_name = {stage.name: stage for stage in self.stages}
        try:
            order = TopologicalSorter({stage.name: stage.after for stage in self.stages}).static_order()
            return [by_name[name] for name in order]
        except CycleError as error:
            raise ValueError(f"stages: {' -> '.join(error.args[1])} go in a circle") from None

    def run(self, work: Work) -> dict[str, Any]:
        """Never called: workers claim the stages.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"Job {work.job_id} is a pipeline; its stages run, not itself.")
