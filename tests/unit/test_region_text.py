"""Regions as people write them: WKT, files, and LEVEL:CODE of regions that a database holds."""

from __future__ import annotations

import json

import geopandas
import pytest
import shapely

from geofix.errors import BadInputError, NotFoundError
from geofix.ingest import region_text
from geofix.ingest.region_text import region_ewkb, region_file

SQUARE = shapely.box(7, 47, 8, 48)
KNOWN = {("country", "CHE"): b"che", (None, "CHE"): b"any", ("own level", "a b"): b"own"}


@pytest.fixture
def asked(monkeypatch):
    """What was looked up; only the regions of KNOWN exist."""
    calls: list[tuple[str | None, str]] = []

    def find(_conn, level, code):
        calls.append((level, code))
        return KNOWN.get((level, code))

    monkeypatch.setattr(region_text, "find_region", find)
    return calls


def shape(text, conn=None):
    ewkb = region_ewkb(conn, text)
    found = shapely.from_wkb(ewkb)
    assert shapely.get_srid(found) == 4326 and found.is_valid
    return found


def write(path, *shapes, crs="EPSG:4326", **how):
    geopandas.GeoDataFrame({"name": ["x"] * len(shapes)}, geometry=list(shapes), crs=crs).to_file(path, **how)
    return str(path)


@pytest.mark.parametrize(
    "text",
    [
        SQUARE.wkt,
        f"  {SQUARE.wkt.lower()}",
        f"SRID=4326;{SQUARE.wkt}",
        f"GEOMETRYCOLLECTION({SQUARE.wkt}, POINT(1 1))",
    ],
)
def test_wkt(text):
    assert shape(text).equals(SQUARE)


def test_wkt_is_repaired_and_keeps_polygons_alone():
    bow = shape("POLYGON((0 0, 2 2, 2 0, 0 2, 0 0))")
    assert bow.area == pytest.approx(2)
    nested = f"GEOMETRYCOLLECTION(GEOMETRYCOLLECTION({SQUARE.wkt}), LINESTRING(0 0, 1 1))"
    assert shape(nested).equals(SQUARE)
    assert shape("MULTIPOLYGON(((0 0,2 0,2 2,0 2,0 0)),((1 0,3 0,3 2,1 2,1 0)))").area == pytest.approx(6)


@pytest.mark.parametrize(
    ("text", "bounds", "area"),
    [
        ("POLYGON((170 0, 190 0, 190 10, 170 10, 170 0))", (-180, 0, 180, 10), 200),
        ("POLYGON((-190 0, -170 0, -170 10, -190 10, -190 0))", (-180, 0, 180, 10), 200),
        ("POLYGON((200 0, 210 0, 210 10, 200 10, 200 0))", (-160, 0, -150, 10), 100),
        ("POLYGON((-180 -90, 180 -90, 180 90, -180 90, -180 -90))", (-180, -90, 180, 90), 64_800),
        ("POLYGON((-10 0, 350 0, 350 10, -10 10, -10 0))", (-180, 0, 180, 10), 3600),
    ],
)
def test_longitudes_beyond_180_degrees_are_wrapped(text, bounds, area):
    found = shape(text)
    assert found.bounds == bounds and found.area == pytest.approx(area)


@pytest.mark.parametrize(
    "text",
    [
        "POLYGON((",
        "POLYGON((1 1, 2 2))",
        "POLYGON EMPTY",
        "POLYGON((500000 0, 500100 0, 500100 100, 500000 0))",
        "POLYGON((0 0, 1 0, 1 91, 0 0))",
        "POLYGON((0 0, 1 0, nan nan, 0 0))",
        "POLYGON((-540 0, 540 0, 540 1, -540 1, -540 0))",
        "SRID=4326;POINT(1 1)",
        "GEOMETRYCOLLECTION(POINT(1 1))",
    ],
)
def test_wkt_that_is_no_region(text):
    with pytest.raises(BadInputError):
        region_ewkb(None, text)


def test_files(tmp_path):
    halves = [shapely.box(7, 47, 7.6, 48), shapely.box(7.5, 47, 8, 48)]
    assert shape(write(tmp_path / "a.geojson", *halves)).equals(SQUARE)
    assert shape(write(tmp_path / "a.gpkg", *halves, None, shapely.Point(0, 0))).equals(SQUARE)
    metres = geopandas.GeoSeries([SQUARE], crs=4326).to_crs(3857).iloc[0]
    assert shape(write(tmp_path / "m.gpkg", metres, crs="EPSG:3857")).equals_exact(SQUARE, 1e-6)
    bow = shapely.from_wkt("POLYGON((0 0, 2 2, 2 0, 0 2, 0 0))")
    assert shape(write(tmp_path / "bow.geojson", bow, shapely.box(0, 0, 1, 1))).area > 2


def test_files_that_hold_no_region(tmp_path):
    (tmp_path / "text.geojson").write_text("no json")
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "none.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    points = write(tmp_path / "points.geojson", shapely.Point(1, 1))
    bare = write(tmp_path / "bare.shp", shapely.box(5e5, 0, 6e5, 1e5), crs=None)
    names = ("text.geojson", "table.csv", "none.geojson")
    for name in [*(str(tmp_path / name) for name in names), points, bare]:
        with pytest.raises(BadInputError) as caught:
            region_ewkb(None, name)
        assert name in str(caught.value)


def test_loaded_regions(asked):
    assert region_ewkb(None, "country:CHE") == b"che" and region_ewkb(None, "CHE") == b"any"
    assert region_ewkb(None, "own level:a b") == b"own"
    assert asked == [("country", "CHE"), (None, "CHE"), ("own level", "a b")]


@pytest.mark.parametrize(
    "text",
    [
        "nowhere",
        "country:XXX",
        "x.geojson",
        "'; DROP TABLE region; --",
        "x" * 5000 + ".wkt",
        "CHE\0",
        "",
        ":",
        "a.\0",
    ],
)
def test_what_is_neither_is_one_short_error(asked, text):
    with pytest.raises(NotFoundError, match="is no loaded region, no file and no WKT") as caught:
        region_ewkb(None, text)
    assert len(str(caught.value)) < 250
    assert region_file(text) is None
