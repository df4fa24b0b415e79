"""A whole pipeline file as one job: the stages of `geofix run`, under one claim."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import Field

from geofix.database.engine import Connection
from geofix.jobs.specs import AbsolutePath, Specification, Structured, Work, register


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

        @contextmanager
        def lend() -> Iterator[Connection]:
            work.check()
            yield work.conn
            work.conn.commit()

        results = run_pipeline(self.file, variables=self.variables, force=self.force, lend=lend)
        return {
            "stages": [
                {
                    "stage": item.stage,
                    "skipped": item.skipped,
                    "seconds": round(item.seconds, 1),
                    "result": item.result,
                }
                for item in results
            ]
        }
