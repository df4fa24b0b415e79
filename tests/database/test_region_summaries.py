"""The summary per region that evaluations write says what counting from rows says, or is not read."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from geofix.cli.main import app
from geofix.database import garbage
from geofix.database.backup import backup, restore
from geofix.database.engine import connect
from geofix.database.queries import evaluations, region_summary
from geofix.database.queries.photo_regions import assign_regions
from geofix.database.sqlfiles import apply_sql_files
from geofix.settings import get_settings

DISTANCES = region_summary.DISTANCES_M
RULES = [("<=", "wrong"), ("<=", "drop"), ("<", "wrong"), ("<", "drop")]
LEVELS = ("country", "admin1", "own")
PHOTOS = 240
BASE = """
INSERT INTO dataset (name, kind) VALUES ('photos', 'photos'), ('regions', 'regions');
INSERT INTO region (dataset_id, level, code, name, area_km2, geom)
SELECT d.dataset_id, r.level, r.code, 'Land ' || r.code, 1, ST_Multi(ST_MakeEnvelope(r.w, 0, r.e, 1, 4326))
FROM dataset d, (VALUES ('country', 'A', 0, 10), ('country', 'B', 10, 20), ('country', 'C', 20, 30),
                        ('admin1', 'A1', 0, 5), ('admin1', 'A2', 5, 10), ('own', 'far', 150, 151))
  r (level, code, w, e)
WHERE d.name = 'regions';
INSERT INTO region_part (region_id, level, geom) SELECT region_id, level, (ST_Dump(geom)).geom FROM region;
"""
PHOTO = """
INSERT INTO photo_record (dataset_id, source_key, s2_id, gps_accuracy_m, geom)
SELECT dataset_id, %(key)s, %(k)s, %(gps)s, ST_SetSRID(ST_MakePoint(%(lon)s, 0.5), 4326)
FROM dataset WHERE name = 'photos'
RETURNING photo_id
"""
EVALUATION = """
INSERT INTO evaluation (name, localizer, split, search_method, comparison, missing_policy, n,
                        software_version)
VALUES (%s, 'made', 'test_seen', 'exact', %s, %s, 0, '0') RETURNING evaluation_id
"""
ASKED = "INSERT INTO evaluation_photo (evaluation_id, photo_id) VALUES (%s, %s)"
ANSWER = """
INSERT INTO prediction (evaluation_id, photo_id, rank, s2_id, score, error_m, geom)
VALUES (%s, %s, %s, 1, 0, %s, 'SRID=4326;POINT(0 0)')
"""
# From `evaluation_hits`, photo by photo, with the median of all errors in one order.
COUNTED = """
SELECT coalesce(r.code, '-'), count(*), count(*) FILTER (WHERE h.hit),
       (array_agg(h.e ORDER BY h.e))[(count(*) + 1) / 2], (array_agg(h.e ORDER BY h.e))[count(*) / 2 + 1]
FROM (SELECT *, coalesce(error_m, 'Infinity') AS e FROM evaluation_hits(%(name)s, %(distance)s)) AS h
LEFT JOIN photo_region pr ON pr.photo_id = h.photo_id AND pr.level = %(level)s
LEFT JOIN region r USING (region_id)
GROUP BY 1
"""
BY_REGION = "SELECT region_code, n, hits, median_m FROM accuracy_by_region(%s, %s, %s)"
CODES = "SELECT region_id, code FROM region"


@pytest.fixture
def world(db):
    """Photos in and outside regions, evaluations of other rules, errors on the distances themselves."""
    rng = np.random.default_rng(5)
    with connect() as conn:
        conn.execute(BASE, prepare=False)
        known = rng.choice([None, None, None, 3.0, 25.0, 30.0, 60.0, 700.0, 30_000.0], PHOTOS)
        lon = rng.uniform(-0.1, 33.0, PHOTOS)
        photos = [
            conn.execute(PHOTO, {"key": f"p{k}", "k": k, "gps": known[k], "lon": lon[k]}).fetchone()[0]
            for k in range(PHOTOS)
        ]
        assign_regions(conn)
        for place, (comparison, policy) in enumerate(RULES):
            evaluation = conn.execute(EVALUATION, (f"e{place}", comparison, policy)).fetchone()[0]
            exact = rng.choice([*DISTANCES, *DISTANCES, 10.0], PHOTOS).astype(float)
            errors = np.where(rng.random(PHOTOS) < 0.5, exact, rng.lognormal(5, 3, PHOTOS))
            with conn.cursor() as cursor:
                cursor.executemany(ASKED, [(evaluation, photo) for photo in photos])
                answered = rng.random(PHOTOS) < (0.3 if place == 0 else 0.8)
                for rank in (1, 2):
                    rows = zip(photos, errors, answered, strict=True)
                    cursor.executemany(
                        ANSWER, [(evaluation, p, rank, float(e) / rank) for p, e, there in rows if there]
                    )
            region_summary.write(conn, evaluation)
    return photos


def summary(conn, name, level, distance):
    """Rows by code as `accuracy_by_region` has them; None where there is no summary that fits."""
    rows = region_summary.read(conn, name, level, distance)
    if rows is None:
        return None
    codes = {0: "-", **dict(conn.execute(CODES).fetchall())}
    named = rows["region_id"].map(codes)
    return {code: (row.n, row.hits, row.median_m) for code, row in zip(named, rows.itertuples(), strict=True)}


def counted(conn, name, level, distance):
    return {row[0]: row[1:] for row in conn.execute(BY_REGION, (name, level, distance))}


def differing(conn, distances=(25, 1_000)):
    """Summaries that differ from the rows, and how many fit."""
    wrong, fits = [], 0
    for name in (f"e{place}" for place in range(len(RULES))):
        for level in (*LEVELS, region_summary.EVERYWHERE):
            for distance in distances:
                found = summary(conn, name, level, distance)
                fits += found is not None
                if found is not None and found != counted(conn, name, level, distance):
                    wrong.append((name, level, distance))
    return wrong, fits


ALL = len(RULES) * (len(LEVELS) + 1) * 2


def test_every_cell_is_that_of_the_rows(world):
    with connect("reader") as conn:
        assert differing(conn, DISTANCES) == ([], ALL // 2 * len(DISTANCES))
        here = summary(conn, "e0", "country", 25)
        assert set(here) == {"A", "B", "C", "-"} and np.isinf(here["A"][2])
        assert summary(conn, "e0", "own", 25).keys() == {"-"}
        assert summary(conn, "e0", "country", 26) is None and summary(conn, "none", "country", 25) is None


@pytest.mark.parametrize("level", ["country", "admin1"])
def test_by_region_counts_photo_by_photo(world, level):
    with connect("reader") as conn:
        for name in ("e0", "e1", "e2", "e3"):
            for distance in (*DISTANCES, 24.9, 26.0, 1e12):
                rows = conn.execute(COUNTED, {"name": name, "level": level, "distance": distance})
                wanted = {
                    code: (n, hits, low if low == high else low + 0.5 * (high - low))
                    for code, n, hits, low, high in rows
                }
                assert counted(conn, name, level, distance) == wanted


def test_the_median_of_two_sorted_arrays_is_that_of_all_values(db):
    rng = np.random.default_rng(2)
    with connect() as conn:
        for _ in range(300):
            sizes = rng.integers(0, 9, 2)
            if not sizes.sum():
                continue
            a, b = (np.sort(rng.choice([0.0, 1.0, 2.0, 3.5, np.inf, *rng.random(3)], size)) for size in sizes)
            both = np.sort([*a, *b])
            low, high = both[(len(both) - 1) // 2], both[len(both) // 2]
            found = conn.execute(
                "SELECT median_of_sorted(%s::float8[], %s::float8[])", (a.tolist(), b.tolist())
            )
            assert found.fetchone()[0] == (low if low == high else low + 0.5 * (high - low)), (a, b)


CHANGES = {
    "another region": "UPDATE photo_region SET region_id = (SELECT region_id FROM region WHERE code = 'C')"
    " WHERE level = 'country' AND photo_id % 2 = 0",
    "no region": "DELETE FROM photo_region WHERE photo_id % 3 = 0",
    "all regions gone": "TRUNCATE photo_region",
    "a region removed": "DELETE FROM region WHERE code = 'B'",
    "an answer changed": "UPDATE prediction SET error_m = 0 WHERE photo_id % 5 = 0",
    "answers lost": "DELETE FROM prediction WHERE photo_id % 4 = 0",
    "answers added": "INSERT INTO prediction (evaluation_id, photo_id, rank, s2_id, score, error_m, geom)"
    " SELECT evaluation_id, photo_id, 1, 1, 0, 60, 'SRID=4326;POINT(0 0)' FROM evaluation_photo"
    " ON CONFLICT DO NOTHING",
    "answers of another": "UPDATE prediction SET evaluation_id = (SELECT max(evaluation_id) FROM evaluation)"
    " WHERE evaluation_id = (SELECT min(evaluation_id) FROM evaluation) AND photo_id NOT IN (SELECT photo_id"
    " FROM prediction WHERE evaluation_id = (SELECT max(evaluation_id) FROM evaluation))",
    "photos not asked": "DELETE FROM evaluation_photo WHERE photo_id % 2 = 0",
    "all answers gone": "TRUNCATE prediction",
    "a photo removed": "DELETE FROM photo_record WHERE source_key IN ('p7', 'p8')",
    "a position known": "UPDATE photo_record SET gps_accuracy_m = 1",
    "strict": "UPDATE evaluation SET comparison = CASE comparison WHEN '<' THEN '<=' ELSE '<' END",
    "another policy": "UPDATE evaluation SET missing_policy ="
    " CASE missing_policy WHEN 'drop' THEN 'wrong' ELSE 'drop' END",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_makes_summaries_unfit_until_they_are_written_again(world, change):
    with connect() as conn:
        conn.execute(CHANGES[change])
        wrong, fits = differing(conn)
        assert wrong == [] and fits < ALL
        conn.commit()
        region_summary.write_lacking(conn)
        assert differing(conn) == ([], ALL)
        assert region_summary.write_lacking(conn) == []


def test_regions_assigned_anew_count(world):
    with connect() as conn:
        conn.execute("UPDATE region_part SET geom = ST_Translate(geom, 3, 0)")
        conn.execute("UPDATE region SET geom = ST_Translate(geom, 3, 0)")
        before = counted(conn, "e0", "country", 200)
        assign_regions(conn, levels=["country"], refresh=True)
        assert counted(conn, "e0", "country", 200) != before
        assert summary(conn, "e0", "country", 200) is None
        assert summary(conn, "e0", "admin1", 200) == counted(conn, "e0", "admin1", 200)
        assert region_summary.write_lacking(conn) == ["e0", "e1", "e2", "e3"]
        assert differing(conn) == ([], ALL)


def test_what_does_not_concern_them_leaves_summaries_as_they_are(world):
    with connect() as conn:
        new = conn.execute(PHOTO, {"key": "new", "k": 0, "gps": 900, "lon": 3}).fetchone()[0]
        assert assign_regions(conn)["country"].inside == 1
        other = conn.execute(EVALUATION, ("other", "<", "wrong")).fetchone()[0]
        conn.execute(ASKED, (other, new))
        conn.execute(ANSWER, (other, new, 1, 5))
        conn.execute("UPDATE photo_record SET heading_deg = 3, gps_accuracy_m = gps_accuracy_m")
        conn.execute("UPDATE prediction SET error_m = 1 WHERE evaluation_id = %s", (other,))
        assert differing(conn) == ([], ALL)
        assert region_summary.write_lacking(conn) == ["other"]


def test_a_change_under_way_is_noticed_when_it_is_committed(world):
    with connect() as changing, connect("writer") as writing:
        changing.execute("UPDATE photo_region SET region_id = region_id")
        changing.execute("DELETE FROM photo_region WHERE photo_id = %s", (world[3],))
        evaluation = evaluations.find_evaluation(writing, "e0")["evaluation_id"]
        region_summary.write(writing, evaluation)
        writing.commit()
        assert summary(writing, "e0", "country", 25) == counted(writing, "e0", "country", 25)
        writing.commit()
        changing.commit()
        assert summary(writing, "e0", "country", 25) is None
        assert summary(writing, "e0", region_summary.EVERYWHERE, 25) is not None


def test_the_box_is_that_of_the_photos_that_count(world):
    statement = (
        "SELECT min(ST_X(geom)), min(ST_Y(geom)), max(ST_X(geom)), max(ST_Y(geom))"
        " FROM evaluation_hits(%s, 1e9) JOIN photo_record USING (photo_id)"
    )
    with connect() as conn:
        for name in ("e0", "e1"):
            box = region_summary.read_box(conn, name)
            assert box is not None and box.bounds == conn.execute(statement, (name,)).fetchone()
        conn.execute(
            "UPDATE photo_record SET geom = ST_Translate(geom, 0, 0.25) WHERE photo_id = %s", world[:1]
        )
        assert region_summary.read_box(conn, "e0") is None


def test_a_summary_asked_for_by_the_time_of_its_evaluation_is_that_of_no_other(world):
    with connect() as conn:
        stored = str(pd.Timestamp(evaluations.find_evaluation(conn, "e0")["created_at"]))
        rows = region_summary.read(conn, "e0", "country", 25, created_at=stored)
        pd.testing.assert_frame_equal(rows, region_summary.read(conn, "e0", "country", 25))
        assert region_summary.read_box(conn, "e0", created_at=stored) == region_summary.read_box(conn, "e0")
        conn.execute("UPDATE evaluation SET created_at = created_at + interval '1 microsecond'")
        assert region_summary.read(conn, "e0", "country", 25, created_at=stored) is None
        assert region_summary.read_box(conn, "e0", created_at=stored) is None
        assert region_summary.read(conn, "e0", "country", 25) is not None


def test_an_evaluation_takes_its_summary_along(world):
    left = "SELECT count(*) FROM {}".format
    with connect() as conn:
        for name in ("e0", "e1", "e2", "e3"):
            assert evaluations.delete_evaluation(conn, name)
        for table in ("region_summary", "region_accuracy", "accuracy_change WHERE evaluation_id IS NOT NULL"):
            assert conn.execute(left(table)).fetchone() == (0,)


def test_an_evaluation_without_photos_has_an_empty_summary(world):
    with connect() as conn:
        evaluation = conn.execute(EVALUATION, ("empty", "<=", "wrong")).fetchone()[0]
        region_summary.write(conn, evaluation)
        rows = region_summary.read(conn, "empty", "country", 25)
        assert isinstance(rows, pd.DataFrame) and rows.empty
        box = region_summary.read_box(conn, "empty")
        assert box is not None and box.bounds is None


def test_a_restored_database_holds_summaries_that_fit_until_something_changes(world, db, empty_db, tmp_path):
    backup(db.url(), tmp_path / "all.dump", get_settings())
    restore(empty_db.url(), tmp_path / "all.dump", get_settings())
    with empty_db.connect() as conn:
        assert differing(conn) == ([], ALL)
        conn.execute(CHANGES["no region"])
        wrong, fits = differing(conn)
        assert wrong == [] and fits < ALL


def test_the_command_writes_what_is_missing(world):
    runner = CliRunner()
    with connect() as conn:
        conn.execute("DELETE FROM region_summary WHERE evaluation_id = evaluation_id('e1')")
    done = runner.invoke(app, ["evaluate", "summarize", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout) == {"summarized": ["e1"]}
    assert "0 evaluations summarized" in runner.invoke(app, ["evaluate", "summarize"]).output
    with connect("reader") as conn:
        assert differing(conn) == ([], ALL)


def test_the_log_is_emptied_and_what_fitted_still_does(world, monkeypatch):
    monkeypatch.setattr(garbage, "_MOST_NOTES", 0)
    kind = "noted changes of answers"
    with connect() as conn:
        first = "(SELECT min(evaluation_id) FROM evaluation)"
        conn.execute(f"DELETE FROM prediction WHERE evaluation_id = {first} AND photo_id % 2 = 0")
        conn.commit()
        wrong, fits = differing(conn)
        assert wrong == [] and 0 < fits < ALL
        conn.commit()
        with connect() as other:  # is writing, and has not ended
            other.execute("UPDATE prediction SET error_m = 1 WHERE photo_id = %s", (int(world[0]),))
            kept = [item for item in garbage.collect(conn, get_settings()) if item.kind == kind]
            assert [item.state for item in kept] == ["kept"] and "writing" in kept[0].note
            other.rollback()
        before = region_summary.log.size(conn)[0]
        gone = [item for item in garbage.collect(conn, get_settings()) if item.kind == kind]
        assert [(item.state, item.rows) for item in gone] == [("removed", before)] and before > 0
        assert region_summary.log.size(conn)[0] == 0 and differing(conn) == ([], fits)
        conn.execute("UPDATE photo_record SET gps_accuracy_m = 1")
        assert differing(conn) == ([], 0)
        conn.rollback()
        region_summary.write_lacking(conn)
        assert differing(conn) == ([], ALL)


def test_no_distance_counts_nothing(world):
    with connect("reader") as conn:
        assert conn.execute(BY_REGION, ("e0", "country", None)).fetchall() == []


def test_the_functions_are_applied_again_while_somebody_writes(world):
    """Every start of the servers applies them: that must wait for nobody."""
    with connect() as writing, connect() as applying:
        writing.execute("UPDATE prediction SET error_m = error_m")
        writing.execute("DELETE FROM photo_region WHERE photo_id < 0")
        applying.execute("SET LOCAL lock_timeout = '2s'")
        apply_sql_files(applying)
        applying.rollback()
        writing.rollback()
