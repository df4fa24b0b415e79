"""Start-up checks: is the server, are its extensions and is the schema what this version needs?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import psycopg

from geofix.database.embedded.binaries import MIN_POSTGRES_MAJOR
from geofix.database.migrate import head_revision
from geofix.errors import SchemaError
from geofix.log import get_logger

MIN_POSTGIS = (3, 3)  # ST_SimplifyPolygonHull, and what Debian 12 packages
MIN_PGVECTOR = (0, 8, 0)  # iterative index scans
SAFE_PGVECTOR = (0, 8, 4)  # vacuum of HNSW mended; geofix never vacuums an indexed leaf

FOUND = """
SELECT current_setting('server_version_num')::int / 10000,
       current_setting('server_version'),
       (SELECT extversion FROM pg_extension WHERE extname = 'postgis'),
       (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
       to_regclass('geofix.alembic_version') IS NOT NULL
"""
OLD_PGVECTOR = (
    "pgvector {} is older than 0.8.4: vacuum can damage its HNSW indexes. geofix never vacuums an indexed leaf; "
    "leave autovacuum of cell codes off."
)
REVISION = "SELECT version_num FROM geofix.alembic_version"

_log = get_logger(__name__)


@dataclass(frozen=True)
class Check:
    """One finding, with the command that mends it when it is not in order."""

    name: str
    ok: bool
    found: str
    needed: str
    mend: str
    note: str = ""  # what is in order, but worth saying once

    def __str__(self) -> str:
        state = f"{self.name} {self.found}"
        return state if self.ok else f"{state}, but {self.needed} is needed. {self.mend}"


def check_versions(conn: psycopg.Connection[Any]) -> list[Check]:
    """Compare PostgreSQL, PostGIS, pgvector and the schema with what this version needs."""
    row = conn.execute(FOUND).fetchone()
    assert row is not None
    major, server, postgis, vector, migrated = row
    return [
        Check(
            "PostgreSQL",
            major >= MIN_POSTGRES_MAJOR,
            server.split()[0],
            f"{MIN_POSTGRES_MAJOR} or newer",
            "Run `scripts/setup`, or set GEOFIX_DATABASE_URL to a newer server.",
        ),
        _extension("PostGIS", "postgis", postgis, MIN_POSTGIS),
        _extension("pgvector", "vector", vector, MIN_PGVECTOR),
        _schema(conn, migrated),
    ]


def require_versions(conn: psycopg.Connection[Any], *, notes: bool = True) -> None:
    """Refuse to work with a database that is not what this version needs; log notes once per process.

    Args:
        conn: An open connection of any role.
        notes: Off where every short command would repeat them; `geofix up` and `geofix db check` say them.

    Raises:
        SchemaError: Every failing check with the command that mends it.
    """
    checks = check_versions(conn)
    for check in checks:
        if check.note and notes:
            _say_once(check.note)
    failing = [str(check) for check in checks if not check.ok]
    if failing:
        raise SchemaError(f"The database {conn.info.dbname} is not ready: {' '.join(failing)}")


def version_tuple(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: "3.3.2" is (3, 3, 2), "0.8.0-1" is (0, 8, 0)."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _extension(label: str, name: str, found: str | None, least: tuple[int, ...]) -> Check:
    needed = f"{'.'.join(map(str, least))} or newer"
    if found is None:
        verb, shown = f"CREATE EXTENSION {name}", "is not in this database"
    else:
        verb, shown = f"ALTER EXTENSION {name} UPDATE", found
    old = found is not None and name == "vector" and least <= version_tuple(found) < SAFE_PGVECTOR
    mend = f"Run `scripts/setup` and `geofix up`; on your own server, as a superuser: {verb};"
    return Check(
        label,
        found is not None and version_tuple(found) >= least,
        shown,
        needed,
        mend,
        OLD_PGVECTOR.format(found) if old else "",
    )


def _schema(conn: psycopg.Connection[Any], migrated: bool) -> Check:
    row = conn.execute(REVISION).fetchone() if migrated else None
    found, needed = row[0] if row else None, head_revision()
    return Check(
        "schema revision", found == needed, found or "is missing", needed, "Run `geofix db migrate`."
    )


@lru_cache(maxsize=16)
def _say_once(note: str) -> None:
    _log.info(note)
