"""search_photos against NumPy: everywhere, inside a region, by HNSW, and what it says of wrong calls."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest
from pgvector import HalfVector
from small_world import DIMENSION, PHOTOS, SEQUENCES, SmallWorld

from geofix.database.engine import connect

NORTH = "ST_MakeEnvelope(7.4, 47.56, 7.8, 47.7, 4326)"
SEARCH = "SELECT photo_id, score, method, photos_in_scope, rank FROM search_photos(%s, %s, 'tiny', {}, {})"


@pytest.fixture
def conn(small: SmallWorld):
    with connect() as connection:
        yield connection
        connection.rollback()


def stored(conn):
    rows = conn.execute(
        "SELECT e.photo_id, e.embedding, ST_Y(geom) > 47.56"
        " FROM photo_embedding e JOIN photo_record p USING (photo_id) ORDER BY 1"
    ).fetchall()
    vectors = np.stack([np.asarray(row[1].to_numpy(), np.float64) for row in rows])
    return np.array([row[0] for row in rows]), vectors, np.array([row[2] for row in rows])


def search(conn, query, k, region="NULL", exact_below=10_000):
    return conn.execute(
        SEARCH.format(region, exact_below), (HalfVector(query.astype(np.float16)), k)
    ).fetchall()


@pytest.mark.parametrize("region", ["NULL", NORTH])
def test_exact_search_is_the_inner_product(conn, region):
    ids, vectors, north = stored(conn)
    inside = north if region == NORTH else np.ones(len(ids), bool)
    for query in vectors[::20]:
        rows = search(conn, query, 10, region)
        scores = np.where(inside, vectors @ query, -np.inf)
        assert [row[4] for row in rows] == list(range(1, 11))
        assert {row[2:4] for row in rows} == {("exact", int(inside.sum()))}
        assert np.allclose([row[1] for row in rows], np.sort(scores)[::-1][:10], atol=1e-3)
        assert np.allclose(
            [row[1] for row in rows], scores[np.searchsorted(ids, [r[0] for r in rows])], atol=1e-3
        )


def test_more_than_there_are_and_a_region_without_photos(conn):
    _, vectors, north = stored(conn)
    assert len(search(conn, vectors[0], 10_000, NORTH)) == int(north.sum()) == 4 * SEQUENCES * PHOTOS
    assert search(conn, vectors[0], 5, "ST_MakeEnvelope(100, 0, 101, 1, 4326)") == []
    assert len(search(conn, vectors[0], 500, "ST_GeomFromText('POINT EMPTY', 4326)")) == 0


@pytest.mark.parametrize("region", ["NULL", NORTH])
def test_hnsw_is_used_where_there_is_an_index(conn, region):
    ids, vectors, north = stored(conn)
    (model_id,) = conn.execute("SELECT model_id FROM model").fetchone()
    assert {row[2] for row in search(conn, vectors[0], 5, exact_below=0)} == {"exact"}  # no index yet
    conn.execute(
        f"CREATE INDEX ON geofix_leaf.photo_embedding_{model_id}"
        f" USING hnsw ((embedding::halfvec({DIMENSION})) halfvec_ip_ops)"
    )
    found = 0
    for query in vectors[::12]:
        exact = search(conn, query, 10, region)
        near = search(conn, query, 10, region, exact_below=0)
        assert {row[2] for row in near} == {"hnsw"} and len(near) == 10
        assert region == "NULL" or north[np.searchsorted(ids, [row[0] for row in near])].all()
        found += len({row[0] for row in exact} & {row[0] for row in near})
    assert found >= 0.9 * 10 * len(vectors[::12])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("search_photos('[1,2]'::halfvec, 5, 'tiny')", f"2 dimensions, model tiny wants {DIMENSION}"),
        ("search_photos(NULL, 5, 'tiny')", "dimensions"),
        ("search_photos('[1,2]'::halfvec, 5, 'x'' OR 1=1 --')", "has no photo embeddings"),
        ("search_photos('[1,2]'::halfvec, 5, NULL)", "has no photo embeddings"),
        (f"search_photos('{[1] * DIMENSION}'::halfvec, 0, 'tiny')", "k is 0"),
        (f"search_photos('{[1] * DIMENSION}'::halfvec, 1, 'tiny', ST_Point(0, 0, 3857))", "SRID 3857"),
    ],
)
def test_wrong_calls_say_what_is_wrong(conn, call, message):
    with pytest.raises(psycopg.errors.DataError, match=message):
        conn.execute(f"SELECT * FROM {call}")


def test_the_reader_may_ask_and_settings_do_not_leak(small):
    with connect("reader") as conn:
        before = conn.execute("SELECT current_setting('hnsw.ef_search', true)").fetchone()
        assert len(search(conn, np.ones(DIMENSION) / DIMENSION**0.5, 3)) == 3
        assert conn.execute("SELECT current_setting('hnsw.ef_search', true)").fetchone() == before
