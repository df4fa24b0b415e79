"""What the benchmarks of `make bench` share: a private server, times in turns, goals and a table.

Times are taken in turns (one of each way per round), so that a busy moment of the machine meets all ways
alike.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
SERVER_SETTINGS = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "shared_buffers",
    "work_mem",
    "maintenance_work_mem",
    "max_parallel_workers_per_gather",
    "jit",
)


@dataclass
class Times:
    """Seconds of one way, one per round: wall time, and processor time of this process."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median of the wall times, seconds."""
        return statistics.median(self.wall)

    def spread(self, unit: str = "s", scale: float = 1.0) -> str:
        """Median with lowest and highest, for a table."""
        low, middle, high = (scale * value for value in (min(self.wall), self.median, max(self.wall)))
        digits = 0 if middle >= 100 else 1 if middle >= 10 else 2 if middle >= 0.1 else 4
        return f"{middle:,.{digits}f} {unit} ({low:,.{digits}f} to {high:,.{digits}f}, {len(self.wall)} runs)"


@dataclass(frozen=True)
class Goal:
    """One promise: what was measured, what it is to be, and whether it is."""

    what: str
    measured: float
    bound: float
    unit: str = "x"
    at_least: bool = True

    @property
    def reached(self) -> bool:
        """Whether the bound holds."""
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound

    def row(self) -> str:
        """A line of the table."""
        sign = ">=" if self.at_least else "<="
        measured = f"{self.measured:,.2f}" if abs(self.measured) < 100 else f"{self.measured:,.0f}"
        verdict = "reached" if self.reached else "**missed**"
        return f"| {self.what} | {measured} {self.unit} | {sign} {self.bound:g} {self.unit} | {verdict} |"


def arguments(doc: str | None, *, repeats: int, baseline: int = 0) -> argparse.ArgumentParser:
    """A parser with what every script of this family takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats, help=f"Rounds (default {repeats}).")
    if baseline:
        parser.add_argument(
            "--baseline", type=int, default=baseline, help=f"Rounds of the slow way (default {baseline})."
        )
    parser.add_argument("--json", type=Path, help="File that all figures are written to as well.")
    return parser


def shared_data() -> Path:
    """Folder of the real data (GEOFIX_SHARED, default ../shared beside the project); it may not exist."""
    from geofix.settings import Settings

    folder = Settings().shared
    return (folder if folder.is_absolute() else (ROOT / folder)).resolve() / "data"


def in_turns(
    ways: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    before: Callable[[str], None] | None = None,
    seldom: Mapping[str, int] | None = None,
) -> dict[str, Times]:
    """Time each way once per round; `before` is called with its name outside the time.

    `seldom` names ways that take part in so many of the first rounds alone.
    """
    found = {name: Times() for name in ways}
    for turn in range(repeats):
        for name, way in ways.items():
            if seldom is not None and turn >= seldom.get(name, repeats):
                continue
            if before is not None:
                before(name)
            gc.collect()
            processor, wall = time.process_time(), time.perf_counter()
            way()
            found[name].wall.append(time.perf_counter() - wall)
            found[name].processor.append(time.process_time() - processor)
    return found


@contextmanager
def server(keep: Path | None = None) -> Iterator[Any]:
    """A private PostgreSQL with the product's own settings and schema; yields an open owner's connection.

    Args:
        keep: Folder of a cluster that is used again; None: a new one, removed afterwards.
    """
    for name in list(os.environ):
        if name.startswith(("PG", "GEOFIX_")):
            del os.environ[name]
    from geofix.database import cluster, engine
    from geofix.database.migrate import migrate
    from geofix.log import configure
    from geofix.settings import get_settings
    from servers import new_home, remove_home

    home = new_home() if keep is None else keep.resolve()
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)
    os.environ.update(GEOFIX_HOME=str(home), GEOFIX_MIN_FREE_BYTES="0", GEOFIX_LOG_LEVEL="ERROR")
    os.chdir(home)  # no `.env` of the caller
    get_settings.cache_clear()
    settings = get_settings()
    configure("ERROR")
    try:
        cluster.start(settings)
        migrate(cluster.database_url(settings))
        with engine.connect() as conn:
            yield conn
    finally:
        engine.dispose()
        if keep is None:
            remove_home(settings)
        else:
            cluster.stop(settings)


def server_settings(conn: Any) -> dict[str, str]:
    """The server's settings that times depend on."""
    return {name: conn.execute(f"SHOW {name}").fetchone()[0] for name in SERVER_SETTINGS}


def server_processor_s(conn: Any) -> float:
    """Processor time of a connection's backend so far, seconds; without its parallel workers, to 0.01 s."""
    fields = Path(f"/proc/{conn.info.backend_pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> None:
    """Print a Markdown table."""
    print(f"\n| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def finish(
    script: str, goals: Sequence[Goal], json_file: Path | None, load: float, figures: Mapping[str, Any]
) -> None:
    """Print goals and load; write everything where it was asked for."""
    print("\n| promise | measured | goal | |\n| --- | --- | --- | --- |")
    for goal in goals:
        print(goal.row())
    after = os.getloadavg()[0]
    print(f"\nload of the machine: {load:.1f} before, {after:.1f} after; {os.cpu_count()} cores", flush=True)
    if json_file is not None:
        document = {
            "benchmark": script,
            "goals": [{**asdict(goal), "reached": goal.reached} for goal in goals],
            "load": [load, after],
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            **figures,
        }
        json_file.write_text(f"{json.dumps(document, indent=1, default=_plain)}\n")


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, Times) else str(value)


def say(text: str) -> None:
    """A line at once."""
    print(text, flush=True)
