"""One command from nothing to the table of all localizers; run again by jobs, it finds everything done."""

from __future__ import annotations

import json

import pytest
from commands import geofix

ASK = ("benchmark-localizers", "configs/benchmark-tiny.yaml", "--world", "tiny")
LOCALIZERS = {
    *("cellcode", "prototype_only", "aerial_only", "cellmean", "most_photographed"),
    *("knn", "knn_density", "knn_density_compat"),
    *("classifier_c", "classifier_m", "classifier_f", "classifier_fstar", "classifier", "planet"),
    *("cplanet", "cplanet_sum", "mvmf", "mvmf_mode", "isn_f", "isn_fstar", "vit_mt", "translocator"),
}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory):
    """A home in which the benchmark ran, what it wrote and what it printed."""
    home = tmp_path_factory.mktemp("gf")
    try:
        printed = geofix(home, *ASK).stdout
        yield home, json.loads((home / "runs" / "benchmark-tiny-0" / "benchmark.json").read_text()), printed
    finally:
        geofix(home, "down")


def test_every_localizer_is_judged_on_the_same_photos_after_the_same_budget(compared) -> None:
    home, found, printed = compared
    assert {row["localizer"] for row in found["rows"]} == LOCALIZERS
    for row in found["rows"]:
        assert set(row["splits"]) == {"test_seen", "test_unseen"} and row["bytes"] > 0
        for name, split in row["splits"].items():
            assert split["n"] == found["photos"][name] > 0 and split["answered"] == 100
            assert set(split["recall"]["1"]) == {"50", "100", "200", "1000"} and split["interval"]["200"]
            low, high = split["interval"]["200"]
            assert low <= split["recall"]["1"]["200"] <= high
    crops = {row["localizer"]: row["crops"] for row in found["rows"]}
    assert crops["planet"] == "five-crop maximum" and crops["mvmf"] == crops["knn"] == "single"
    budget = found["budget"]["photos"]
    assert len(found["trainings"]) == 8
    assert all(abs(item["photos"] - budget) <= 150 for item in found["trainings"])
    bounds = {row["label"]: row["splits"]["test_seen"]["recall"]["1"]["1000"] for row in found["bounds"]}
    assert bounds["own cell of level 16"] == 100
    classes = next(value for name, value in bounds.items() if name.startswith("nearest class mean of joint"))
    joint = next(row for row in found["rows"] if row["localizer"] == "classifier_fstar")
    assert classes >= joint["splits"]["test_seen"]["recall"]["1"]["1000"]
    out = home / "runs" / "benchmark-tiny-0"
    text = (out / "benchmark.md").read_text()
    assert all(f"| {row['label']} |" in text or f"| **{row['label']}** |" in text for row in found["rows"])
    assert "<svg" in (out / "benchmark.svg").read_text()
    shown = [line for line in printed.splitlines() if line.startswith("| ")]
    for row in found["rows"]:
        (line,) = (line for line in shown if line.split(" | ")[0].strip("|* ") == row["label"].strip("*"))
        assert f"{row['splits']['test_seen']['recall']['1']['200']:.1f}" in line


def test_its_rows_are_those_of_the_database(compared) -> None:
    home, found, _ = compared
    listed = json.loads(geofix(home, "evaluate", "list", "--json").stdout)
    recall = {row["evaluation"]: row for row in listed}
    for row in found["rows"]:
        for name in row["evaluations"]["test_seen"]:
            assert recall[name]["n"] == found["photos"]["test_seen"]
    asked = (
        "SELECT count(*) FROM prediction_top1 WHERE evaluation = 'benchmark-tiny-0-mvmf-mvmf-l16-test_seen'"
    )
    assert geofix(home, "sql", asked, "--format", "csv").stdout.split()[1] == str(
        found["photos"]["test_seen"]
    )


def test_by_jobs_it_finds_everything_done_and_says_the_same(compared) -> None:
    home, found, _ = compared
    again = geofix(home, *ASK, "--jobs", "--json")
    assert json.loads(again.stdout) == found
    assert again.stderr.count("stage unchanged") >= 20
    jobs = json.loads(geofix(home, "jobs", "list", "--json").stdout)
    assert {job["state"] for job in jobs} == {"succeeded"}
