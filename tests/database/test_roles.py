"""What each of the three roles may do, tried for real."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg
import pytest
from pgvector.psycopg import register_vector
from psycopg import sql

from geofix.codes.build import CellVectors, publish
from geofix.database.engine import connect
from geofix.database.queries.models import add_embeddings, find_model
from helpers import add_model, random_codes
from servers import Database

DENIED = psycopg.errors.InsufficientPrivilege
TABLES = """
SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = 1
WHERE c.relnamespace = 'geofix'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1
"""
PUBLIC = """
SELECT has_database_privilege('public', current_database(), p),
       has_schema_privilege('public', 'geofix', 'USAGE')
FROM unnest(ARRAY['CONNECT', 'TEMP', 'CREATE']) AS p
"""
HIDDEN = {"audit", "query"}


@pytest.fixture
def filled(db: Database) -> Database:
    """One model with a photo embedding and one code set."""
    ids, codes = random_codes(50, 8, level=12)
    with connect() as conn:
        add_model(conn, "m", 8)
        flags = (codes[:, 0] > 9, codes[:, 0] < 9)
        vectors = CellVectors(ids, codes, 0 * codes[:, 0], *flags)
        publish(conn, "c", find_model(conn, "m"), "aerial", 12, vectors, snapshot_id=None)
        conn.execute(PHOTO)
    return db


PHOTO = """
WITH d AS (INSERT INTO dataset (name, kind) VALUES ('d', 'photos') RETURNING dataset_id)
INSERT INTO photo_record (dataset_id, source_key, s2_id, geom)
SELECT dataset_id, 'a.jpg', s2_cell_at(8.5, 47.4, 30), 'SRID=4326;POINT(8.5 47.4)' FROM d
"""


def not_denied(db: Database, role: str, statements: Iterable[str | sql.Composed]) -> list[str]:
    """Those statements that do not fail for want of a privilege, with what they end in."""
    found = []
    with db.connect(role) as conn:  # type: ignore[arg-type]
        for statement in statements:
            try:
                conn.execute(statement)
                found.append(f"allowed: {statement}")
            except DENIED:
                pass
            except psycopg.Error as error:
                found.append(f"{error}: {statement}")
            conn.rollback()
    return found


def denied(db: Database, role: str, statement: str) -> str:
    """The error of a statement that must fail for want of a privilege."""
    with db.connect(role) as conn:  # type: ignore[arg-type]
        with pytest.raises(DENIED) as caught:
            conn.execute(statement)
        conn.rollback()
    return str(caught.value)


def test_the_reader_writes_no_table(filled: Database) -> None:
    with filled.connect() as conn:
        tables = dict(conn.execute(TABLES).fetchall())
    assert {"photo_record", "cell_code", "code_set", "job", "audit"} <= set(tables)
    assert set(tables) >= HIDDEN
    statements = [
        sql.SQL(text).format(table=sql.Identifier("geofix", table), column=sql.Identifier(column))
        for table, column in tables.items()
        for text in (
            "INSERT INTO {table} DEFAULT VALUES",
            "UPDATE {table} SET {column} = DEFAULT",
            "DELETE FROM {table}",
            "TRUNCATE {table}",
            "LOCK TABLE {table} IN EXCLUSIVE MODE",
            "ALTER TABLE {table} ADD COLUMN x int",
        )
    ]
    assert not_denied(filled, "reader", statements) == []


@pytest.mark.parametrize("table", sorted(HIDDEN))
def test_the_reader_does_not_see_who_asked_what(filled: Database, table: str) -> None:
    assert table in denied(filled, "reader", f"SELECT * FROM geofix.{table}")
    assert table in denied(filled, "reader", f"SELECT count(*) FROM geofix.{table}")


CLOSED_TO_READERS = (
    "CREATE TEMP TABLE t (a int)",
    "CREATE TEMP VIEW v AS SELECT 1",
    "CREATE TEMP SEQUENCE s",
    "SELECT 1 AS a INTO TEMP t",
    "CREATE TABLE public.t (a int)",
    "CREATE TABLE geofix.t (a int)",
    "CREATE TABLE geofix_leaf.t (a int)",
    "CREATE SCHEMA s",
    "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql RETURN 1",
    "CREATE EXTENSION dblink",
    "CREATE ROLE r",
    "ALTER ROLE geofix_reader SUPERUSER",
    "SET ROLE geofix_owner",
    "SET SESSION AUTHORIZATION geofix_owner",
    "SELECT set_config('role', 'geofix_owner', false)",
    "SELECT set_config('session_authorization', 'geofix_writer', false)",
    "ALTER DATABASE postgres SET work_mem = '1GB'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_read_binary_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT pg_stat_file('/etc/passwd')",
    "COPY (SELECT 1) TO '/tmp/geofix-reader'",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT lo_create(0)",
    "SELECT lo_creat(-1)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT lo_put(1, 0, 'x')",
    "SELECT lo_get(1)",
    "SELECT lo_open(1, 131072)",
    "SELECT lo_unlink(1)",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '/tmp/geofix-reader')",
    "SELECT pg_logical_emit_message(false, 'a', 'b')",
    "SELECT rolpassword FROM pg_authid",
    "SELECT nextval('geofix.photo_record_photo_id_seq')",
    "DROP TABLE geofix.photo_record",
    "DROP VIEW geofix.photo",
    "GRANT SELECT ON geofix.audit TO geofix_reader",
    "DO $$ BEGIN CREATE TEMP TABLE t (a int); END $$",
)


def test_the_reader_is_denied(filled: Database) -> None:
    assert not_denied(filled, "reader", CLOSED_TO_READERS) == []


def test_the_reader_works_under_the_limits(filled: Database) -> None:
    with filled.connect("reader") as conn:
        register_vector(conn)
        found = conn.execute(
            "SELECT count(*) FROM search_cells((SELECT '[1,0,0,0,0,0,0,0]'::halfvec), 5, 'c')"
        ).fetchone()
        assert found == (5,)
        assert conn.execute("SELECT country FROM photo").fetchall() == [(None,)]
        assert conn.execute("SELECT count(*) FROM cell_code").fetchone() == (50,)
        assert conn.execute("SELECT count(*) FROM geofix_leaf.cell_code_1").fetchone() == (50,)
        assert conn.execute("SELECT pg_advisory_xact_lock(1)").fetchone() == ("",)
        assert conn.execute("SELECT s2_token(s2_cell_at(8.5, 47.4, 10))").fetchone() is not None
        for view in ("photo", "cell", "prediction_top1", "evaluation_summary", "job_status"):
            conn.execute(sql.SQL("SELECT * FROM {} LIMIT 1").format(sql.Identifier(view)))
        assert conn.execute("SELECT count(*) FROM coverage(12)").fetchone() is not None


def test_a_leaf_made_later_is_readable(filled: Database) -> None:
    with connect() as conn:
        later = add_model(conn, "later", 4)
    with filled.connect("reader") as conn:
        assert conn.execute(f"SELECT count(*) FROM geofix_leaf.photo_embedding_{later}").fetchone() == (0,)
    denied(filled, "reader", f"DELETE FROM geofix_leaf.photo_embedding_{later}")


CLOSED_TO_WRITERS = (
    "CREATE TABLE geofix.t (a int)",
    "CREATE TABLE geofix_leaf.t (a int)",
    "CREATE TABLE public.t (a int)",
    "CREATE SCHEMA s",
    "ALTER TABLE geofix.photo_record ADD COLUMN x int",
    "CREATE INDEX ON geofix.photo_record (uri)",
    "DROP TABLE geofix.photo_record",
    "DROP FUNCTION geofix.s2_token(bigint)",
    "TRUNCATE geofix.photo_record",
    "DELETE FROM geofix.photo_record",
    "DELETE FROM geofix.dataset",
    "DELETE FROM geofix.audit",
    "UPDATE geofix.audit SET actor = 'x'",
    "UPDATE geofix.sql_file SET sha256 = 'x'",
    "UPDATE geofix.alembic_version SET version_num = 'x'",
    "SET ROLE geofix_owner",
    "SELECT lo_create(0)",
)


def test_the_writer_is_denied(filled: Database) -> None:
    assert not_denied(filled, "writer", CLOSED_TO_WRITERS) == []


def test_the_writer_stages_and_writes_results(filled: Database) -> None:
    with connect("writer") as conn:
        model = find_model(conn, "m")
        (photo,) = conn.execute("SELECT photo_id FROM photo_record").fetchone() or (0,)
        assert add_embeddings(conn, "photo_embedding", model.model_id, [(photo, [1.0, *[0.0] * 7])]) == 1  # type: ignore[list-item]
        conn.execute("INSERT INTO job (kind) VALUES ('embed')")
        conn.execute("UPDATE job SET state = 'running'")
        conn.execute("INSERT INTO audit (action, object_kind, object_id) VALUES ('embed', 'model', '1')")


def test_nobody_else_connects(filled: Database) -> None:
    with filled.connect() as conn:
        granted = conn.execute(PUBLIC).fetchall()
    assert granted == [(False, False)] * 3


def test_grants_given_by_hand_end_with_the_next_migration(filled: Database) -> None:
    from geofix.database.migrate import migrate

    with filled.connect() as conn:
        conn.execute("GRANT INSERT ON geofix.dataset TO geofix_reader")
        conn.execute("GRANT SELECT ON geofix.audit TO PUBLIC")
    migrate(filled.url())
    denied(filled, "reader", "INSERT INTO geofix.dataset (name, kind) VALUES ('x', 'photos')")
    denied(filled, "reader", "SELECT * FROM geofix.audit")
