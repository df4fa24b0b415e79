"""Evaluations: metrics of stored rows against sums by hand, and agreement of SQL, Python and localize."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from small_world import LEVEL, SmallWorld

from geofix.database.engine import connect
from geofix.database.queries import evaluations as queries
from geofix.database.queries import region_summary
from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.evaluation import parts
from geofix.evaluation.run import measure
from geofix.evaluation.service import compare_evaluations, evaluate, prepare
from geofix.localizers.density import MODES
from geofix.spatial import s2
from geofix.spatial.distance import great_circle_m

HOSTILE = "x'); DELETE FROM geofix.photo_record; --\" %s {0} \\ ü"
TRUTH = """
SELECT sp.photo_id, ST_X(geom), ST_Y(geom), coalesce(gps_accuracy_m, 0), s2_id, country_code
FROM snapshot_photo sp JOIN photo USING (photo_id) WHERE split = %s ORDER BY 1
"""


@pytest.fixture
def conn(small: SmallWorld):
    """Everything that a test stores is rolled back."""
    with connect() as connection:
        yield connection
        connection.rollback()


def truth(conn, split):
    rows = conn.execute(TRUTH, (split,)).fetchall()
    return {row[0]: row[1:] for row in rows}


def run(conn, small, localizer="knn", **given):
    given = {"split": "test_seen", "name": "e", "snapshot": small.snapshot, **given}
    if "code_set" not in given:
        given["model"] = "tiny"
    return evaluate(conn, localizer=localizer, **given)


def test_metrics_are_those_of_the_rows(conn, small):
    """Recall@K by hand, with photos that got no answer and photos that do not know their own position."""
    lost = list(truth(conn, "test_seen"))[:2]
    conn.execute("DELETE FROM photo_embedding WHERE photo_id = ANY (%s)", (lost,))
    conn.execute("UPDATE photo_record SET gps_accuracy_m = 100 WHERE photo_id = %s", (lost[0],))
    result = run(conn, small, k=7)
    asked = truth(conn, "test_seen")
    rows = conn.execute(
        "SELECT photo_id, rank, error_m, ST_X(geom), ST_Y(geom) FROM prediction ORDER BY 1, 2"
    ).fetchall()
    answers: dict[int, list[float]] = {photo: [] for photo in asked}
    for photo, rank, error, lon, lat in rows:
        answers[photo].append(error)
        assert rank == len(answers[photo])
        assert error == pytest.approx(float(great_circle_m(*asked[photo][:2], lon, lat)), abs=1e-6)
    assert result["n"] == len(asked) and all(answers[photo] == [] for photo in lost)
    for k in (1, 5, 10, 100):
        for radius in (50, 100, 200, 1000):
            fine = [photo for photo in asked if asked[photo][2] <= radius]
            hits = [any(error <= radius for error in answers[photo][:k]) for photo in fine]
            assert result["recall"][str(k)][str(radius)] == pytest.approx(100 * np.mean(hits))
    first = np.array([errors[0] for errors in answers.values() if errors])
    assert result["median_m"] == pytest.approx(np.median(first))
    assert result["mean_km"] == pytest.approx(first.mean() / 1000)
    assert result["answered"] == pytest.approx(100 * len(first) / len(asked))
    assert result["geoscore"] == pytest.approx(
        5000 * np.exp(-first / 1000 / 1492.7).sum() / len(asked), rel=1e-9
    )
    oracle = [float(great_circle_m(*row[:2], *_center(row[3]))) for row in asked.values()]
    assert result["oracle"]["median_m"] == pytest.approx(np.median(oracle))


def _center(leaf):
    lon, lat = s2.center(s2.parent(np.array([leaf]), LEVEL))
    return float(lon[0]), float(lat[0])


@pytest.mark.parametrize("threshold", [50.0, 100.0, 400.0, 5000.0])
@pytest.mark.parametrize("missing", ["wrong", "drop"])
def test_accuracy_by_region_and_cell_add_up_to_the_recall(conn, small, threshold, missing):
    lost = next(iter(truth(conn, "test_seen")))
    conn.execute("DELETE FROM photo_embedding WHERE photo_id = %s", (lost,))
    run(conn, small, split="test_seen")
    conn.execute("UPDATE evaluation SET missing_policy = %s", (missing,))
    conn.execute(
        "UPDATE evaluation SET config = jsonb_set(config, '{protocol,missing}', to_jsonb(%s::text))",
        (missing,),
    )
    result = measure(conn, "e")
    regions = queries.by_region(conn, "e", "country", threshold)
    cells = queries.by_cell(conn, "e", 13, threshold)
    asked = truth(conn, "test_seen")
    errors = dict(zip(*_top(conn), strict=True))
    for rows, key, place in (
        (regions, "region_code", lambda row: row[4]),
        (cells, "s2_token", lambda row: str(s2.token(s2.parent(np.array([row[3]]), 13))[0])),
    ):
        wanted: dict[str, list[bool]] = {}
        for photo, row in asked.items():
            gone = np.isnan(errors[photo]) and missing == "drop"
            if row[2] <= threshold and not gone:
                wanted.setdefault(place(row), []).append(bool(errors[photo] <= threshold))
        assert {row[key]: (row["n"], row["hits"]) for row in rows} == {
            name: (len(hits), sum(hits)) for name, hits in wanted.items()
        }
        for row in rows:
            assert row["accuracy"] == pytest.approx(100 * row["hits"] / row["n"])
            assert row["low"] <= row["accuracy"] <= row["high"]
    if threshold <= 100:
        n, hits = sum(row["n"] for row in regions), sum(row["hits"] for row in regions)
        assert result["recall"]["1"][f"{threshold:g}"] == pytest.approx(100 * hits / n)


def _top(conn):
    ids, errors = queries.read_errors(conn, queries.find_evaluation(conn, "e")["evaluation_id"])
    return ids.tolist(), errors[:, 0].tolist()


def test_distances_to_training_photos(conn, small):
    result = run(conn, small)
    train = truth(conn, "train")
    positions = np.array([row[:2] for row in train.values()])
    cells = s2.parent(np.array([row[3] for row in train.values()]), LEVEL)
    near = {}
    for photo, metres, count in conn.execute(
        "SELECT photo_id, nearest_training_m, training_photos_in_cell FROM evaluation_photo"
    ).fetchall():
        lon, lat, _, leaf, _ = truth(conn, "test_seen")[photo]
        near[photo] = float(great_circle_m(positions[:, 0], positions[:, 1], lon, lat).min())
        assert metres == pytest.approx(near[photo], rel=1e-5, abs=0.01)
        assert count == int((cells == s2.parent(np.array([leaf]), LEVEL)[0]).sum())
    groups = result["by_training_distance"]
    assert groups["<25"]["n"] == sum(value < 25 for value in near.values())
    assert sum(group["n"] for group in groups.values()) == result["n"]
    close = [photo for photo, value in near.items() if value < 25]
    fine = [photo for photo in close if truth(conn, "test_seen")[photo][2] <= 50]
    errors = dict(zip(*_top(conn), strict=True))
    assert groups["<25"]["recall"]["50"] == pytest.approx(
        100 * np.mean([errors[photo] <= 50 for photo in fine])
    )


def test_probabilities_are_shares_of_all_cells_and_those_of_localize(conn, small):
    """Not of the kept candidates alone: three of many cells hold a small part of the whole."""
    from geofix.database.queries.codes import find_code_set
    from geofix.localize.service import localize_photos

    conn.execute(
        "UPDATE code_set SET temperature = 0.05 * scale,"
        " calibration = jsonb_set(calibration, '{temperature}', '0.05') WHERE name = 'means'"
    )
    run(conn, small, "cellmean", code_set="means", k=3)
    stored = conn.execute(
        "SELECT p.source_key, array_agg(r.probability ORDER BY rank), array_agg(r.score ORDER BY rank),"
        " array_agg(s2_token(r.s2_id) ORDER BY rank)"
        " FROM prediction r JOIN photo_record p USING (photo_id) GROUP BY 1 ORDER BY 1 LIMIT 3"
    ).fetchall()
    code_set = find_code_set(conn, "means")
    assert code_set.cells > 8
    files = [small.folder / "photos" / row[0] for row in stored]
    for row, answer in zip(stored, localize_photos(conn, files, "means", k=code_set.cells), strict=True):
        best = answer["candidates"]
        assert len(best) == code_set.cells  # k is as large as there are cells, and larger is no fault
        logits = np.array([item["score"] for item in best]) / code_set.temperature
        shares = np.exp(logits - logsumexp(logits))
        assert [item["s2_token"] for item in best[:3]] == row[3]
        assert np.allclose([item["score"] for item in best[:3]], row[2], atol=1e-3)
        assert np.allclose([item["probability"] for item in best], shares, rtol=0.02, atol=1e-4)
        assert np.allclose([item["probability"] for item in best[:3]], row[1], rtol=0.02, atol=1e-4)
        assert sum(row[1]) < 0.999 * sum(item["probability"] for item in best)


def test_fewer_candidates_than_k_store_fewer_rows(conn, small):
    run(conn, small, "most_photographed", level=12, k=100)
    ranks = conn.execute("SELECT photo_id, max(rank), count(*) FROM prediction GROUP BY 1").fetchall()
    assert {(top, count) for _, top, count in ranks} == {(ranks[0][1], ranks[0][1])} and ranks[0][1] < 100
    assert conn.execute("SELECT count(*) FROM prediction WHERE score = '-Infinity'").fetchone() == (0,)


@pytest.mark.parametrize("localizer", ["cellmean", "knn", *MODES, "most_photographed"])
def test_answers_stay_inside_the_region(conn, small, localizer):
    result = run(conn, small, localizer, within="country:DEU", k=5, split="test_seen")
    assert result["answered"] == 100
    outside = "SELECT count(*) FROM prediction WHERE ST_Y(geom) < 47.56"
    assert conn.execute(outside).fetchone() == (0,)
    with pytest.raises(BadInputError, match="no answer inside"):
        run(conn, small, localizer, within="POLYGON((1 1, 2 1, 2 2, 1 1))", name="f")


def test_a_name_is_taken_once_unless_it_is_replaced(conn, small):
    first = run(conn, small, name=HOSTILE)
    with pytest.raises(UsageError, match="exists"):
        run(conn, small, name=HOSTILE)
    again = run(conn, small, "most_photographed", name=HOSTILE, replace=True)
    assert again["localizer"] == "most_photographed" != first["localizer"]
    assert conn.execute("SELECT name FROM evaluation").fetchall() == [(HOSTILE,)]
    assert (
        conn.execute("SELECT DISTINCT evaluation_id FROM prediction").fetchall()
        == conn.execute("SELECT evaluation_id FROM evaluation").fetchall()
    )
    assert queries.by_region(conn, HOSTILE, "country", 200)
    assert queries.by_cell(conn, HOSTILE, 13, 200) and len(queries.error_lines(conn, HOSTILE))
    assert queries.delete_evaluation(conn, HOSTILE) and not queries.delete_evaluation(conn, HOSTILE)
    assert conn.execute("SELECT count(*) FROM prediction").fetchone() == (0,)


def test_measuring_again_changes_nothing_and_comparing_with_itself_finds_nothing(conn, small):
    first = run(conn, small)
    assert measure(conn, "e") == first
    run(conn, small, "most_photographed", name="f")
    same = compare_evaluations(conn, "e", "e", replicates=50)
    other = compare_evaluations(conn, "e", "f", replicates=50)
    assert same["n"] == other["n"] == first["n"] and same["only_a"] == 0
    assert str(same).count("nan") == 0


def test_wrong_calls_say_what_is_wrong(conn, small):
    with pytest.raises(NotFoundError, match="No region of level 'planet' is loaded"):
        run(conn, small)
        queries.by_region(conn, "e", "planet", 200)
    with pytest.raises(UsageError, match="not for localizer knn"):
        run(conn, small, code_set="means", name="f")
    with pytest.raises(UsageError, match="Whose embeddings"):
        evaluate(conn, localizer="knn", snapshot=small.snapshot, split="val")
    conn.execute("UPDATE code_set SET state = 'building' WHERE name = 'means'")
    with pytest.raises(NotFoundError, match="is building"):
        run(conn, small, "cellmean", code_set="means", name="f")
    with pytest.raises(NotFoundError, match=r"There are: e"):
        queries.find_evaluation(conn, HOSTILE)


@pytest.mark.parametrize("chunks", [False, True], ids=["at once", "in chunks"])
def test_every_evaluation_writes_its_summary_per_region(conn, small, chunks):
    if chunks:
        found = prepare(
            conn, localizer="knn", snapshot=small.snapshot, split="test_seen", model="tiny", name="e"
        )
        into = parts.begin(conn, found, "job", replace=False)
        for first, last, _ in parts.spans(conn, found, 1):
            parts.answer(conn, into, found, (first, last))
        assert region_summary.read(conn, "e", "country", 200) is None
        parts.complete(conn, into, "e", replace=False)
    else:
        run(conn, small)
    for distance in region_summary.DISTANCES_M:
        rows = region_summary.read(conn, "e", "country", distance)
        assert rows is not None and not rows.empty
        assert sorted(rows[["n", "hits", "median_m"]].itertuples(index=False, name=None)) == sorted(
            (row["n"], row["hits"], row["median_m"])
            for row in queries.by_region(conn, "e", "country", distance)
        )
