"""Administrative accuracy of own evaluations: whether the first answer lies in the region of the photo."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from geofix.cli.main import app
from geofix.database.engine import connect
from geofix.database.queries import answer_regions, photo_regions, region_summary
from geofix.database.queries import evaluations as queries
from geofix.database.queries.photo_regions import assign_regions
from geofix.errors import NotFoundError
from geofix.evaluation.administrative import level_rows

# A and B share a border at 10 E and lie at a coast, 1 N; C is a small region within A; the two areas of B are
# admin-1, and A has none. The level `far` is of another place.
BASE = """
INSERT INTO dataset (name, kind) VALUES ('photos', 'photos'), ('regions', 'regions');
INSERT INTO region (dataset_id, level, code, name, area_km2, geom)
SELECT d.dataset_id, r.level, r.code, r.code, r.area, ST_Multi(ST_MakeEnvelope(r.w, r.s, r.e, 1, 4326))
FROM dataset d, (VALUES
  ('country', 'A', 900, 0, 10, 0), ('country', 'B', 800, 10, 20, 0), ('country', 'C', 5, 2, 3, 0.5),
  ('admin1', 'B1', 400, 10, 15, 0), ('admin1', 'B2', 400, 15, 20, 0), ('far', 'F', 1, 150, 151, 0))
  r (level, code, area, w, e, s)
WHERE d.name = 'regions';
INSERT INTO region_part (region_id, level, geom) SELECT region_id, level, (ST_Dump(geom)).geom FROM region;
"""
PHOTO = """
INSERT INTO photo_record (dataset_id, source_key, s2_id, geom)
SELECT dataset_id, %s, 1, ST_SetSRID(ST_MakePoint(%s, %s), 4326) FROM dataset WHERE name = 'photos'
RETURNING photo_id
"""
EVALUATION = """
INSERT INTO evaluation (name, localizer, split, search_method, comparison, missing_policy, n, metrics,
                        software_version)
VALUES (%s, 'made', 'test_seen', 'exact', '<=', %s, 0, '{"n": 9, "accuracy_km": {}}', '0')
RETURNING evaluation_id
"""
ANSWER = """
INSERT INTO prediction (evaluation_id, photo_id, rank, s2_id, score, error_m, geom)
VALUES (%s, %s, %s, 1, 0, 1, ST_SetSRID(ST_MakePoint(%s, %s), 4326))
"""
# Photo, first answer, and whether it lies in the photo's country.
CASES = {
    "within": ((5, 0.5), (9, 0.5), True),
    "over the border": ((9.9, 0.5), (10.1, 0.5), False),
    "in the small region that lies in the large one": ((2.5, 0.8), (2.6, 0.8), True),
    "in the large region around the small one": ((2.5, 0.8), (2.5, 0.3), False),
    "out of the large region into the small one": ((2.5, 0.3), (2.5, 0.8), False),
    "off the coast, both": ((7, 1.1), (7, 1.1), True),
    "an answer off the coast": ((12, 0.9), (12, 1.1), True),
    "an answer off the coast of the neighbour": ((9.9, 0.9), (10.3, 1.1), False),
    "an answer far out at sea": ((12, 0.9), (12, 3), False),
    "no answer": ((13, 0.5), None, False),
    "a photo far out at sea": ((12, 4), (12, 4), None),
}
COUNTRY = [right for _, _, right in CASES.values()]


@pytest.fixture
def world(db):
    """Evaluations `wrong` and `drop` of the cases; what is ranked second is always right."""
    with connect() as conn:
        conn.execute(BASE, prepare=False)
        photos = [conn.execute(PHOTO, (name, *at)).fetchone()[0] for name, (at, _, _) in CASES.items()]
        assign_regions(conn)
        for policy in ("wrong", "drop"):
            evaluation = conn.execute(EVALUATION, (policy, policy)).fetchone()[0]
            for photo, (at, answer, _) in zip(photos, CASES.values(), strict=True):
                conn.execute("INSERT INTO evaluation_photo VALUES (%s, %s)", (evaluation, photo))
                if answer is not None:
                    conn.execute(ANSWER, (evaluation, photo, 1, *answer))
                    conn.execute(ANSWER, (evaluation, photo, 2, *at))
    return dict(zip(CASES, photos, strict=True))


def counted(conn, name):
    return answer_regions.count(conn, queries.find_evaluation(conn, name)["evaluation_id"])


@pytest.mark.parametrize("by_part", [False, True], ids=["by place", "by part"])
def test_answers_are_in_the_region_of_their_photo_or_not(world, monkeypatch, by_part):
    monkeypatch.setattr(photo_regions, "MOST_PLACES", f"SELECT {by_part} AND %(level)s::text <> ''")
    n, hits = sum(right is not None for right in COUNTRY), sum(bool(right) for right in COUNTRY)
    with connect("writer") as conn:
        found = counted(conn, "wrong")
        assert found["country"] == {"n": n, "hits": hits, "percent": 100 * hits / n, "unlabelled": 1}
        # Photos of B alone have an area: the border with A is no border of it, and A's photos have none.
        assert found["admin1"] == {"n": 3, "hits": 1, "percent": pytest.approx(100 / 3), "unlabelled": 8}
        assert set(found) == {"country", "admin1"}  # no photo lies in a region of `far`
        dropped = counted(conn, "drop")["country"]
        assert dropped == {"n": n - 1, "hits": hits, "percent": 100 * hits / (n - 1), "unlabelled": 1}


@pytest.mark.parametrize("case", CASES)
def test_each_case_by_itself(world, case):
    right = CASES[case][2]
    with connect() as conn:
        conn.execute("DELETE FROM evaluation_photo WHERE photo_id <> %s", (world[case],))
        found = counted(conn, "wrong")
    assert found.get("country", {}).get("hits") == (None if right is None else int(right))


def test_answers_that_are_the_photos_own_places_are_all_right(world):
    with connect() as conn:
        conn.execute(
            "UPDATE prediction r SET geom = p.geom FROM photo_record p WHERE p.photo_id = r.photo_id"
        )
        found = counted(conn, "drop")
    assert {level: row["percent"] for level, row in found.items()} == {"country": 100, "admin1": 100}


def test_an_evaluation_stores_them_with_its_metrics(world):
    with connect("writer") as conn:
        evaluation = queries.find_evaluation(conn, "wrong")["evaluation_id"]
        stored = queries.set_metrics(conn, evaluation, {"n": 11, "recall": {}})
        assert stored["administrative"] == counted(conn, "wrong")
        assert queries.find_evaluation(conn, "wrong")["metrics"] == stored


def test_without_regions_there_is_nothing_to_say(world):
    with connect() as conn:
        conn.execute("TRUNCATE photo_region")
        assert counted(conn, "wrong") == {}
        conn.execute("DELETE FROM region")
        assert counted(conn, "wrong") == {}


def test_several_evaluations_in_one_transaction_do_not_mix(world):
    with connect() as conn:
        first, second = counted(conn, "wrong"), counted(conn, "drop")
        assert (counted(conn, "wrong"), counted(conn, "drop")) == (first, second) and first != second
        assign_regions(conn, refresh=True)
        assert counted(conn, "wrong") == first


def test_levels_with_intervals():
    rows = level_rows("e", {"country": {"n": 10, "hits": 5, "percent": 50.0, "unlabelled": 2}})
    assert [rows[0][key] for key in ("level", "n", "hits", "accuracy", "unlabelled")] == [
        "country",
        10,
        5,
        50.0,
        2,
    ]
    assert rows[0]["low"] == pytest.approx(23.66, abs=0.01) and rows[0]["high"] == pytest.approx(
        76.34, abs=0.01
    )
    empty = level_rows("e", {"country": {"n": 0, "hits": 0, "percent": None, "unlabelled": 2}})
    assert (empty[0]["low"], empty[0]["high"]) == (0.0, 100.0)
    with pytest.raises(NotFoundError, match="have not been counted"):
        level_rows("e", None)


def test_the_commands_show_count_and_count_anew(world):
    def ask(*words, code=0):
        done = CliRunner().invoke(app, ["evaluate", *words])
        assert done.exit_code == code, done.output
        return done

    assert "geofix evaluate summarize" in ask("show", "wrong", "--by", "level", code=3).stderr
    assert json.loads(ask("summarize", "--json").stdout) == {"summarized": ["wrong", "drop"]}
    assert json.loads(ask("summarize", "--json").stdout) == {"summarized": []}
    done = ask("show", "wrong", "--by", "level", "--json")
    rows = {row["level"]: row for row in json.loads(done.stdout)}
    hits = sum(bool(right) for right in COUNTRY)
    assert done.stderr == "" and rows["country"]["hits"] == hits and rows["country"]["unlabelled"] == 1
    shown = ask("show", "wrong")
    assert "outside every region" in shown.stdout and "right region" in shown.stdout
    assert isinstance(json.loads(ask("show", "wrong", "--json").stdout), list)
    with connect() as conn:  # the photo off the coast of A is now said to be one of B
        conn.execute(
            "UPDATE photo_region SET region_id = (SELECT region_id FROM region WHERE code = 'B') "
            "WHERE level = 'country' AND photo_id = %s",
            (world["off the coast, both"],),
        )
        assert not region_summary.fits(conn, "wrong")
    done = ask("show", "wrong", "--by", "level", "--json")
    assert "summarize" in done.stderr and json.loads(done.stdout) == list(rows.values())
    assert "summarize" in ask("show", "wrong").stderr
    assert json.loads(ask("summarize", "--json").stdout) == {"summarized": ["wrong", "drop"]}
    done = ask("show", "wrong", "--by", "level", "--json")
    assert (
        done.stderr == ""
        and {row["level"]: row["hits"] for row in json.loads(done.stdout)}["country"] == hits - 1
    )
