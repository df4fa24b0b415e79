"""The command line as a user calls it: in a process and a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def environment(home: Path, **more: str) -> dict[str, str]:
    """The caller's environment without what would reach other servers than those of `home`."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("GEOFIX_", "PG"))}
    return {**keep, "GEOFIX_HOME": str(home), "OMP_NUM_THREADS": "2", **more}


def geofix(home: Path, *arguments: str, code: int = 0, **more: str) -> subprocess.CompletedProcess:
    """Run a command and check its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "geofix.cli", *arguments],
        capture_output=True,
        text=True,
        env=environment(home, **more),
        cwd=ROOT,
        timeout=550,
        check=False,
    )
    said = f"{arguments}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    assert done.returncode == code, said
    return done


def document(home: Path, *arguments: str, code: int = 0) -> Any:
    """What a command prints with --json; fails when stdout holds anything beside one JSON document."""
    return json.loads(geofix(home, *arguments, "--json", code=code).stdout)
