"""What every stage is handed: a connection, the pipeline it belongs to, and where to write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from geofix.database.engine import Connection
from geofix.evaluation.protocols import endings
from geofix.pipeline.file import Evaluate, Pipeline, Stage
from geofix.settings import get_settings


def evaluation_name(pipeline: str, localizer: str, level: int, split: str, ends: Sequence[str] = ()) -> str:
    """What an evaluation of a pipeline is called; `ends` as of `evaluation.protocols.endings`."""
    return "-".join([f"{pipeline}-{localizer}-l{level}-{split}", *ends])


def asked_otherwise(stage: Evaluate) -> list[str]:
    """What the names of a stage's evaluations end in."""
    return endings(stage.rules(), exclude_author=stage.exclude_author, crops=stage.crops)


def training_dir(home: Path, pipeline: str, name: str | None = None) -> Path:
    """Where a pipeline trains a model, which is called as the pipeline unless `name` says otherwise."""
    return home / "training" / pipeline / (name or pipeline)


def code_set_name(pipeline: str, model: str, recipe: str, level: int) -> str:
    """What a code set of a pipeline is called."""
    return f"{pipeline}-{model}-{recipe}-l{level}"


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
        """Where the pipeline's snapshot lies: one that it makes, or the one it names."""
        return self.pipeline.snapshot or self.out / "snapshot"

    def code_set(self, model: str, recipe: str, level: int) -> str:
        """Name of a code set of this pipeline."""
        return code_set_name(self.pipeline.name, model, recipe, level)

    def evaluation(self, stage: Evaluate, localizer: str, level: int, split: str) -> str:
        """Name of an evaluation of this pipeline."""
        return evaluation_name(self.pipeline.name, localizer, level, split, asked_otherwise(stage))
