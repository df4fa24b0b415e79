"""Training as a job: on a worker with a GPU where there is one, resumed where it was left."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from geofix.jobs.specs import AbsolutePath, Specification, Structured, Work, register


@register
class Train(Specification):
    """Train from a snapshot directory; with `name` the model is registered when it is done.

    Cancelled, or lost with its worker, it leaves a checkpoint; another attempt goes on from there.
    """

    queue = "gpu"

    kind: Literal["train"] = "train"
    config: AbsolutePath
    snapshot: AbsolutePath
    out: AbsolutePath
    name: str | None = None
    changes: Structured[dict[str, Any]] = Field(default_factory=dict)
    resume: bool = False

    def run(self, work: Work) -> dict[str, Any]:
        """Train; no transaction is open meanwhile."""
        from geofix.pipeline.train_stage import kept_model, register_trained, with_changes
        from geofix.training.checkpoint import NAME
        from geofix.training.config import load_raw, parse_config
        from geofix.training.loop import train

        config = parse_config(with_changes(load_raw(self.config), self.changes), str(self.config))
        left = work.attempt > 1 and (self.out / NAME).exists()
        work.conn.commit()
        result = train(config, self.snapshot, self.out, resume=self.resume or left)
        if self.name is not None:
            directory = kept_model(self.out / "model", self.name)
            row = register_trained(work.conn, directory, self.name)
            result |= {"registered": row.name, "sha256": row.weights_sha256}
        return result
