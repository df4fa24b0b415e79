from __future__ import annotations

import psycopg
import pytest

from geofix.database import versions
from geofix.database.embedded import bootstrap
from geofix.database.migrate import migrate
from geofix.database.urls import embedded_url
from geofix.database.versions import check_versions, require_versions, version_tuple
from geofix.errors import SchemaError
from servers import Database


def test_a_database_without_the_schema_names_the_migration(empty_db: Database) -> None:
    with empty_db.connect() as conn, pytest.raises(SchemaError, match="geofix db migrate"):
        require_versions(conn)
    with empty_db.connect() as conn:
        assert {check.name: check.ok for check in check_versions(conn)} == {
            "PostgreSQL": True,
            "PostGIS": True,
            "pgvector": True,
            "schema revision": False,
        }


def test_a_migrated_database_is_in_order_for_every_role(db: Database) -> None:
    for role in ("owner", "writer", "reader"):
        with db.connect(role) as conn:  # type: ignore[arg-type]
            require_versions(conn)


def test_another_revision_is_named(db: Database) -> None:
    with db.connect() as conn:
        conn.execute("UPDATE geofix.alembic_version SET version_num = 'ffff'")
        with pytest.raises(SchemaError, match="ffff"):
            require_versions(conn)


def test_a_missing_extension_names_the_command(empty_db: Database) -> None:
    with psycopg.connect(embedded_url(empty_db.settings, "postgres", empty_db.name)) as conn:
        conn.execute("DROP EXTENSION vector")
        failing = [str(check) for check in check_versions(conn) if not check.ok]
    assert any("CREATE EXTENSION vector" in text for text in failing)


def test_old_versions_name_the_command(empty_db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "MIN_POSTGRES_MAJOR", 99)
    monkeypatch.setattr(versions, "MIN_POSTGIS", (9, 9))
    monkeypatch.setattr(versions, "MIN_PGVECTOR", (9, 9, 9))
    with empty_db.connect() as conn, pytest.raises(SchemaError) as caught:
        require_versions(conn)
    for part in (
        "99 or newer",
        "9.9 or newer",
        "9.9.9 or newer",
        "ALTER EXTENSION postgis UPDATE",
        "scripts/setup",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "numbers"), [("3.3.2", (3, 3, 2)), ("0.8.0-1", (0, 8, 0)), ("3.6.0dev", (3, 6, 0)), ("none", ())]
)
def test_version_tuple(text: str, numbers: tuple[int, ...]) -> None:
    assert version_tuple(text) == numbers


def test_a_pgvector_with_the_vacuum_fault_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    check = versions._extension("pgvector", "vector", "0.8.3", versions.MIN_PGVECTOR)
    assert check.ok and "0.8.4" in check.note
    assert not versions._extension("pgvector", "vector", "0.8.4", versions.MIN_PGVECTOR).note
    assert not versions._extension("pgvector", "vector", "0.10.1", versions.MIN_PGVECTOR).note
    assert not versions._extension("PostGIS", "postgis", "3.3.2", versions.MIN_POSTGIS).note


def test_migrate_needs_the_extensions(empty_db: Database) -> None:
    with psycopg.connect(embedded_url(empty_db.settings, "postgres", empty_db.name)) as conn:
        conn.execute("DROP EXTENSION vector")
    with pytest.raises(SchemaError, match="vector"):
        migrate(embedded_url(empty_db.settings, bootstrap.ROLES["owner"], empty_db.name))
