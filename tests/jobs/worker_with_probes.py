"""The product's worker, told of the tests' kinds of jobs; arguments as `python -m geofix_workers`."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import probes  # noqa: F401

from geofix.log import configure, progress_to
from geofix_workers import supervise


def pace(done: int, total: int | None, message: str = "", unit: str = "") -> None:
    """Let steps of a training and batches of pictures take their time, so that a test can come between.

    A file named as what is being done, in the directory PROBE_DIE_IN, kills one process that does it, once.
    """
    if unit in ("steps", "photos"):
        time.sleep(float(os.environ.get("PROBE_PACE_S", "0")))
    trigger = Path(os.environ.get("PROBE_DIE_IN", "/nonexistent")) / message
    if trigger.is_file():
        with suppress(FileNotFoundError):
            trigger.unlink()  # of two processes one dies
            os.kill(os.getpid(), signal.SIGKILL)


def jump_clock() -> None:
    """This process's wall clock goes wrong; nothing but log lines may show it."""
    if off := float(os.environ.get("PROBE_CLOCK_OFF_S", "0")):
        right = time.time
        time.time = lambda: right() + off


def die_at() -> None:
    """SIGKILL to this process at a place where a crash hurts most, once: the file named is the trigger."""
    place, _, trigger = os.environ.get("PROBE_DIE_AT", "").partition(":")
    if not place:
        return
    from geofix.jobs import runner

    intact = {"claimed": runner._run, "committed": runner._record}[place]

    def deadly(*arguments: object) -> None:
        if Path(trigger).exists():
            Path(trigger).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        intact(*arguments)

    setattr(runner, {"claimed": "_run", "committed": "_record"}[place], deadly)


if __name__ == "__main__":
    configure("INFO", json=True)
    jump_clock()
    die_at()
    with progress_to(pace):
        if sys.argv[1] == "all":
            _, _, queues, concurrency, beat = sys.argv
            command = [sys.executable, __file__, "one"]
            supervise.supervise(queues.split(","), int(concurrency), beat=beat == "beat", command=command)
        else:
            supervise.main(sys.argv[1:])
