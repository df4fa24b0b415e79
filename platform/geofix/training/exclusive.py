"""One run at a time in an output directory."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geofix.errors import UsageError
from geofix.training.distributed import Team


@contextmanager
def only_run_in(out: Path, team: Team) -> Iterator[None]:
    """Hold `out` for this run (of a team, by its first process) until it ends, however it ends.

    Not for jobs: there a new attempt takes over from a worker that hangs; the fencing token decides.

    Raises:
        UsageError: Another run writes there.
    """
    if not team.leads:
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"Another training is writing to {out}.", hint="Wait for it, or name another directory."
            ) from None
        yield
