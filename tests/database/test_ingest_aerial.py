from __future__ import annotations

import os
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from pyproj import Transformer
from shapely import Point, box

from geofix.database.engine import connect
from geofix.errors import NotFoundError, UsageError
from geofix.imagery import xyz
from geofix.imagery.raster import read_square
from geofix.ingest.aerial import (
    AerialResult,
    ingest_aerial,
    missing_tiles,
    raster_sources,
    register_tiles,
)
from geofix.spatial import s2
from geofix.spatial.covering import cells_in
from servers import Database

CRS = "EPSG:25832"
LON, LAT = 9.0, 50.0


def raster(path: Path, *, east_m: float = 0.0, size: int = 800, value: int = 90, **options: Any) -> Path:
    x, y = Transformer.from_crs("EPSG:4326", CRS, always_xy=True).transform(LON, LAT)
    transform = Affine(1.0, 0, x + east_m - size / 2, 0, -1.0, y + size / 2)
    profile = {"driver": "GTiff", "count": 3, "height": size, "width": size, "dtype": "uint8", "crs": CRS}
    with rasterio.open(path, "w", **{**profile, "transform": transform, **options}) as out:
        values = np.full((3, size, size), value, np.uint8)
        values[0] = np.linspace(1, 250, size)
        out.write(values)
    return path


def ingest(*paths: Path, source: str = "ortho", **options: Any) -> AerialResult:
    with connect() as conn:
        return ingest_aerial(conn, paths, source=source, **options)


def tiles(source: str = "ortho", **options: Any) -> Any:
    with connect() as conn:
        return register_tiles(conn, source=source, **options)


def rows(query: str) -> list[tuple[Any, ...]]:
    with connect() as conn:
        return conn.execute(query).fetchall()


def test_a_second_run_changes_nothing(db: Database, tmp_path: Path) -> None:
    path = raster(tmp_path / "a_20200831.tif")
    raster(tmp_path / "b.tif", east_m=900)
    first = ingest(tmp_path, licence="CC0", attribution="us")
    assert (first.rasters, first.unchanged, first.rejected) == (2, 0, 0)
    stored = rows("SELECT aerial_raster_id, uri, sha256, ingested_at FROM aerial_raster ORDER BY uri")
    columns = "captured_at, kind, crs, gsd_m, bands, dtype, ST_IsValid(geom)"
    assert rows(f"SELECT {columns} FROM aerial_raster ORDER BY uri") == [
        (date(2020, 8, 31), "raster", "EPSG:25832", pytest.approx(1.0, rel=1e-3), 3, "uint8", True),
        (None, "raster", "EPSG:25832", pytest.approx(1.0, rel=1e-3), 3, "uint8", True),
    ]  # fmt: skip
    again = ingest(tmp_path)
    assert (again.rasters, again.unchanged) == (0, 2)
    os.utime(path, ns=(1, 1))
    assert ingest(tmp_path).unchanged == 2, "a new time with the same bytes is no change"
    assert rows("SELECT aerial_raster_id, uri, sha256, ingested_at FROM aerial_raster ORDER BY uri") == stored
    assert rows("SELECT name, kind, licence, attribution FROM dataset") == [("ortho", "aerial", "CC0", "us")]
    changed = ingest(tmp_path, captured_at=date(2021, 5, 1))
    assert changed.rasters == 2, "other options are a change"
    assert rows("SELECT DISTINCT captured_at FROM aerial_raster") == [(date(2021, 5, 1),)]
    raster(path, value=33)
    assert ingest(tmp_path, captured_at=date(2021, 5, 1)).rasters == 1
    assert [row[0] for row in rows("SELECT aerial_raster_id FROM aerial_raster ORDER BY uri")] == [
        row[0] for row in stored
    ]


def test_bad_files_are_rejected_and_the_rest_loads(db: Database, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    good = raster(folder / "good.tif")
    raster(folder / "nocrs.tif", crs=None)
    (folder / "cut.tif").write_bytes(good.read_bytes()[:200_000])
    (folder / "empty.tif").touch()
    (folder / "text.tif").write_text("no raster")
    Image.new("RGB", (10, 10)).save(folder / "plain.jpg")
    raster(tmp_path / "secret.tif")
    (folder / "link.tif").symlink_to(tmp_path / "secret.tif")
    (folder / "elsewhere").symlink_to(tmp_path)
    (folder / "inner.tif").symlink_to(good)
    (folder / "notes.txt").write_text("passed over")
    with open(os.path.join(os.fsencode(folder), b"caf\xe9.tif"), "wb") as stream:
        stream.write(good.read_bytes())
    result = ingest(folder)
    assert result.rasters == 2
    reasons = dict(rows("SELECT source_key, reason FROM reject WHERE kind = 'aerial'"))
    assert reasons == {
        "nocrs.tif": "missing_crs",
        "cut.tif": "truncated",
        "empty.tif": "zero_sized",
        "text.tif": "unreadable",
        "plain.jpg": "missing_georeference",
        "link.tif": "symlink_outside",
        "elsewhere": "symlink_outside",
        r"caf\xe9.tif": "bad_name",
    }
    assert result.rejected == len(reasons) == sum(result.reasons.values())
    shutil.copy(good, folder / "cut.tif")
    assert ingest(folder, crs=CRS).reasons.keys() >= {"zero_sized"}
    left = {key for (key,) in rows("SELECT source_key FROM reject")}
    assert "cut.tif" not in left and "nocrs.tif" not in left
    with pytest.raises(NotFoundError):
        ingest(tmp_path / "absent")
    with pytest.raises(UsageError, match="No aerial imagery"):
        tiles("nowhere")


def test_one_tile_per_cell_and_date(db: Database, tmp_path: Path) -> None:
    raster(tmp_path / "west_20200601.tif", size=1000)
    raster(tmp_path / "east_20200601.tif", east_m=1000, size=1000)
    raster(tmp_path / "west_20230601.tif", size=1000)
    ingest(tmp_path)
    counts = tiles()
    with connect() as conn:
        sources = raster_sources(conn, source="ortho")
    stored = rows(
        "SELECT s2_id, captured_at, coverage, aerial_raster_ids, side_m, level FROM aerial_tile ORDER BY 1, 2"
    )
    assert counts.tiles == len(stored) == counts.added
    from shapely import from_wkb, union_all

    shapes = {
        number: (day, from_wkb(bytes(wkb)))
        for number, day, wkb in rows(
            "SELECT aerial_raster_id, captured_at, ST_AsBinary(geom) FROM aerial_raster"
        )
    }
    for day in (date(2020, 6, 1), date(2023, 6, 1)):
        area = union_all([shape for when, shape in shapes.values() if when == day])
        inside = set(cells_in(area, 16).tolist())
        mine = {row[0] for row in stored if row[1] == day}
        assert mine <= inside and len(mine) > 0.85 * len(inside)
        for cell in inside - mine:
            lon, lat = s2.center(np.array([cell]))
            assert not area.covers(Point(lon[0], lat[0]).buffer(0.0012)), (
                "only cells at the border may lack a tile"
            )
    assert {row[4:] for row in stored} == {(154.0, 16)}
    joined = [row for row in stored if len(row[3]) == 2]
    assert joined, "a tile across two rasters is cut from both"
    for cell, _, coverage, numbers, _, _ in stored[::7] + joined[:3]:
        lon, lat = s2.center(np.array([cell]))
        rgb, valid = read_square([sources[n] for n in numbers], lon[0], lat[0], size_px=64)
        assert valid.mean() == pytest.approx(coverage, abs=0.03)
        assert (rgb[valid][:, 1] == 90).all()
    again = tiles()
    assert (again.added, again.removed, again.tiles) == (0, 0, counts.tiles)
    fewer = tiles(min_coverage=1.0)
    assert fewer.tiles < counts.tiles and fewer.partial == 0
    coarse = tiles(level=15, side_m=300.0, min_coverage=0.1)
    assert 0 < coarse.tiles < counts.tiles and rows("SELECT count(DISTINCT level) FROM aerial_tile") == [(2,)]
    before = dict(
        rows("SELECT s2_id, aerial_tile_id FROM aerial_tile WHERE level = 16 AND captured_at = '2023-06-01'")
    )
    raster(tmp_path / "west_20200601.tif", size=1000, value=12)
    ingest(tmp_path)
    kept = rows("SELECT count(*) FROM aerial_tile WHERE level = 16 AND captured_at = '2020-06-01'")
    assert kept[0][0] < sum(row[1] == date(2020, 6, 1) for row in stored), "tiles of changed pixels are gone"
    tiles(min_coverage=1.0)
    after = dict(
        rows("SELECT s2_id, aerial_tile_id FROM aerial_tile WHERE level = 16 AND captured_at = '2023-06-01'")
    )
    assert after == before, "tiles of other dates keep their ids"


def test_coverage_counts_valid_pixels(db: Database, tmp_path: Path) -> None:
    path = raster(tmp_path / "half.tif", size=1000, nodata=0)
    with rasterio.open(path, "r+") as out:
        out.write(np.zeros((3, 1000, 500), np.uint8), window=((0, 1000), (500, 1000)))
    ingest(path)
    tiles(min_coverage=0.0)
    east = rows("SELECT count(*) FROM aerial_tile WHERE ST_X(s2_center(s2_id)) > 9.0001")
    assert east == [(0,)], "the right half has no imagery"
    assert rows("SELECT min(coverage) < 0.95, max(coverage) > 0.99 FROM aerial_tile") == [(True, True)]


def make_pyramid(root: Path, zooms: dict[int, int]) -> None:
    for zoom, n in zooms.items():
        px, py = xyz.lonlat_to_pixel(np.array([LON]), np.array([LAT]), zoom)
        x0, y0 = int(px[0] // 256) - n // 2, int(py[0] // 256) - n // 2
        for i in range(n):
            for j in range(n):
                path = root / str(zoom) / str(x0 + i) / f"{y0 + j}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (256, 256), (zoom, 100, 100)).save(path)


def test_pyramid_is_one_raster_and_reports_missing_tiles(db: Database, tmp_path: Path) -> None:
    root = tmp_path / "tiles"
    make_pyramid(root, {16: 4, 17: 6, 18: 8})
    px, py = xyz.lonlat_to_pixel(np.array([LON]), np.array([LAT]), 18)
    x, y = int(px[0] // 256), int(py[0] // 256)
    (root / "18" / str(x) / f"{y}.png").unlink()
    (root / "18" / "1").mkdir()
    (root / "18" / "1" / "2.png").touch()
    result = ingest(root)
    assert (result.rasters, result.rejected) == (1, 1)
    assert rows("SELECT reason FROM reject") == [("zero_sized",)]
    kind, gsd, reading = rows("SELECT kind, gsd_m, reading FROM aerial_raster")[0]
    assert kind == "xyz" and gsd == pytest.approx(xyz.gsd_m(18, LAT), rel=1e-3)
    assert reading["tiles"] == {"16": 16, "17": 36, "18": 63} and reading["fitting_zoom"] == 18
    assert rows(
        "SELECT ST_GeometryType(ST_GeomFromGeoJSON(reading -> 'footprints' -> '17')) FROM aerial_raster"
    ) == [("ST_MultiPolygon",)]
    assert ingest(root).unchanged == 1
    strict = tiles()
    with connect() as conn:
        report = list(missing_tiles(conn, source="ortho"))
        whole = list(
            missing_tiles(conn, source="ortho", within=box(*xyz.tile_bounds(18, x, y)).buffer(0.0008))
        )
    assert report and all(0 < len(r.missing) <= r.needed and r.zoom == 18 for r in report)
    assert all(not (root / name).exists() for r in report for name in r.missing)
    hole = {name for r in whole for name in r.missing}
    assert hole == {f"18/{x}/{y}.png"}, "one tile is missing in the middle"
    assert ingest(root, fallback_zooms=1).rasters == 1
    patient = tiles()
    assert patient.tiles > strict.tiles
    with connect() as conn:
        source = next(iter(raster_sources(conn, source="ortho").values()))
    rgb, valid = read_square([source], LON, LAT, 150.0, 256)
    assert valid.all() and set(np.unique(rgb[..., 0])) >= {17, 18}
    shutil.rmtree(root / "17")
    assert ingest(root, fallback_zooms=1).rasters == 1, "other tiles are a change"


def test_extents_make_plain_pictures_rasters(db: Database, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "loose.jpg"):
        Image.new("RGB", (400, 400), (1, 200, 3)).save(tmp_path / name)
    table = tmp_path / "metadata.csv"
    table.write_text(
        "image_path,center_lat,center_lon,extent_m,licence\n"
        f"a.jpg,{LAT},{LON},200,CC BY 4.0\nb.jpg,{LAT},{LON + 0.01},200,CC BY 4.0\n"
        f"gone.jpg,{LAT},{LON},200,CC BY 4.0\n"
    )
    result = ingest(tmp_path, extents=table, captured_at=date(2020, 1, 1))
    assert result.rasters == 2
    assert dict(rows("SELECT source_key, reason FROM reject")) == {
        "loose.jpg": "missing_georeference", "gone.jpg": "unreadable",
    }  # fmt: skip
    kinds = "SELECT DISTINCT r.kind, gsd_m, licence FROM aerial_raster r JOIN dataset USING (dataset_id)"
    assert rows(kinds) == [("extent", 0.5, "CC BY 4.0")]
    with connect() as conn:
        sources = raster_sources(conn, source="ortho")
    rgb, valid = read_square(list(sources.values()), LON, LAT)
    assert valid.all() and abs(rgb.astype(int) - (1, 200, 3)).max() <= 3
    assert ingest(tmp_path, extents=table, captured_at=date(2020, 1, 1)).unchanged == 2
    table.write_text(table.read_text().replace(",200,", ",100,"))
    assert ingest(tmp_path, extents=table, captured_at=date(2020, 1, 1)).rasters == 2


@pytest.mark.shared
def test_real_aerial_sets(db: Database, shared: Path) -> None:
    folder = shared / "data" / "aerial"
    naip = ingest(folder / "geotiff", source="naip", licence="public domain")
    assert (naip.rasters, naip.rejected) == (3, 0)
    days = rows("SELECT captured_at FROM aerial_raster WHERE captured_at IS NOT NULL ORDER BY 1")
    assert [str(day) for (day,) in days] == ["2009-08-18", "2020-08-31"]
    counted = tiles("naip")
    dates = rows(
        "SELECT captured_at, count(*) FROM aerial_tile WHERE captured_at IS NOT NULL GROUP BY 1 ORDER BY 1"
    )
    assert counted.tiles > 1500 and abs(dates[0][1] - dates[1][1]) < 0.02 * dates[0][1]
    pairs = ingest(
        folder / "helsinki_fi_pairs", source="helsinki", extents=folder / "helsinki_fi_pairs" / "metadata.csv"
    )
    assert (pairs.rasters, pairs.rejected) == (10, 0)
    assert 8 <= tiles("helsinki", min_coverage=0.2).tiles <= 40
    swiss = ingest(folder / "swissimage_ch_xyz", source="swissimage", fallback_zooms=1)
    assert (swiss.rasters, swiss.rejected) == (1, 0)
    landquart = tiles("swissimage")
    assert 400 < landquart.tiles < 1500
    with connect() as conn:
        report = list(missing_tiles(conn, source="swissimage"))
    assert 100 < len(report) <= landquart.tiles + 200
