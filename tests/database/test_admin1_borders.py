"""Admin-1 regions are taken from the nearest one too, but never across the border of the own country."""

from __future__ import annotations

import json

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


def test_a_photo_keeps_to_its_own_country(db, tmp_path):
    countries = write(tmp_path / "countries.geojson", ("WEST", 0, 0, 10, 10), ("EAST", 10, 0, 20, 10))
    # Drawn a little short of the coast in the south and of the border in the east.
    admin = write(tmp_path / "admin.geojson", ("W1", 0, 0.1, 9.9, 10))
    places = tmp_path / "places.csv"
    places.write_text(
        "id,lon,lat\ninside,5,5\ncoast,5,0.05\nsea,5,-0.05\nown_border,9.95,5\nover_the_border,10.05,5\n"
    )
    with connect() as conn:
        options = {"code_field": "code", "name_field": "code", "dataset": "regions"}
        ingest_regions(conn, countries, level="country", **options)
        ingest_regions(conn, admin, level="admin1", **options)
        ingest_photos(conn, places, dataset="places", positions_only=True)
        assign_regions(conn)
        found = dict(
            conn.execute(
                "SELECT p.source_key, r.code FROM photo_record p"
                " LEFT JOIN photo_region pr ON pr.photo_id = p.photo_id AND pr.level = 'admin1'"
                " LEFT JOIN region r USING (region_id)"
            ).fetchall()
        )
    assert found == {"inside": "W1", "coast": "W1", "sea": "W1", "own_border": "W1", "over_the_border": None}
