"""Logical dump and restore of everything geofix owns, vectors included."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from geofix.database.embedded.binaries import find_postgres
from geofix.database.restore_home import holds_foreign_tables, restore_home
from geofix.errors import BadInputError, ServiceError, UsageError
from geofix.settings import Settings
from geofix.storage import require_free

SIZE = """
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('geofix', 'geofix_leaf') AND c.relkind = 'r'
"""
FOREIGN_LEAVES = """
SELECT c.relname, s.srvname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_foreign_table t ON t.ftrelid = c.oid JOIN pg_foreign_server s ON s.oid = t.ftserver
WHERE n.nspname IN ('geofix', 'geofix_leaf') ORDER BY 1
"""
HAS_PIECES = "SELECT to_regclass('geofix.shard_piece') IS NOT NULL"
FOREIGN_SIZE = """
SELECT coalesce(sum(bytes), 0)::bigint FROM geofix.shard_piece WHERE state = 'live' AND shard_id IS NOT NULL
"""
HAS_SCHEMA = "SELECT to_regnamespace('geofix') IS NOT NULL AND to_regclass('geofix.dataset') IS NOT NULL"


def backup(url: str, file: Path, settings: Settings, *, include_foreign: bool = False) -> int:
    """Write a dump of both schemas to a file of mode 0600; returns its bytes.

    Args:
        url: The owner's connection.
        file: New file; an existing one is not overwritten.
        settings: For the server's tools and the free space to leave.
        include_foreign: Also dump the rows of foreign leaves.

    Raises:
        UsageError: The file exists, or a code set is distributed and `include_foreign` is off.
        SpaceError: The disk is too full.
        ServiceError: pg_dump failed; its last line is shown.
    """
    if file.exists():
        raise UsageError(f"{file} exists.", hint="Give a new file name; backups are never overwritten.")
    with psycopg.connect(url) as conn:
        size = _number(conn, SIZE)
        found = conn.execute(FOREIGN_LEAVES).fetchall()
        if include_foreign and _number(conn, HAS_PIECES):  # an older schema has none
            size += _number(conn, FOREIGN_SIZE)
    foreign, servers = [row[0] for row in found], sorted({row[1] for row in found})
    if foreign and not include_foreign:
        raise UsageError(
            f"{len(foreign)} leaves live on other servers ({', '.join(foreign[:3])} ...).",
            hint="Give --include-foreign to dump their rows too; without them the backup would not be whole. Restored, "
            "they are at home on the new server.",
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    require_free(file.parent, size, settings)
    command = [
        str(find_postgres(settings).program("pg_dump")),
        "--format=custom",
        "--schema=geofix",
        "--schema=geofix_leaf",
        *(f"--include-foreign-data={server}" for server in servers if include_foreign),
        f"--file={file}",
    ]
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
    os.close(descriptor)
    try:
        _run(command, url)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return file.stat().st_size


def restore(url: str, file: Path, settings: Settings) -> None:
    """Fill an empty database (extensions present, no geofix schema) from a dump, in one transaction.

    Raises:
        BadInputError: There is no such file.
        UsageError: The database already holds geofix tables.
        ServiceError: pg_restore failed; nothing was changed.
    """
    if not file.is_file():
        raise BadInputError(f"No backup at {file}.", hint="Give the file that `geofix db backup` wrote.")
    with psycopg.connect(url) as conn:
        present = conn.execute(HAS_SCHEMA).fetchone()
        if present is not None and present[0]:
            raise UsageError(
                f"Database {conn.info.dbname} already holds geofix tables.",
                hint="Restore into an empty database: nothing is ever overwritten.",
            )
    binaries = find_postgres(settings)
    if holds_foreign_tables(binaries.program("pg_restore"), file):
        target, environment = _target(url)
        restore_home(binaries.program("pg_restore"), binaries.program("psql"), file, target, environment)
        return
    _run(
        [
            str(binaries.program("pg_restore")),
            "--single-transaction",
            "--exit-on-error",
            "--no-owner",
            str(file),
        ],
        url,
    )


def _number(conn: psycopg.Connection[Any], statement: LiteralString) -> int:
    row = conn.execute(statement).fetchone()
    return int(row[0]) if row else 0


def _target(url: str) -> tuple[str, dict[str, str]]:
    """Connection string without the password, and an environment with it."""
    parts = conninfo_to_dict(url)
    password = parts.pop("password", None)
    secret = {} if password is None else {"PGPASSWORD": str(password)}
    return make_conninfo("", **parts), {**os.environ, **secret}


def _run(command: list[str], url: str) -> None:
    """Run a tool on a database; a password goes by the environment, where other users do not see it."""
    target, environment = _target(url)
    tool, *rest = command
    done = subprocess.run(
        [tool, f"--dbname={target}", *rest],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise ServiceError(
            f"{Path(command[0]).name} failed: {lines[-1]}",
            hint="Check that its version is at least the server's.",
        )
