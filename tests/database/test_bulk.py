"""Binary COPY both ways, and connections that come back whole after an error."""

from __future__ import annotations

import tracemalloc

import numpy as np
import psycopg
import pytest
import shapely

from geofix.database import bulk
from geofix.database.bulk import copy_rows, read_columns, read_vectors, vector_rows
from geofix.database.engine import connect
from geofix.errors import BadInputError, ServiceError
from geofix.settings import get_settings

N, D = 2000, 12


@pytest.fixture
def conn(db):
    with connect() as connection:
        connection.execute("CREATE TEMP TABLE v (id bigint, vector halfvec, flag boolean, geom geometry)")
        yield connection


def fill(conn):
    rng = np.random.default_rng(0)
    ids, vectors = rng.permutation(N) - N // 2, rng.normal(size=(N, D)).astype(np.float16)
    flags = (ids % 2 == 0).tolist()
    rows = vector_rows(ids, vectors, flags)
    assert copy_rows(conn, "v", {"id": "int8", "vector": "halfvec", "flag": "bool"}, rows) == N
    return ids, vectors


@pytest.mark.parametrize("chunk", [1, 1000, 8_000_000])
def test_vectors_come_back_bit_for_bit_in_the_order_of_the_query(conn, monkeypatch, chunk):
    monkeypatch.setattr(bulk, "_CHUNK_BYTES", chunk)
    ids, vectors = fill(conn)
    found, read = read_vectors(conn, "SELECT id, vector FROM v ORDER BY id", dimension=D)
    order = np.argsort(ids)
    assert found.dtype == np.int64 and (found == ids[order]).all() and (read == vectors[order]).all()
    few, _ = read_vectors(conn, "SELECT id, vector FROM v WHERE id < %(top)s", {"top": -990}, dimension=D)
    assert len(few) == 10


def test_no_row_gives_empty_arrays_of_the_right_shape(conn):
    ids, vectors = read_vectors(conn, "SELECT id, vector FROM v", dimension=D)
    assert ids.shape == (0,) and vectors.shape == (0, D)


@pytest.mark.parametrize("dimension", [1, D - 1, D + 1, 1000, 100_000 // 4])
@pytest.mark.parametrize("rows", [1, N])
def test_another_dimension_is_an_error_and_never_an_empty_answer(conn, dimension, rows):
    fill(conn)
    with pytest.raises(BadInputError, match="expected"):
        read_vectors(conn, f"SELECT id, vector FROM v LIMIT {rows}", dimension=dimension)
    conn.rollback()
    assert conn.execute("SELECT 1").fetchone() == (1,)


def test_columns_of_numbers(conn):
    found = read_columns(
        conn,
        "SELECT n::int2, -n::int8, n / 2::float8 FROM generate_series(1, %(n)s) AS n",
        {"small": "i2", "large": "i8", "half": "f8"},
        {"n": 1000},
    )
    n = np.arange(1, 1001)
    assert (found["small"] == n).all() and (found["large"] == -n).all() and (found["half"] == n / 2).all()
    assert [found[name].dtype.str for name in found] == ["<i2", "<i8", "<f8"]


@pytest.mark.parametrize("value", ["NULL::int8", "1::int4", "'one'"])
def test_a_column_of_another_kind_is_refused(conn, value):
    with pytest.raises(BadInputError, match="expected"):
        read_columns(conn, f"SELECT {value}, 1::int8", {"a": "i8", "b": "i8"})


def test_reading_many_rows_makes_no_python_object_per_row(conn):
    query = "SELECT n::int8, (n % 100)::int2, n::float8 FROM generate_series(1, 200000) AS n"
    tracemalloc.start()
    found = read_columns(conn, query, {"a": "i8", "b": "i2", "c": "f8"})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found["a"]) == 200_000
    assert peak < 30_000_000  # the answer takes 3.6 MB, rows as tuples would take 40


def test_geometry_travels_as_ewkb(conn):
    shape = shapely.set_srid(shapely.Point(7.5, 47.5), 4326)
    rows = [(1, shapely.to_wkb(shape, include_srid=True))]
    assert copy_rows(conn, "v", {"id": "int8", "geom": "geometry"}, rows) == 1
    assert conn.execute("SELECT ST_X(geom), ST_SRID(geom) FROM v").fetchone() == (7.5, 4326)


@pytest.mark.parametrize("name", ['x" y', "drop table v; --", "ü'\\"])
def test_names_of_tables_and_columns_are_quoted(conn, name):
    column = psycopg.sql.Identifier(name)
    conn.execute(psycopg.sql.SQL("CREATE TEMP TABLE {0} ({0} bigint)").format(column))
    assert copy_rows(conn, name.replace(".", "_"), {name: "int8"}, [(5,)]) == 1


def test_an_error_rolls_back_and_the_connection_is_lent_again(db):
    with connect() as conn:
        conn.execute("CREATE TABLE kept (a int)")
    with pytest.raises(psycopg.errors.DivisionByZero), connect() as conn:
        conn.execute("INSERT INTO kept VALUES (1)")
        conn.execute("SELECT 1 / 0")
    with connect() as conn:
        assert conn.execute("SELECT count(*) FROM kept").fetchone() == (0,)
        assert not conn.autocommit


def test_a_connection_that_the_server_ended_is_replaced(db):
    with pytest.raises(psycopg.OperationalError, match=r"terminat|closed"), connect() as conn:
        with db.connect(autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (conn.info.backend_pid,))
        conn.execute("SELECT 1")
    with connect() as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_a_connection_left_in_autocommit_is_not_lent_again(db):
    with pytest.raises(RuntimeError, match="midway"), connect() as conn:
        conn.rollback()
        conn.autocommit = True
        raise RuntimeError("midway")
    with connect() as conn:
        assert not conn.autocommit


def test_no_server_is_one_line_without_the_password(db, clean_environment):
    clean_environment.setenv("GEOFIX_DATABASE_URL", "postgresql://me:secret@localhost:1/none")
    get_settings.cache_clear()
    with pytest.raises(ServiceError, match="No database answers at") as caught, connect():
        pass
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_the_password_of_a_backup_is_not_on_the_command_line(monkeypatch, tmp_path):
    from geofix.database import backup

    seen = {}

    def run(command, **given):
        seen.update(command=command, environment=given["env"])
        return type("Done", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(backup.subprocess, "run", run)
    backup._run(["/bin/pg_dump", "--file=x"], "postgresql://me:sec%27ret@db:5433/name?sslmode=require")
    assert seen["environment"]["PGPASSWORD"] == "sec'ret"
    assert not any("sec" in word for word in seen["command"])
    assert psycopg.conninfo.conninfo_to_dict(seen["command"][1].removeprefix("--dbname=")) == {
        "user": "me", "host": "db", "port": "5433", "dbname": "name", "sslmode": "require",
    }  # fmt: skip
