"""The localize page: uploads, prior regions, answers with their evidence, and what is left of a photo."""

from __future__ import annotations

import io
import json
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
import shapely
from page_tests import metric, page, text_of, well
from PIL import Image
from small_world import SmallWorld

from geofix.database.engine import connect
from geofix.errors import BadInputError
from geofix.jobs.runner import run_inline
from geofix.jobs.service import submit
from geofix.jobs.specs import parse
from geofix.settings import get_settings
from geofix_dashboard import actions, answers, drawing, place_data, uploads
from geofix_dashboard.views import localize, localize_answer, localize_region


@pytest.fixture(scope="module")
def asked(embedded: SmallWorld) -> UUID:
    """A finished job with the answers to two photos of one town."""
    import small_world

    photos = [str(embedded.photo(2, s, 2)) for s in (0, 1)]
    with small_world.pointed_at(embedded.database, embedded.folder / "home"):
        job = submit(parse("localize", {"photos": photos, "code_set": "means", "k": 200}), publish=False)
        assert run_inline(job.job_id).state == "succeeded"
    return job.job_id


def found(job_id: UUID) -> list[dict]:
    row = place_data.job(str(job_id))
    assert row is not None and row.result is not None
    return row.result["answers"]


def jpeg(size: tuple[int, int] = (64, 48)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (10, 120, 200)).save(out, "JPEG")
    return out.getvalue()


def test_an_answer_is_shown_with_its_figures(towns, asked):
    test = well(page("localize", job=str(asked)))
    first, second = found(asked)
    best = first["candidates"][0]
    assert metric(test, "90 % region") == f"{first['credible']['90']['km2']:,.2f} km²"
    assert metric(test, "Within 200 m") == localize_answer._percent(first["confidence_200m"])
    assert (
        f"{first['position']['lat']:.5f}, {first['position']['lon']:.5f}** · centre of the best"
        in " ".join(item.value for item in test.markdown)
    )
    table = test.dataframe[0].value
    assert list(table["cell"]) == [item["s2_token"] for item in first["candidates"][:10]]
    assert table["probability"].iloc[0] == pytest.approx(100 * best["probability"])
    said = text_of(test)
    assert f"{first['search']['cells_in_scope']:,} cells searched everywhere, exact" in said
    assert ("Outside coverage" in " ".join(w.value for w in test.warning)) == (first["in_coverage"] is False)
    assert f"Evidence for rank 1 Cell {best['s2_token']}" in " ".join(said.split())
    test = well(page("localize", job=str(asked), photo="1", cell=second["candidates"][3]["s2_token"]))
    assert "Evidence for rank 4" in text_of(test)


def test_the_position_can_be_chosen_where_there_are_probabilities(towns):
    test = well(page("localize", set="means", position="mass"))
    (box,) = [item for item in test.selectbox if item.label == "Position"]
    assert box.value == "mass" and len(box.options) == 4
    assert not [item for item in well(page("localize", set="air")).selectbox if item.label == "Position"]


def test_the_job_and_the_page_know_the_position_that_was_chosen(towns, monkeypatch):
    sent = {}
    monkeypatch.setattr(actions, "localize", lambda parameters: sent.update(parameters) or _stop())
    with pytest.raises(RuntimeError, match="sent"):
        localize.submit([uploads.read("a.jpg", jpeg())], "means", None, "", "medoid")
    job = submit(parse("localize", sent), publish=False)
    assert run_inline(job.job_id).state == "succeeded"
    (answer,) = found(job.job_id)
    assert answer["position_kind"] == "medoid"
    test = well(page("localize", job=str(job.job_id)))
    place = f"{answer['position']['lat']:.5f}, {answer['position']['lon']:.5f}"
    assert f"{place}** · least expected distance" in " ".join(item.value for item in test.markdown)


def _stop() -> None:
    raise RuntimeError("sent")


def test_the_nearest_photos_are_those_of_plain_geometry(towns, asked):
    best = found(asked)[0]["candidates"][0]
    rows = place_data.near_photos(best["lon"], best["lat"])
    with connect("reader") as conn:
        every = conn.execute("SELECT source_key, ST_X(geom), ST_Y(geom) FROM photo_record").fetchall()
    from geofix.spatial.distance import great_circle_m

    away = {key: float(great_circle_m(best["lon"], best["lat"], lon, lat)) for key, lon, lat in every}
    assert list(rows["distance_m"]) == pytest.approx(sorted(away.values())[:4], abs=0.5)
    assert rows["captured_at"].notna().all()


def test_parts_of_a_score_add_up_to_it(towns, asked):
    for item in found(asked)[0]["candidates"][:20]:
        assert sum(item["parts"].values()) == pytest.approx(item["score"], abs=0.01)
        assert item["parts"]["aerial"] == 0.0  # of means of photos
    assert found(asked)[0]["candidates"][20]["parts"] is None


def test_aerial_tiles_are_cut_from_their_rasters(towns):
    from geofix.spatial import s2

    with connect("reader") as conn:
        tile = conn.execute("SELECT s2_id FROM aerial_tile LIMIT 1").fetchone()[0]
    token = str(s2.token(np.array([tile]))[0])
    (shown,) = place_data.aerial_tiles(token)
    assert shown["picture"].shape == (place_data.TILE_PX, place_data.TILE_PX, 3)
    assert shown["picture"].std() > 5 and shown["token"] == token
    finer = str(s2.token(s2.parent(s2.cell_at(*s2.center(np.array([tile])), 30), 18))[0])
    assert place_data.aerial_tiles(finer)[0]["token"] == token  # the coarser tile that holds it
    assert place_data.aerial_tiles("1") == []


def test_several_photos_of_one_place_are_fused(towns, asked):
    both = found(asked)
    fused = answers.fuse(both)
    chances = [{item["s2_token"]: item["probability"] for item in answer["candidates"]} for answer in both]
    assert chances[0].keys() == chances[1].keys()  # every cell was listed: the product is exact
    wanted = {cell: chances[0][cell] * chances[1][cell] for cell in chances[0]}
    total = sum(wanted.values())
    got = {item["s2_token"]: item["probability"] for item in fused["candidates"]}
    assert got == pytest.approx({cell: value / total for cell, value in wanted.items()}, abs=1e-9)
    assert [item["rank"] for item in fused["candidates"]] == list(range(1, len(got) + 1))
    test = well(page("localize", job=str(asked), photo="fused"))
    assert "2 photos as independent looks" in text_of(test) and "score" not in test.dataframe[0].value
    both[0]["candidates"][0]["probability"] = None
    assert answers.fuse(both) is None


def test_downloads_hold_every_candidate_and_region(towns, asked):
    both = found(asked)
    document = json.loads(answers.as_geojson(both, ["a.jpg", "<b>"]))
    what = pd.Series([item["properties"]["what"] for item in document["features"]]).value_counts()
    assert what["candidate"] == sum(len(answer["candidates"]) for answer in both)
    assert what["credible region"] == 4
    place = next(item for item in document["features"] if item["properties"]["what"] == "position")
    assert place["geometry"]["coordinates"] == [both[0]["position"]["lon"], both[0]["position"]["lat"]]
    assert place["properties"]["confidence_200m"] == both[0]["confidence_200m"]
    assert all(shapely.geometry.shape(item["geometry"]).is_valid for item in document["features"])
    table = pd.read_csv(io.StringIO(answers.as_csv(both, ["a.jpg", "<b>"])))
    assert set(table["photo"]) == {"a.jpg", "<b>"} and table["rank"].min() == 1
    assert answers.as_csv([{"photo": "x", "error": "no image"}], ["x"]) == ""


def test_the_probability_scale_ends_at_the_largest():
    assert localize_answer.heat(0.2, 0.2) == 1.0 and localize_answer.heat(0.0, 0.2) == 0.0
    assert localize_answer.heat(0.0002, 0.2) == pytest.approx(0.0)
    assert localize_answer.heat(1e-9, 0.2) == 0.0


def test_uploads_are_private_and_go_with_the_answer(towns):
    good = uploads.read("../../etc/passwd.jpg", jpeg())
    assert good.good and good.preview.shape == (48, 64, 3)
    (path,) = uploads.store([good])
    home = get_settings().home_dir / "uploads"
    assert path.parent.parent == home and path.name == "photo-001.bin"
    assert path.stat().st_mode & 0o077 == 0 and path.parent.stat().st_mode & 0o077 == 0
    outside = home.parent / "kept" / "photo-001.bin"
    outside.parent.mkdir(exist_ok=True)
    outside.write_bytes(b"x")
    uploads.remove([path, outside])
    assert not path.parent.exists() and outside.exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no photo <script>alert(1)</script>", "is not an image"),
        (b"", "empty"),
        (jpeg()[:200], "photo.jpg"),
    ],
)
def test_files_that_are_no_photo_say_so(data, said):
    found = uploads.read("photo.jpg", data)
    assert not found.good and said in found.preview and "photo.jpg" in found.preview


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # decoding lowers it for good
    monkeypatch.setenv("GEOFIX_MAX_PHOTO_PIXELS", "1000")
    get_settings.cache_clear()
    try:
        assert "pixels" in uploads.read("bomb.jpg", jpeg((400, 300))).preview
    finally:
        monkeypatch.undo()
        get_settings.cache_clear()


HOLED = "POLYGON((0 0, 4 0, 4 4, 0 4, 0 0), (1 1, 3 1, 3 3, 1 3, 1 1))"
BOWTIE = {"type": "Polygon", "coordinates": [[[0, 0], [2, 2], [2, 0], [0, 2], [0, 0]]]}


def test_prior_regions_are_repaired_and_wrapped(towns):
    assert localize_region.parse(HOLED).area == pytest.approx(12)
    crossed = localize_region.parse(json.dumps({"type": "Feature", "geometry": BOWTIE, "properties": {}}))
    assert crossed.is_valid and crossed.area == pytest.approx(2)
    wrapped = localize_region.parse("POLYGON((179 0, 181 0, 181 1, 179 1, 179 0))")
    assert wrapped.bounds[0] == -180 and wrapped.bounds[2] == 180 and wrapped.area == pytest.approx(2)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "{",
        '{"type": "Point", "coordinates": [1, 2]}',
        "/etc/passwd",
        "country:DEU",
        "POLYGON((1 2",
    ],
)
def test_what_is_no_polygon_is_refused_in_words(towns, text):
    with pytest.raises(BadInputError) as caught:
        localize_region.parse(text)
    assert "/tmp" not in str(caught.value)


def test_marked_cells_are_read_from_the_selection():
    state = {"selection": {"objects": {"areas": [{"properties": {"code": "b"}}, {"code": "a"}]}}}
    assert localize_region.marked(state) == ["a", "b"]
    assert localize_region.marked(None) == localize_region.marked({"selection": {"objects": {}}}) == []


def test_an_address_without_an_answer_says_so(towns):
    for job_id in ("nonsense", "00000000-0000-4000-8000-000000000000"):
        assert "There is no such answer." in text_of(well(page("localize", job=job_id)))
    assert "No photo was asked about." in text_of(well(page("localize")))


def test_a_waiting_job_names_the_worker_that_is_missing(towns):
    photos = [str(towns.photo())]
    job = submit(parse("localize", {"photos": photos, "code_set": "means"}), publish=False)
    said = text_of(well(page("localize", job=str(job.job_id))))
    assert "No worker takes interactive jobs." in said and "geofix worker --queues interactive" in said
    with connect("writer") as conn:
        conn.execute("UPDATE job SET state = 'failed', error = 'it broke' WHERE job_id = %s", (job.job_id,))
    test = well(page("localize", job=str(job.job_id)))
    assert "it broke" in test.error[0].value and "geofix jobs logs" in text_of(test)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("region", "DEU"),
        ("free", "Nothing is drawn: the whole code set is searched"),
        ("draw", "Nothing is marked: the whole code set is searched"),
        ("file", "POLYGON((...))"),
    ],
)
def test_every_kind_of_prior_region_can_be_chosen(towns, kind, said):
    test = page("localize")
    test.session_state["localize_within"] = kind
    well(test.run())
    regions = [option for box in test.selectbox for option in box.options if box.key == "localize_region"]
    texts = [area.placeholder for area in test.text_area]
    assert said in " ".join([*map(str, regions), *map(str, texts), text_of(test)]) or (
        kind == "region" and any("Germany" in option for option in regions)
    )
    assert test.button(key="localize_go").disabled  # no photo yet


# -- drawing


def test_what_was_drawn_is_one_valid_area():
    square = [[8, 48], [9, 48], [9, 49], [8, 49]]
    assert drawing.union([square]).area == pytest.approx(1)
    overlapping = [[x + 0.5, y] for x, y in square]
    assert drawing.union([square, overlapping]).area == pytest.approx(1.5)
    knot = drawing.union([[[0, 0], [2, 2], [2, 0], [0, 2]]])
    assert knot.is_valid and knot.area == pytest.approx(2)
    for nothing in (None, [], [[]], [[[1, 1], [2, 2]]], [[[1, 1], [2, 2], [3, 3]]]):
        assert drawing.union(nothing) is None


@pytest.mark.parametrize(
    "sent",
    [
        "text",
        7,
        [[["a", "b"], [1, 2], [3, 4]]],
        [[[1, 2, 3], [4, 5, 6], [7, 8, 9]]],
        [[[float("nan"), 0], [1, 0], [1, 1]]],
        [[[float("inf"), 0], [1, 0], [1, 1]]],
        [[[0, 0], [1, 0], [1, 1]]] * 51,
        [[[0, 0]] * 20_001],
        {"a": 1},
    ],
)
def test_what_is_no_drawing_is_refused(sent):
    with pytest.raises(BadInputError, match="drawing"):
        drawing.union(sent)


def test_outlines_become_rings():
    holed = json.dumps(shapely.geometry.mapping(shapely.from_wkt(HOLED)))
    both = json.dumps({"type": "MultiPolygon", "coordinates": [BOWTIE["coordinates"]] * 2})
    rings = drawing.rings_of([holed, both, None, '{"type": "Point", "coordinates": [1, 2]}'])
    assert [len(ring) for ring in rings] == [5, 5, 5, 5] and rings[0][0] == [0, 0]


def test_area_of_what_was_drawn_is_that_of_the_ellipsoid():
    degree = shapely.box(0, 0, 1, 1)
    assert localize_region.area_km2(degree) == pytest.approx(12_308.8, rel=1e-3)
