"""Keep the database in order: migrate with a backup before it, and say what is not as it should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from pgvector.psycopg import register_vector

from geofix.database.backup import backup, restore
from geofix.database.migrate import head_revision, migrate
from geofix.database.queries.leaves import orphan_leaves
from geofix.database.queries.shards import moves_under_way
from geofix.database.restore_home import AT_HOME
from geofix.database.shard_moves import distribute
from geofix.database.shards import HERE
from geofix.database.sqlfiles import drift
from geofix.database.versions import Check, check_versions
from geofix.settings import Settings

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


def restore_and_migrate(url: str, file: Path, settings: Settings) -> dict[str, Any]:
    """Fill an empty database from a dump, then bring it to this version.

    A dump holds neither the grants on the database nor the default privileges; migrating sets them again. Code sets
    that were distributed are put together and indexed on this server.

    Returns:
        before and after: the revision of the dump and that of this version; came_home: code sets put together.
    """
    restore(url, file, settings)
    result = migrate(url)
    with psycopg.connect(url) as conn:
        register_vector(conn)
        names = [row[0] for row in conn.execute(AT_HOME)]
        for name in names:
            distribute(conn, name, [HERE])
    return {"before": result.before, "after": result.after, "came_home": names}


def check_database(conn: psycopg.Connection[Any]) -> list[Check]:
    """Versions, drift, invalid indexes, leaves that belong to nothing, unfinished and stale code sets."""
    found = check_versions(conn)
    if not all(check.ok for check in found):
        return found
    return [
        *found,
        _none("SQL files", drift(conn), "Run `geofix db migrate`."),
        _none(
            "invalid indexes",
            [row[0] for row in conn.execute(INVALID_INDEXES)],
            "Build them again: `geofix codes index --code-set NAME`.",
        ),
        _none("leaves without a parent", orphan_leaves(conn), "Run `geofix gc`."),
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
