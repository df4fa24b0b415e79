"""The mark of a run that has ended: its checkpoint serves nobody any more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geofix.storage import FINISHED


def mark_finished(out: Path, result: Mapping[str, Any]) -> None:
    """Say in a run's directory that it has ended, with what it gave."""
    beside = out / f".{FINISHED}"
    beside.write_text(json.dumps(dict(result), indent=1) + "\n", encoding="utf-8")
    beside.replace(out / FINISHED)


def clear_mark(out: Path) -> None:
    """A run is begun, or gone on with, in this directory."""
    (out / FINISHED).unlink(missing_ok=True)
