"""Files below GEOFIX_HOME that nobody needs: half-written folders, old dumps, logs and checkpoints.

Whatever is written as a folder is written as `.NAME.xxxxxxxx` beside its place and renamed; while it replaces
an older one, that one stands aside as `.NAME.old` or in `.NAME.old.xxxxxxxx`. A kill leaves either behind.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from geofix.database.embedded.paths import locate
from geofix.database.ownership import SERVER_FOLDERS
from geofix.errors import ServiceError
from geofix.settings import Settings
from geofix.storage import FINISHED

BACKUPS = "backups"
BACKUP_PATTERN = "before-migrate-*.dump"  # those that a user asked for are never touched
TRAINING = "training"  # pipelines and jobs of the dashboard train here
LIVE_LOGS = {"redis.log"}  # open for as long as the server runs
WRITTEN = {".parquet", ".json", ".safetensors", ".npy"}  # what snapshots, models and matrices consist of

_HALF = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}$")
_ASIDE = re.compile(r"\.(?P<name>.+)\.old(\.[a-z0-9_]{8})?$")


@dataclass(frozen=True)
class Leftover:
    """A file or folder; `reason` says why it must stay, empty when it can go."""

    kind: str
    path: Path
    bytes: int
    reason: str = ""


def find(settings: Settings) -> Iterator[Leftover]:
    """Everything below GEOFIX_HOME that was left behind or is older than it is kept."""
    home = settings.home_dir
    if home.is_dir():
        yield from _half_written(home, settings.gc_grace_hours * 3600)
        yield from _old_backups(home / BACKUPS, settings.keep_backups)
        if settings.keep_checkpoints_days:
            yield from _old_checkpoints(home / TRAINING, settings.keep_checkpoints_days)
    if settings.keep_logs_days:
        yield from _old_logs(settings)


def remove(found: Leftover) -> None:
    """Remove one leftover; gone already is as good."""
    if found.path.is_dir() and not found.path.is_symlink():
        shutil.rmtree(found.path, ignore_errors=True)
    else:
        found.path.unlink(missing_ok=True)


def _half_written(home: Path, grace_s: float) -> Iterator[Leftover]:
    for folder, names, _ in os.walk(home):
        here = Path(folder)
        if here == home:
            names[:] = [name for name in names if name not in SERVER_FOLDERS]
        for name in sorted(names):
            aside, half = _ASIDE.match(name), _HALF.match(name)
            if aside is None and half is None:
                continue
            names.remove(name)
            path = here / name
            if path.is_symlink() or not _is_ours(path) or _age_s(path) < grace_s:
                continue
            if aside is None:
                yield Leftover("half-written folder", path, _size(path))
            elif (here / aside["name"]).exists():
                yield Leftover("replaced folder", path, _size(path))
            else:
                reason = f"it holds the only copy: move it back to {here / aside['name']}"
                yield Leftover("replaced folder", path, _size(path), reason)


def _old_backups(folder: Path, keep: int) -> Iterator[Leftover]:
    """All dumps before a migration but the newest; their names sort by time."""
    for path in sorted(folder.glob(BACKUP_PATTERN))[:-keep]:
        yield Leftover("backup before a migration", path, path.stat().st_size)


def _old_checkpoints(folder: Path, days: int) -> Iterator[Leftover]:
    """Checkpoints, of every rank, of trainings that have ended; models and curves stay."""
    for mark in sorted(folder.rglob(FINISHED)):
        if _age_s(mark) > days * 86_400:
            for path in sorted(mark.parent.glob("checkpoint*.pt")):
                yield Leftover("checkpoint of an ended training", path, path.stat().st_size)


def _old_logs(settings: Settings) -> Iterator[Leftover]:
    try:
        folder = locate(settings).log
    except ServiceError:
        return  # no embedded servers on this machine
    for path in sorted(folder.glob("*.log*")):
        if path.name not in LIVE_LOGS and _age_s(path) > settings.keep_logs_days * 86_400:
            yield Leftover("log", path, path.stat().st_size)


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds nothing but what geofix writes in this way; a name alone proves nothing."""
    return all(item.is_dir() or item.suffix in WRITTEN for item in folder.rglob("*"))


def _age_s(path: Path) -> float:
    """Seconds since the newest change of a file, or of a folder and the files in it."""
    inside = path.rglob("*") if path.is_dir() else ()
    newest = max((item.lstat().st_mtime for item in inside), default=0.0)
    return time.time() - max(newest, path.lstat().st_mtime)


def _size(path: Path) -> int:
    return sum(item.lstat().st_size for item in path.rglob("*") if not item.is_dir())
