"""Keep the database in order: migrate with a backup before it, and say what is not as it should be."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
from pgvector.psycopg import register_vector

from geofix.database.backup import backup, restore
from geofix.database.migrate import head_revision, migrate
from geofix.database.queries.code_ranges import unfinished
from geofix.database.queries.codes import find_code_set
from geofix.database.queries.leaves import orphan_leaves
from geofix.database.queries.shards import moves_under_way
from geofix.database.restore_home import AT_HOME, FORGET_SHARDS, FRESH_INDEXES
from geofix.database.shard_moves import distribute, memory_needed_mb
from geofix.database.shards import HERE
from geofix.database.sqlfiles import drift
from geofix.database.versions import Check, check_versions
from geofix.errors import SpaceError, TransientError
from geofix.settings import Settings, get_settings

REVISION = "SELECT version_num FROM geofix.alembic_version"
INVALID_INDEXES = """
SELECT c.oid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('geofix', 'geofix_leaf') AND NOT i.indisvalid ORDER BY 1
"""
UNFINISHED = "SELECT name FROM geofix.code_set WHERE state IN ('building', 'dropping') ORDER BY 1"
STALE = "SELECT name FROM geofix.code_set WHERE state = 'stale' ORDER BY 1"


def migrate_safely(url: str, settings: Settings, *, backup_to: Path | None) -> dict[str, Any]:
    """Migrate; a database that holds data and is behind is dumped first.

    Returns:
        before, after, sql_files, backup (path or None).
    """
    saved = None
    with psycopg.connect(url) as conn:
        held = conn.execute("SELECT to_regclass('geofix.dataset') IS NOT NULL").fetchone()
        if held is not None and held[0] and backup_to is not None:
            rows = conn.execute("SELECT count(*) FROM geofix.dataset").fetchone()
            revision = conn.execute(REVISION).fetchone()
            behind = revision is None or revision[0] != head_revision()
            if rows is not None and rows[0] and behind:
                saved = backup_to
    if saved is not None:
        backup(url, saved, settings, include_foreign=True)
    result = migrate(url)
    return {
        "before": result.before,
        "after": result.after,
        "sql_files": result.sql_files,
        "backup": None if saved is None else str(saved),
    }


def restore_and_migrate(
    url: str, file: Path, settings: Settings, *, memory_bytes: int = 512 << 20
) -> dict[str, Any]:
    """Fill an empty database from a dump, then bring it to this version.

    A dump holds neither the grants on the database nor the default privileges; migrating sets them again. Code sets
    that were distributed are put together and indexed on this server. One whose index needs more memory than allowed
    stays in pieces here, which are searched row by row.

    Args:
        url: The owner's connection.
        file: What `backup` wrote.
        settings: For the server's tools.
        memory_bytes: For building the index of each code set that was distributed.

    Returns:
        before and after: the revision of the dump and that of this version; came_home: code sets put together; left:
        those that are still in pieces, each with why and the command that puts it together.
    """
    restore(url, file, settings)
    result = migrate(url)
    home, left = [], []
    with psycopg.connect(url) as conn:
        register_vector(conn)
        conn.execute(FORGET_SHARDS)
        conn.execute(FRESH_INDEXES)
        conn.commit()
        for name in [row[0] for row in conn.execute(AT_HOME).fetchall()]:
            try:
                distribute(conn, name, [HERE], memory_bytes=memory_bytes)
                home.append(name)
            except (SpaceError, TransientError) as error:
                conn.rollback()
                need = max(memory_needed_mb(find_code_set(conn, name), 1), memory_bytes >> 20, 64)
                command = f"geofix codes distribute {name} --back --memory-mb {need}"
                left.append({"code_set": name, "why": error.message, "command": command})
    return {"before": result.before, "after": result.after, "came_home": home, "left": left}


def check_database(conn: psycopg.Connection[Any]) -> list[Check]:
    """Versions, drift, invalid indexes, leaves that belong to nothing, unfinished and stale code sets."""
    found = check_versions(conn)
    if not all(check.ok for check in found):
        return found
    grace = timedelta(hours=get_settings().gc_grace_hours)
    return [
        *found,
        _none("SQL files", drift(conn), "Run `geofix db migrate`."),
        _none(
            "invalid indexes",
            [row[0] for row in conn.execute(INVALID_INDEXES)],
            "Build them again: `geofix codes index --code-set NAME`.",
        ),
        _none("leaves without a parent", orphan_leaves(conn), "Run `geofix gc`."),
        _none("codes left in the making", [row[0] for row in unfinished(conn, grace)], "Run `geofix gc`."),
        _none(
            "moves to shards under way",
            moves_under_way(conn),
            "Run `geofix codes distribute` again as before, or with --cancel.",
        ),
        _none("unfinished code sets", [row[0] for row in conn.execute(UNFINISHED)], "Run `geofix gc`."),
        _none(
            "stale code sets",
            [row[0] for row in conn.execute(STALE)],
            "Build them again under a new name, then drop the old ones.",
        ),
    ]


def _none(name: str, wrong: list[str], mend: str) -> Check:
    """A check that is in order when the list is empty."""
    shown = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
    return Check(name, not wrong, shown or "none", "none", mend if wrong else "")
