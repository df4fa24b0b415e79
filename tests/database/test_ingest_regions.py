from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
from shapely.geometry import MultiPolygon, Point, Polygon, box, mapping

from geofix.database.engine import connect
from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.ingest.regions import RegionResult, ingest_regions
from servers import Database


def load(path: Path, **how: Any) -> RegionResult:
    options: dict[str, Any] = {
        "level": "country", "code_field": "code", "name_field": "name", "dataset": "borders", **how
    }  # fmt: skip
    with connect() as conn:
        return ingest_regions(conn, path, **options)


def rows(query: str) -> list[tuple[Any, ...]]:
    with connect() as conn:
        return conn.execute(query).fetchall()


def geojson(path: Path, *features: tuple[Any, Any, Any]) -> Path:
    collection = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "properties": {"code": code, "name": name},
                "geometry": None if geometry is None else mapping(geometry),
            }
            for code, name, geometry in features
        ],
    }
    text = json.dumps(collection)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def test_every_kind_of_file_in_any_crs(db: Database, tmp_path: Path) -> None:
    frame = gpd.GeoDataFrame(
        {"code": ["AA", "BB"], "name": ["Ä", "B"]},
        geometry=[box(9, 50, 10, 51), box(10, 50, 11, 51)],
        crs=4326,
    )
    files = {
        "a.gpkg": frame.to_crs(3035),
        "a.shp": frame.to_crs(25832),
        "a.fgb": frame,
        "a.geojson": frame,
    }
    for number, (name, data) in enumerate(files.items()):
        data.to_file(tmp_path / name)
        assert load(tmp_path / name, level=f"l{number}").loaded == 2
    zipped = geojson(tmp_path / "z.geojson.gz", ("AA", "Ä", box(9, 50, 10, 51)))
    assert load(zipped, level="gz").loaded == 1
    found = rows(
        "SELECT level, name, area_km2, ST_SRID(geom), ST_IsValid(geom) FROM region WHERE code = 'AA'"
    )
    assert len(found) == 5
    for _, name, area, srid, valid in found:
        assert name == "Ä" and srid == 4326 and valid
        assert area == pytest.approx(7_892, rel=2e-3)  # 71.0 km on average x 111.2 km
    assert load(tmp_path / "a.gpkg", level="l0").written == 0


def test_bad_features_are_repaired_or_rejected_with_a_reason(db: Database, tmp_path: Path) -> None:
    bow = Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    fiji = Polygon([(178, -18), (-178, -18), (-178, -16), (178, -16)])
    path = geojson(
        tmp_path / "bad.geojson",
        ("BOW", "Bow", bow),
        ("FJI", "Fiji", fiji),
        ("LINE", "Flat", Polygon([(0, 0), (1, 1), (0, 0)])),
        ("PT", "Point", Point(1, 1)),
        ("NIL", "Nothing", None),
        ("EMP", "Empty", MultiPolygon()),
        ("-99", "Nameless code", box(5, 5, 6, 6)),
        (None, "No code", box(5, 5, 6, 6)),
        ("FAR", "Metres", box(500_000, 5_000_000, 500_100, 5_000_100)),
        ("OK", None, box(20, 20, 21, 21)),
    )
    result = load(path)
    assert (result.loaded, result.repaired, result.rejected) == (3, 2, 7)
    assert set(result.repairs) == {"BOW", "FJI"} and "Self-intersection" in result.repairs["BOW"]
    assert result.reasons == {"not_polygon": 1, "empty_geometry": 3, "no_code": 2, "outside_earth": 1}
    stored = {
        code: (name, repaired, area)
        for code, name, repaired, area in rows("SELECT code, name, repaired, ST_Area(geom) FROM region")
    }
    assert stored["BOW"][2] == pytest.approx(2.0) and stored["FJI"][2] == pytest.approx(8.0)
    assert stored["OK"][:2] == ("OK", None)
    assert rows("SELECT bool_and(ST_IsValid(geom)), min(ST_XMin(geom)), max(ST_XMax(geom)) FROM region") == [
        (True, -180.0, 180.0)
    ]
    assert rows("SELECT count(*) FROM reject WHERE kind = 'region'") == [(7,)]
    assert load(path).written == 0
    assert rows("SELECT count(*) FROM reject") == [(7,)], "the same bad input is noted once"
    geojson(path, ("PT", "Point", box(1, 1, 2, 2)))
    load(path)
    assert rows("SELECT count(*) FROM reject") == [(0,)], "what was mended is forgotten"


def test_dissolving_stable_ids_and_parts(db: Database, tmp_path: Path) -> None:
    circle = Point(5, 50).buffer(2, quad_segs=200)
    path = geojson(
        tmp_path / "r.geojson",
        ("A", "One", box(0, 0, 1, 1)),
        ("A", "Uno", box(1, 0, 2, 1)),
        ("C", "Round", circle),
    )
    assert load(path).loaded == 2
    before = dict(rows("SELECT code, region_id FROM region"))
    assert rows("SELECT name, ST_Area(geom), ST_NumGeometries(geom) FROM region WHERE code = 'A'") == [
        ("One", 2.0, 1)
    ]
    parts = rows(
        "SELECT max(ST_NPoints(p.geom)), count(*), sum(ST_Area(p.geom)) FROM region_part p JOIN region r "
        "USING (region_id) WHERE r.code = 'C'"
    )
    assert parts[0][0] <= 128 and parts[0][1] > 1 and parts[0][2] == pytest.approx(circle.area)
    kept = rows("SELECT region_part_id FROM region_part ORDER BY 1")
    assert load(path).written == 0
    assert rows("SELECT region_part_id FROM region_part ORDER BY 1") == kept, "nothing is cut twice"
    geojson(path, ("A", "One", box(0, 0, 3, 1)), ("C", "Round", circle))
    result = load(path, dataset="better")
    assert result.written == 2
    assert dict(rows("SELECT code, region_id FROM region")) == before
    assert rows(
        "SELECT sum(ST_Area(p.geom)) FROM region_part p JOIN region r USING (region_id) WHERE code = 'A'"
    ) == [(3.0,)]
    assert rows("SELECT DISTINCT d.name FROM region JOIN dataset d USING (dataset_id)") == [("better",)]


def test_photos_follow_redrawn_regions(db: Database, tmp_path: Path) -> None:
    path = geojson(tmp_path / "r.geojson", ("A", "A", box(0, 0, 1, 1)), ("B", "B", box(1, 0, 2, 1)))
    load(path)
    with connect() as conn:
        conn.execute("INSERT INTO dataset (name, kind) VALUES ('p', 'photos')")
        conn.execute(
            "INSERT INTO photo_record (dataset_id, source_key, s2_id, geom) "
            "SELECT dataset_id, x::text, 1, ST_SetSRID(ST_MakePoint(x, 0.5), 4326) "
            "FROM dataset, unnest(ARRAY[0.5, 1.2, 1.8, 2.1, 9.0]::float8[]) x WHERE name = 'p'"
        )
        from geofix.database.queries.photo_regions import assign_regions

        assign_regions(conn)

    def where() -> dict[str, str]:
        return dict(
            rows(
                "SELECT source_key, code FROM photo_region JOIN region USING (region_id) "
                "JOIN photo_record USING (photo_id)"
            )
        )

    assert where() == {"0.5": "A", "1.2": "B", "1.8": "B", "2.1": "B"}
    geojson(
        path, ("A", "A", box(0, 0, 1.5, 1)), ("B", "B", box(1.5, 0, 2, 1)), ("D", "D", box(2.05, 0, 3, 1))
    )
    load(path)
    assert where() == {"0.5": "A", "1.2": "A", "1.8": "B", "2.1": "D"}


def test_codes_from_several_fields_and_whole_numbers(db: Database, tmp_path: Path) -> None:
    frame = gpd.GeoDataFrame(
        {"iso": ["-99", "DEU", "-99"], "adm": ["FRA", "DEU", None], "n": [1.0, 2.0, None]},
        geometry=[box(0, 0, 1, 1), box(2, 0, 3, 1), box(4, 0, 5, 1)],
        crs=4326,
    )
    frame.to_file(tmp_path / "c.gpkg")
    result = load(tmp_path / "c.gpkg", code_field="iso,adm", name_field="n")
    assert result.loaded == 2 and result.reasons == {"no_code": 1}
    assert rows("SELECT code, name FROM region ORDER BY code") == [("DEU", "2"), ("FRA", "1")]


def test_wrong_calls_and_files_say_what_to_do(db: Database, tmp_path: Path) -> None:
    good = geojson(tmp_path / "g.geojson", ("A", "A", box(0, 0, 1, 1)))
    with pytest.raises(UsageError, match=r"kode.*code"):
        load(good, code_field="kode")
    with pytest.raises(UsageError, match="no layer"):
        load(good, layer="other")
    with pytest.raises(NotFoundError):
        load(tmp_path / "absent.gpkg")
    (tmp_path / "text.gpkg").write_text("nothing")
    with pytest.raises(BadInputError, match="not readable"):
        load(tmp_path / "text.gpkg")
    frame = gpd.GeoDataFrame({"code": ["A"], "name": ["A"]}, geometry=[box(0, 0, 1, 1)])
    frame.to_file(tmp_path / "bare.shp")
    with pytest.raises(BadInputError, match="missing_crs"):
        load(tmp_path / "bare.shp")
    assert load(tmp_path / "bare.shp", crs="EPSG:4326").loaded == 1
    assert rows("SELECT count(*) FROM region") == [(1,)]
    with connect() as conn:
        conn.execute("INSERT INTO dataset (name, kind) VALUES ('photos', 'photos')")
    with pytest.raises(UsageError, match="holds photos"):
        load(good, dataset="photos")


@pytest.mark.shared
def test_natural_earth_and_topojson(db: Database, shared: Path) -> None:
    folder = shared / "data" / "boundaries"
    world = load(
        folder / "ne_10m_admin_0_world.geojson.gz", code_field="iso_a3,adm0_a3", dataset="Natural Earth",
        licence="public domain",
    )  # fmt: skip
    assert world.loaded == 258 - world.rejected and world.rejected == 0
    assert world.repaired == 6
    assert rows("SELECT count(*) FROM region WHERE code IN ('FRA', 'NOR')") == [(2,)]
    assert rows("SELECT bool_and(ST_IsValid(geom)), sum(area_km2) FROM region")[0][0]
    total = rows("SELECT sum(area_km2) FROM region")[0][0]
    assert total == pytest.approx(147e6, rel=0.02)  # land area of the earth, with Antarctica
    berlin = rows(
        "SELECT DISTINCT code FROM region JOIN region_part p USING (region_id) "
        "WHERE ST_Intersects(p.geom, ST_SetSRID(ST_MakePoint(13.4, 52.5), 4326))"
    )
    assert berlin == [("DEU",)]
    topo = folder / "admin1_topojson"
    for name, code, label, count in (
        ("dach-states.json", "HASC_1,NAME_1", "NAME_1", 52),
        ("fr-departments.json", "HASC_2", "NAME_2", 96),
        ("italy-regions.json", "HASC_1,NAME_1", "NAME_1", 20),
        ("spain-comunidad-with-canary-islands.json", "HASC_1,NAME_1", "NAME_1", 18),
    ):
        result = load(topo / name, level="admin1", code_field=code, name_field=label, dataset="admin1")
        assert result.rejected == 0
        assert result.loaded == count, name
    munich = rows(
        "SELECT name FROM region JOIN region_part p USING (region_id) WHERE region.level = 'admin1' "
        "AND ST_Intersects(p.geom, ST_SetSRID(ST_MakePoint(11.57, 48.14), 4326))"
    )
    assert munich == [("Bayern",)]
