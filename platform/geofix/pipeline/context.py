"""What every stage is handed: a connection, the pipeline it belongs to, and where to write."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from geofix.database.engine import Connection
from geofix.pipeline.file import Pipeline, Stage
from geofix.settings import get_settings


@dataclass(frozen=True)
class Context:
    """The surroundings of a stage.

    Attributes:
        conn: Open connection of the owner; committed after the stage.
        pipeline: The pipeline.
        out: Folder of its reports.
        home: Folder below which models and trainings are kept.
    """

    conn: Connection
    pipeline: Pipeline
    out: Path
    home: Path = field(default_factory=lambda: get_settings().home_dir)

    def file(self, stage: Stage, name: str) -> Path:
        """Where a stage writes a report; the second stage of a kind writes NAME-2."""
        alike = [item for item in self.pipeline.stages if item.do == stage.do]
        place = alike.index(stage)
        path = self.out / name
        return path if place == 0 else path.with_stem(f"{path.stem}-{place + 1}")

    @property
    def snapshot_dir(self) -> Path:
        """Where the pipeline's snapshot lies."""
        return self.out / "snapshot"

    def code_set(self, model: str, recipe: str, level: int) -> str:
        """Name of a code set of this pipeline."""
        return f"{self.pipeline.name}-{model}-{recipe}-l{level}"

    def evaluation(self, localizer: str, level: int, split: str) -> str:
        """Name of an evaluation of this pipeline."""
        return f"{self.pipeline.name}-{localizer}-l{level}-{split}"
