"""Own evaluations under other protocols, and without a photo's own author: commands, stages, comparisons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from small_world import SmallWorld
from typer.testing import CliRunner

from geofix.cli.main import app
from geofix.database.engine import connect
from geofix.database.queries import evaluations as queries
from geofix.errors import UsageError
from geofix.evaluation import set_table
from geofix.evaluation.benchmark import Entry, compare_localizers
from geofix.evaluation.benchmark_report import overview
from geofix.evaluation.protocols import EvaluationProtocol, get_protocol
from geofix.evaluation.service import compare_evaluations, evaluate
from geofix.pipeline.benchmark import read_benchmark
from geofix.pipeline.benchmark_run import _entries
from geofix.pipeline.context import Context
from geofix.pipeline.file import Pipeline
from geofix.pipeline.reports import table
from geofix.pipeline.stages import evaluate as run_stage

SPLIT = "test_seen"


@pytest.fixture
def conn(small: SmallWorld):
    """Everything that a test stores is rolled back."""
    with connect() as connection:
        yield connection
        connection.rollback()


def run(conn, small, **given):
    return evaluate(conn, snapshot=small.snapshot, split=SPLIT, model="tiny", **{"localizer": "knn", **given})


def errors_of(conn, name):
    return queries.read_first_errors(conn, queries.find_evaluation(conn, name)["evaluation_id"])[1]


def give_authors(conn):
    """The author of a photo is the town it was taken in."""
    conn.execute("UPDATE photo_record SET author = split_part(source_key, '-', 1)")


def test_a_named_protocol_is_measured_and_stored(conn, small):
    usual = run(conn, small)
    other = run(conn, small, protocol="pigeon", comparison="<")
    assert other["evaluation"] == f"{usual['evaluation']}-pigeon-strict"
    assert other["protocol"]["name"] == "pigeon, changed"
    assert (other["protocol"]["radius_km"], other["protocol"]["comparison"]) == (6378.137, "<")
    scale = 6378.137 / 6371
    assert np.allclose(errors_of(conn, other["evaluation"]), scale * errors_of(conn, usual["evaluation"]))
    assert other["median_m"] == pytest.approx(scale * usual["median_m"])
    assert other["oracle"]["median_m"] == pytest.approx(scale * usual["oracle"]["median_m"])
    row = queries.find_evaluation(conn, other["evaluation"])
    assert (row["radius_km"], row["comparison"], row["missing_policy"]) == (6378.137, "<", "wrong")
    assert row["config"]["protocol"] == other["protocol"]
    shown = set_table.find_table("streets", queries.list_with_datasets(conn))
    set_table.add_stored(shown, queries.list_with_datasets(conn))
    assert [item.protocol["earth"] for item in shown.own] == ["sphere, 6371.0 km", "sphere, 6378.137 km"]


def test_the_ellipsoid_and_strict_comparison_and_dropped_photos_count(conn, small):
    lost = conn.execute("SELECT min(photo_id) FROM snapshot_photo WHERE split = %s", (SPLIT,)).fetchone()[0]
    conn.execute("DELETE FROM photo_embedding WHERE photo_id = %s", (lost,))
    usual, drop = run(conn, small), run(conn, small, protocol="plonk")
    assert drop["n"] == usual["n"] - 1 and drop["protocol"]["missing"] == "drop"
    assert drop["geoscore"] > usual["geoscore"]
    found = run(conn, small, radius="ellipsoidal")
    assert found["evaluation"].endswith("-wgs84") and found["protocol"]["earth"] == "wgs84"
    ratio = errors_of(conn, found["evaluation"]) / errors_of(conn, usual["evaluation"])
    assert (np.abs(ratio[~np.isnan(ratio)] - 1) < 0.006).all() and not np.allclose(ratio, 1, equal_nan=True)
    # An answer as far off as the radius is a hit of one alone.
    here = errors_of(conn, usual["evaluation"])
    asked = {"threshold_m": float(np.nanmin(here)), "replicates": 10}
    compared = compare_evaluations(conn, usual["evaluation"], drop["evaluation"], **asked)
    (row,) = compared["recall"].values()
    assert row["only_a"] >= 1 and row["only_b"] == 0 and compared["protocol_b"]["name"] == "plonk"


def test_the_protocol_tells_the_crops_that_were_shown(conn, small):
    """What searches embeddings was shown one crop, whatever a protocol is named for."""
    found = run(conn, small, protocol="geoclip")
    assert (found["protocol"]["name"], found["protocol"]["crops"]) == ("geoclip, changed", "single")


@pytest.mark.parametrize(
    "wrong", [{"protocol": "none"}, {"radius": "x"}, {"comparison": "="}, {"missing": "no"}]
)
def test_what_no_protocol_knows_is_refused_at_once(conn, wrong):
    with pytest.raises(UsageError):
        evaluate(conn, localizer="knn", snapshot=Path("none"), split=SPLIT, model="tiny", **wrong)


def test_the_command_takes_a_protocol_and_comparing_says_who_counts_how(small):
    runner = CliRunner()

    def ask(*words):
        done = runner.invoke(app, ["evaluate", *words])
        assert done.exit_code == 0, done.output
        return done.stdout

    asked = ["run", "--localizer", "knn", "--model", "tiny", "--snapshot", str(small.snapshot)]
    try:
        usual = ask(*asked, "--name", "usual")
        assert "protocol" not in usual and "right region" in usual
        given = ["--protocol", "pigeon", "--comparison", "<", "--missing", "drop", "--name", "other"]
        assert "protocol: pigeon, changed (R = 6378.137; <; missing drop" in ask(*asked, *given)
        document = json.loads(ask(*asked, "--radius", "ellipsoidal", "--name", "third", "--json"))
        assert document["protocol"]["earth"] == "wgs84"
        # Two countries, one above the other.
        assert document["administrative"]["country"]["n"] == document["n"]
        compared = ask("compare", "usual", "other")
        assert "a counts by: geofix (R = 6371; <=; missing wrong" in compared
        assert "b counts by: pigeon, changed (R = 6378.137; <; missing drop" in compared
        assert "counts by" not in ask("compare", "usual", "usual")
    finally:
        with connect() as conn:
            for name in ("usual", "other", "third"):
                queries.delete_evaluation(conn, name)


def pipeline_of(small, **stage):
    asked = {"do": "evaluate", "model": "tiny", "localizers": ["knn"], "splits": [SPLIT]}
    stages = [asked, {**asked, **stage}, {"do": "table"}]
    return Pipeline.model_validate({"name": "p", "snapshot": str(small.snapshot), "stages": stages})


def test_a_stage_asks_and_counts_as_it_says(conn, small, tmp_path):
    give_authors(conn)
    pipeline = pipeline_of(small, exclude_author=True, protocol="osv5m")
    context = Context(conn, pipeline, tmp_path, tmp_path)
    usual, others = (run_stage(context, stage)["evaluations"] for stage in pipeline.stages[:2])
    plain, bound = f"p-knn-l16-{SPLIT}", f"p-knn-l16-{SPLIT}-other-authors-osv5m"
    assert (list(usual), list(others)) == ([plain], [bound])
    assert (
        others[bound]["protocol"]["same_author"] == "excluded"
        and others[bound]["protocol"]["name"] == "osv5m"
    )
    assert np.nanmin(errors_of(conn, bound)) > 1000 > np.nanmedian(errors_of(conn, plain))
    shown = [row["localizer"] for row in table(context, pipeline.stages[2])["rows"]]
    assert shown[:2] == ["knn", "knn, other authors, osv5m"]


def test_a_benchmark_compares_rows_without_a_photos_own_author(conn, small, tmp_path):
    give_authors(conn)
    document = {"name": "b", "budget": {"photos": 1}, "snapshot": str(small.snapshot), "splits": [SPLIT]}
    one = {"name": "one", "config": "c.yaml", "localizers": ["knn", "cellmean"], "exclude_author": True}
    (tmp_path / "c.yaml").write_text("encoder: {}")
    one["config"] = str(tmp_path / "c.yaml")
    (tmp_path / "b.yaml").write_text(yaml.safe_dump({**document, "protocol": "pigeon", "trainings": [one]}))
    plan = read_benchmark(tmp_path / "b.yaml", home=tmp_path)
    found = {entry.key: entry for entry in _entries(conn, plan)}
    names = {key: entry.evaluations[SPLIT] for key, entry in found.items()}
    assert names == {
        "one/knn": [f"b-one-knn-l16-{SPLIT}-pigeon"],
        "one/knn/other-authors": [f"b-one-knn-l16-{SPLIT}-other-authors-pigeon"],
        "one/cellmean": [f"b-one-cellmean-l16-{SPLIT}-pigeon"],
    }
    assert found["one/knn/other-authors"].label == "knn (one), other authors' photos"
    entries = []
    for key, entry in found.items():
        others = key.endswith("other-authors")
        name = names[key][0]
        run(conn, small, localizer=entry.localizer, name=name, protocol="pigeon", exclude_author=others)
        entries.append(Entry(key, entry.label, entry.localizer, {SPLIT: [name]}, ["tiny"]))
    compared = compare_localizers(
        conn, small.snapshot, entries, splits=[SPLIT], level=16, rules=get_protocol("pigeon"), replicates=20
    )
    rows = {row["key"]: row["splits"][SPLIT]["recall"]["1"]["200"] for row in compared["rows"]}
    assert rows["one/knn/other-authors"] == 0 < rows["one/knn"]
    assert compared["protocol"] == {"name": "pigeon", "distance": "sphere, 6378.137 km", "comparison": "<="}
    stored = queries.find_evaluation(conn, names["one/knn"][0])["metrics"]
    bound = compared["bounds"][0]["splits"][SPLIT]["median_m"]
    assert bound == pytest.approx(stored["oracle"]["median_m"], rel=1e-9)
    assert any("other authors' photos" in line for line in overview(compared))


def test_a_comparison_counts_by_the_rules_of_its_file(conn, small):
    """Radii as far as an answer is off: a hit under `<=` alone."""
    name = run(conn, small)["evaluation"]
    threshold = float(np.nanmin(errors_of(conn, name)))
    entry = Entry("a/knn", "knn", "knn", {SPLIT: [name]}, ["tiny"])
    shares = []
    for rules in (None, EvaluationProtocol(), EvaluationProtocol(comparison="<")):
        found = compare_localizers(
            conn,
            small.snapshot,
            [entry],
            splits=[SPLIT],
            level=16,
            threshold_m=threshold,
            rules=rules,
            replicates=20,
        )
        shares.append(next(iter(found["rows"][0]["splits"][SPLIT]["recall"]["1"].values())))
    assert shares[0] == shares[1] > shares[2] == 0
