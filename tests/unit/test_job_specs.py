"""What can be submitted is checked at once, and the message names the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from geofix.codes.build import Recipe
from geofix.errors import UsageError
from geofix.jobs.codes_stage import Codes
from geofix.jobs.settings import JobSettings
from geofix.jobs.specs import kinds, parse, stored
from geofix.jobs.stages import Snapshot

OFFERED = {
    "codes",
    "distribute",
    "embed",
    "evaluate",
    "stage",
    "index",
    "ingest",
    "localize",
    "pipeline",
    "recall_check",
    "refresh",
    "retention",
    "run",
    "snapshot",
    "train",
    "train_classifier",
}


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("learn", {}, "no job of kind 'learn'.*Kinds of this version: .*snapshot"),
        ("ingest", {}, "parameter what is missing.*aerial, photos, regions"),
        ("ingest", {"what": "video"}, "parameter what is 'video'"),
        ("ingest", {"what": "photos", "path": "p"}, "parameter dataset: field required"),
        ("snapshot", {"datasets": "a", "out": "o", "test": "2"}, "parameter test: .*less than 1.*'2'"),
        ("snapshot", {"datasets": [], "out": "o"}, "parameter datasets: "),
        ("snapshot", {"datasets": "a", "out": "o", "lvel": 3}, "parameter lvel: extra inputs"),
        ("snapshot", {"datasets": "", "out": "o"}, "parameter datasets.0: "),
        ("embed", {"what": "maps", "model": "m"}, "parameter what is 'maps'.*aerial, photos"),
        (
            "codes",
            {"model": "m", "code_set": "c", "recipe": "cellmean"},
            "snapshot is missing, which recipe cellmean needs",
        ),
        ("codes", {"model": "m", "code_set": "c", "kappa": "-1"}, "parameter kappa"),
        ("refresh", {"code_set": "c"}, "parameter region: field required"),
        ("evaluate", {"localizer": "magic", "snapshot": "s", "model": "m"}, "parameter localizer: .*knn"),
        ("evaluate", {"localizer": "knn", "snapshot": "s"}, "model or code_set is missing"),
        (
            "evaluate",
            {"localizer": "planet", "snapshot": "s", "model": "m", "crops": "hundred"},
            "parameter crops: must be one of single, five-max, ten-mean .*'hundred'",
        ),
        ("train_classifier", {"snapshot": "s", "out": "o"}, "parameter config: field required"),
        (
            "train_classifier",
            {"config": "c", "snapshot": "s", "out": "o", "budget": '{"photos": 1, "minutes": 2}'},
            "parameter budget: give photos or minutes",
        ),
        ("index", {"code_set": "c", "m": "many"}, "parameter m: "),
        ("pipeline", {"stages": "[1"}, "parameter stages: is not JSON"),
        ("pipeline", {"stages": [{"name": "a", "kind": "embed"}]}, "stages: a: .*parameter what"),
        (
            "pipeline",
            {"stages": [{"name": "a", "kind": "recall_check", "parameters": {}}]},
            "stages: a: .*code_set: field required",
        ),
    ],
)
def test_bad_parameters_are_named(kind: str, parameters: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(kind, parameters)


def stage(name: str, *after: str) -> dict[str, object]:
    return {"name": name, "kind": "recall_check", "parameters": {"code_set": "c"}, "after": list(after)}


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([stage("a", "b"), stage("b", "a")], "go in a circle"),
        ([stage("a", "z")], "after 'z', which is no stage"),
        ([stage("a"), stage("a")], "'a' occurs twice"),
        ([], "parameter stages"),
    ],
)
def test_a_pipeline_must_hang_together(stages: list, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse("pipeline", {"stages": stages})


def test_kinds_are_those_that_exist() -> None:
    assert set(kinds()) - {"probe", "split", "statement", "sleepwalker"} == OFFERED


def test_text_becomes_numbers_lists_and_absolute_paths() -> None:
    made = parse("snapshot", {"datasets": "a", "out": "o", "test": "0.2", "overwrite": "true"})
    assert isinstance(made, Snapshot)
    assert made.datasets == ["a"] and made.test == 0.2 and made.overwrite is True
    assert made.out == Path.cwd() / "o"
    aerial = parse("ingest", {"what": "aerial", "paths": ["s3://b/x.tif", "y.tif"], "source": "s"})
    assert aerial.model_dump()["paths"] == ["s3://b/x.tif", str(Path.cwd() / "y.tif")]


def test_a_stored_specification_is_read_back_and_another_version_refused() -> None:
    made = parse("embed", {"what": "photos", "model": "m", "datasets": ["a", "b"]})
    document = made.model_dump(mode="json")
    assert stored("embed", 1, document) == made and made.queue == "gpu"
    with pytest.raises(UsageError, match="version 2 of its form"):
        stored("embed", 2, document)


def test_the_recipes_are_those_of_the_builder() -> None:
    assert Codes.model_fields["recipe"].annotation == Recipe | None


def test_a_lease_outlives_heartbeats() -> None:
    with pytest.raises(ValueError, match="three heartbeats"):
        JobSettings(lease_s=5, heartbeat_s=2)
