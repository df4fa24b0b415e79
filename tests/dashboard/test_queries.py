"""What pages show equals what the analysts' functions and plain NumPy say, asked as the reader role."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from filled_database import COUNTRIES, OUTSIDE

from geofix.database.engine import connect
from geofix.database.queries import (
    dashboard,
    dashboard_accuracy,
    dashboard_coverage,
    region_summary,
    snapshots,
)
from geofix.database.queries.dashboard_examples import EXAMPLES
from geofix.database.sandbox import ask
from geofix.evaluation.metrics import wilson
from geofix.evaluation.service import compare_evaluations, read_pair
from geofix.settings import get_settings
from geofix.spatial import s2
from geofix_dashboard import accuracy_tables as tables
from geofix_dashboard.views.accuracy import THRESHOLDS_M

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


def by_country(conn, count, name, *args):
    """A table of regions: `count` of the photos of an evaluation, with their countries."""
    every = dashboard_accuracy.asked(conn, name)
    regions = dashboard_accuracy.regions_of(conn, name, "country", every)
    *others, threshold_m = args
    return count(
        every, *others, regions, lambda ids, _shapes: dashboard_accuracy.places(conn, ids, 0.001), threshold_m
    )


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_the_fullest_regions_alone_are_named(filled, limit):
    with connect("reader") as conn:
        every = dashboard_accuracy.asked(conn, "first")
        regions = dashboard_accuracy.regions_of(conn, "first", "country", every)
        named = []

        def names(ids, shapes):
            named.append((len(ids), shapes))
            return dashboard_accuracy.places(conn, ids, 0.001 if shapes else None)

        rows = tables.by_region(every, regions, names, T, limit=limit)
        whole = by_country(conn, tables.by_region, "first", T)
        outside = tables.by_region(every.only(regions == 0), regions, names, T)
    assert named == [(min(limit, 3), limit == 4), (0, True)] and set(rows["places"]) == {4}
    assert list(rows["code"]) == list(whole["code"])[:limit] == ["AR", "BE", "CO", "-"][:limit]
    assert rows["place"].notna().all() and rows["shape"].notna().sum() == (3 if limit == 4 else 0)
    assert list(outside["code"]) == ["-"] and outside["shape"].isna().all()


def test_error_lines_are_a_fixed_choice_of_the_answered(filled):
    with connect("reader") as conn:
        every = dashboard_accuracy.asked(conn, "first")
        few, all_ = (
            dashboard_accuracy.error_lines(conn, "first", tables.some(every, limit)) for limit in (9, 999)
        )
        wanted = [
            row[0]
            for row in conn.execute(
                "SELECT photo_id FROM evaluation_hits('first', 1e9) WHERE error_m IS NOT NULL"
                " ORDER BY hashint8(photo_id), photo_id"
            )
        ]
    assert list(all_["photo_id"]) == wanted and list(few["photo_id"]) == wanted[:9]


def test_overall_counts_the_unanswered_photo_as_wrong(filled):
    errors = filled.errors["first"][:, 0]
    with connect("reader") as conn:
        found = tables.overall(dashboard_accuracy.asked(conn, "first"), T)
    hits = int((np.nan_to_num(errors, nan=np.inf) <= T).sum())
    low, high = wilson(hits, TOTAL)
    assert (found["n"], found["hits"], found["answered"]) == (TOTAL, hits, TOTAL - 1)
    assert found["accuracy"] == pytest.approx(100 * hits / TOTAL)
    assert (found["low"], found["high"]) == pytest.approx((float(low), float(high)))


def test_regions_equal_the_analysts_function(filled):
    with connect("reader") as conn:
        rows = by_country(conn, tables.by_region, "first", T)
        wanted = conn.execute(
            "SELECT region_code, n, hits, accuracy, low, high, median_m"
            " FROM accuracy_by_region('first', 'country', %s)",
            (T,),
        ).fetchall()
    columns = ["code", "n", "hits", "accuracy", "low", "high", "median_m"]
    assert list(rows["code"]) == [row[0] for row in wanted]
    assert rows[columns[1:]].to_numpy(float) == pytest.approx(np.array([row[1:] for row in wanted], float))
    assert dict(zip(rows["code"], rows["n"], strict=True)) == {"AR": 60, "BE": 40, "CO": 10, "-": OUTSIDE}
    assert rows.set_index("code")["shape"].isna().to_dict() == {
        "AR": False,
        "BE": False,
        "CO": False,
        "-": True,
    }


@pytest.mark.parametrize("distance", region_summary.DISTANCES_M)
def test_the_summary_of_an_evaluation_says_what_its_photos_say(filled, distance):
    with connect() as conn:  # tests of other files change what it was counted from
        region_summary.write_lacking(conn)
    with connect("reader") as conn:
        every = dashboard_accuracy.asked(conn, "first")
        rows = region_summary.read(conn, "first", "country", distance)
        whole = region_summary.read(conn, "first", region_summary.EVERYWHERE, distance)
        box = region_summary.read_box(conn, "first")
        found = tables.summarized(rows, lambda ids, _shapes: dashboard_accuracy.places(conn, ids, 0.001))
        wanted = by_country(conn, tables.by_region, "first", float(distance))
    pd.testing.assert_frame_equal(found, wanted)
    assert tables.summed(whole) == tables.overall(every, distance) and box.bounds == tables.bounds(every)
    nothing, known = tables.summed(whole[:0]), tables.overall(every.only(every.s2_id < 0), distance)
    assert nothing.keys() == known.keys() and list(nothing.values()) == pytest.approx(
        list(known.values()), nan_ok=True
    )


def test_the_distances_of_the_page_are_those_of_the_summary():
    assert THRESHOLDS_M == region_summary.DISTANCES_M


def test_cells_equal_the_analysts_function(filled):
    with connect("reader") as conn:
        rows = tables.by_cell(dashboard_accuracy.asked(conn, "first"), 8, T)
        wanted = conn.execute(
            "SELECT s2_token, n, hits, low, high, median_m FROM accuracy_by_cell('first', 8, %s)"
            " ORDER BY n DESC, 1",
            (T,),
        ).fetchall()
    assert list(rows["code"]) == [row[0] for row in wanted]
    found = rows[["n", "hits", "low", "high", "median_m"]].to_numpy(float)
    assert found == pytest.approx(np.array([row[1:] for row in wanted], float))
    assert json.loads(rows["shape"].iloc[0])["type"] == "Polygon"


def test_a_region_keeps_the_photos_inside(filled):
    inside = np.array([code == "BE" for code in filled.country])
    with connect("reader") as conn:
        every = dashboard_accuracy.asked(conn, "first")
        regions = dashboard_accuracy.regions_of(conn, "first", "country", every)
        here = every.only(regions == dashboard_accuracy.region_id(conn, "country", "BE"))
        assert dashboard_accuracy.region_id(conn, "country", "XX") is None
    found = tables.overall(here, T)
    assert (found["n"], found["hits"]) == (40, (filled.errors["first"][inside, 0] <= T).sum())
    west, _, east, _ = tables.bounds(here)
    assert 2.0 <= west < east <= 3.8
    assert not np.isin(every.photo_id[regions == 0], filled.photo_ids[inside]).any()


def test_no_photo_has_no_share(filled):
    with connect("reader") as conn:
        every = dashboard_accuracy.asked(conn, "first")
        best = dashboard_accuracy.best_errors(conn, "first", [1, 3], 1000, every)
    nobody = every.only(np.zeros(len(every.photo_id), bool))
    found = tables.overall(nobody, T)
    assert found["n"] == found["answered"] == 0 and np.isnan([found["accuracy"], found["median_m"]]).all()
    assert tables.bounds(nobody) is None and tables.quantiles(nobody, [0.5])[0] == 0
    assert tables.by_cell(nobody, 8, T).empty and tables.by_bin(nobody, T, by="photos", edges=(1,)).empty
    assert tables.recall(nobody, best, [1, 3], [T]).empty and not tables.worst(nobody, 5, 0)
    assert tables.compare_cells(every, nobody, 8, T).empty


def test_quantiles_and_recall_equal_numpy(filled):
    errors = filled.errors["first"]
    first = np.sort(np.nan_to_num(errors[:, 0], nan=np.inf))
    with connect("reader") as conn:
        every = dashboard_accuracy.asked(conn, "first")
        best = dashboard_accuracy.best_errors(conn, "first", [1, 3], 1000, every)
    n, found = tables.quantiles(every, [0, 0.5, 1])
    recall = tables.recall(every, best, [1, 3], [100, 1000])
    assert n == TOTAL
    assert found[0] == pytest.approx(first[0]) and np.isinf(found[2])
    assert found[1] == pytest.approx(first[int(np.ceil(0.5 * TOTAL)) - 1])
    for row in recall.itertuples():
        best = np.nanmin(np.where(np.isnan(errors), np.inf, errors)[:, : row.k], axis=1)
        assert (row.n, row.hits) == (TOTAL, (best <= row.radius_m).sum())


def test_worst_photos_lead_with_the_unanswered_one(filled):
    with connect("reader") as conn:
        every = dashboard_accuracy.asked(conn, "first")
        rows = dashboard_accuracy.photos(conn, "first", tables.worst(every, 5, 0))
        more = dashboard_accuracy.photos(conn, "first", tables.worst(every, 5, 5))
    assert rows["photo_id"].iloc[0] == filled.photo_ids[-1] and np.isnan(rows["error_m"].iloc[0])
    order = np.argsort(-filled.errors["first"][:-1, 0])
    assert list(rows["photo_id"].iloc[1:]) == list(filled.photo_ids[order[:4]])
    assert list(more["photo_id"]) == list(filled.photo_ids[order[4:9]])
    assert set(rows["near_key"].dropna()) <= {"p000.jpg", "p001.jpg", "p002.jpg"}


def test_differences_count_gains_and_losses(filled):
    hit = {name: np.nan_to_num(e[:, 0], nan=np.inf) <= T for name, e in filled.errors.items()}
    with connect("reader") as conn:
        second = dashboard_accuracy.asked(conn, "second")
        rows = by_country(conn, tables.compare_regions, "first", second, T).set_index("code")
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
ANSWERED = """
SELECT count(a.error_m + b.error_m)
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
            first, second = (dashboard_accuracy.asked(conn, name) for name in ("first", "second"))
            rows = tables.compare_cells(first, second, 6, t)
            pair = tables.of_pair(read_pair(conn, "first", "second"))
            pd.testing.assert_frame_equal(tables.compare_cells(*pair, 6, t), rows)
            counted = tuple(int(rows[name].sum()) for name in ("gains", "losses", "n"))
            assert counted == conn.execute(PAIRS, {"t": t}).fetchone() and 0 < counted[2] < TOTAL
            found = compare_evaluations(conn, "first", "second", threshold_m=t, replicates=20)
            share = next(iter(found["recall"].values()))
            assert (share["only_a"], share["only_b"], found["n"]) == counted
            assert found["left_out"] == TOTAL - found["n"]
            assert found["median_m"]["n"] == conn.execute(ANSWERED, {"t": t}).fetchone()[0]
            best = dashboard_accuracy.best_errors(conn, "first", (1, 2, 3), t, first)
            for row in tables.recall(first, best, (1, 2, 3), (t,)).itertuples():
                found = conn.execute(FOUND, {"k": row.k, "t": row.radius_m}).fetchone()
                assert (row.n, row.hits) == found
        conn.rollback()


def test_photos_are_counted_per_cell(filled):
    with connect("reader") as conn:
        rows = dashboard_coverage.photo_cells(conn, 9)
        few = dashboard_coverage.photo_cells(conn, 9, limit=2)
        counted = dict(
            conn.execute("SELECT s2_token(s2_parent(s2_id, 9)), count(*) FROM photo_record GROUP BY 1")
        )
    assert dict(zip(rows["code"], rows["photos"], strict=True)) == counted and len(rows) > 5
    assert list(few["code"]) == list(rows["code"][:2]) and few["cells"].iloc[0] == len(rows)
    assert few["all_photos"].iloc[0] == TOTAL and rows["photos"].is_monotonic_decreasing


def test_coverage_counts_everything_once_and_keeps_to_a_region(filled):
    with connect("reader") as conn:
        rows = dashboard_coverage.coverage(conn, 10, None, None)
        part = dashboard_coverage.coverage(conn, 10, "country", "AR")
        nobody = dashboard_coverage.coverage(conn, 10, "country", "XX")
        wanted = conn.execute(
            "SELECT s2_token, photos, has_prototype, has_aerial FROM coverage(10)"
        ).fetchall()
    assert rows["photos"].sum() == rows["all_photos"].iloc[0] == TOTAL
    assert rows["aerial_tiles"].sum() == rows["all_tiles"].iloc[0]
    assert rows["has_aerial"].any() and not rows["has_prototype"].all()
    assert 0 < len(part) < len(rows) and set(part["cell"]) < set(rows["cell"]) and nobody.empty
    assert {row[0]: row[1:] for row in wanted} == {
        row.cell: (row.photos, row.has_prototype, row.has_aerial) for row in rows.itertuples()
    }


def test_above_the_limit_a_coarser_level_is_complete(filled):
    with connect("reader") as conn:
        every = dashboard_coverage.coverage(conn, 14, None, None)
        for limit in (2, 5, len(every) - 1):
            found = dashboard_coverage.coverage(conn, 14, None, None, limit=limit)
            few, drawn = found[found["level"] == 14], found[found["level"] < 14]
            assert list(few["cell"]) == list(every["cell"][:limit]) and set(found["cells"]) == {len(every)}
            level = int(drawn["level"].iloc[0])
            assert set(drawn["level"]) == {level} and len(drawn) <= limit
            whole = dashboard_coverage.coverage(conn, level, None, None)
            # Tiles and codes are of the level that was asked for: coarser ones are not in its cells.
            columns = ["photos", "first_captured_at", "last_captured_at", "shape"]
            of = (drawn, whole)
            there = [rows[rows["photos"] > 0].set_index("cell")[columns].sort_index() for rows in of]
            assert there[0].equals(there[1])
            assert level == 13 or len(dashboard_coverage.coverage(conn, level + 1, None, None)) > limit
    assert set(every["level"]) == {14}


def test_coverage_inside_a_cell(filled):
    with connect("reader") as conn:
        every = dashboard_coverage.coverage(conn, 12, None, None)
        outer = str(dashboard_coverage.coverage(conn, 8, None, None)["cell"].iloc[0])
        found = dashboard_coverage.coverage(conn, 12, None, None, outer)
        both = dashboard_coverage.coverage(conn, 12, "country", "AR", outer)
        region = dashboard_coverage.coverage(conn, 12, "country", "AR")
    low, high = s2.range_of(s2.from_token(np.array([outer])))
    ids = s2.from_token(every["cell"].to_numpy(str))
    inside = set(every["cell"][(ids >= low) & (ids <= high)])
    assert set(found["cell"]) == inside and 0 < len(inside) < len(every)
    assert set(both["cell"]) == inside & set(region["cell"])


def test_splits_count_what_is_distinct(filled):
    with connect("owner") as conn:
        ids = [photo for (photo,) in conn.execute("SELECT photo_id FROM photo_record ORDER BY 1")]
        conn.execute("UPDATE photo_record SET sequence_id = NULL WHERE photo_id % 5 = 0")
        stored = {"uri": "/s", "sha256": "a" * 64, "config": {}, "counts": {}}
        for kept in (ids[:9], ids):  # the same content again replaces what was counted
            splits = [(photo, "val" if photo % 3 else "train") for photo in kept]
            row = (snapshots.store_snapshot(conn, **stored, splits=splits),)
        found = dashboard.splits(conn, row[0])
        wanted = conn.execute(
            "SELECT split, count(*), count(DISTINCT sequence_id), count(DISTINCT s2_parent(s2_id, 15)),"
            " count(DISTINCT s2_parent(s2_id, 13)) FROM snapshot_photo JOIN photo_record USING (photo_id)"
            " WHERE snapshot_id = %s GROUP BY 1 ORDER BY 1",
            row,
        ).fetchall()
        conn.rollback()
    assert list(found.itertuples(index=False, name=None)) == wanted and len(wanted) == 2


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
        every = dashboard_accuracy.asked(conn, "first")
    rows = tables.by_bin(every, T, by="distance", edges=(25, 100, 500))
    photos = tables.by_bin(every, T, by="photos", edges=(1, 5, 20))
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
        found = dashboard_accuracy.photos(conn, "first", [wanted])
        nobody = dashboard_accuracy.photos(conn, "first", [-1])
    assert list(rows["rank"]) == [1, 2, 3] and list(found["photo_id"]) == [wanted] and nobody.empty
    assert rows["error_m"].to_numpy() == pytest.approx(filled.errors["first"][7])
