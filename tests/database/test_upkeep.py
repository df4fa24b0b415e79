"""A backup before data change, `geofix db check` names what is wrong, start-up refuses what is too old."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from typer.testing import CliRunner

from geofix.cli import db as db_cli
from geofix.codes.build import CellVectors, publish
from geofix.database import engine, upkeep
from geofix.database.backup import restore
from geofix.database.engine import connect
from geofix.database.migrate import alembic_config, head_revision, migrate
from geofix.database.queries import leaves
from geofix.database.queries.models import find_model
from geofix.database.upkeep import check_database, migrate_safely
from geofix.errors import SchemaError, ServiceError
from geofix.settings import get_settings
from helpers import add_model, random_codes
from servers import Database

ADD_DATA = "INSERT INTO geofix.dataset (name, kind) VALUES ('d', 'photos')"
FALL_BEHIND = "UPDATE geofix.alembic_version SET version_num = %s"


def behind(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the database look one revision old to the question whether to back up, without an older schema."""
    monkeypatch.setattr(upkeep, "head_revision", lambda: "a newer one")


def wrong(database: Database) -> dict[str, str]:
    """Checks that are not in order: name -> found."""
    with database.connect() as conn:
        return {check.name: check.found for check in check_database(conn) if not check.ok}


def test_a_new_database_is_not_backed_up(empty_db: Database, tmp_path: Path) -> None:
    file = tmp_path / "b.dump"
    result = migrate_safely(empty_db.url(), get_settings(), backup_to=file)
    assert (result["before"], result["after"], result["backup"]) == (None, head_revision(), None)
    assert not file.exists()


def test_data_are_backed_up_before_the_schema_changes(
    db: Database, empty_db: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "b.dump"
    behind(db, monkeypatch)
    assert migrate_safely(db.url(), get_settings(), backup_to=file)["backup"] is None  # it holds nothing
    with db.connect() as conn:
        conn.execute(ADD_DATA)
    assert migrate_safely(db.url(), get_settings(), backup_to=None)["backup"] is None  # not wanted
    assert migrate_safely(db.url(), get_settings(), backup_to=file)["backup"] == str(file)
    assert file.stat().st_mode & 0o777 == 0o600
    restore(empty_db.url(), file, get_settings())
    with empty_db.connect() as conn:
        assert conn.execute("SELECT name FROM geofix.dataset").fetchall() == [("d",)]


def test_a_database_that_is_up_to_date_is_not_backed_up(db: Database, tmp_path: Path) -> None:
    with db.connect() as conn:
        conn.execute(ADD_DATA)
    result = migrate_safely(db.url(), get_settings(), backup_to=tmp_path / "b.dump")
    assert result["backup"] is None and not (tmp_path / "b.dump").exists()
    assert len(result["sql_files"]) > 3


def test_without_a_backup_nothing_is_migrated(
    db: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with db.connect() as conn:
        conn.execute(ADD_DATA)
        conn.execute("DELETE FROM geofix.sql_file")
    behind(db, monkeypatch)

    def full(*_: object, **__: object) -> None:
        raise ServiceError("pg_dump failed: no space")

    monkeypatch.setattr(upkeep, "backup", full)
    with pytest.raises(ServiceError, match="no space"):
        migrate_safely(db.url(), get_settings(), backup_to=tmp_path / "b.dump")
    with db.connect() as conn:
        assert conn.execute("SELECT count(*) FROM geofix.sql_file").fetchone() == (0,)


def test_a_sound_database_is_in_order(db: Database) -> None:
    assert wrong(db) == {}
    result = CliRunner().invoke(db_cli.app, ["check", "--json"])
    assert result.exit_code == 0 and json.loads(result.stdout)["ok"] is True


def test_the_check_finds_drift_and_names_the_command(db: Database) -> None:
    with db.connect() as conn:
        conn.execute("UPDATE geofix.sql_file SET sha256 = 'x' WHERE name = '100_views.sql'")
    assert wrong(db) == {"SQL files": "100_views.sql: differs from what was applied"}
    result = CliRunner().invoke(db_cli.app, ["check"])
    assert result.exit_code == 4 and "geofix db migrate" in result.stdout


def test_the_check_finds_an_invalid_index(db: Database) -> None:
    with db.connect(autocommit=True) as conn:
        conn.execute("INSERT INTO geofix.dataset (name, kind) VALUES ('a', 'photos'), ('b', 'photos')")
        with pytest.raises(Exception, match="could not create unique index"):
            conn.execute("CREATE UNIQUE INDEX CONCURRENTLY broken ON geofix.dataset (kind)")
    assert wrong(db) == {"invalid indexes": "broken"}


def test_the_check_finds_leaves_and_code_sets_left_behind(db: Database) -> None:
    ids, codes = random_codes(20, 8, level=12)
    with connect() as conn:
        add_model(conn, "m", 8)
        flags = (codes[:, 0] > 9, codes[:, 0] < 9)
        for name in ("old", "half"):
            made = CellVectors(ids, codes, 0 * codes[:, 0], *flags)
            publish(conn, name, find_model(conn, "m"), "aerial", 12, made, snapshot_id=None)
        conn.execute("UPDATE code_set SET state = 'stale' WHERE name = 'old'")
        conn.execute("UPDATE code_set SET state = 'building' WHERE name = 'half'")
        leaves.create_leaf(conn, "cell_code", 77, 10)
    assert wrong(db) == {
        "leaves without a parent": "cell_code_77",
        "unfinished code sets": "half",
        "stale code sets": "old",
    }


# ---- start-up


def test_a_database_without_the_schema_says_what_mends_it(empty_db: Database) -> None:
    for role in ("owner", "writer"):
        with pytest.raises(SchemaError, match="geofix db migrate"), connect(role):  # type: ignore[arg-type]
            pass
    with connect(check=False) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    result = CliRunner().invoke(db_cli.app, ["check"])
    assert result.exit_code == 4 and "geofix db migrate" in result.stdout
    migrate(empty_db.url())
    with connect() as conn:
        assert conn.execute("SELECT count(*) FROM dataset").fetchone() == (0,)


def test_an_older_schema_says_what_mends_it(db: Database) -> None:
    with db.connect() as conn:
        conn.execute(FALL_BEHIND, ("0001",))
    with pytest.raises(SchemaError, match=r"0001.*geofix db migrate"), connect("reader"):
        pass


def test_the_head_is_the_one_that_alembic_knows() -> None:
    assert head_revision() == ScriptDirectory.from_config(alembic_config()).get_current_head()


def test_the_check_is_made_once_per_process(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = engine.require_versions
    monkeypatch.setattr(
        engine, "require_versions", lambda conn, **more: asked.append(1) or real(conn, **more)
    )
    for _ in range(3):
        with connect() as conn:
            conn.execute("SELECT 1")
        with connect("reader") as conn:
            conn.execute("SELECT 1")
    assert len(asked) == 2


def test_a_refused_connection_goes_back_to_the_pool(empty_db: Database) -> None:
    for _ in range(20):  # more than the pool holds
        with pytest.raises(SchemaError), connect():
            pass
    assert engine.engine().pool.checkedout() == 0  # type: ignore[attr-defined]
