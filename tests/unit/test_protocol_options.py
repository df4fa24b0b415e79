"""How to ask and to count, as jobs, stages and benchmarks say it: known, refused, silent where left out."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from geofix.errors import UsageError
from geofix.evaluation.protocols import PROTOCOLS, EvaluationProtocol, endings, protocol_of
from geofix.jobs.specs import parse, stored
from geofix.pipeline.context import asked_otherwise
from geofix.pipeline.file import Evaluate
from geofix.pipeline.inputs import digest

STAGE = {"do": "evaluate", "model": "m", "localizers": ["knn"]}
JOB = {"snapshot": "/s", "localizer": "knn", "model": "m"}
# As they were before a stage or a job could say how to count.
DIGEST = "d16c2ea9d5dac3810e61606aae3e6ed2098be05f3d8ba628ce6311787ebc1dd7"
DOCUMENT = {
    "kind": "evaluate",
    "localizer": "knn",
    "snapshot": "/s",
    "split": "test_seen",
    "name": None,
    "model": "m",
    "code_set": None,
    "level": 16,
    "within": None,
    "k": 100,
    "crops": None,
    "replace": False,
    "chunk": 2048,
    "span": None,
    "into": None,
}


def stage(**more):
    return Evaluate.model_validate({**STAGE, **more})


def test_what_does_not_say_how_to_count_is_stored_and_hashed_as_before():
    assert digest("a", stage()) == DIGEST
    assert digest("a", stage(protocol="geofix", exclude_author=False, radius=None)) == DIGEST
    job = parse("evaluate", JOB)
    assert job.model_dump(mode="json") == DOCUMENT
    assert stored("evaluate", 1, DOCUMENT) == job


@pytest.mark.parametrize(
    "more",
    [
        {"protocol": "pigeon"},
        {"radius": "ellipsoidal"},
        {"comparison": "<"},
        {"missing": "drop"},
        {"exclude_author": True},
    ],
)
def test_what_is_said_is_kept(more):
    assert digest("a", stage(**more)) != DIGEST
    job = parse("evaluate", {**JOB, **more})
    document = job.model_dump(mode="json")
    assert document == DOCUMENT | more
    assert stored("evaluate", 1, document) == job
    assert stage(**more).model_dump(mode="json", exclude_unset=True) == STAGE | more


def test_a_radius_may_be_a_number():
    assert stage(radius=6378.137).rules() == protocol_of("geofix", radius="6378.137")
    assert stage(radius=6371) == stage(radius="6371")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"protocol": "im2gps"}, "nknown protocol 'im2gps'"),
        ({"radius": "far"}, "'far' is no number"),
        ({"radius": "nan"}, "must be positive"),
        ({"radius": "inf"}, "must be positive"),
        ({"radius": -1}, "must be positive"),
        ({"comparison": "=="}, "comparison"),
        ({"missing": "ignored"}, "missing"),
    ],
)
def test_what_no_protocol_knows_is_refused(more, message):
    with pytest.raises(ValidationError, match=message):
        stage(**more)
    with pytest.raises(UsageError, match=message):
        parse("evaluate", {**JOB, **more})


def test_authors_are_excluded_from_searches_alone():
    with pytest.raises(ValidationError, match="cellmean does not search photos"):
        stage(localizers=["knn", "cellmean"], exclude_author=True)
    with pytest.raises(UsageError, match="cellmean does not search photos"):
        parse("evaluate", {**JOB, "localizer": "cellmean", "exclude_author": True})


@pytest.mark.parametrize(
    ("more", "ends"),
    [
        ({}, []),
        ({"radius": 6371, "comparison": "<="}, []),
        ({"protocol": "pigeon"}, ["pigeon"]),
        ({"protocol": "pigeon", "radius": 6378.137}, ["pigeon"]),
        ({"comparison": "<"}, ["strict"]),
        (
            {"protocol": "osv5m", "comparison": "<=", "missing": "drop"},
            ["osv5m", "inclusive", "missing-drop"],
        ),
        ({"radius": 6378.137}, ["6378.137km"]),
        ({"radius": "ellipsoidal", "exclude_author": True}, ["other-authors", "wgs84"]),
        ({"crops": "ten-mean", "protocol": "geoclip"}, ["ten-mean", "geoclip"]),
    ],
)
def test_names_of_evaluations_tell_them_apart(more, ends):
    assert asked_otherwise(stage(**more)) == ends


def test_every_named_protocol_has_a_name_of_its_own():
    found = {name: tuple(endings(protocol)) for name, protocol in PROTOCOLS.items()}
    assert len(set(found.values())) == len(PROTOCOLS) and found["geofix"] == ()


def test_a_protocol_tells_the_crops_that_were_shown():
    """One that is named for others is not that one any more."""
    ten = protocol_of("geoclip")
    assert ten.showing("ten-crop mean") == ten
    assert (ten.showing("single").name, ten.showing("single").crops) == ("geoclip, changed", "single")
    assert ten.showing("single").marks == ["geoclip"]
    usual = EvaluationProtocol()
    assert (usual.showing("five-crop maximum").name, usual.showing("single")) == ("geofix", usual)
