"""search_cells against the exact matrix: everywhere, inside regions, by HNSW, and in score."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest
import shapely
from pgvector import HalfVector

from geofix.codes.build import CellVectors, publish
from geofix.codes.complete import complete_query
from geofix.codes.index import build_index, measure_recall
from geofix.codes.matrix import CellMatrix
from geofix.database.engine import connect
from geofix.database.queries import codes as code_queries
from geofix.database.queries.models import find_model
from geofix.errors import SpaceError, UsageError
from geofix.spatial import s2
from helpers import add_model, random_codes

LEVEL, D, N = 13, 16, 4000
# An odd polygon with a hole, a tiny one, and one far away from every cell.
REGIONS = {
    "odd": shapely.Polygon(
        [(6, 46), (9, 45.4), (9.5, 49), (7, 49.6), (5.5, 48)], [[(7, 47), (8, 47), (8, 48), (7, 48)]]
    ),
    "two parts": shapely.MultiPolygon([shapely.box(5.1, 45.1, 5.9, 45.8), shapely.box(9, 49, 9.8, 49.9)]),
    "tiny": shapely.box(7.5, 47.5, 7.6, 47.6).buffer(0.03),
}
FAR = shapely.box(100, -10, 101, -9)


@pytest.fixture
def code_set(db):
    """A code set with biases of both signs and codes of unequal norm."""
    ids, vectors = random_codes(N, D, level=LEVEL)
    rng = np.random.default_rng(5)
    vectors = (vectors * rng.uniform(0.5, 2, (N, 1))).astype(np.float32)
    bias = rng.normal(0, 0.3, N).astype(np.float32)
    aerial = rng.random(N) < 0.3
    with connect() as conn:
        add_model(conn, "m", D)
        publish(
            conn,
            "set",
            find_model(conn, "m"),
            "hybrid",
            LEVEL,
            CellVectors(ids, vectors, bias, ~aerial, aerial),
            snapshot_id=None,
        )
        made = code_queries.find_code_set(conn, "set")
    order = np.argsort(ids)
    return made, ids[order], vectors[order], bias[order]


@pytest.fixture
def queries():
    q = np.random.default_rng(9).normal(size=(8, D)).astype(np.float32)
    return q / np.linalg.norm(q, axis=1, keepdims=True)


def search(conn, query, k, region=None, exact_below=10_000):
    ewkb = None if region is None else shapely.to_wkb(shapely.set_srid(region, 4326), include_srid=True)
    return conn.execute(
        "SELECT s2_id, score, method, cells_in_scope, rank, ST_X(geom), ST_Y(geom)"
        " FROM search_cells(%s, %s, 'set', ST_GeomFromEWKB(%s), %s)",
        (HalfVector(query.astype(np.float16)), k, ewkb, exact_below),
    ).fetchall()


def test_counts_and_flags_are_recorded(code_set):
    made, _, _, _ = code_set
    assert (made.cells, made.state, made.dimension) == (N, "ready", D + 2)
    assert made.with_prototype + made.with_aerial == N and made.with_aerial > 0


def test_everywhere_equals_the_formula_in_rank_and_score(code_set, queries):
    _, ids, vectors, bias = code_set
    with connect("reader") as conn:
        for query in queries:
            rows = search(conn, query, 20)
            half = query.astype(np.float16).astype(np.float64)
            scores = vectors @ half + bias
            best = np.argsort(-scores, kind="stable")[:20]
            assert [row[4] for row in rows] == list(range(1, 21))
            assert {row[2] for row in rows} == {"exact"} and {row[3] for row in rows} == {N}
            by_id = dict(zip(ids.tolist(), scores.tolist(), strict=True))
            assert np.allclose([row[1] for row in rows], [by_id[row[0]] for row in rows], atol=4e-3)
            assert len({row[0] for row in rows} & set(ids[best].tolist())) >= 19
            lon, lat = s2.center(np.array([row[0] for row in rows]))
            assert np.allclose([row[5] for row in rows], lon) and np.allclose([row[6] for row in rows], lat)


def test_sql_equals_the_matrix(code_set, queries):
    made, _, _, _ = code_set
    with connect() as conn:
        matrix = CellMatrix.from_rows(*code_queries.read_codes(conn, made))
        wanted, scores = matrix.search(complete_query(queries.astype(np.float16)), 10)
        for i, query in enumerate(queries):
            rows = search(conn, query, 10)
            assert np.allclose([row[1] / made.scale for row in rows], scores[i], atol=1e-3)
            assert len(set(wanted[i].tolist()) & {row[0] for row in rows}) >= 9


@pytest.mark.parametrize("name", REGIONS)
def test_a_region_holds_exactly_the_cells_whose_centre_is_inside(code_set, queries, name):
    _, ids, vectors, bias = code_set
    region = REGIONS[name]
    lon, lat = s2.center(ids)
    inside = shapely.covers(region, shapely.points(lon, lat))
    assert 0 < inside.sum() < N
    with connect("reader") as conn:
        rows = search(conn, queries[0], N, region)
        assert {row[0] for row in rows} == set(ids[inside].tolist())
        assert {row[3] for row in rows} == {int(inside.sum())}
        top = search(conn, queries[0], 3, region)
        scores = (vectors @ queries[0].astype(np.float16).astype(np.float64) + bias)[inside]
        assert abs(top[0][1] - scores.max()) < 4e-3


def test_a_region_without_cells_answers_nothing(code_set, queries):
    with connect("reader") as conn:
        assert search(conn, queries[0], 5, FAR) == []


def test_hnsw_is_used_above_the_threshold_and_measured(code_set, queries):
    made, _, _, _ = code_set
    with connect() as conn:
        assert {row[2] for row in search(conn, queries[0], 10, exact_below=0)} == {"exact"}  # no index yet
        build_index(conn, made, m=16, ef_construction=64)
    with connect() as conn:
        made = code_queries.find_code_set(conn, "set")
        rows = search(conn, queries[0], 10, exact_below=0)
        assert {row[2] for row in rows} == {"hnsw"} and len(rows) == 10
        assert {row[2] for row in search(conn, queries[0], 10)} == {"exact"}
        wide = search(conn, queries[0], 1500, exact_below=0)
        assert len(wide) == 1500  # more than ef_search: the iterative scan goes on
        measured = measure_recall(conn, made, complete_query(queries), k=10)
        assert measured.method == "hnsw" and measured.recall > 0.9
        stored = conn.execute("SELECT recall, k, queries FROM recall_check").fetchall()
        assert [(round(row[0], 4), *row[1:]) for row in stored] == [(round(measured.recall, 4), 10, 8)]


@pytest.mark.parametrize("name", REGIONS)
def test_hnsw_inside_a_region_stays_inside_and_loses_little(code_set, queries, name):
    made, _ids, _, _ = code_set
    region = REGIONS[name]
    with connect() as conn:
        build_index(conn, made)
    with connect("reader") as conn:
        found = wanted = 0
        for query in queries:
            exact = {row[0] for row in search(conn, query, 10, region)}
            rows = search(conn, query, 10, region, exact_below=0)
            near = {row[0] for row in rows}
            assert len(near) == len(exact)
            assert [row[1] for row in rows] == sorted((row[1] for row in rows), reverse=True)
            lon, lat = s2.center(np.array(sorted(near)))
            assert shapely.covers(region, shapely.points(lon, lat)).all()
            found, wanted = found + len(exact & near), wanted + len(exact)
        assert found >= 0.98 * wanted


def test_how_many_rows_are_wanted_and_read(db):
    """The smaller the share, the more candidates, and the more rows it is worth to read instead."""
    with connect("reader") as conn:
        for k, cells, inside, rows, candidates, most in (
            (10, 1_000_000, 1_000_000, 320, 100, 10_000),  # everywhere
            (10, 1_000_000, 300_000, 320, 1067, 26_667),
            (10, 1_000_000, 86_322, 320, 3707, 92_677),
            (10, 1_000_000, 0, 320, 3.2e8, 8_000_000_000),
            (1, 1_000_000, 500_000, 32, 100, 10_000),
            (200, 1_000_000, 500_000, 1120, 2240, 56_000),
        ):
            wanted = conn.execute(
                "SELECT rows_wanted(%s), candidates_wanted(%s, %s, %s)", (k, k, cells, inside)
            )
            found = wanted.fetchone()
            assert found[0] == rows and round(found[1]) == candidates
            read = conn.execute("SELECT read_up_to(10000, %s)", (found[1],)).fetchone()[0]
            assert abs(read - most) <= 1
        # None is forced, all are, and no number is too large.
        found = conn.execute(
            "SELECT read_up_to(0, 1e9), read_up_to(2147483647, 4e3), read_up_to(10000, 1e30)"
        )
        assert found.fetchone() == (0, 21_474_836_470, 10**15)


def test_a_small_share_of_the_cells_is_read_row_by_row_a_large_one_by_the_index(code_set, queries):
    """Of what a graph finds everywhere a small region keeps too little."""
    made, ids, _, _ = code_set
    lon, lat = s2.center(ids)
    with connect() as conn:
        build_index(conn, made)
        conn.commit()
        for width, wanted in ((0.3, "exact"), (4.0, "hnsw")):
            region = shapely.box(5, 45, 5 + width, 50)
            inside = int(shapely.covers(region, shapely.points(lon, lat)).sum())
            assert 100 < inside <= 4000
            rows = search(conn, queries[0], 10, region, exact_below=100)
            assert {row[2] for row in rows} == {wanted}, (width, inside)
            assert abs(rows[0][3] - inside) <= (0 if wanted == "exact" else 0.05 * inside)
        assert {row[2] for row in search(conn, queries[0], 10, region, exact_below=2**31 - 1)} == {"exact"}


def test_the_index_answers_the_ann_query(code_set):
    made, _, _, _ = code_set
    with connect() as conn:
        build_index(conn, made)
    with connect() as conn:
        plan = "\n".join(
            row[0]
            for row in conn.execute(
                f"EXPLAIN SELECT s2_id FROM cell_code WHERE code_set_id = {made.code_set_id}"
                f" ORDER BY code::halfvec({D + 2}) <#> %s LIMIT 10",
                (HalfVector(np.ones(D + 2)),),
            )
        )
        assert f"cell_code_{made.code_set_id}_hnsw" in plan


def test_settings_do_not_leak_into_the_callers_transaction(code_set, queries):
    with connect("reader") as conn:
        before = conn.execute(
            "SELECT current_setting('hnsw.ef_search'), current_setting('hnsw.iterative_scan')"
        ).fetchone()
        search(conn, queries[0], 300, exact_below=0)
        assert (
            before
            == conn.execute(
                "SELECT current_setting('hnsw.ef_search'), current_setting('hnsw.iterative_scan')"
            ).fetchone()
        )


def test_similar_cells_leaves_out_the_cell_itself(code_set):
    _, ids, vectors, _ = code_set
    with connect("reader") as conn:
        rows = conn.execute(
            "SELECT rank, s2_id_found, score FROM similar_cells(%s, 5, 'set')", (int(ids[7]),)
        ).fetchall()
    unit = vectors[7] / np.linalg.norm(vectors[7])
    scores = vectors @ unit
    scores[7] = -np.inf
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0][1] == ids[np.argmax(scores)] and abs(rows[0][2] - scores.max()) < 5e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("search_cells('[1,2]'::halfvec, 5, 'set')", "2 dimensions, the code set wants 16"),
        (f"search_cells('{[1] * D}'::halfvec, 0, 'set')", "k is 0"),
        (f"search_cells('{[1] * D}'::halfvec, 5, 'nothing')", "no ready code set is named 'nothing'"),
        (f"search_cells('{[1] * D}'::halfvec, 5, 'set', ST_GeomFromText('POINT(0 0)', 3857))", "SRID 3857"),
        ("search_cells(NULL, 5, 'set')", "query vector is null"),
        ("similar_cells(s2_cell_at(0, 0, 13), 5, 'set')", "has no cell"),
    ],
)
def test_wrong_calls_say_what_is_wrong(code_set, call, message):
    with connect("reader") as conn, pytest.raises(psycopg.Error, match=message):
        conn.execute(f"SELECT * FROM {call}")


def test_an_index_that_cannot_fit_is_refused(code_set):
    made, _, _, _ = code_set
    with connect() as conn, pytest.raises(SpaceError, match="needs about"):
        build_index(conn, made, memory_bytes=10_000)


def test_a_code_set_is_dropped_with_its_leaf(code_set):
    made, _, _, _ = code_set
    with connect() as conn:
        code_queries.drop_code_set(conn, made)
        assert conn.execute("SELECT count(*) FROM cell_code").fetchone() == (0,)
        assert conn.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'geofix_leaf' AND tablename LIKE 'cell_code%'"
        ).fetchone() == (0,)
        assert conn.execute("SELECT count(*) FROM cell_block").fetchone() == (0,)


def test_a_failed_build_leaves_nothing(db):
    ids, vectors = random_codes(50, D, level=LEVEL)
    ids[1] = ids[0]  # a cell twice: the unique key refuses it
    flags = np.ones(50, bool)
    with pytest.raises(psycopg.errors.UniqueViolation), connect() as conn:
        add_model(conn, "m", D)
        publish(
            conn,
            "set",
            find_model(conn, "m"),
            "cellmean",
            LEVEL,
            CellVectors(ids, vectors, vectors[:, 0] * 0, flags, flags),
            snapshot_id=None,
        )
    with connect() as conn:
        assert conn.execute(
            "SELECT (SELECT count(*) FROM code_set), (SELECT count(*) FROM cell_code)"
        ).fetchone() == (0, 0)


def test_a_name_is_taken_once(code_set):
    _made, ids, vectors, bias = code_set
    flags = np.ones(N, bool)
    with connect() as conn, pytest.raises(UsageError, match="exists"):
        publish(
            conn,
            "set",
            find_model(conn, "m"),
            "hybrid",
            LEVEL,
            CellVectors(ids, vectors, bias, flags, flags),
            snapshot_id=None,
        )


def test_covering_ranges_hold_every_cell_of_the_region(db):
    ids, _ = random_codes(2000, 2, level=16, bounds=(5.0, 45.0, 6.0, 46.0))
    region = shapely.Polygon([(5.2, 45.2), (5.9, 45.3), (5.5, 45.9)])
    lon, lat = s2.center(ids)
    inside = shapely.covers(region, shapely.points(lon, lat))
    with connect("reader") as conn:
        ranges = conn.execute(
            "SELECT lo, hi, inside FROM s2_covering(ST_GeomFromText(%s, 4326), 64)", (region.wkt,)
        ).fetchall()
    assert 0 < len(ranges) <= 64
    lo, hi = s2.range_of(ids)
    covered = np.zeros(len(ids), bool)
    surely = np.zeros(len(ids), bool)
    for first, last, whole in ranges:
        here = (lo <= last) & (hi >= first)
        covered |= here
        surely |= here & whole
    assert covered[inside].all() and inside[surely].all()
    assert covered.sum() < 1.5 * inside.sum()
