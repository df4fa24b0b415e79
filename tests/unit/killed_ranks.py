"""One rank of a training of two processes that may be killed while it writes.

Run by test_training_processes.py: python killed_ranks.py RANK FOLDER MEETING OUT BEFORE. It trains
FOLDER/two.json into OUT, going on with what is there. BEFORE is the rename of a checkpoint, counted from 1,
before which it kills itself once the other rank has renamed its own of this step; 0: none.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from geofix.training.config import parse_config
from geofix.training.distributed import Team
from geofix.training.loop import train

NAMES = ("checkpoint.pt", "checkpoint-rank1.pt")


def step_of(path: Path) -> int:
    """The step of a checkpoint, 0 where there is none."""
    try:
        return int(json.loads(torch.load(path, weights_only=True)["description"])["clock"]["step"])
    except FileNotFoundError:
        return 0


def die_before(number: int, own: Path, other: Path) -> None:
    """Let this process be killed before one of its renames."""
    rename, count = Path.replace, 0

    def counted(self: Path, target: Path) -> Path:
        nonlocal count
        count += target.name.startswith("checkpoint")
        if count == number:
            written = step_of(self if self.name.startswith(".") else next(own.parent.glob(f".{own.name}.*")))
            deadline = time.monotonic() + 60
            while step_of(other) < written and time.monotonic() < deadline:
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)

    Path.replace = counted  # type: ignore[method-assign, assignment]


def main() -> None:
    rank, before = int(sys.argv[1]), int(sys.argv[5])
    folder, meeting, out = (Path(word) for word in sys.argv[2:5])
    dist.init_process_group("gloo", init_method=meeting.resolve().as_uri(), rank=rank, world_size=2)
    asked = parse_config(json.loads((folder / "two.json").read_text(encoding="utf-8")), "two.json")
    own, other = out / NAMES[rank], out / NAMES[1 - rank]
    resume = out.exists()
    dist.barrier()  # before any of them makes the directory
    if before:
        die_before(before, own, other)
    train(asked, folder / "snapshot", out, resume=resume, team=Team(rank, 2, dist.group.WORLD))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
