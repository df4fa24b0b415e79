"""Training as a job: on a worker with a GPU where there is one, resumed where it was left."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from geofix.database.queries import jobs
from geofix.errors import UsageError
from geofix.jobs.specs import AbsolutePath, Specification, Structured, Work, register
from geofix.training.budget import Budget, within

Parts = tuple[Callable[[Any, str], Any], Callable[..., dict[str, Any]]]

OWNER = ".job"  # in the run's directory: the job that it belongs to


class _Training(Specification):
    """Train from a snapshot directory; with `name` the model is registered when it is done.

    Paused, cancelled, or lost with its worker, it leaves a checkpoint; the next claim goes on from there.
    """

    queue = "gpu"
    resumable = True

    config: AbsolutePath
    snapshot: AbsolutePath
    out: AbsolutePath
    name: str | None = None
    changes: Structured[dict[str, Any]] = Field(default_factory=dict)
    budget: Structured[Budget | None] = None
    resume: bool = False

    def run(self, work: Work) -> dict[str, Any]:
        """Train; no transaction is open meanwhile."""
        from geofix.pipeline.train_stage import kept_model, register_trained
        from geofix.training.config import load_raw, with_changes

        parse, begin = self._parts()
        asked = parse(with_changes(load_raw(self.config), self.changes), str(self.config))
        resume = _take_over(work, self.out, self.resume)
        work.conn.commit()
        config = within(self.budget, asked, self.snapshot, self.out, begin)
        result = begin(config, self.snapshot, self.out, resume=resume)
        if self.name is not None:
            directory = kept_model(self.out / "model", self.name)
            row = register_trained(work.conn, directory, self.name)
            result |= {"registered": row.name, "sha256": row.weights_sha256}
        return result

    @abstractmethod
    def _parts(self) -> Parts:
        """What checks the configuration, and what trains."""


@register
class Train(_Training):
    """Encoders and prototypes."""

    kind: Literal["train"] = "train"

    def _parts(self) -> Parts:
        from geofix.training.config import parse_config
        from geofix.training.loop import train

        return parse_config, train


@register
class TrainClassifier(_Training):
    """What `geofix train-classifier` trains."""

    kind: Literal["train_classifier"] = "train_classifier"

    def _parts(self) -> Parts:
        from geofix.training.classify import train_classifier
        from geofix.training.classify_config import parse_classifier_config

        return parse_classifier_config, train_classifier


def _take_over(work: Work, out: Path, resume: bool) -> bool:
    """Whether to go on from a checkpoint: this job's own, or with `resume` any.

    Raises:
        UsageError: Another job that has not ended trains there.
    """
    from geofix.training.checkpoint import NAME

    mark = out / OWNER
    try:
        owner = UUID(mark.read_text().strip())
    except (FileNotFoundError, ValueError):
        owner = None
    if owner is not None and owner != work.job_id:
        other = jobs.find_job(work.conn, owner)
        if other is not None and not other.is_finished:
            raise UsageError(
                f"{out} is where job {owner} trains, which is {other.state}.", hint="Name another directory."
            )
    begun = (out / NAME).is_file()
    if not begun or resume or owner == work.job_id:
        out.mkdir(parents=True, exist_ok=True)
        mark.write_text(str(work.job_id))
    return begun and (resume or owner == work.job_id)
