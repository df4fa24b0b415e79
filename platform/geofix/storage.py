"""Free space, asked for before a long write and not found out in its middle."""

from __future__ import annotations

import shutil
from pathlib import Path

from geofix.errors import SpaceError
from geofix.settings import Settings, get_settings

FINISHED = "finished.json"
"""In the directory of a training: it has ended, and its checkpoint may go."""
_UNITS = ("B", "kB", "MB", "GB", "TB")


def readable_bytes(count: float) -> str:
    """A byte count for people, in decimal units: 1.5 GB."""
    size = float(count)
    for unit in _UNITS[:-1]:
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} {_UNITS[-1]}"


def free_bytes(path: Path) -> int:
    """Bytes this process may still write on the file system that holds, or will hold, `path`."""
    return shutil.disk_usage(nearest_existing(path)).free


def nearest_existing(path: Path) -> Path:
    """`path` itself, or the closest folder above it that exists."""
    place = path.expanduser().absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def require_free(path: Path, need_bytes: int, settings: Settings | None = None) -> None:
    """Refuse a write that would leave less than `min_free_bytes` on the file system of `path`.

    Args:
        path: File or folder to be written; it need not exist.
        need_bytes: Size of the write, an upper estimate.
        settings: Where `min_free_bytes` is read; default: this process's settings.

    Raises:
        SpaceError: Too little space; nothing was begun.
    """
    floor = (settings or get_settings()).min_free_bytes
    free = free_bytes(path)
    if free - need_bytes >= floor:
        return
    raise SpaceError(
        f"{path}: {readable_bytes(free)} are free, {readable_bytes(need_bytes)} are needed and "
        f"{readable_bytes(floor)} must remain.",
        hint="Free some space, choose another place, or lower GEOFIX_MIN_FREE_BYTES.",
    )
