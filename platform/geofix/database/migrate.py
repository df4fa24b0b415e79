"""Upgrade and downgrade: Alembic's revisions and the repeatable SQL files in one transaction."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from geofix.database.sqlfiles import apply_sql_files
from geofix.errors import SchemaError

PROJECT_ROOT = Path(__file__).resolve().parents[3]
_REVISION = re.compile(r'^(revision|down_revision)(?:: [^=]+)? = "([^"]+)"', re.MULTILINE)
LOCK = "SELECT pg_advisory_xact_lock(hashtext('geofix.migrate'))"
CREATE_SCHEMAS = "CREATE SCHEMA IF NOT EXISTS geofix"
EXTENSIONS = "SELECT extname FROM pg_extension WHERE extname IN ('postgis', 'vector')"
DROP_ALL = "DROP SCHEMA IF EXISTS geofix_leaf CASCADE; DROP SCHEMA IF EXISTS geofix CASCADE"


@dataclass(frozen=True)
class MigrationResult:
    """Revision before and after, and the SQL files that were applied."""

    before: str | None
    after: str
    sql_files: list[str]


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration for this project.

    Raises:
        SchemaError: The checkout has no alembic.ini.
    """
    path = PROJECT_ROOT / "alembic.ini"
    if not path.is_file():
        raise SchemaError(f"No alembic.ini at {path}.", hint="Run geofix from its checkout or its image.")
    config = Config(str(path))
    if connection is not None:
        config.attributes["connection"] = connection
    return config


def head_revision() -> str:
    """The newest revision that this version ships.

    Read from the files' text: every start of a process asks, and loading them as Alembic does takes 0.3 s.

    Raises:
        SchemaError: The checkout has no revisions, or several newest ones.
    """
    alembic_config()
    found: dict[str, str | None] = {}
    for path in sorted((PROJECT_ROOT / "migrations" / "versions").glob("*.py")):
        named = dict(_REVISION.findall(path.read_text(encoding="utf-8")))
        if "revision" in named:
            found[named["revision"]] = named.get("down_revision")
    heads = sorted(set(found) - set(found.values()))
    if len(heads) != 1:
        raise SchemaError(
            f"{PROJECT_ROOT / 'migrations'} has the newest revisions {heads}.", hint="There must be one."
        )
    return heads[0]


def current_revision(connection: Connection) -> str | None:
    """The revision of a database, or None when it was never migrated."""
    context = MigrationContext.configure(connection, opts={"version_table_schema": "geofix"})
    return context.get_current_revision()


def schema_engine(url: str) -> Engine:
    """An engine whose default schema is `public`: else Alembic takes our tables for those of no schema."""
    return create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        poolclass=NullPool,
        connect_args={"options": "-c search_path=public"},
    )


def migrate(url: str, revision: str = "head") -> MigrationResult:
    """Bring a database to a revision and apply the repeatable SQL files, all or nothing.

    Args:
        url: The owner's connection.
        revision: ``head`` unless a test wants an older one.

    Raises:
        SchemaError: PostGIS or pgvector is not installed in the database.
    """
    with schema_engine(url).begin() as connection:
        connection.execute(text(LOCK))
        present = {row[0] for row in connection.execute(text(EXTENSIONS))}
        for extension in ("postgis", "vector"):
            if extension not in present:
                raise SchemaError(
                    f"The database has no extension {extension}.",
                    hint=f"As a superuser: CREATE EXTENSION {extension}; (the embedded server does so).",
                )
        connection.execute(text(CREATE_SCHEMAS))
        before = current_revision(connection)
        command.upgrade(alembic_config(connection), revision)
        applied = apply_sql_files(connection.connection.driver_connection)  # type: ignore[arg-type]
        after = current_revision(connection)
        assert after is not None
        return MigrationResult(before, after, applied)


def downgrade_to_empty(url: str) -> None:
    """Remove everything that geofix made from a database, leaving extensions and foreign tables alone."""
    with schema_engine(url).begin() as connection:
        connection.execute(text(LOCK))
        raw: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
        raw.execute(DROP_LEAVES_AND_FUNCTIONS)
        command.downgrade(alembic_config(connection), "base")
        raw.execute(DROP_ALL)


# Names are read before anything is dropped: CASCADE takes others along, whose names could then not be read.
DROP_LEAVES_AND_FUNCTIONS = """
DO $$
DECLARE item record;
BEGIN
  DROP SCHEMA IF EXISTS geofix_leaf CASCADE;
  FOR item IN SELECT unnest(ARRAY(SELECT c.oid::regclass::text FROM pg_class c
              WHERE c.relnamespace = 'geofix'::regnamespace AND c.relkind = 'v')) AS name LOOP
    EXECUTE format('DROP VIEW IF EXISTS %s CASCADE', item.name);
  END LOOP;
  FOR item IN SELECT unnest(ARRAY(SELECT p.oid::regprocedure::text FROM pg_proc p
              WHERE p.pronamespace = 'geofix'::regnamespace)) AS name LOOP
    EXECUTE format('DROP ROUTINE IF EXISTS %s CASCADE', item.name);
  END LOOP;
END $$
"""
