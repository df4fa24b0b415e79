"""How long a training may learn, so that several get the same: photos seen, or minutes of steps."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import Field, model_validator

from geofix.errors import BadInputError
from geofix.log import get_logger, progress_to
from geofix.training.sections import Positive, Section, Unit

_log = get_logger(__name__)
PILOT_STEPS = 12
"""Steps that are timed where the budget is in minutes; the first third is not counted."""


class Budget(Section):
    """The same for every training it is given to; whole epochs, at least one."""

    photos: Unit | None = Field(None, description="Photos seen, each as often as it is seen.")
    minutes: Positive | None = Field(
        None, description="Of steps as fast as a pilot's on this machine; validation comes on top."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.photos is None) == (self.minutes is None):
            raise ValueError("give photos or minutes, one of both")
        return self


Config = TypeVar("Config", bound=Section)


def within(
    budget: Budget | None, config: Config, snapshot_dir: Path, out: Path, learn: Callable[..., Any]
) -> Config:
    """The configuration with as many epochs as the budget allows.

    Args:
        budget: None: the configuration as it is.
        config: Of the training; has `batch.photos`, `share` and `epochs`.
        snapshot_dir: Whose training photos are learned.
        out: Of the training. A speed that was measured is kept beside it, so that a run that goes on has the
            epochs it began with.
        learn: Trains, as `geofix.training.loop.train`.

    Raises:
        BadInputError: The snapshot has no training photos.
    """
    if budget is None:
        return config
    per_epoch = photos_per_epoch(config, snapshot_dir)
    photos = float(budget.photos or 0)
    if budget.minutes is not None:
        photos = 60.0 * budget.minutes * speed(config, snapshot_dir, out, learn)
    epochs = max(1, round(photos / per_epoch))
    if photos < per_epoch / 2:
        _log.warning("the budget is less than an epoch; one is trained", photos=round(photos), of=per_epoch)
    return config.model_copy(update={"epochs": epochs})


def photos_per_epoch(config: Any, snapshot_dir: Path) -> int:
    """Photos that an epoch shows: whole batches, at least one."""
    from geofix.snapshots.reader import load_snapshot
    from geofix.training.places import TrainingPhotos

    found = len(TrainingPhotos.from_snapshot(load_snapshot(snapshot_dir), ["train"]))
    size = int(config.batch.photos)
    used = max(1, round(float(config.share) * found))
    return max(1, used // size) * size


def speed(config: Any, snapshot_dir: Path, out: Path, learn: Callable[..., Any]) -> float:
    """Photos per second of this training on this machine, from a few steps; measured once per configuration.

    Raises:
        BadInputError: The training makes no steps.
    """
    known = out.with_name(f"{out.name}.speed.json")
    digest = sha256(config.model_dump_json().encode()).hexdigest()
    with suppress(OSError, ValueError, KeyError):
        stored = json.loads(known.read_text(encoding="utf-8"))
        if stored["config"] == digest:
            return float(stored["photos_per_second"])
    size: int = config.batch.photos
    made = _pilot(config, snapshot_dir, out.parent, learn) * size
    known.parent.mkdir(parents=True, exist_ok=True)
    known.write_text(json.dumps({"config": digest, "photos_per_second": made}), encoding="utf-8")
    return made


def _pilot(config: Any, snapshot_dir: Path, beside: Path, learn: Callable[..., Any]) -> float:
    """Steps per second, start-up and validation not counted."""
    clock = _Clock()
    beside.mkdir(parents=True, exist_ok=True)
    # Enough epochs for the steps; the clock ends the run before they are done.
    changes: dict[str, Any] = {"epochs": PILOT_STEPS, "checkpoint_minutes": 1e6}
    if hasattr(config, "prototypes"):  # steps before the table starts are faster than those after
        at_once = {"warmup_epochs": 0, "start": "random"}
        changes["prototypes"] = config.prototypes.model_copy(update=at_once)
    short = config.model_copy(update=changes)
    made = tempfile.TemporaryDirectory(prefix=".pilot-", dir=beside)
    with made as folder, progress_to(clock), suppress(_EnoughError):
        learn(short, snapshot_dir, Path(folder) / "run")
    first = PILOT_STEPS // 3 if len(clock.at) > PILOT_STEPS // 3 + 1 else 0
    if len(clock.at) < 2:
        raise BadInputError("The training made no two steps, so its speed is not known.", hint="Give photos.")
    return (len(clock.at) - 1 - first) / max(clock.at[-1] - clock.at[first], 1e-6)


class _EnoughError(BaseException):
    """Ends a pilot, which leaves nothing behind."""

    leaves_nothing = True


class _Clock:
    """A progress sink that notes when a step was done."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def __call__(self, done: int, total: int | None, message: str = "", unit: str = "") -> None:
        """One report."""
        if unit != "steps" or not done:
            return
        self.at.append(time.monotonic())
        if len(self.at) >= PILOT_STEPS:
            raise _EnoughError
