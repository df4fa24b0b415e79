"""What pages show equals what the analysts' functions and plain NumPy say, asked as the reader role."""

from __future__ import annotations

import json

import numpy as np
import pytest
from filled_database import COUNTRIES, OUTSIDE

from geofix.database.engine import connect
from geofix.database.queries import dashboard, dashboard_accuracy
from geofix.database.queries.dashboard_accuracy import Focus
from geofix.database.queries.dashboard_examples import EXAMPLES
from geofix.database.sandbox import ask
from geofix.evaluation.metrics import wilson
from geofix.settings import get_settings
from geofix.spatial import s2

EVERYWHERE = Focus()
T = 200.0
TOTAL = sum(n for _, _, n in COUNTRIES.values()) + OUTSIDE


def test_counts_and_data_sets(filled):
    with connect("reader") as conn:
        counts = dashboard.counts(conn)
        rows = dashboard.datasets(conn).set_index("name")
    assert (counts["photos"], counts["sequences"]) == (TOTAL, 12)
    assert (counts["regions"], counts["evaluations"], counts["rejects"]) == (3, 2, 2)
    assert rows.loc["walks", "licence"] == "CC BY 4.0" and rows.loc["walks", "rejects"] == 2
    assert rows.loc["ortho", "aerial_tiles"] == counts["aerial_tiles"] > 0


def test_overall_counts_the_unanswered_photo_as_wrong(filled):
    errors = filled.errors["first"][:, 0]
    with connect("reader") as conn:
        found = dashboard_accuracy.overall(conn, "first", T, EVERYWHERE)
    hits = int((np.nan_to_num(errors, nan=np.inf) <= T).sum())
    low, high = wilson(hits, TOTAL)
    assert (found["n"], found["hits"], found["answered"]) == (TOTAL, hits, TOTAL - 1)
    assert found["accuracy"] == pytest.approx(100 * hits / TOTAL)
    assert (found["low"], found["high"]) == pytest.approx((float(low), float(high)))


def test_regions_equal_the_analysts_function(filled):
    with connect("reader") as conn:
        rows = dashboard_accuracy.by_place(conn, "first", "country", T, EVERYWHERE, tolerance=0.001)
        wanted = conn.execute(
            "SELECT region_code, n, hits, accuracy, low, high, median_m"
            " FROM accuracy_by_region('first', 'country', %s)",
            (T,),
        ).fetchall()
    columns = ["code", "n", "hits", "accuracy", "low", "high", "median_m"]
    assert list(rows[columns].itertuples(index=False, name=None)) == wanted
    assert dict(zip(rows["code"], rows["n"], strict=True)) == {"AR": 60, "BE": 40, "CO": 10, "-": OUTSIDE}
    assert rows.set_index("code")["shape"].isna().to_dict() == {
        "AR": False,
        "BE": False,
        "CO": False,
        "-": True,
    }


def test_cells_equal_the_analysts_function(filled):
    with connect("reader") as conn:
        rows = dashboard_accuracy.by_place(conn, "first", 8, T, EVERYWHERE, tolerance=0.001)
        wanted = conn.execute(
            "SELECT s2_token, n, hits, low, high FROM accuracy_by_cell('first', 8, %s)", (T,)
        ).fetchall()
    found = rows[["code", "n", "hits", "low", "high"]].itertuples(index=False, name=None)
    assert sorted(found) == sorted(wanted)
    assert json.loads(rows["shape"].iloc[0])["type"] == "Polygon"


def test_a_focus_keeps_the_photos_inside(filled):
    cell = s2.from_token(np.array(["1"]))  # a face of the cube
    lo, hi = (int(ends[0]) for ends in s2.range_of(cell))
    inside = np.array([code == "BE" for code in filled.country])
    with connect("reader") as conn:
        country = Focus(region_level="country", region_code="BE")
        found = dashboard_accuracy.overall(conn, "first", T, country)
        assert (found["n"], found["hits"]) == (40, (filled.errors["first"][inside, 0] <= T).sum())
        west, _, east, _ = dashboard_accuracy.bounds(conn, "first", country)
        assert 2.0 <= west < east <= 3.8
        face = dashboard_accuracy.overall(conn, "first", T, Focus(lo=lo, hi=hi))
        assert face["n"] in (0, TOTAL)
        assert (
            dashboard_accuracy.bounds(conn, "first", Focus(region_level="country", region_code="XX")) is None
        )


def test_quantiles_and_recall_equal_numpy(filled):
    errors = filled.errors["first"]
    first = np.sort(np.nan_to_num(errors[:, 0], nan=np.inf))
    with connect("reader") as conn:
        n, found = dashboard_accuracy.quantiles(conn, "first", [0, 0.5, 1], EVERYWHERE)
        recall = dashboard_accuracy.recall(conn, "first", [1, 3], [100, 1000], EVERYWHERE)
    assert n == TOTAL
    assert found[0] == pytest.approx(first[0]) and np.isinf(found[2])
    assert found[1] == pytest.approx(first[int(np.ceil(0.5 * TOTAL)) - 1])
    for row in recall.itertuples():
        best = np.nanmin(np.where(np.isnan(errors), np.inf, errors)[:, : row.k], axis=1)
        assert (row.n, row.hits) == (TOTAL, (best <= row.radius_m).sum())


def test_worst_photos_lead_with_the_unanswered_one(filled):
    with connect("reader") as conn:
        rows = dashboard_accuracy.worst(conn, "first", EVERYWHERE, limit=5, offset=0)
        more = dashboard_accuracy.worst(conn, "first", EVERYWHERE, limit=5, offset=5)
    assert rows["photo_id"].iloc[0] == filled.photo_ids[-1] and np.isnan(rows["error_m"].iloc[0])
    order = np.argsort(-filled.errors["first"][:-1, 0])
    assert list(rows["photo_id"].iloc[1:]) == list(filled.photo_ids[order[:4]])
    assert list(more["photo_id"]) == list(filled.photo_ids[order[4:9]])
    assert set(rows["near_key"].dropna()) <= {"p000.jpg", "p001.jpg", "p002.jpg"}


def test_differences_count_gains_and_losses(filled):
    hit = {name: np.nan_to_num(e[:, 0], nan=np.inf) <= T for name, e in filled.errors.items()}
    with connect("reader") as conn:
        rows = dashboard_accuracy.compare_places(
            conn, "first", "second", "country", T, EVERYWHERE, tolerance=0.001
        ).set_index("code")
    for code in COUNTRIES:
        here = np.array([c == code for c in filled.country])
        gains = (hit["first"] & ~hit["second"])[here].sum()
        losses = (hit["second"] & ~hit["first"])[here].sum()
        row = rows.loc[code]
        assert (row["gains"], row["losses"]) == (gains, losses)
        assert row["difference"] == pytest.approx(100 * (gains - losses) / here.sum())
        assert -100 <= row["low"] <= row["difference"] <= row["high"] <= 100


PAIRS = """
SELECT count(*) FILTER (WHERE a.hit AND NOT b.hit), count(*) FILTER (WHERE b.hit AND NOT a.hit), count(*)
FROM evaluation_hits('first', %(t)s) AS a JOIN evaluation_hits('second', %(t)s) AS b USING (photo_id)
"""
# Asked photo by photo: is one of the first K answers near enough?
FOUND = """
SELECT count(*), count(*) FILTER (WHERE EXISTS (
         SELECT FROM prediction r WHERE r.evaluation_id = h.evaluation_id AND r.photo_id = h.photo_id
           AND r.rank <= %(k)s AND r.error_m < %(t)s))
FROM (SELECT evaluation_id('first') AS evaluation_id, photo_id FROM evaluation_hits('first', %(t)s)) AS h
"""


@pytest.mark.parametrize("drop", ["first", "second"])
def test_comparison_and_recall_keep_to_the_protocol(filled, drop):
    with connect("owner") as conn:
        conn.execute("UPDATE evaluation SET comparison = '<'")
        conn.execute("UPDATE evaluation SET missing_policy = 'drop' WHERE name = %s", (drop,))
        conn.execute("UPDATE photo_record SET gps_accuracy_m = photo_id % 7 * 40 WHERE photo_id % 2 = 0")
        error = float(filled.errors["first"][3, 0])  # a radius that one photo's error is equal to
        for t in (T, error):
            rows = dashboard_accuracy.compare_places(conn, "first", "second", 6, t, EVERYWHERE, tolerance=0.0)
            counted = tuple(int(rows[name].sum()) for name in ("gains", "losses", "n"))
            assert counted == conn.execute(PAIRS, {"t": t}).fetchone() and 0 < counted[2] < TOTAL
            for row in dashboard_accuracy.recall(conn, "first", (1, 2, 3), (t,), EVERYWHERE).itertuples():
                found = conn.execute(FOUND, {"k": row.k, "t": row.radius_m}).fetchone()
                assert (row.n, row.hits) == found
        conn.rollback()


def test_photos_are_counted_per_cell(filled):
    with connect("reader") as conn:
        rows = dashboard.photo_cells(conn, 9)
        few = dashboard.photo_cells(conn, 9, limit=2)
        counted = dict(
            conn.execute("SELECT s2_token(s2_parent(s2_id, 9)), count(*) FROM photo_record GROUP BY 1")
        )
    assert dict(zip(rows["code"], rows["photos"], strict=True)) == counted and len(rows) > 5
    assert list(few["code"]) == list(rows["code"][:2]) and few["cells"].iloc[0] == len(rows)
    assert few["all_photos"].iloc[0] == TOTAL and rows["photos"].is_monotonic_decreasing


def test_coverage_counts_everything_once_and_keeps_to_a_region(filled):
    with connect("reader") as conn:
        rows = dashboard.coverage(conn, 10, None, None)
        part = dashboard.coverage(conn, 10, "country", "AR")
        few = dashboard.coverage(conn, 10, None, None, limit=2)
    assert rows["photos"].sum() == rows["all_photos"].iloc[0] == TOTAL
    assert rows["aerial_tiles"].sum() == rows["all_tiles"].iloc[0]
    assert rows["has_aerial"].any() and not rows["has_prototype"].all()
    assert 0 < len(part) < len(rows) and set(part["cell"]) < set(rows["cell"])
    assert len(few) == 2 and few["cells"].iloc[0] == len(rows) and few["all_photos"].iloc[0] == TOTAL


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_runs(filled, name):
    with ask(EXAMPLES[name], get_settings(), max_rows=1000) as answer:
        rows = [row for batch in answer.batches() for row in batch]
    assert rows


def test_every_example_runs_on_an_empty_database(blank):
    for statement in EXAMPLES.values():
        with ask(statement, get_settings(), max_rows=10) as answer:
            assert sum(len(batch) for batch in answer.batches()) <= 10


def test_accuracy_by_bin_equals_numpy(filled):
    errors = np.nan_to_num(filled.errors["first"][:, 0], nan=np.inf)
    with connect("reader") as conn:
        near = dict(
            conn.execute(
                "SELECT photo_id, nearest_training_m FROM evaluation_photo"
                " WHERE evaluation_id = evaluation_id('first')"
            ).fetchall()
        )
        rows = dashboard_accuracy.by_bin(conn, "first", T, EVERYWHERE, by="distance", edges=(25, 100, 500))
        photos = dashboard_accuracy.by_bin(conn, "first", T, EVERYWHERE, by="photos", edges=(1, 5, 20))
    away = np.array([near[int(photo)] for photo in filled.photo_ids])
    which = np.digitize(away, [25, 100, 500])
    for row in rows.itertuples():
        inside = which == row.bin
        assert (row.n, row.hits) == (inside.sum(), (errors[inside] <= T).sum())
        low, high = wilson(row.hits, row.n)
        assert (row.low, row.high) == pytest.approx((float(low), float(high)))
    assert rows["n"].sum() == photos["n"].sum() == TOTAL


def test_one_photo_has_its_answers_by_rank(filled):
    wanted = int(filled.photo_ids[7])
    with connect("reader") as conn:
        rows = dashboard_accuracy.answers(conn, "first", wanted)
        found = dashboard_accuracy.worst(conn, "first", EVERYWHERE, limit=1, offset=0, photo_id=wanted)
        nobody = dashboard_accuracy.worst(conn, "first", EVERYWHERE, limit=1, offset=0, photo_id=-1)
    assert list(rows["rank"]) == [1, 2, 3] and list(found["photo_id"]) == [wanted] and nobody.empty
    assert rows["error_m"].to_numpy() == pytest.approx(filled.errors["first"][7])
