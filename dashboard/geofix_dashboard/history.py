"""Statements that a person ran on the SQL page: a small file of the home for each person.

Where strangers could share one name (`access.person_of_history`), statements stay in the browser's session.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from geofix.settings import get_settings

KEPT = 100
LONGEST = 20_000  # characters of a statement that is remembered
_DAY_S = 24 * 3600


@dataclass(frozen=True)
class Entry:
    """A statement that ran: when (seconds since 1970), how many rows it gave, and how long it took."""

    statement: str
    rows: int
    seconds: float
    at: float


def read(person: str) -> list[Entry]:
    """What a person ran, the newest first, as long as answers are kept (GEOFIX_KEEP_QUERIES_DAYS)."""
    return _young(_load(_file(person)))


def remember(person: str, entry: Entry) -> None:
    """Put a statement first, each once, at most 100; a longer one than 20,000 characters is left out."""
    if len(entry.statement) > LONGEST:
        return
    with _alone(person) as path:
        _store(path, with_entry(_young(_load(path)), entry))


def with_entry(known: Sequence[Entry], entry: Entry) -> list[Entry]:
    """The entries with one put first, each statement once, at most 100."""
    return [entry, *(item for item in known if item.statement != entry.statement)][:KEPT]


def forget(person: str) -> None:
    """Remove what a person ran."""
    with _alone(person) as path:
        path.unlink(missing_ok=True)


def _young(entries: Sequence[Entry]) -> list[Entry]:
    days = get_settings().keep_queries_days
    return [item for item in entries if not days or time.time() - item.at < days * _DAY_S]


def _file(person: str) -> Path:
    """The person's file; its name is a hash, so that an address is no path and no list tells it."""
    name = hashlib.sha256(person.encode()).hexdigest()[:32]
    return get_settings().home_dir / "dashboard" / "history" / f"{name}.jsonl"


@contextmanager
def _alone(person: str) -> Iterator[Path]:
    """The person's file, held against other sessions and servers of the same home."""
    path = _file(person)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path


def _load(path: Path) -> list[Entry]:
    """Entries of a file; lines that are none are left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        try:
            item = json.loads(line)
            found.append(
                Entry(str(item["statement"]), int(item["rows"]), float(item["seconds"]), float(item["at"]))
            )
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _store(path: Path, entries: Sequence[Entry]) -> None:
    """Write the file whole or not at all, for its owner alone."""
    made = path.with_suffix(".new")
    made.touch(mode=0o600)
    made.write_text("".join(json.dumps(asdict(item)) + "\n" for item in entries), encoding="utf-8")
    made.replace(path)
