"""Kinds of jobs that only the tests know: they write rows, slowly or wrongly, as they are told."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Literal

from geofix.errors import BadInputError, TransientError
from geofix.jobs.specs import Chunks, Specification, Work, register
from geofix.log import get_logger, progress

WRITE = "INSERT INTO geofix.probe (key, step, attempt) VALUES (%s, %s, %s)"
SLEEP = "SELECT pg_sleep(%s)"


@register
class Probe(Specification):
    """Writes `steps` rows in one transaction, with a pause before each."""

    kind: Literal["probe"] = "probe"
    key: str
    steps: int = 1
    pause_s: float = 0.0
    fail: Literal["", "bad", "bug", "transient", "always", "kill"] = ""

    def run(self, work: Work) -> dict[str, Any]:
        with progress("steps", self.steps, "rows") as advance:
            for step in range(self.steps):
                time.sleep(self.pause_s)
                work.conn.execute(WRITE, (self.key, step, work.attempt))
                advance(1)
        get_logger("probe").info("rows written", rows=self.steps)
        self._fail(work)
        return {"rows": self.steps, "attempt": work.attempt, "nan": float("nan")}

    def _fail(self, work: Work) -> None:
        if self.fail == "bad":
            raise BadInputError("photo 7.jpg holds no pixel.")
        if self.fail == "bug":
            raise KeyError("no such thing")
        if self.fail == "always" or (self.fail == "transient" and work.attempt == 1):
            raise TransientError("the store was away.")
        if self.fail == "kill":
            os.kill(os.getpid(), signal.SIGKILL)


@register
class Split(Specification):
    """Splits into probes; the one with the number of `broken` fails until a file is there."""

    kind: Literal["split"] = "split"
    key: str
    parts: int = 4
    steps: int = 3
    pause_s: float = 0.0
    broken: int = 0
    gate: Path = Path("/nonexistent")
    number: int = 0
    resumable = True

    def chunks(self, work: Work) -> Chunks | None:
        numbered = [self.model_copy(update={"number": n + 1}) for n in range(self.parts)]
        return Chunks([(part, self.steps) for part in numbered], "rows")

    def join(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        return {"rows": sum(item["rows"] for item in results)}

    def run(self, work: Work) -> dict[str, Any]:
        with progress("steps", self.steps, "rows") as advance:
            for step in range(self.steps):
                time.sleep(self.pause_s)
                work.conn.execute(WRITE, (self.key, self.number * 100 + step, work.attempt))
                advance(1)
        if self.number == self.broken and not self.gate.exists():
            raise BadInputError(f"part {self.number} is broken.")
        return {"rows": self.steps}


@register
class Statement(Specification):
    """Spends its time inside one SQL statement, without a step of progress."""

    kind: Literal["statement"] = "statement"
    seconds: float

    def run(self, work: Work) -> dict[str, Any]:
        work.conn.execute(SLEEP, (self.seconds,))
        return {}


@register
class Sleepwalker(Specification):
    """Waits for a file without progress or SQL, then writes and commits: once paused, a zombie."""

    kind: Literal["sleepwalker"] = "sleepwalker"
    key: str
    gate: Path
    notes: Path

    def run(self, work: Work) -> dict[str, Any]:
        started = self.notes / f"started-{work.attempt}"
        started.touch()
        while work.attempt == 1 and not self.gate.exists():
            time.sleep(0.02)
        work.conn.execute(WRITE, (self.key, 0, work.attempt))
        try:
            work.conn.commit()
        except BaseException as error:
            (self.notes / f"fenced-{work.attempt}").write_text(type(error).__name__)
            raise
        return {"attempt": work.attempt}
