"""Curves of a run: TensorBoard scalars, and one line of JSON per epoch for whoever has no TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch.utils.tensorboard import SummaryWriter

from geofix.training.step import Outcome

EVERY = 10
"""Steps between two points of a curve."""
_SHORT = {"ground_prototype": "GP", "ground_aerial": "GA", "aerial_prototype": "AP", "auxiliary": "aux"}


class Journal:
    """Writes the curves of one run into its directory; opened when the first value comes."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._writer: SummaryWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def step(self, step: int, outcome: Outcome, rate: float, photos_per_second: float) -> None:
        """A point of every curve, each tenth step."""
        if step % EVERY and step != 1:
            return
        for name, value in outcome.terms.items():
            self._scalar(f"loss/{name}", value, step)
        self._scalar("loss/total", outcome.loss, step)
        self._scalar("step/gradient_norm", outcome.norm, step)
        self._scalar("step/rate", rate, step)
        self._scalar("step/photos_per_second", photos_per_second, step)

    def validation(self, history: Sequence[Mapping[str, Any]]) -> None:
        """The figures of all epochs so far, the last of which is new to the curves.

        The file is written whole: an epoch gone through again after a crash has one line all the same.
        """
        last = history[-1]
        for name, value in last.items():
            if name not in ("epoch", "step"):
                self._scalar(f"val/{name}", value, last["step"])
        beside = self._out / ".epochs.jsonl"
        beside.write_text("".join(json.dumps(line) + "\n" for line in history), encoding="utf-8")
        beside.replace(self._out / "epochs.jsonl")

    @staticmethod
    def line(outcome: Outcome, photos_per_second: float) -> str:
        """The three terms and the speed, for the progress bar."""
        terms = " ".join(f"{_SHORT[name]} {value:.3f}" for name, value in outcome.terms.items())
        return f"{terms} {photos_per_second:.0f} photos/s"

    def _scalar(self, name: str, value: float, step: int) -> None:
        if self._writer is None:
            self._writer = SummaryWriter(str(self._out / "tensorboard"))
        self._writer.add_scalar(name, value, step)
