"""The position of an answer, the probability around it, and what people read of both."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from test_method_table import judged

from geofix.cli import localize as command
from geofix.cli.main import main
from geofix.codes.complete import complete_query
from geofix.database.queries.codes import CodeSet
from geofix.errors import BadInputError, UsageError
from geofix.evaluation import method_positions
from geofix.jobs.specs import parse
from geofix.localize.confidence import ConfidenceFit, CoverageFit, Posterior, posterior
from geofix.localize.kinds import POSITIONS, known_position
from geofix.localize.positions import CENTRE, Mover, mass_within, moving, refinement_fit
from geofix.localizers.ensemble import localizer_of
from geofix.localizers.point_estimates import PointEstimateLocalizer
from geofix.localizers.refine import RefinedLocalizer
from geofix.pipeline.file import Localize as LocalizeStage
from geofix.pipeline.stages import localize as localize_stage
from geofix.spatial import s2
from geofix.spatial.distance import great_circle_m

SQUARE = {"type": "Polygon", "coordinates": [[[7, 47], [8, 47], [8, 48], [7, 47]]]}


def block(lon: float, lat: float, level: int, below: int) -> np.ndarray:
    """All cells of a level in the cell around a place that is so many levels coarser."""
    ids = s2.cell_at(np.array([lon]), np.array([lat]), level - below)
    for _ in range(below):
        ids = s2.children(ids).reshape(-1)
    return np.sort(ids)


def code_set(base: Any, calibration: dict[str, Any]) -> CodeSet:
    """The row that a stored code set of these codes would have."""
    given: dict[str, Any] = dict.fromkeys(CodeSet.__dataclass_fields__)
    given |= {"name": "town", "scale": base.scale, "recipe": "hybrid", "calibration": calibration}
    return CodeSet(**given)


def town(seed: int = 0) -> tuple[Any, np.ndarray]:
    """Random codes of 256 level-16 cells, and queries."""
    rng = np.random.default_rng(seed)
    codes, queries = rng.normal(size=(256, 12)), rng.normal(size=(20, 12))
    codes, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (codes, queries))
    return localizer_of(block(8.93, 44.41, 16, 4), codes), queries.astype(np.float32)


# -- the probability around it


def test_the_confidence_is_the_one_that_the_calibration_error_judges():
    base, queries, _, judgement = judged(0.2, n=60)
    for query, confidence in zip(queries, judgement.confidence, strict=True):
        completed = complete_query(query.astype(np.float16).astype(np.float32)[None])[0]
        chances = posterior(base.matrix, completed, 0.2 / base.scale)
        lon, lat = s2.center(chances.ids[[chances.probability.argmax()]])
        assert mass_within(chances, lon[0], lat[0]) == pytest.approx(confidence, abs=1e-6)
    assert 0 < judgement.confidence.min() < judgement.confidence.max() < 1


@pytest.mark.parametrize(
    ("lon", "lat"), [(8.93, 44.41), (180.0, -17.0), (45.0, 35.2644), (-135.0, -35.2644), (0.0, 89.9999)]
)
@pytest.mark.parametrize("level", [16, 18])
def test_mass_within_is_a_plain_sum_everywhere(lon, lat, level):
    """Over the 180th meridian, at a corner of S2's cube, beside the pole."""
    near = s2.cell_at(np.array([lon]), np.array([lat]), 13)
    ids = np.append(near, s2.neighbors(near).reshape(-1))
    ids = ids[ids != 0]
    for _ in range(level - 13):
        ids = s2.children(ids).reshape(-1)
    ids = np.sort(ids)
    chances = Posterior(ids, np.random.default_rng(level).dirichlet(np.ones(len(ids))), 0.0)
    x, y = s2.center(ids)
    for radius in (80.0, 200.0, 350.0):
        metres = great_circle_m(lon, lat, x, y)
        wanted = chances.probability[metres <= radius].sum()
        if radius == 80.0 and level == 16:  # such a cell can reach farther than 80 m from its centre
            assert mass_within(chances, lon, lat, radius) is None
        else:
            assert mass_within(chances, lon, lat, radius) == pytest.approx(wanted, abs=1e-12) and wanted > 0


def test_cells_wider_than_the_radius_say_nothing_about_it():
    for level, known in ((17, True), (16, True), (15, False), (6, False)):
        ids = s2.cell_at(np.array([8.93]), np.array([44.41]), level)
        lon, lat = s2.center(ids)
        found = mass_within(Posterior(ids, np.ones(1), 0.5), lon[0], lat[0])
        assert found == (1.0 if known else None)
        corners = s2.corners(ids)[0]
        reach = great_circle_m(lon[0], lat[0], corners[:, 0], corners[:, 1]).max()
        assert reach < 200 or not known
    assert mass_within(Posterior(np.zeros(0, np.int64), np.zeros(0), 0.0), 8.0, 44.0) is None


# -- the position


def test_positions_are_those_of_the_methods_table():
    base, queries = town()
    stored = code_set(base, {"refinement": {"temperature": 0.3, "mean_capped_error_m": {"0.3": 90.0}}})
    wanted = {
        "refined": RefinedLocalizer(base, 0.3),
        "mass": PointEstimateLocalizer(base, 0.1, "mass", 200.0),
        "medoid": PointEstimateLocalizer(base, 0.1, "medoid", 1000.0),
    }
    for kind, localizer in wanted.items():
        mover = Mover.of(kind, stored, base.matrix, 0.1)
        found = localizer.localize(queries, 1)
        assert (mover.kind, mover.note) == (kind, None)
        for i, query in enumerate(queries):
            lon, lat = mover.position(query, None, 30)
            assert great_circle_m(lon, lat, found.lon[i, 0], found.lat[i, 0]) < 0.02
    assert Mover.of("centre", stored, base.matrix, 0.1).localizer is CENTRE.localizer is None
    assert method_positions.moving is moving and method_positions.refinement_fit is refinement_fit


def test_no_position_is_finer_than_the_operator_allows():
    base, queries = town()
    stored = code_set(base, {"refinement": {"temperature": 0.3}})
    for kind in ("refined", "mass", "medoid"):
        for finest in (9, 16, 18):
            lon, lat = Mover.of(kind, stored, base.matrix, 0.1).position(queries[0], None, finest)
            centre = s2.center(s2.cell_at(np.array([lon]), np.array([lat]), finest))
            assert (centre[0][0], centre[1][0]) == (lon, lat)


def test_what_lacks_for_a_position_is_said():
    base, _ = town()
    for kind in ("refined", "mass", "medoid"):
        with pytest.raises(BadInputError, match=rf"town was not calibrated.*{kind}.*codes calibrate"):
            Mover.of(kind, code_set(base, {}), base.matrix, None)
    assert Mover.of("centre", code_set(base, {}), base.matrix, None).kind == "centre"
    earlier = code_set(base, {"temperature": 0.1})
    mover = Mover.of("refined", earlier, base.matrix, 0.1)
    assert mover.kind == "centre" and mover.localizer is None
    assert "calibrated before" in str(mover.note) and "codes calibrate" in str(mover.note)
    assert Mover.of("mass", earlier, base.matrix, 0.1).note is None
    for wrong in ("center", ""):
        with pytest.raises(UsageError, match="centre, refined, mass, medoid"):
            known_position(wrong)
    with pytest.raises(UsageError):
        moving("refined", base, 0.1, None)


def test_a_refined_position_is_not_drawn_out_of_the_region():
    base, queries = town()
    half = block(8.93, 44.41, 16, 3)
    ranges = np.stack(s2.range_of(s2.parent(half[:1], 13)), axis=1)
    inside = np.isin(base.matrix.ids, half)
    alone = localizer_of(base.matrix.ids[inside], base.matrix.codes[inside][:, :12].astype(np.float32))
    flat = RefinedLocalizer(base, 1e6).localize(queries, 3, ranges)
    wanted = RefinedLocalizer(alone, 1e6).localize(queries, 3)
    assert great_circle_m(flat.lon[:, 0], flat.lat[:, 0], wanted.lon[:, 0], wanted.lat[:, 0]).max() < 0.1
    nowhere = np.stack(s2.range_of(s2.cell_at(np.array([30.0]), np.array([10.0]), 10)), axis=1)
    assert not RefinedLocalizer(base, 1.0).localize(queries, 3, nowhere).answered.any()


def test_a_fit_with_or_without_a_refinement_is_read():
    fit = ConfidenceFit(0.1, 2.0, 30, 256, CoverageFit(None, 0.4, 30, 0))
    assert ConfidenceFit.from_dict({**fit.as_dict(), "refinement": {"temperature": 0.3}}) == fit
    assert ConfidenceFit.from_dict(fit.as_dict()) == fit


def test_jobs_name_a_position_that_there_is():
    given = {"photos": ["/a.jpg"], "code_set": "c"}
    assert parse("localize", given).position == "centre"
    for kind in POSITIONS:
        assert parse("localize", {**given, "position": kind}).position == kind
    with pytest.raises(UsageError, match=r"parameter position.*medoid"):
        parse("localize", {**given, "position": "middle"})


def test_a_stage_of_a_pipeline_hands_its_position_on(monkeypatch, tmp_path):
    (tmp_path / "a.jpg").touch()
    asked: dict[str, Any] = {}
    monkeypatch.setattr(
        "geofix.localize.service.localize_photos", lambda *_, **given: asked.update(given) or []
    )
    context: Any = SimpleNamespace(conn=None, code_set=lambda *_: "c", file=lambda _, name: tmp_path / name)
    given = {"do": "localize", "model": "m", "level": 16, "photos": [str(tmp_path / "*.jpg")]}
    for more, position in (({}, "centre"), ({"position": "medoid"}, "medoid")):
        localize_stage(context, LocalizeStage.model_validate({**given, **more}))
        assert asked["position"] == position
    with pytest.raises(ValidationError):
        LocalizeStage.model_validate({**given, "position": "middle"})


# -- what people read


def an_answer(**changed: Any) -> dict[str, Any]:
    """What one photo gets, as `geofix localize --json` prints it."""
    candidate = {
        "rank": 1,
        "s2_token": "47b9eb4b",
        "lon": 7.451234,
        "lat": 47.501234,
        "score": 0.75,
        "probability": 0.4375,
        "region": "CHE",
        "parts": None,
    }
    return {
        "photo": "walk/a.jpg",
        "position": {"lon": 7.45, "lat": 47.5},
        "position_kind": "centre",
        "position_note": None,
        "confidence_200m": 0.8125,
        "candidates": [candidate, {**candidate, "rank": 2, "s2_token": "47b9eb4d", "probability": 0.25}],
        "credible": {
            "50": {"km2": 0.0417, "cells": 2, "geojson": SQUARE},
            "90": {"km2": 1.25, "cells": 1, "geojson": SQUARE},
        },
        "search": {"method": "exact", "cells_in_scope": 1234},
        "in_coverage": True,
        "code_set": "means",
        **changed,
    }


def shown(capsys, answer: dict[str, Any]) -> tuple[list[str], str]:
    """Lines of stdout with single spaces, and stderr, where remarks go."""
    command.show_answers([answer])
    said = capsys.readouterr()
    lines = [" ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split()) for text in said.out.splitlines()]
    return [text for text in lines if text], " ".join(said.err.split())


def test_people_read_probabilities_areas_and_where_the_outlines_are(capsys):
    lines, remarks = shown(capsys, an_answer())
    assert lines[0] == "walk/a.jpg: 1,234 cells searched, exact"
    assert lines[1] == "rank s2_token lon lat score probability region"
    assert "1 47b9eb4b 7.451234 47.501234 0.75 0.438 CHE" in lines
    assert "2 47b9eb4d 7.451234 47.501234 0.75 0.25 CHE" in lines
    assert "Position: lon 7.450000, lat 47.500000 (centre of the best cell)" in lines
    assert "Probability within 200 m of it: 81.2 %" in lines
    assert "50 % credible region: 0.042 km2 in 2 cells" in lines
    assert "90 % credible region: 1.250 km2 in 1 cell" in lines
    assert any("GeoJSON polygons: --json" in text for text in lines)
    assert remarks == ""


@pytest.mark.parametrize("kind", list(POSITIONS))
def test_people_read_what_the_position_is(capsys, kind):
    lines, _ = shown(capsys, an_answer(position_kind=kind))
    assert f"Position: lon 7.450000, lat 47.500000 ({POSITIONS[kind]})" in lines


def test_people_are_told_what_an_answer_lacks(capsys):
    lines, remarks = shown(capsys, an_answer(in_coverage=False))
    assert "Outside coverage: no searched cell looks like this photo; read the answer as a guess." in remarks
    plain = an_answer(in_coverage=None, credible={}, confidence_200m=None)
    plain["candidates"] = [{**item, "probability": None} for item in plain["candidates"]]
    lines, remarks = shown(capsys, plain)
    assert "No probabilities: this code set was not calibrated" in remarks and "Outside" not in remarks
    assert "1 47b9eb4b 7.451234 47.501234 0.75 - CHE" in lines
    assert not any(word in text for text in lines for word in ("credible", "200 m", "--json"))
    _, remarks = shown(capsys, an_answer(position_note="The centre in place of it."))
    assert remarks == "The centre in place of it."
    lines, remarks = shown(capsys, {"photo": "b.jpg", "error": "not an image"})
    assert (lines, remarks) == ([], "b.jpg: not an image")


def test_an_unknown_position_is_refused_before_a_database_is_asked(capsys, monkeypatch):
    monkeypatch.setenv("GEOFIX_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setattr(
        "sys.argv", ["geofix", "localize", "a.jpg", "--code-set", "c", "--position", "middle"]
    )
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "'middle' is unknown. Use one of centre, refined, mass, medoid." in " ".join(
        capsys.readouterr().err.split()
    )
