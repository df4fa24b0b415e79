"""Localizing photos: agreement with the matrix, regions, coarse answers, and what is kept of a photo."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import shapely
from pgvector import HalfVector
from PIL import Image
from small_world import LEVEL, SmallWorld

from geofix.codes.build import CellVectors, publish
from geofix.codes.complete import complete_query
from geofix.codes.matrix import CellMatrix
from geofix.database.engine import connect
from geofix.database.queries import codes as code_queries
from geofix.database.queries.models import find_model
from geofix.errors import BadInputError, NotFoundError
from geofix.ingest.region_text import region_ewkb
from geofix.localize.confidence import Posterior
from geofix.localize.service import Searcher, coarsened, localize_photos
from geofix.localizers.code_set import CodeSetLocalizer
from geofix.localizers.scope import ranges_inside
from geofix.settings import get_settings
from geofix.spatial import s2


@pytest.fixture
def conn(small: SmallWorld):
    with connect() as connection:
        yield connection
        connection.rollback()


def level(token: str) -> int:
    return int(s2.level(s2.from_token([token]))[0])


def test_sql_the_matrix_and_the_localizer_agree_in_rank_and_score(conn, small):
    photos = [small.photo(town, 1, 2) for town in range(4)]
    code_set = code_queries.find_code_set(conn, "means")
    answers = localize_photos(conn, photos, "means", k=10)
    searcher = Searcher.load(conn, "means")
    keys = [f"{photo.parent.name}/{photo.name}" for photo in photos]
    rows = dict(
        conn.execute(
            "SELECT source_key, embedding FROM photo_record JOIN photo_embedding USING (photo_id)"
            " WHERE source_key = ANY (%s)",
            (keys,),
        ).fetchall()
    )
    vectors = np.stack([rows[key].to_numpy() for key in keys])
    found = CodeSetLocalizer.load(conn, code_set).localize(vectors, 10)
    ids, scores = searcher.matrix.search(complete_query(vectors), 10)
    for i, answer in enumerate(answers):
        best = answer["candidates"]
        # The photo was embedded anew here, alone in its batch: float16 moves a score by 1e-3 at most.
        assert np.allclose([item["score"] for item in best], found.score[i], atol=1e-3)
        assert np.allclose(found.score[i], scores[i] * code_set.scale, atol=1e-6)
        assert [item["s2_token"] for item in best] == list(s2.token(ids[i])) == list(s2.token(found.s2_id[i]))
        assert [item["rank"] for item in best] == list(range(1, 11))
        assert answer["position"] == {"lon": best[0]["lon"], "lat": best[0]["lat"]}
        assert answer["search"] == {"method": "exact", "cells_in_scope": code_set.cells}
        assert sum(item["probability"] for item in best) <= 1 + 1e-9
        assert answer["credible"]["50"]["km2"] <= answer["credible"]["90"]["km2"]
        assert isinstance(answer["in_coverage"], bool)


def test_a_region_keeps_answers_and_probabilities_inside(conn, small):
    (answer,) = localize_photos(conn, [small.photo()], "means", within="country:DEU", k=1000)
    assert {item["region"] for item in answer["candidates"]} == {"DEU"}
    assert len(answer["candidates"]) == answer["search"]["cells_in_scope"]
    assert sum(item["probability"] for item in answer["candidates"]) == pytest.approx(1, abs=1e-6)
    outline = shapely.geometry.shape(answer["credible"]["90"]["geojson"])
    assert outline.bounds[1] > 47.5
    with pytest.raises(BadInputError, match="no cell inside"):
        localize_photos(conn, [small.photo()], "means", within="POLYGON((1 1, 2 1, 2 2, 1 1))")


@pytest.mark.parametrize("finest", [6, 12, LEVEL, 30])
def test_no_answer_is_finer_than_the_operator_allows(conn, small, monkeypatch, finest):
    monkeypatch.setenv("GEOFIX_FINEST_LEVEL", str(finest))
    get_settings.cache_clear()
    (answer,) = localize_photos(conn, [small.photo(5, 1, 1)], "means", k=1000)
    coarse = min(finest, LEVEL)
    best = answer["candidates"]
    tokens = [item["s2_token"] for item in best]
    assert {level(token) for token in tokens} == {coarse} and len(set(tokens)) == len(tokens)
    assert [item["rank"] for item in best] == list(range(1, len(best) + 1))
    lon, lat = s2.center(s2.from_token(tokens))
    assert np.allclose([item["lon"] for item in best], lon) and answer["position"]["lat"] == lat[0]
    assert sum(item["probability"] for item in best) == pytest.approx(1, abs=1e-6)
    # The outline shows whole coarse cells too: nothing smaller shines through.
    area = shapely.geometry.shape(answer["credible"]["50"]["geojson"]).area
    assert area >= 0.99 * s2.polygon(s2.from_token(tokens[:1]))[0].area
    (stored,) = conn.execute("SELECT answer FROM query ORDER BY query_id DESC LIMIT 1").fetchone()
    assert {level(item["s2_token"]) for item in stored["candidates"]} == {coarse}


def test_coarse_probabilities_are_sums():
    ids = np.unique(s2.cell_at(np.linspace(7, 7.1, 50), np.linspace(47, 47.1, 50), 16))
    chances = np.random.default_rng(0).dirichlet(np.ones(len(ids)))
    fine = Posterior(ids, chances, 0.5)
    assert coarsened(fine, 16) is fine and coarsened(fine, 30) is fine
    coarse = coarsened(fine, 12)
    assert (np.diff(coarse.ids) > 0).all() and coarse.probability.sum() == pytest.approx(1)
    for cell, chance in zip(coarse.ids, coarse.probability, strict=True):
        assert chance == pytest.approx(chances[s2.parent(ids, 12) == cell].sum())


@pytest.mark.parametrize("keep", ["false", "true"])
def test_the_hash_and_the_answer_are_kept_and_nothing_else(conn, small, tmp_path, monkeypatch, keep):
    monkeypatch.setenv("GEOFIX_KEEP_QUERY_PHOTOS", keep)
    get_settings.cache_clear()
    photo = tmp_path / "my private name.jpg"
    exif = Image.Exif()
    exif[0x013B] = "somebody-i-know"
    exif.get_ifd(0x8825).update({1: "N", 2: (12.3456, 0, 0), 3: "E", 4: (65.4321, 0, 0)})
    Image.open(small.photo()).save(photo, exif=exif)
    (answer,) = localize_photos(conn, [photo], "means", within="country:CHE", k=3)
    digest = hashlib.sha256(photo.read_bytes()).digest()
    row = conn.execute("SELECT * FROM query WHERE query_id = %s", (answer["query_id"],)).fetchone()
    audit = conn.execute("SELECT actor, action, object_kind, object_id, detail FROM audit").fetchall()[-1]
    assert audit[1:4] == ("localize", "query", str(answer["query_id"]))
    assert audit[4] == {"code_set": "means", "sha256": digest.hex()}
    text = repr(row) + repr(audit)
    assert repr(digest) in text and json.dumps(answer["position"]["lon"])[:9] in text
    for secret in ("somebody", "12.345", "65.432", str(tmp_path)):
        assert secret not in text
    assert ("my private name.jpg" in text) == (keep == "true")
    kept = [path for path in get_settings().home_dir.rglob("*") if path.suffix.lower() in (".jpg", ".png")]
    assert kept == []


def test_bad_photos_get_an_error_and_the_others_an_answer(conn, small, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(small.photo().read_bytes()[:200])
    answers = localize_photos(conn, [broken, small.photo(), tmp_path / "none.jpg"], "means", k=2)
    assert ["error" in answer for answer in answers] == [True, False, True]
    assert [answer["photo"] for answer in answers][1] == str(small.photo())
    with pytest.raises(BadInputError, match=r"broken\.jpg cannot be read"):
        localize_photos(conn, [broken], "means")
    with pytest.raises(BadInputError, match="No photo was given"):
        localize_photos(conn, [], "means")


def test_states_of_a_code_set(conn, small):
    conn.execute("UPDATE code_set SET state = 'stale' WHERE name = 'means'")
    assert localize_photos(conn, [small.photo()], "means", k=1)[0]["candidates"]
    (plain,) = localize_photos(conn, [small.photo()], "air", k=1)  # never calibrated
    assert plain["credible"] == {} and plain["in_coverage"] is None
    assert plain["candidates"][0]["probability"] is None
    for state in ("building", "dropping"):
        conn.execute("UPDATE code_set SET state = %s WHERE name = 'means'", (state,))
        with pytest.raises(NotFoundError, match=f"is {state}"):
            localize_photos(conn, [small.photo()], "means")


@pytest.mark.parametrize(
    "text",
    [
        "MULTIPOLYGON(((179.2 -18, 180 -18, 180 -16, 179.2 -16, 179.2 -18)),"
        " ((-180 -18, -179.5 -18, -179.5 -16, -180 -16, -180 -18)))",
        "POLYGON((179.2 -18, 180.5 -18, 180.5 -16, 179.2 -16, 179.2 -18))",
        "POLYGON((-180.8 -18, -179.5 -18, -179.5 -16, -180.8 -16, -180.8 -18))",
    ],
)
def test_a_region_over_the_180th_meridian(conn, small, text):
    """Cells on both sides are found, the same by SQL, by ranges of the matrix, and by hand."""
    rng = np.random.default_rng(4)
    lon = np.concatenate([rng.uniform(178.5, 180, 150), rng.uniform(-180, -178.5, 150)])
    ids = np.unique(s2.cell_at(lon, rng.uniform(-19, -15, 300), 13))
    vectors = rng.normal(size=(len(ids), 32)).astype(np.float32)
    flags = np.ones(len(ids), bool)
    made = CellVectors(ids, vectors, vectors[:, 0] * 0, flags, flags)
    publish(conn, "fiji", find_model(conn, "tiny"), "hybrid", 13, made, snapshot_id=None)
    east, north = s2.center(ids)
    inside = ((east >= 179.2) | (east <= -179.5)) & (north >= -18) & (north <= -16)
    assert 10 < inside.sum() < len(ids)
    region = region_ewkb(conn, text)
    code_set = code_queries.find_code_set(conn, "fiji")
    rows = conn.execute(
        "SELECT s2_id, cells_in_scope FROM search_cells(%s, 1000, 'fiji', ST_GeomFromEWKB(%s))",
        (HalfVector(vectors[0]), region),
    ).fetchall()
    assert {row[0] for row in rows} == set(ids[inside].tolist())
    assert {row[1] for row in rows} == {int(inside.sum())}
    covered = conn.execute(
        "SELECT lo, hi, inside FROM code_set_covering(%s, ST_GeomFromEWKB(%s), 256)",
        (code_set.code_set_id, region),
    ).fetchall()
    low, high = s2.range_of(ids)
    assert all(
        any(first <= lo and hi <= last for first, last, _ in covered)
        for lo, hi in zip(low[inside], high[inside], strict=True)
    )
    matrix = CellMatrix.from_rows(*code_queries.read_codes(conn, code_set))
    ranges = ranges_inside(matrix.ids, shapely.from_wkb(region))
    found, _ = matrix.search(complete_query(vectors[:1]), 1000, ranges)
    assert set(found[0].tolist()) == set(ids[inside].tolist())


@pytest.mark.parametrize("name", ["x'); DROP TABLE geofix.query; --", 'a" %s {0}', "ü\\' OR 1=1"])
def test_hostile_names_are_only_names(conn, small, name):
    conn.execute("UPDATE code_set SET name = %s WHERE name = 'means'", (name,))
    (answer,) = localize_photos(conn, [small.photo()], name, k=1)
    assert answer["code_set"] == name
    with pytest.raises(NotFoundError):
        localize_photos(conn, [small.photo()], name + "'")
    with pytest.raises(NotFoundError, match="no loaded region"):
        region_ewkb(conn, f"country:{name}")
