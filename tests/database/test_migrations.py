"""The schema: up from empty, down to empty, no difference to the code, drift, dump and restore."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from geoalchemy2 import alembic_helpers

from geofix.codes.build import CellVectors, publish
from geofix.database import sqlfiles
from geofix.database.backup import backup, restore
from geofix.database.engine import connect
from geofix.database.migrate import downgrade_to_empty, head_revision, migrate, schema_engine
from geofix.database.queries.models import find_model
from geofix.database.schema import SCHEMA, metadata
from geofix.errors import UsageError
from geofix.settings import get_settings
from helpers import add_model, random_codes

OURS = """
SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname LIKE 'geofix%' UNION ALL
SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname LIKE 'geofix%'
"""


def test_up_from_empty_and_down_to_empty(empty_db):
    result = migrate(empty_db.url())
    assert (result.before, result.after) == (None, head_revision())
    with empty_db.connect() as conn:
        assert {t.name for t in metadata.tables.values()} <= {
            row[0] for row in conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'geofix'")
        }
    again = migrate(empty_db.url())
    assert again.before == again.after == head_revision()
    downgrade_to_empty(empty_db.url())
    with empty_db.connect() as conn:
        assert conn.execute(OURS).fetchall() == []
        assert conn.execute("SELECT count(*) FROM spatial_ref_sys").fetchone()[0] > 1000
    migrate(empty_db.url())


def test_the_code_and_the_database_do_not_differ(db):
    engine = schema_engine(db.url())
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": lambda name, kind, _parents: name == SCHEMA if kind == "schema" else True,
                "include_object": alembic_helpers.include_object,
                "version_table_schema": SCHEMA,
                "compare_type": True,
                "compare_server_default": True,
            },
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_autogenerate_would_notice_a_difference(db):
    with db.connect() as conn:
        conn.execute("ALTER TABLE geofix.photo_record DROP COLUMN file_mtime_ns")
    with pytest.raises(AssertionError):
        test_the_code_and_the_database_do_not_differ(db)


def test_drift_of_sql_files_is_reported(db):
    with db.connect() as conn:
        assert sqlfiles.drift(conn) == []
        conn.execute("UPDATE geofix.sql_file SET sha256 = 'x' WHERE name = '010_s2.sql'")
        conn.execute("DELETE FROM geofix.sql_file WHERE name = '100_views.sql'")
        conn.execute("INSERT INTO geofix.sql_file (name, sha256) VALUES ('050_gone.sql', 'x')")
        assert sqlfiles.drift(conn) == [
            "010_s2.sql: differs from what was applied",
            "100_views.sql: not applied",
            "050_gone.sql: applied, but no longer shipped",
        ]
    migrate(db.url())
    with db.connect() as conn:
        assert sqlfiles.drift(conn) == []


def test_dump_and_restore_round_trip(db, empty_db, tmp_path):
    migrate(db.url())
    ids, codes = random_codes(500, 16, level=14)
    with db.connect() as conn:
        from pgvector.psycopg import register_vector

        register_vector(conn)
        add_model(conn, "m", 16)
        n = len(ids)
        flags = (codes[:, 0] > 0, codes[:, 0] <= 0)
        publish(
            conn,
            "c",
            find_model(conn, "m"),
            "cellmean",
            14,
            CellVectors(ids, codes, codes[:, 0], *flags),
            snapshot_id=None,
        )
        before = conn.execute(CONTENT).fetchall()
        found = conn.execute(SEARCH, {"q": str(codes[3].tolist())}).fetchall()
        assert n == 500 and found[0][1] is not None
    file = tmp_path / "all.dump"
    assert backup(db.url(), file, get_settings()) > 1000
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="exists"):
        backup(db.url(), file, get_settings())
    restore(empty_db.url(), file, get_settings())
    with empty_db.connect() as conn:
        assert conn.execute(CONTENT).fetchall() == before
        assert conn.execute(SEARCH, {"q": str(codes[3].tolist())}).fetchall() == found
        assert sqlfiles.drift(conn) == []
    with pytest.raises(UsageError, match="already holds"):
        restore(empty_db.url(), file, get_settings())


CONTENT = "SELECT s2_id, code::text, has_prototype, has_aerial FROM geofix.cell_code ORDER BY s2_id"
SEARCH = "SELECT rank, s2_id, score FROM geofix.search_cells(%(q)s::halfvec, 5, 'c')"


def test_connect_says_what_to_do_without_a_server(clean_environment, tmp_path):
    from geofix.errors import ServiceError

    clean_environment.setenv("GEOFIX_DATABASE_URL", f"postgresql://someone:s3cret@/nowhere?host={tmp_path}")
    get_settings.cache_clear()
    with pytest.raises(ServiceError) as caught, connect():
        pass
    assert "geofix up" in str(caught.value) and "s3cret" not in str(caught.value)
