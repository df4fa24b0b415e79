"""Finding the machine's own PostgreSQL and Redis programs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from geofix.errors import ServiceError
from geofix.settings import Settings

MIN_POSTGRES_MAJOR = 15  # the first whose public schema is closed to everybody
NEEDED_EXTENSIONS = ("postgis", "vector")
_DEBIAN = Path("/usr/lib/postgresql")
_PROGRAMS = ("initdb", "pg_ctl", "postgres")
_REDIS_NAMES = ("redis-server", "valkey-server")


@dataclass(frozen=True)
class PostgresBinaries:
    """One installed PostgreSQL."""

    folder: Path
    major: int

    def program(self, name: str) -> Path:
        """Full path of one of its programs."""
        return self.folder / name


def find_postgres(settings: Settings, data_major: int | None = None) -> PostgresBinaries:
    """The PostgreSQL to use: `settings.postgres_bin`, else the newest with all extensions, else the newest.

    Args:
        settings: Where `postgres_bin` is read.
        data_major: Major version that made the data directory; only that version can read it.

    Raises:
        ServiceError: None is installed, or none that fits.
    """
    if settings.postgres_bin is not None:
        chosen = _inspect(settings.postgres_bin.expanduser())
        if chosen is None:
            raise ServiceError(
                f"GEOFIX_POSTGRES_BIN={settings.postgres_bin} holds no initdb, pg_ctl and postgres.",
                hint="Set it to a folder such as /usr/lib/postgresql/15/bin, or unset it.",
            )
        found = [chosen]
    else:
        found = sorted(_installed(), key=lambda p: (_has_extensions(p), p.major), reverse=True)
    return _fitting(found, data_major)


def find_redis() -> Path:
    """The Redis (or Valkey) server program.

    Raises:
        ServiceError: Neither is installed.
    """
    for name in _REDIS_NAMES:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
        if path:
            return Path(path)
    raise ServiceError(
        f"No {' or '.join(_REDIS_NAMES)} is installed.",
        hint="Run `scripts/setup`, or set GEOFIX_BROKER_URL to a running Redis.",
    )


def _fitting(found: list[PostgresBinaries], data_major: int | None) -> PostgresBinaries:
    versions = ", ".join(str(p.major) for p in found) or "none"
    if data_major is not None:
        for candidate in found:
            if candidate.major == data_major:
                return candidate
        raise ServiceError(
            f"The data were made by PostgreSQL {data_major}; installed: {versions}.",
            hint=f"Install postgresql-{data_major} with PostGIS and pgvector (`scripts/setup`), or restore a "
            "`geofix db backup` into a fresh GEOFIX_HOME.",
        )
    for candidate in found:
        if candidate.major >= MIN_POSTGRES_MAJOR:
            return candidate
    raise ServiceError(
        f"geofix needs PostgreSQL {MIN_POSTGRES_MAJOR} or newer; installed: {versions}.",
        hint="Run `scripts/setup`, or set GEOFIX_DATABASE_URL to a running server.",
    )


def _installed() -> list[PostgresBinaries]:
    found: dict[Path, PostgresBinaries] = {}
    for folder in _candidate_folders():
        chosen = _inspect(folder)
        if chosen is not None:
            found.setdefault(chosen.folder, chosen)
    return list(found.values())


def _candidate_folders() -> Iterator[Path]:
    yield from _DEBIAN.glob("*/bin")
    pg_config = shutil.which("pg_config")
    if pg_config:
        yield Path(_output(pg_config, "--bindir"))
    on_path = shutil.which("pg_ctl")
    if on_path:  # often a link or wrapper in /usr/local/bin: its own folder holds the rest
        yield Path(on_path).resolve().parent


def _inspect(folder: Path) -> PostgresBinaries | None:
    """The PostgreSQL in `folder`, or None when a program is missing or does not say its version."""
    if not all(os.access(folder / name, os.X_OK) for name in _PROGRAMS):
        return None
    version = re.search(r"(\d+)", _output(str(folder / "postgres"), "--version"))
    return PostgresBinaries(folder.resolve(), int(version[1])) if version else None


def _has_extensions(postgres: PostgresBinaries) -> bool:
    config = postgres.program("pg_config")
    share = (
        Path(_output(str(config), "--sharedir"))
        if config.exists()
        else Path(f"/usr/share/postgresql/{postgres.major}")
    )
    return all((share / "extension" / f"{name}.control").exists() for name in NEEDED_EXTENSIONS)


def _output(program: str, option: str) -> str:
    try:
        done = subprocess.run([program, option], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
