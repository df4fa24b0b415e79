"""Binary COPY both ways, and connections that come back whole after an error."""

from __future__ import annotations

import tracemalloc

import numpy as np
import psycopg
import pytest
import shapely

from geofix.database import bulk
from geofix.database.bulk import copy_arrays, copy_rows, read_columns, read_vectors, vector_rows
from geofix.database.engine import connect
from geofix.errors import BadInputError, ServiceError, UsageError
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


ARRAYS = {"id": "int8", "vector": "halfvec", "flag": "bool"}


@pytest.mark.parametrize("send", [1, 700, 10_000_000])
def test_arrays_arrive_as_rows_do(conn, monkeypatch, send):
    monkeypatch.setattr(bulk, "_SEND_BYTES", send)
    ids, vectors = fill(conn)
    conn.execute("CREATE TEMP TABLE w (LIKE v)")
    flags = ids % 2 == 0
    vectors[0, :4] = [0.0, -0.0, 6e-8, 65504]  # a subnormal and the largest
    chunks = [(ids[i : i + 333], vectors[i : i + 333], flags[i : i + 333]) for i in range(0, N, 333)]
    assert copy_arrays(conn, "w", ARRAYS, chunks) == N
    found, read = read_vectors(conn, "SELECT id, vector FROM w ORDER BY id", dimension=D)
    order = np.argsort(ids)
    assert (found == ids[order]).all()
    assert (read.view(np.int16) == vectors[order].view(np.int16)).all()
    wrong = "SELECT count(*) FROM v JOIN w USING (id) WHERE v.flag <> w.flag"
    assert conn.execute(wrong).fetchone() == (0,)


def test_arrays_of_every_kind_and_none(conn):
    columns = {"a": "int2", "b": "int4", "c": "int8", "d": "float4", "e": "float8", "f": "bool"}
    conn.execute("CREATE TEMP TABLE k (a int2, b int4, c int8, d float4, e float8, f bool)")
    values = np.array([-3, 0, 7])
    chunk = [values, values, values * 2**40, values / 4, values / 3, values > 0]
    assert copy_arrays(conn, "k", columns, [chunk]) == 3
    assert copy_arrays(conn, "k", columns, []) == 0
    assert copy_arrays(conn, "k", columns, [[array[:0] for array in chunk]]) == 0
    assert conn.execute("SELECT * FROM k ORDER BY c").fetchall() == [
        (int(v), int(v), int(v) * 2**40, v / 4, v / 3, bool(v > 0)) for v in values
    ]


def test_arrays_that_do_not_fit_are_refused(conn):
    ids, vectors = np.arange(5), np.ones((5, D), np.float16)
    for bad in ((ids, vectors[:4], ids > 2), (ids, vectors[:, 0], ids > 2), (ids, vectors, vectors > 0)):
        with pytest.raises(BadInputError, match="has shape"):
            copy_arrays(conn, "v", ARRAYS, [bad])
        conn.rollback()
        conn.execute("CREATE TEMP TABLE v (id bigint, vector halfvec, flag boolean)")
    with pytest.raises(UsageError, match="text"):
        copy_arrays(conn, "v", {"id": "text"}, [(ids,)])
    assert conn.execute("SELECT count(*) FROM v").fetchone() == (0,)


def test_arrays_need_the_memory_of_one_chunk(conn):
    vectors = np.ones((2000, D), np.float16)

    def chunks(count):
        return ((np.arange(2000), vectors, np.ones(2000, bool)) for _ in range(count))

    peaks = []
    for count in (5, 50):
        tracemalloc.start()
        copy_arrays(conn, "v", ARRAYS, chunks(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 100_000
