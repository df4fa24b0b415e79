"""The region of a photo: inside, nearest, none, and on real sets."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pytest
import shapely
from photo_files import add_region, jpeg, points, rows, square
from shapely.geometry import shape

from geofix.database.engine import Connection, connect
from geofix.database.queries import photo_regions
from geofix.database.queries.photo_regions import ASSIGN_NEAREST, RegionCounts, assign_regions
from geofix.ingest.photos import ingest_photos


@pytest.fixture
def conn(db) -> Iterator[Connection]:
    with connect() as connection:
        yield connection


def test_the_writers_rights_suffice(db, tmp_path):
    jpeg(tmp_path / "p/a.jpg", 1.0, 2.0)
    with connect("writer") as conn:
        add_region_as_owner(db)
        result = ingest_photos(conn, tmp_path / "p", dataset="d")
        assert result.loaded == 1 and result.regions == {"country": RegionCounts(1, 0)}


def add_region_as_owner(db) -> None:
    with db.connect() as owner:
        add_region(owner, "country", "A", square(0, 0, 5, 5))


def test_regions_inside_nearest_and_none(conn, tmp_path):
    a = add_region(conn, "country", "A", square(0, 0, 10, 10), 100)
    b = add_region(conn, "country", "B", square(2, 2, 4, 4), 4)
    far = add_region(conn, "country", "C", square(178, -1, 180, 1), 4)
    add_region(conn, "country", "N", shapely.segmentize(square(-180, 89.8, 180, 89.9), 1), 4)
    add_region(conn, "admin1", "A1", square(20, 0, 30, 1), 4)
    places = [
        (5, 5),  # in A
        (3, 3),  # in A and B: the smaller one counts
        (10.2, 5),  # 22.2 km east of A
        (10.3, 5),  # 33.3 km
        (-179.9, 0.5),  # 11.1 km east of C, across the 180th meridian
        (45, 89.7),  # 11.2 km south of N
        (170, 89.7),
        (-60, -40),  # nothing near
    ]
    points(conn, *places, tmp=tmp_path)
    assert assign_regions(conn) == {"admin1": RegionCounts(0, 0), "country": RegionCounts(2, 4)}
    found = rows(
        conn,
        "SELECT source_key, code, distance_m FROM photo_region JOIN photo_record USING (photo_id)"
        " JOIN region USING (region_id) ORDER BY source_key",
    )
    assert [row[:2] for row in found] == [
        ("0", "A"),
        ("1", "B"),
        ("2", "A"),
        ("4", "C"),
        ("5", "N"),
        ("6", "N"),
    ]
    assert [row[2] for row in found[:2]] == [0, 0]
    # Geodesic lengths: 0.2 degrees of longitude at 5 N, 0.1 at 0.5 N, 0.1 degrees of latitude at the pole.
    assert [row[2] for row in found[2:5]] == pytest.approx([22_178, 11_131, 11_169], abs=5)
    assert assign_regions(conn) == {"admin1": RegionCounts(0, 0), "country": RegionCounts(0, 0)}

    conn.execute("DELETE FROM region WHERE region_id = %s", (b,))
    assert assign_regions(conn, levels=["country"]) == {"country": RegionCounts(1, 0)}
    conn.execute("DELETE FROM region WHERE region_id = ANY(%s)", ([a, far],))
    add_region(conn, "country", "D", square(10.25, 4, 11, 6))
    assert assign_regions(conn, refresh=True)["country"] == RegionCounts(1, 3)


def test_the_cheap_way_round_gives_the_same(conn, tmp_path, monkeypatch):
    """Photo by photo or part by part, distances measured to clipped or to whole parts."""
    add_region(conn, "country", "A", square(0, 0, 10, 10))
    add_region(conn, "country", "B", square(10, 0, 20, 10))
    add_region(conn, "country", "C", shapely.Polygon([(0, 40), (9, 49), (0, 60), (-20, 55)]))
    rng = np.random.default_rng(3)
    anywhere = [(x, y) for x, y in zip(rng.uniform(-22, 22, 1500), rng.uniform(-1, 61, 1500), strict=True)]
    coast = [(9 + d * 0.01, 49 + d * 0.002) for d in range(60)] + [(x / 4, -0.1) for x in range(80)]
    points(conn, *anywhere, *coast, tmp=tmp_path)
    query = (
        "SELECT source_key, code, distance_m FROM photo_region JOIN photo_record USING (photo_id)"
        " JOIN region USING (region_id) ORDER BY source_key"
    )
    found = {}
    for way, most in (("photo", "SELECT false"), ("part", "SELECT true")):
        monkeypatch.setattr(photo_regions, "MOST_PHOTOS", most)
        assign_regions(conn, refresh=True)
        found[way] = rows(conn, query)
    assert found["photo"] == found["part"] and len(found["photo"]) > 300
    # The plane is not used: every part of the box is measured whole.
    whole = ASSIGN_NEAREST.replace("part_off < 0.2", "false")
    monkeypatch.setattr(photo_regions, "ASSIGN_NEAREST", whole)
    assign_regions(conn, refresh=True)
    unclipped = rows(conn, query)
    assert [row[:2] for row in unclipped] == [row[:2] for row in found["part"]]
    difference = [abs(a[2] - b[2]) for a, b in zip(unclipped, found["part"], strict=True)]
    assert sum(row[2] > 0 for row in unclipped) > 0 and max(difference) < 0.2
    # Equally near to A and B: the lowest code.
    assert dict((row[0], row[1]) for row in unclipped)[str(1500 + 60 + 40)] == "A"


def test_changed_regions_are_decided_anew_and_no_others(conn, tmp_path):
    west = add_region(conn, "country", "A", square(0, 0, 1, 1))
    add_region(conn, "country", "B", square(1, 0, 2, 1))
    for i in range(3):
        add_region(conn, "country", f"F{i}", square(50 + i, 0, 51 + i, 1))
    points(conn, (0.5, 0.5), (1.5, 0.5), (-0.1, 0.5), (51.5, 0.5), (179.9, 0.5), tmp=tmp_path)
    assert assign_regions(conn)["country"] == RegionCounts(3, 1)
    conn.execute("UPDATE photo_region SET distance_m = 77 WHERE distance_m = 0")
    conn.execute("DELETE FROM region_part WHERE region_id = %s", (west,))
    conn.execute(
        "UPDATE region SET geom = ST_Multi(ST_MakeEnvelope(1.4, 0, 2, 1, 4326)) WHERE region_id = %s", (west,)
    )
    conn.execute(
        "INSERT INTO region_part (region_id, level, geom)"
        " VALUES (%s, 'country', ST_MakeEnvelope(1.4, 0, 1.6, 1, 4326))",
        (west,),
    )
    turned = add_region(conn, "country", "E", square(-180, 0, -179.95, 1))
    assert photo_regions.reassign_changed(conn, "country", [west, turned]) == RegionCounts(1, 1)
    found = rows(
        conn,
        "SELECT source_key, code, distance_m = 77 FROM photo_region JOIN photo_record USING (photo_id)"
        " JOIN region USING (region_id) ORDER BY source_key",
    )
    # 0 and 2 were in or near A and are near nothing; 1 lies in A and B, as large or larger; 3 was left alone.
    assert found == [("1", found[0][1], False), ("3", "F1", True), ("4", "E", False)]


def test_a_photo_that_moves_gets_another_region(conn, tmp_path):
    add_region(conn, "country", "A", square(0, 0, 1, 1))
    add_region(conn, "country", "B", square(1, 0, 2, 1))
    conn.commit()
    path = tmp_path / "m.csv"
    query = "SELECT code FROM photo_region JOIN region USING (region_id)"
    for lon, code in ((0.5, "A"), (1.5, "B"), (1.6, "B")):
        path.write_text(f"id,lon,lat\na,{lon},0.5\n")
        ingest_photos(conn, path, dataset="d", positions_only=True)
        assert rows(conn, query) == [(code,)]


def test_real_sets(conn, shared):
    ground = shared / "data/ground"
    world = json.loads(
        gzip.decompress((shared / "data/boundaries/ne_10m_admin_0_world.geojson.gz").read_bytes())
    )
    for feature in world["features"]:
        if feature["properties"]["adm0_a3"] in ("CHN", "FIN", "SWE", "DEU", "SGP"):
            geom = shapely.make_valid(shape(feature["geometry"]))
            polygons = [part for part in getattr(geom, "geoms", [geom]) if part.geom_type.endswith("Polygon")]
            flat = [p for part in polygons for p in getattr(part, "geoms", [part])]
            add_region(conn, "country", feature["properties"]["adm0_a3"], shapely.MultiPolygon(flat))
    conn.commit()
    wuhan = ground / "wuhan_cn_walk"
    result = ingest_photos(conn, wuhan, dataset="wuhan", metadata=wuhan / "metadata.csv")
    assert (result.loaded, result.rejected, result.time_assumed_utc) == (576, 0, 576)
    assert result.regions == {"country": RegionCounts(576, 0)}
    summary = rows(
        conn,
        "SELECT count(DISTINCT sequence_id), min(captured_at), bool_and(gps_accuracy_m > 0),"
        " count(heading_deg), bool_and(width = 336 OR height = 336),"
        " count(DISTINCT s2_parent(s2_id, 10)) FROM photo_record",
    )[0]
    assert summary == (
        1,
        datetime(2019, 12, 29, 13, 35, 13, 170_000, tzinfo=UTC),
        True,
        576,
        True,
        summary[5],
    )
    assert summary[5] <= 4
    again = ingest_photos(conn, wuhan, dataset="wuhan", metadata=wuhan / "metadata.csv")
    assert (again.loaded, again.updated, again.unchanged) == (0, 0, 576)
    for name, photo_count in (("helsinki_fi_pairs", 10), ("specs_world_citylevel", 100)):
        loaded = ingest_photos(conn, ground / name, dataset=name, metadata=ground / name / "metadata.csv")
        assert (loaded.loaded, loaded.rejected) == (photo_count, 0)
    wrong = rows(
        conn,
        "SELECT DISTINCT p.extra->>'country', r.code FROM photo_record p JOIN photo_region USING (photo_id)"
        " JOIN region r USING (region_id) WHERE r.code <> p.extra->>'country'",
    )
    assert wrong == []
    without = ingest_photos(conn, wuhan, dataset="bare")
    assert (without.loaded, dict(without.reasons)) == (0, {"no_gps": 576})
