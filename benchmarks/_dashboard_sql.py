"""Slow statements for benchmarks/dashboard.py: PostgreSQL's log, each statement by its constant's name."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from geofix.database import queries

# Log everything that takes at least this long; settings of the private cluster alone.
LOGGED_MS = 20
CONF = f"log_min_duration_statement = {LOGGED_MS}\nlog_parameter_max_length = 0\n"
_ENTRY = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+ UTC \[\d+\] (\S+)@\S* (?=[A-Z]+: )", re.MULTILINE)
_DURATION = re.compile(r"LOG:  duration: ([\d.]+) ms  (?:statement|execute [^:]*): (.*)", re.DOTALL)
_HOLE = re.compile(r"%\(\w+\)s|\{\w*\}")


@dataclass
class Slow:
    """One statement: how often it was logged, and its milliseconds."""

    name: str
    took: list[float] = field(default_factory=list)


def position(log: Path) -> dict[Path, int]:
    """Where every log file ends now."""
    return {path: path.stat().st_size for path in log.glob("postgres-*.log")}


def slow(log: Path, since: dict[Path, int]) -> list[Slow]:
    """Statements of the reader that the log holds beyond a position, the longest first."""
    names = _names()
    found: dict[str, Slow] = {}
    for path in sorted(log.glob("postgres-*.log")):
        with path.open("rb") as file:
            file.seek(since.get(path, 0))
            text = file.read().decode("utf-8", "replace")
        for user, entry in _entries(text):
            match = _DURATION.match(entry)
            if match and user == "geofix_reader":
                statement = " ".join(match[2].split())
                name = next((name for name, regex in names if regex.search(statement)), statement[:60])
                found.setdefault(name, Slow(name)).took.append(float(match[1]))
    return sorted(found.values(), key=lambda item: -max(item.took))


def _entries(text: str) -> Iterator[tuple[str, str]]:
    starts = list(_ENTRY.finditer(text))
    ends = [*(entry.start() for entry in starts[1:]), len(text)]
    for here, end in zip(starts, ends, strict=False):  # a text without an entry has an end nevertheless
        yield here[1], text[here.end() : end]


def _names() -> list[tuple[str, re.Pattern[str]]]:
    """Constants of the query modules as patterns, the longest first: what is bound may be anything."""
    made = []
    for module in pkgutil.iter_modules(queries.__path__):
        held = vars(importlib.import_module(f"{queries.__name__}.{module.name}"))
        for name, text in held.items():
            if name.isupper() and not name.startswith("_") and isinstance(text, str) and " " in text.strip():
                plain = " ".join(text.replace("%%", "%").split())
                pieces = (re.escape(piece) for piece in _HOLE.split(plain))
                made.append((f"{module.name}.{name}", plain, re.compile(r".*?".join(pieces))))
    return [(name, regex) for name, plain, regex in sorted(made, key=lambda item: -len(item[1]))]
