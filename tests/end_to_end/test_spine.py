"""The whole way, as a user goes it: one command on the built-in world, then questions to what it left."""

from __future__ import annotations

import json

import pytest
import yaml
from commands import ROOT, geofix

from geofix.pipeline.file import load_pipeline

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory):
    """A home in which the demo ran on the tiny world, and what it printed."""
    home = tmp_path_factory.mktemp("gf")
    try:
        yield home, json.loads(geofix(home, "demo", "--size", "tiny", "--no-serve", "--json").stdout)
    finally:
        geofix(home, "down")


def test_the_demo_ends_with_evaluations(demo):
    _, printed = demo
    found = printed["evaluation"]
    assert {"cellmean", "knn", "aerial_only"} <= set(found)
    for localizer, splits in found.items():
        for split, row in splits.items():
            assert split in ("test_seen", "test_unseen")
            assert row["n"] > 0 and row["localizer"] == localizer
            assert set(row["recall"]["1"]) == {"50", "100", "200", "1000"}
            assert row["oracle"]["recall"]["1"]["200"] >= 99
            assert set(row["accuracy_km"]) == {"1", "25", "200", "750", "2500"}


def test_a_second_demo_skips_every_stage_and_says_the_same(demo):
    home, printed = demo
    again = geofix(home, "demo", "--size", "tiny", "--no-serve", "--json")
    assert json.loads(again.stdout) == printed
    assert again.stderr.count("stage unchanged") >= 10


def test_a_photo_is_localized_inside_a_region_with_probabilities(demo):
    home, _ = demo
    photo = next((home / "worlds" / "tiny-0" / "photos").rglob("*.jpg"))
    listed = geofix(home, "sql", "SELECT code FROM region ORDER BY code", "--format", "csv").stdout
    codes = listed.split()[1:]
    sets = [row["name"] for row in json.loads(geofix(home, "codes", "list", "--json").stdout)]
    cellmean = next(name for name in sets if name.endswith("cellmean-l16"))
    ask = ("localize", str(photo), "--code-set", cellmean, "--json")
    answers = json.loads(geofix(home, *ask, "-k", "5").stdout)
    best = answers[0]["candidates"]
    assert [row["rank"] for row in best] == [1, 2, 3, 4, 5]
    assert 0 < best[0]["probability"] <= 1 and best[0]["score"] >= best[1]["score"]
    assert answers[0]["credible"]["90"]["km2"] >= answers[0]["credible"]["50"]["km2"] > 0
    assert answers[0]["search"]["method"] in ("exact", "hnsw")
    inside = json.loads(geofix(home, *ask, "--within", f"country:{codes[0]}").stdout)
    assert inside[0]["search"]["cells_in_scope"] < answers[0]["search"]["cells_in_scope"]
    assert {row["region"] for row in inside[0]["candidates"]} <= {codes[0], None}


def test_the_job_and_the_status_tell_what_happened(demo):
    home, _ = demo
    jobs = json.loads(geofix(home, "jobs", "list", "--json").stdout)
    assert {job["state"] for job in jobs} == {"succeeded"}
    status = json.loads(geofix(home, "status", "--json").stdout)
    assert status["database"]["state"] == "running" and status["database"]["pgvector"]
    checks = json.loads(geofix(home, "db", "check", "--json").stdout)
    assert checks["ok"], checks


def test_errors_are_one_line_with_the_right_exit_code(demo):
    home, _ = demo
    missing = geofix(home, "localize", "no-such.jpg", "--code-set", "nothing", code=3)
    assert "No code set is named 'nothing'" in missing.stderr and "Traceback" not in missing.stderr
    wrong = geofix(home, "evaluate", "run", "--localizer", "magic", "--snapshot", "x", code=3)
    assert "is no snapshot" in wrong.stderr
    geofix(home, "no-such-command", code=2)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_a_valid_pipeline(path, clean_environment):
    named = yaml.safe_load(path.read_text())["name"]
    given = {
        "world": "world",
        "seed": "1",
        "base": "study-1",
        "share": "0.1",
        "epochs": "8",
        "epochs_alone": "9",
    }
    variables = {} if named == path.stem else {"name": path.stem, **given}
    pipeline, out = load_pipeline(path, variables)
    assert pipeline.name == path.stem and named in (path.stem, "${name}")
    assert out.name == pipeline.name


@pytest.mark.shared
def test_real_photos_are_localized_by_real_orthophotos(shared, tmp_path):
    try:
        geofix(tmp_path, "up")
        geofix(tmp_path, "db", "migrate")
        done = geofix(tmp_path, "run", "examples/helsinki.yaml", "--json", GEOFIX_SHARED=str(shared))
        stages = {row["stage"].split("-", 1)[1]: row for row in json.loads(done.stdout)}
        assert stages["ingest_photos"]["loaded"] == 10
        assert stages["ingest_aerial"]["rasters"] == 10
        assert stages["snapshot"]["photos"]["test_unseen"] == 10
        answers = stages["localize"]["photos"]
        assert len(answers) == 10 and all(answer["error_m"] < 20_000 for answer in answers)
        assert (tmp_path / "runs" / "helsinki" / "table.md").read_text().startswith("# helsinki")
        again = geofix(tmp_path, "run", "examples/helsinki.yaml", "--json", GEOFIX_SHARED=str(shared))
        assert all(row["skipped"] for row in json.loads(again.stdout))
    finally:
        geofix(tmp_path, "down")
