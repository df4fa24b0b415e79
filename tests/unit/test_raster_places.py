"""Where a raster lies: CRS, rotation, extents, control points, the 180th meridian."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from pyproj import Transformer
from raster_files import assert_exact, centred, ramp, reason_of, write
from rasterio.control import GroundControlPoint

from geofix.imagery.extents import read_extents
from geofix.imagery.footprints import keep_polygons, repair
from geofix.imagery.raster import describe_raster, read_square

PLACES = {  # CRS -> longitude, latitude, metres per CRS unit
    "EPSG:3035": (10.2, 48.1, 1.0),
    "EPSG:25832": (11.6, 53.7, 1.0),
    "EPSG:4326": (7.44, 46.95, 111_320.0),
    "EPSG:3857": (-3.7, 40.4, 1.0),
    "EPSG:26914": (-99.18, 47.03, 1.0),
    "EPSG:2056": (8.3, 46.9, 1.0),
    "EPSG:3413": (-30.0, 78.0, 1.0),
    "EPSG:32760": (179.999, -17.5, 1.0),
    "EPSG:2193": (174.8, -41.3, 1.0),
}


@pytest.mark.parametrize("turn", [0.0, 30.0, 90.0, 217.5])
@pytest.mark.parametrize("crs", PLACES)
def test_square_lies_where_it_should_in_any_crs(tmp_path: Path, crs: str, turn: float) -> None:
    lon, lat, unit = PLACES[crs]
    transform = centred(crs, lon, lat, 1.4 / unit if crs in ("EPSG:3857", "EPSG:4326") else 1.0 / unit)
    path = write(tmp_path / "ramp.tif", ramp(), crs, transform)
    assert_exact(path, crs, transform, lon, lat, side=120.0, n=120, turn=turn, offset=(11.0, -7.0))


@pytest.mark.parametrize("turn", [0.0, 45.0])
def test_rotated_and_mirrored_rasters(tmp_path: Path, turn: float) -> None:
    crs, lon, lat = "EPSG:25832", 9.0, 52.0
    rotated = centred(crs, lon, lat, 1.0, turn_deg=33.0)
    assert_exact(write(tmp_path / "r.tif", ramp(), crs, rotated), crs, rotated, lon, lat, turn=turn)
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
    south_up = Affine(1.0, 0.0, x - 128, 0.0, 1.0, y - 128)
    assert_exact(write(tmp_path / "m.tif", ramp(), crs, south_up), crs, south_up, lon, lat, turn=turn)


@pytest.mark.parametrize("overviews", [[], [2, 4, 8]])
def test_shrinking_keeps_positions(tmp_path: Path, overviews: list[int]) -> None:
    crs, lon, lat = "EPSG:3035", 6.1, 50.2
    transform = centred(crs, lon, lat, 1.0, size=2048)
    path = write(tmp_path / "big.tif", ramp(2048), crs, transform, tiled=True, blockxsize=256, blockysize=256)
    if overviews:
        with rasterio.open(path, "r+") as out:
            out.build_overviews(overviews, rasterio.enums.Resampling.average)
    assert describe_raster(path).overviews == tuple(overviews)
    for side in (1300.0, 400.0):
        # One step of colour is eight source pixels.
        assert_exact(path, crs, transform, lon, lat, side=side, n=128, turn=12.0, scale=1 / 8, tolerance=1.3)


@pytest.mark.parametrize(("crs", "lon", "lat"), [("EPSG:3035", 24.0, 65.0), ("EPSG:4326", 30.0, 79.0)])
def test_large_squares_follow_the_curvature(tmp_path: Path, crs: str, lon: float, lat: float) -> None:
    gsd = 1000.0 if crs == "EPSG:3035" else 0.02
    transform = centred(crs, lon, lat, gsd)
    path = write(tmp_path / "wide.tif", ramp(), crs, transform)
    assert_exact(path, crs, transform, lon, lat, side=90_000.0, n=90, turn=20.0, tolerance=2.4)


def test_square_across_the_180th_meridian(tmp_path: Path) -> None:
    for name, middle in (("west.tif", -180.0), ("east.tif", 180.0)):
        transform = (
            Affine.translation(middle, 65.0) @ Affine.scale(2e-5, -1e-5) @ Affine.translation(-128, -128)
        )
        path = write(tmp_path / name, ramp(), "EPSG:4326", transform)
        info = describe_raster(path)
        assert info.footprint.is_valid and len(info.footprint.geoms) == 2
        assert info.footprint.bounds[0] == -180 and info.footprint.bounds[2] == 180
        for lon in (180.0, -180.0, 179.9999):
            rgb, valid = read_square([info.source], lon, 65.0, 100.0, 100)
            assert valid.all()
            middle_red = 127.5 if abs(lon) == 180.0 else 122.5
            assert abs(rgb[49:51, 49:51, 0].mean() - middle_red) < 1.0
            assert abs(rgb[49:51, 49:51, 1].mean() - 127.5) < 1.0
    utm = centred("EPSG:32760", 179.9995, -17.5, 1.0)
    info = describe_raster(write(tmp_path / "utm.tif", ramp(), "EPSG:32760", utm))
    assert len(info.footprint.geoms) == 2
    assert info.footprint.area < 1e-5


def test_crs_given_beside_the_file(tmp_path: Path) -> None:
    crs, lon, lat = "EPSG:25832", 9.0, 50.0
    transform = centred(crs, lon, lat, 1.0)
    bare = write(tmp_path / "bare.tif", ramp(), None, transform)
    info = describe_raster(bare, crs=crs)
    assert info.epsg == 25832 and info.gsd_m == pytest.approx(1.0, rel=1e-3)
    assert read_square([info.source], lon, lat)[1].all()
    own = write(tmp_path / "own.tif", ramp(), crs, transform)
    assert describe_raster(own, crs="EPSG:4326").epsg == 25832, "a file's own CRS is kept"
    picture = tmp_path / "picture.png"
    with rasterio.open(picture, "w", driver="PNG", width=256, height=256, count=3, dtype="uint8") as out:
        out.write(ramp())
    (tmp_path / "picture.png.aux.xml").unlink(missing_ok=True)
    corner = transform @ (0.5, 0.5)
    (tmp_path / "picture.pgw").write_text(f"1\n0\n0\n-1\n{corner[0]!r}\n{corner[1]!r}\n")
    assert reason_of(picture) == "missing_crs"
    (tmp_path / "picture.prj").write_text(rasterio.crs.CRS.from_epsg(25832).to_wkt())
    assert_exact(picture, crs, transform, lon, lat)


def test_ground_control_points(tmp_path: Path) -> None:
    crs, lon, lat = "EPSG:3857", 9.0, 50.0
    transform = centred(crs, lon, lat, 1.5)
    points = [
        GroundControlPoint(row=r, col=c, x=(transform @ (c, r))[0], y=(transform @ (c, r))[1])
        for r, c in ((0, 0), (0, 256), (256, 0), (256, 256))
    ]
    path = write(tmp_path / "gcp.tif", ramp(), crs, None, gcps=points)
    assert_exact(path, crs, transform, lon, lat)
    points[3].x += 40.0
    assert reason_of(write(tmp_path / "bent.tif", ramp(), crs, None, gcps=points)) == "bad_transform"


def test_extents_beside_plain_pictures(tmp_path: Path) -> None:
    lon, lat = 24.93, 60.23
    for name in ("a.png", "b.png"):
        with rasterio.open(
            tmp_path / name, "w", driver="PNG", width=256, height=256, count=3, dtype="uint8"
        ) as out:
            out.write(ramp())
    table = tmp_path / "metadata.csv"
    table.write_text(
        "image_path,center_lat,center_lon,extent_m,north_up,crs,west,south,east,north,captured_at\n"
        f"a.png,{lat},{lon},256,True,,,,,,2020-07-01\n"
        f"b.png,,,,,,{lon - 0.002},{lat - 0.001},{lon + 0.002},{lat + 0.001},\n"
        f"c.png,{lat},{lon},256,False,,,,,,\n"
        f"d.png,,,,,,,,,,\n"
        f"e.png,{lat},{lon},wide,,,,,,,\n"
    )
    extents, errors = read_extents(table)
    assert set(extents) == {"a.png", "b.png"}
    assert {k: e.reason for k, e in errors.items()} == {
        "c.png": "bad_extent", "d.png": "missing_extent", "e.png": "bad_extent",
    }  # fmt: skip
    assert str(extents["a.png"].captured_at) == "2020-07-01"
    place = extents["a.png"]
    info = describe_raster(
        tmp_path / "a.png", kind="extent", crs=place.crs, transform=place.transform(256, 256)
    )
    assert info.gsd_m == pytest.approx(1.0, rel=1e-4)
    rgb, valid = read_square([info.source], lon, lat, 154, 154)
    assert valid.all()
    column, row = np.meshgrid(np.arange(154) + 51, np.arange(154) + 51)
    assert (
        np.abs(rgb[..., 0] - column.astype(float)).max() <= 1
        and np.abs(rgb[..., 1] - row.astype(float)).max() <= 1
    )
    place = extents["b.png"]
    info = describe_raster(
        tmp_path / "b.png", kind="extent", crs=place.crs, transform=place.transform(256, 256)
    )
    assert info.footprint.bounds == pytest.approx((lon - 0.002, lat - 0.001, lon + 0.002, lat + 0.001))


def test_outlines_are_repaired_and_cut_at_the_180th_meridian() -> None:
    from shapely import Polygon, box

    bow = Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    fixed, why = repair(bow)
    assert fixed.is_valid and fixed.area == pytest.approx(2.0) and why and "Self-intersection" in why
    fiji = Polygon([(178, -18), (-178, -18), (-178, -16), (178, -16)])
    fixed, why = repair(fiji)
    assert fixed.area == pytest.approx(8.0) and len(fixed.geoms) == 2 and why and "180th" in why
    assert repair(box(170, 0, 190, 10))[0].area == pytest.approx(200.0)
    antarctica = Polygon([(-180, -90), (180, -90), (180, -70), (90, -65), (0, -70), (-90, -65), (-180, -70)])
    fixed, why = repair(antarctica)
    assert why is None and fixed.area == pytest.approx(antarctica.area)
    assert keep_polygons(None).is_empty
    line, why = repair(Polygon([(0, 0), (1, 1), (0, 0)]))
    assert line.is_empty
