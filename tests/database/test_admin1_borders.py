"""Admin-1 regions are taken from the nearest one too, but never across the border of the own country."""

from __future__ import annotations

import json

import pytest
import shapely
import shapely.geometry

from geofix.database.engine import connect
from geofix.database.queries.photo_regions import assign_regions
from geofix.ingest.photos import ingest_photos
from geofix.ingest.regions import ingest_regions


def write(path, *features):
    """A GeoJSON file of (code, west, south, east, north) boxes."""
    shapes = [
        {
            "type": "Feature",
            "properties": {"code": code},
            "geometry": shapely.geometry.mapping(shapely.box(*box)),
        }
        for code, *box in features
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": shapes}))
    return path


OPTIONS = {"code_field": "code", "name_field": "code", "dataset": "regions"}
ADMIN1 = """
SELECT p.source_key, r.code FROM photo_record p
LEFT JOIN photo_region pr ON pr.photo_id = p.photo_id AND pr.level = 'admin1'
LEFT JOIN region r USING (region_id)
"""


def admin1(conn):
    """Photo -> code of its admin-1 region."""
    return dict(conn.execute(ADMIN1).fetchall())


def test_a_photo_keeps_to_its_own_country(db, tmp_path):
    countries = write(tmp_path / "countries.geojson", ("WEST", 0, 0, 10, 10), ("EAST", 10, 0, 20, 10))
    # Drawn a little short of the coast in the south and of the border in the east.
    admin = write(tmp_path / "admin.geojson", ("W1", 0, 0.1, 9.9, 10))
    places = tmp_path / "places.csv"
    places.write_text(
        "id,lon,lat\ninside,5,5\ncoast,5,0.05\nsea,5,-0.05\nown_border,9.95,5\nover_the_border,10.05,5\n"
    )
    with connect() as conn:
        ingest_regions(conn, countries, level="country", **OPTIONS)
        ingest_regions(conn, admin, level="admin1", **OPTIONS)
        ingest_photos(conn, places, dataset="places", positions_only=True)
        assign_regions(conn)
        found = admin1(conn)
    assert found == {"inside": "W1", "coast": "W1", "sea": "W1", "own_border": "W1", "over_the_border": None}


def test_a_nearer_region_across_the_border_is_not_in_the_way(db, tmp_path):
    countries = write(tmp_path / "countries.geojson", ("WEST", 0, 0, 10, 10), ("EAST", 10, 0, 20, 10))
    admin = write(tmp_path / "admin.geojson", ("W1", 0, 0, 9.93, 10), ("E1", 10, 0, 20, 10))
    places = tmp_path / "places.csv"
    places.write_text("id,lon,lat\nnear_the_border,9.98,5\nfar_from_it,9.94,5\nbeyond,10.01,5\n")
    with connect() as conn:
        ingest_regions(conn, countries, level="country", **OPTIONS)
        ingest_regions(conn, admin, level="admin1", **OPTIONS)
        ingest_photos(conn, places, dataset="places", positions_only=True)
        assert admin1(conn) == {"near_the_border": "W1", "far_from_it": "W1", "beyond": "E1"}


def test_an_enclave_is_a_country_of_its_own(db, tmp_path):
    """Where countries overlap, the one of an admin-1 region is chosen as that of a photo: the smallest."""
    countries = write(tmp_path / "countries.geojson", ("BIG", 0, 0, 10, 10), ("SMALL", 4, 4, 6, 6))
    admin = write(tmp_path / "admin.geojson", ("B1", 0, 0, 3.95, 10), ("S1", 4.1, 4, 6, 6))
    places = tmp_path / "places.csv"
    places.write_text("id,lon,lat\nenclave,4.02,5\naround,3.99,5\n")
    with connect() as conn:
        ingest_regions(conn, countries, level="country", **OPTIONS)
        ingest_regions(conn, admin, level="admin1", **OPTIONS)
        ingest_photos(conn, places, dataset="places", positions_only=True)
        assert admin1(conn) == {"enclave": "S1", "around": "B1"}


@pytest.mark.parametrize("others", [0, 9])
def test_countries_loaded_or_redrawn_after_the_photos_decide_their_admin1_anew(db, tmp_path, others):
    """All countries of a level at once, or two of many: the photos in question are chosen in two ways."""
    far = [(f"F{n}", 40 + n, 40, 41 + n, 41) for n in range(others)]
    admin = write(tmp_path / "admin.geojson", ("W1", 0, 0, 9.95, 10), ("E1", 10.02, 0, 20, 10))
    places = tmp_path / "places.csv"
    places.write_text("id,lon,lat\ninside,5,5\nover_the_border,10.005,5\nanywhere,30,30\n")
    with connect() as conn:
        if far:
            ingest_regions(conn, write(tmp_path / "far.geojson", *far), level="country", **OPTIONS)
        ingest_regions(conn, admin, level="admin1", **OPTIONS)
        ingest_photos(conn, places, dataset="places", positions_only=True)
        assert admin1(conn) == {"inside": "W1", "over_the_border": "E1", "anywhere": None}
        for border, code in ((10.0, "E1"), (10.01, "W1"), (10.0, "E1")):
            drawn = write(tmp_path / "c.geojson", ("WEST", 0, 0, border, 10), ("EAST", border, 0, 20, 10))
            ingest_regions(conn, drawn, level="country", **OPTIONS)
            assert admin1(conn) == {"inside": "W1", "over_the_border": code, "anywhere": None}
