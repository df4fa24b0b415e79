"""What the position of an answer is: each kind against the localizers of the table, stored, and told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from pgvector import HalfVector
from small_world import LEVEL, SmallWorld
from typer.testing import CliRunner

from geofix.database.engine import connect
from geofix.database.queries import codes as code_queries
from geofix.errors import BadInputError, UsageError
from geofix.localize.calibrate import calibrate_code_set
from geofix.localize.kinds import POSITIONS
from geofix.localize.service import Searcher, localize_photos
from geofix.localizers.code_set import CodeSetLocalizer
from geofix.localizers.point_estimates import PointEstimateLocalizer
from geofix.localizers.refine import RefinedLocalizer, fit_refinement
from geofix.settings import get_settings
from geofix.snapshots.build import stored_snapshot
from geofix.spatial import s2
from geofix.spatial.distance import great_circle_m

SPLIT = """
SELECT ST_X(p.geom), ST_Y(p.geom), e.embedding FROM snapshot_photo s JOIN photo_record p USING (photo_id)
JOIN photo_embedding e USING (photo_id) WHERE s.split = 'val' ORDER BY photo_id
"""


@pytest.fixture
def conn(small: SmallWorld):
    with connect() as connection:
        yield connection
        connection.rollback()


def vector_of(conn, photo) -> np.ndarray:
    """The stored embedding of a photo of the small world."""
    key = f"{photo.parent.name}/{photo.name}"
    (found,) = conn.execute(
        "SELECT embedding FROM photo_record JOIN photo_embedding USING (photo_id) WHERE source_key = %s",
        (key,),
    ).fetchone()
    assert isinstance(found, HalfVector)
    return found.to_numpy()


def test_calibration_stores_the_refinement_that_the_methods_table_fits(conn, small):
    code_set = code_queries.find_code_set(conn, "means")
    base = CodeSetLocalizer.load(conn, code_set)
    rows = conn.execute(SPLIT).fetchall()
    vectors = np.stack([row[2].to_numpy() for row in rows])
    lon, lat = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    temperature, tried = fit_refinement(base, vectors, lon, lat, start=code_set.temperature, cap_m=200.0)
    kept = code_set.calibration["refinement"]
    assert kept["temperature"] == pytest.approx(temperature)
    assert kept["mean_capped_error_m"] == pytest.approx(tried)
    frozen = stored_snapshot(conn, small.snapshot).snapshot_id
    said = calibrate_code_set(conn, code_set, frozen)
    assert said["refinement_temperature"] == pytest.approx(temperature)
    assert Searcher.load(conn, "means").fit is not None


@pytest.mark.parametrize("kind", list(POSITIONS))
def test_every_kind_of_position(conn, small, kind):
    photos = [small.photo(town, 1, 3) for town in (0, 5)]
    searcher = Searcher.load(conn, "means")
    code_set = searcher.code_set
    base = CodeSetLocalizer.load(conn, code_set)
    answers = localize_photos(conn, photos, "means", k=1000, position=kind, searcher=searcher)
    wanted = {
        "centre": base,
        "refined": RefinedLocalizer(base, code_set.calibration["refinement"]["temperature"]),
        "mass": PointEstimateLocalizer(base, code_set.temperature, "mass", 200.0),
        "medoid": PointEstimateLocalizer(base, code_set.temperature, "medoid", 1000.0),
    }[kind]
    for photo, answer in zip(photos, answers, strict=True):
        found = wanted.localize(vector_of(conn, photo)[None], 1)
        place = answer["position"]["lon"], answer["position"]["lat"]
        # The photo was embedded anew, alone in its batch: float16 moves scores by up to 1e-3.
        assert great_circle_m(*place, found.lon[0, 0], found.lat[0, 0]) < 5
        assert (answer["position_kind"], answer["position_note"]) == (kind, None)
        cells = answer["candidates"]
        metres = great_circle_m(*place, [c["lon"] for c in cells], [c["lat"] for c in cells])
        near = sum(c["probability"] for c, away in zip(cells, metres, strict=True) if away <= 200)
        assert len(cells) == answer["search"]["cells_in_scope"]
        assert 0 < answer["confidence_200m"] <= 1 and answer["confidence_200m"] == pytest.approx(
            near, abs=1e-9
        )
        (stored,) = conn.execute(
            "SELECT answer FROM query WHERE query_id = %s", (answer["query_id"],)
        ).fetchone()
        for key in ("position", "position_kind", "position_note", "confidence_200m"):
            assert stored[key] == pytest.approx(answer[key])


def test_kinds_differ_and_candidates_do_not(conn, small):
    searcher = Searcher.load(conn, "means")
    answers = {
        kind: localize_photos(conn, [small.photo(3, 1, 2)], "means", position=kind, searcher=searcher)[0]
        for kind in POSITIONS
    }
    assert len({tuple(answer["position"].values()) for answer in answers.values()}) >= 3
    for answer in answers.values():
        assert answer["candidates"] == answers["centre"]["candidates"]
        assert answer["credible"] == answers["centre"]["credible"]


def test_a_region_bounds_every_kind(conn, small):
    for kind in POSITIONS:
        (answer,) = localize_photos(conn, [small.photo()], "means", within="country:DEU", position=kind)
        assert answer["position"]["lat"] > 47.559 and answer["confidence_200m"] > 0


@pytest.mark.parametrize("finest", [10, LEVEL])
def test_positions_are_no_finer_than_the_operator_allows(conn, small, monkeypatch, finest):
    monkeypatch.setenv("GEOFIX_FINEST_LEVEL", str(finest))
    get_settings.cache_clear()
    for kind in POSITIONS:
        (answer,) = localize_photos(conn, [small.photo(5, 1, 1)], "means", position=kind)
        place = np.array([answer["position"]["lon"]]), np.array([answer["position"]["lat"]])
        assert [*place] == [*s2.center(s2.cell_at(*place, finest))]
        assert (answer["confidence_200m"] is None) == (finest < 16)


def test_code_sets_that_cannot(conn, small):
    for kind in ("refined", "mass", "medoid"):
        with pytest.raises(BadInputError, match=r"air was not calibrated.*codes calibrate --code-set air"):
            localize_photos(conn, [small.photo()], "air", position=kind)
    (plain,) = localize_photos(conn, [small.photo()], "air", k=1)
    assert plain["confidence_200m"] is None and plain["position_kind"] == "centre"
    with pytest.raises(UsageError, match="'middle' is unknown"):
        localize_photos(conn, [small.photo()], "means", position="middle")
    conn.execute("UPDATE code_set SET calibration = calibration - 'refinement' WHERE name = 'means'")
    (earlier,) = localize_photos(conn, [small.photo()], "means", position="refined")
    (centre,) = localize_photos(conn, [small.photo()], "means")
    assert earlier["position_kind"] == "centre" and earlier["position"] == centre["position"]
    assert "calibrated before" in earlier["position_note"] and earlier["confidence_200m"] > 0


def fields_of(answer, before=""):
    """Dotted names of everything an answer says; lists by their members, credible regions by any percent."""
    for key, value in answer.items():
        inner = value[0] if isinstance(value, list) else value
        if key in ("position", "parts", "geojson") or not isinstance(inner, dict):
            yield before + key
        else:
            if key in ("candidates", "credible"):
                yield before + key
            yield from fields_of(inner.get("50", inner) if key == "credible" else inner, f"{before}{key}.")


def test_every_field_of_an_answer_is_explained_and_the_example_has_them_all(conn, small):
    page = (Path(__file__).resolve().parents[2] / "docs/data-formats.md").read_text()
    section = page.split("## Answer of `geofix localize`")[1].split("\n## ")[0]
    fields, kinds = section.split("| `--position`")
    rows = re.findall(r"^\| (`[^|]+) \|[^|]+\|[^|]+\|$", fields, re.MULTILINE)
    explained = {name.strip("`") for row in rows for name in row.split(", ")}
    (answer,) = localize_photos(conn, [small.photo()], "means", position="mass")
    assert set(fields_of(answer)) == explained - {"error", "error_m"}
    (example,) = json.loads(re.findall(r"```json\n(.*?)```", section, re.DOTALL)[0])
    assert list(fields_of(example)) == list(fields_of(answer))
    assert re.findall(r"^\| `(\w+)` \|", kinds, re.MULTILINE) == list(POSITIONS)


def test_the_command_gives_the_position_that_was_asked_for(small):
    from geofix.cli.localize import app

    ask = [str(small.photo(2, 1, 1)), "--code-set", "means", "--position", "mass"]
    (answer,) = json.loads(CliRunner().invoke(app, [*ask, "--json"]).stdout)
    assert answer["position_kind"] == "mass"
    read = CliRunner().invoke(app, ask)
    said = " ".join(read.output.split())
    assert read.exit_code == 0 and "(most probability within 200 m)" in said
    place = answer["position"]
    assert f"lon {place['lon']:.6f}, lat {place['lat']:.6f}" in said
    assert f"Probability within 200 m of it: {100 * answer['confidence_200m']:.1f} %" in said
    assert CliRunner().invoke(app, [*ask[:-1], "middle"]).exit_code == 2
