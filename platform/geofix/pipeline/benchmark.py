"""A benchmark of localizers: one snapshot, one budget, one pipeline file per training, one comparison."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from geofix.errors import BadInputError, UsageError
from geofix.evaluation.protocol_options import SEARCHES_PHOTOS, ProtocolOptions, refuse_own_author
from geofix.localizers.code_set import NAMES
from geofix.localizers.fit import FITTED
from geofix.localizers.trained import TRAINED
from geofix.pipeline import file as kinds
from geofix.pipeline.context import training_dir
from geofix.pipeline.file import Stage
from geofix.pipeline.read import checked_file, read_filled
from geofix.settings import get_settings
from geofix.snapshots.reader import load_snapshot
from geofix.training.budget import Budget
from geofix.training.config import load_raw

RECIPES = {localizer: recipe for recipe, localizer in NAMES.items()}
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
_NEED_TILES = {"hybrid", "aerial"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Training(_Part):
    """One training, and the localizers that its model serves."""

    name: Name
    config: Path
    changes: dict[str, Any] = {}
    models: dict[str, Name] = Field(
        {}, description="Keys that take the directory of an earlier training: {networks.start: joint}."
    )
    localizers: Annotated[list[str], Field(min_length=1)]
    labels: dict[str, str] = Field({}, description="What rows are called, by localizer; else its name.")
    crops: Literal["single", "five-max", "ten-mean"] | None = None
    exclude_author: bool = Field(
        False,
        description="Localizers that search photos get a second row, without those of a photo's own author.",
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        known = {*FITTED, *RECIPES}
        if unknown := [name for name in [*self.localizers, *self.labels] if name not in known]:
            raise ValueError(f"localizer {unknown[0]!r} is none of {', '.join(sorted(known))}")
        if self.exclude_author and not self.searching:
            refuse_own_author(self.localizers)
        return self

    @property
    def kind(self) -> str:
        """The stage that trains it, by what the configuration describes."""
        raw = load_raw(self.config)
        if isinstance(raw, dict) and ("ground" in raw) != ("encoder" in raw):
            return "train" if "ground" in raw else "train_classifier"
        raise BadInputError(
            f"{self.config} is no training configuration: it has neither `ground` nor `encoder`.",
            hint="See configs/ for both kinds.",
        )

    @property
    def searching(self) -> list[str]:
        """Its localizers that search single photos."""
        return [name for name in self.localizers if name in SEARCHES_PHOTOS]

    def crops_of(self, localizer: str) -> str | None:
        """How photos are shown to one of its localizers."""
        return self.crops if localizer in TRAINED else None


class Benchmark(ProtocolOptions, _Part):
    """What is compared, on what, and how it is counted."""

    name: Name
    about: str = ""
    budget: Budget
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    level: Annotated[int, Field(ge=1, le=24)] = 16
    splits: Annotated[list[str], Field(min_length=1)] = ["test_seen", "test_unseen"]
    threshold_m: Annotated[float, Field(gt=0)] = 200.0
    snapshot: Path | None = Field(None, description="Registered; in place of `setup`.")
    setup: list[Stage] = Field([], description="Stages up to the snapshot.")
    trainings: Annotated[list[Training], Field(min_length=1)]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [item.name for item in self.trainings]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"trainings: {min(twice)!r} occurs twice")
        for place, item in enumerate(self.trainings):
            if unknown := [name for name in item.models.values() if name not in names[:place]]:
                raise ValueError(f"trainings: {item.name} needs {unknown[0]!r}, which is none before it")
        if (self.snapshot is None) == (not self.setup):
            raise ValueError("give snapshot, or setup with stages that make one")
        if self.setup and not any(isinstance(item, kinds.Snapshot) for item in self.setup):
            raise ValueError("setup has no stage that makes a snapshot")
        if self.rules().missing == "drop":
            raise ValueError("missing: every row counts the same photos, so a missing answer is wrong")
        return self


@dataclass(frozen=True)
class Part:
    """One training with one seed: a pipeline of its own.

    Attributes:
        name: Of pipeline and model.
        training: What is trained.
        seed: Of the training.
        file: Its pipeline file.
        after: Parts whose models it takes up.
    """

    name: str
    training: Training
    seed: int
    file: Path
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A benchmark as pipeline files.

    Attributes:
        benchmark: As it was read.
        out: Folder of its reports.
        home: Below which models, trainings and reports are.
        setup: Pipeline file that makes the snapshot; None where it is given.
        snapshot: Directory of the snapshot.
        parts: In the order of the file, seed by seed.
    """

    benchmark: Benchmark
    out: Path
    home: Path
    setup: Path | None
    snapshot: Path
    parts: tuple[Part, ...]


def read_benchmark(
    path: Path,
    *,
    variables: Mapping[str, str] | None = None,
    snapshot: Path | None = None,
    without: Sequence[str] = (),
    budget: Budget | None = None,
    home: Path | None = None,
) -> Plan:
    """Read a benchmark and write its pipeline files below GEOFIX_HOME/runs/NAME/pipelines.

    Args:
        path: YAML file.
        variables: Further ${variables} of the file.
        snapshot: A registered snapshot in place of the file's, or of its `setup`.
        without: Trainings that are left out; their variables need not be given.
        budget: In place of the file's.
        home: In place of GEOFIX_HOME.

    Raises:
        NotFoundError: No such file, or snapshot.
        UsageError: There is no training of a name in `without`, or a variable is unknown.
        BadInputError: The file says something unknown; the message names the field.
    """
    home = home or get_settings().home_dir
    raw, out = read_filled(path, variables, home, prepare=lambda raw: _cut(raw, snapshot, without))
    if snapshot is not None:
        raw["snapshot"] = os.fspath(snapshot.absolute())
    if budget is not None:
        raw["budget"] = budget.model_dump(exclude_none=True)
    found = checked_file(Benchmark, raw, path)
    folder = out / "pipelines"
    folder.mkdir(parents=True, exist_ok=True)
    setup = None
    if found.setup:
        name = f"{found.name}-setup"
        setup = _write(folder, name, [_plain(item) for item in found.setup])
    place = found.snapshot or home / "runs" / f"{found.name}-setup" / "snapshot"
    photos, aerial = _datasets(found)
    parts = []
    for training in found.trainings:
        for seed in found.seeds:
            name = _part_name(found, training.name, seed)
            after = {key: _part_name(found, other, seed) for key, other in training.models.items()}
            taken = {key: os.fspath(training_dir(home, other)) for key, other in after.items()}
            whole = training.model_copy(update={"changes": {**training.changes, **taken}})
            stages = part_stages(found, whole, name, seed, photos, aerial)
            file = _write(folder, name, stages, place)
            parts.append(Part(name, training, seed, file, tuple(after.values())))
    return Plan(found, out, home, setup, place, tuple(parts))


def _cut(raw: dict[str, Any], snapshot: Path | None, without: Sequence[str]) -> dict[str, Any]:
    """The document without what is replaced or left out."""
    kept = {key: item for key, item in raw.items() if snapshot is None or key not in ("setup", "snapshot")}
    listed = raw.get("trainings")
    if not without or not isinstance(listed, list):
        return kept
    names = [item.get("name") if isinstance(item, dict) else None for item in listed]
    if unknown := [name for name in without if name not in names]:
        raise UsageError(
            f"There is no training {unknown[0]!r} to leave out.",
            hint=f"There are {', '.join(str(name) for name in names)}.",
        )
    trainings = [item for name, item in zip(names, listed, strict=True) if name not in without]
    return {**kept, "trainings": trainings}


def part_stages(
    benchmark: Benchmark, training: Training, name: str, seed: int, photos: list[str], aerial: list[str]
) -> list[dict[str, Any]]:
    """Stages from training to evaluation.

    Raises:
        BadInputError: The configuration is of no kind that can be trained.
        UsageError: A localizer needs aerial imagery, and there is none.
    """
    wanted = training.localizers
    recipes = [RECIPES[localizer] for localizer in wanted if localizer in RECIPES]
    look = [localizer for localizer in wanted if localizer in TRAINED]
    ask = [localizer for localizer in wanted if localizer not in TRAINED]
    if _NEED_TILES & set(recipes) and not aerial:
        raise UsageError(
            f"Training {training.name}: {', '.join(wanted)} need aerial imagery, which the snapshot lacks."
        )
    stages: list[dict[str, Any]] = [
        {
            "do": training.kind,
            "name": name,
            "config": os.fspath(training.config),
            "changes": {**training.changes, "seed": seed},
            "budget": benchmark.budget.model_dump(exclude_none=True),
        }
    ]
    if ask:
        stages.append({"do": "embed", "what": "photos", "model": name, "datasets": photos})
    if _NEED_TILES & set(recipes):
        stages.append({"do": "embed", "what": "aerial", "model": name, "datasets": aerial})
    for recipe in recipes:
        tiles = {"datasets": aerial} if recipe in _NEED_TILES else {}
        common = {"do": "codes", "model": name, "levels": [benchmark.level], "calibrate": False}
        stages.append({**common, "recipe": recipe, **tiles})
    judged = {"do": "evaluate", "model": name, "levels": [benchmark.level], "splits": benchmark.splits}
    judged |= benchmark.model_dump(include=set(benchmark.unwritten))
    if ask:
        stages.append({**judged, "localizers": ask})
    if training.exclude_author:
        stages.append({**judged, "localizers": training.searching, "exclude_author": True})
    if look:
        crops = {"crops": training.crops} if training.crops else {}
        stages.append({**judged, "localizers": look, **crops})
    return stages


def _part_name(benchmark: Benchmark, training: str, seed: int) -> str:
    return f"{benchmark.name}-{training}" + (f"-s{seed}" if len(benchmark.seeds) > 1 else "")


def _datasets(benchmark: Benchmark) -> tuple[list[str], list[str]]:
    """Data sets of the snapshot's photos, and sources of its tiles."""
    if benchmark.snapshot is not None:
        manifest = load_snapshot(benchmark.snapshot, verify=False).manifest
        return list(manifest.get("datasets", [])), list(manifest.get("aerial_sources", []))
    made = next(item for item in benchmark.setup if isinstance(item, kinds.Snapshot))
    loaded = [item.source for item in benchmark.setup if isinstance(item, kinds.IngestAerial)]
    wanted = loaded if made.aerial is None else [name for name in made.aerial if name != "none"]
    return list(made.datasets), wanted


def _plain(stage: Any) -> dict[str, Any]:
    document: dict[str, Any] = stage.model_dump(mode="json", exclude_unset=True)
    return document


def _write(folder: Path, name: str, stages: list[dict[str, Any]], snapshot: Path | None = None) -> Path:
    path = folder / f"{name}.yaml"
    whole: dict[str, Any] = {"name": name, "stages": stages}
    if snapshot is not None:
        whole["snapshot"] = os.fspath(snapshot)
    path.write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    return path
