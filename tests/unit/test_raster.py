from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

from geofix.imagery import handles
from geofix.imagery.describe import parse_date
from geofix.imagery.extents import read_extents
from geofix.imagery.footprints import keep_polygons, repair
from geofix.imagery.raster import RasterError, RasterSource, close_all, describe_raster, read_square

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


def write(
    path: Path, bands: np.ndarray, crs: str | None, transform: Affine | None, **options: object
) -> Path:
    profile = {
        "driver": "GTiff",
        "count": len(bands),
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype,
        "crs": crs,
        **options,
    }
    if transform is not None:
        profile["transform"] = transform
    with rasterio.open(path, "w", **profile) as out:
        out.write(bands)
    return path


def centred(crs: str, lon: float, lat: float, gsd: float, size: int = 256, turn_deg: float = 0.0) -> Affine:
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
    return (
        Affine.translation(x, y)
        @ Affine.rotation(turn_deg)
        @ Affine.scale(gsd, -gsd)
        @ Affine.translation(-size / 2, -size / 2)
    )


def ramp(size: int = 256) -> np.ndarray:
    """Red is the column and green the row, scaled to 0..255."""
    step = 256 / size
    column, row = np.meshgrid(np.arange(size) * step, np.arange(size) * step)
    return np.stack([column, row, np.full_like(row, 7)]).astype(np.uint8)


def expected(
    crs: str,
    transform: Affine,
    lon: float,
    lat: float,
    side: float,
    n: int,
    turn: float,
    offset: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Source column and row of every picture pixel's centre, by PROJ alone."""
    i = (np.arange(n) + 0.5) * side / n
    right, up = np.meshgrid(i - side / 2 + offset[0], side / 2 - i + offset[1])
    bearing = np.radians(turn)
    east = right * np.cos(bearing) + up * np.sin(bearing)
    north = -right * np.sin(bearing) + up * np.cos(bearing)
    local = f"+proj=aeqd +lat_0={lat} +lon_0={lon} +datum=WGS84"
    x, y = Transformer.from_crs(local, crs, always_xy=True).transform(east, north)
    column, row = ~transform @ (x, y)
    return column, row


def assert_exact(
    path: Path, crs: str, transform: Affine, lon: float, lat: float, *, side: float = 154.0, n: int = 154,
    turn: float = 0.0, offset: tuple[float, float] = (0.0, 0.0), scale: float = 1.0, tolerance: float = 1.0,
) -> None:  # fmt: skip
    rgb, valid = read_square([RasterSource(str(path))], lon, lat, side, n, turn, offset)
    assert valid.mean() > 0.99
    column, row = expected(crs, transform, lon, lat, side, n, turn, offset)
    inner = valid & (rgb[..., 2] > 5)
    assert np.abs(rgb[..., 0] - (column * scale - 0.5))[inner].max() < tolerance
    assert np.abs(rgb[..., 1] - (row * scale - 0.5))[inner].max() < tolerance


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


def test_bands_are_shown_as_rgb(tmp_path: Path) -> None:
    crs, lon, lat = "EPSG:25832", 9.0, 50.0
    transform = centred(crs, lon, lat, 1.0)
    flat = np.stack([np.full((256, 256), v, np.uint8) for v in (10, 20, 30, 40)])

    def colour(path: Path, **how: object) -> list[int]:
        rgb, valid = read_square([describe_raster(path, **how).source], lon, lat)  # type: ignore[arg-type]
        assert valid.all()
        return [int(v) for v in rgb[128, 128]]

    four = write(tmp_path / "four.tif", flat, crs, transform)
    assert colour(four) == [10, 20, 30]
    assert colour(four, bands=(4, 1, 2)) == [40, 10, 20]
    assert colour(write(tmp_path / "one.tif", flat[:1], crs, transform)) == [10, 10, 10]
    bgr = write(tmp_path / "bgr.tif", flat[:3], crs, transform)
    with rasterio.open(bgr, "r+") as out:
        out.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    assert colour(bgr) == [30, 20, 10]
    with rasterio.open(tmp_path / "one.tif", "r") as one:
        profile = one.profile
    with rasterio.open(tmp_path / "palette.tif", "w", **{**profile, "photometric": "palette"}) as out:
        out.write(np.full((1, 256, 256), 3, np.uint8))
        out.write_colormap(1, {3: (200, 100, 50, 255)})
    assert colour(tmp_path / "palette.tif") == [200, 100, 50]
    bits = write(tmp_path / "bits.tif", np.ones((1, 256, 256), np.uint8), crs, transform, nbits=1)
    assert colour(bits) == [255, 255, 255]
    cmyk = write(tmp_path / "cmyk.tif", np.zeros((4, 256, 256), np.uint8), crs, transform, photometric="CMYK")
    assert colour(cmyk) == [255, 255, 255]


def test_alpha_nodata_masks_and_nan_are_invalid(tmp_path: Path) -> None:
    crs, lon, lat = "EPSG:25832", 9.0, 50.0
    transform = centred(crs, lon, lat, 1.0)
    west = np.arange(256)[None, :] < 128
    west = np.broadcast_to(west, (256, 256))
    gray = np.where(west, 90, 0).astype(np.uint8)
    alpha = write(tmp_path / "alpha.tif", np.stack([gray, west * np.uint8(255)]), crs, transform, alpha="yes")
    nodata = write(tmp_path / "nodata.tif", np.stack([gray] * 4), crs, transform, nodata=0)
    masked = write(tmp_path / "masked.tif", np.stack([gray] * 3), crs, transform)
    with rasterio.open(masked, "r+") as out:
        out.write_mask(west)
    nan = write(tmp_path / "nan.tif", np.where(west, 90.0, np.nan)[None].repeat(3, 0), crs, transform)
    full = describe_raster(write(tmp_path / "full.tif", np.stack([gray] * 3), crs, transform)).footprint.area
    for path in (alpha, nodata, masked, nan):
        info = describe_raster(path)
        assert info.footprint.area == pytest.approx(full / 2, rel=0.01), path.name
        rgb, valid = read_square([info.source], lon, lat, 200.0, 200)
        assert valid[:, :98].all() and not valid[:, 102:].any(), path.name
        assert not rgb[~valid].any()
        if path != nan:  # a constant raster has no contrast to stretch
            # Invalid neighbours lend no colour: right up to the border the gray is pure.
            assert (rgb[valid] == 90).all(), path.name
    dark = write(
        tmp_path / "dark.tif", np.stack([gray * 0, gray * 0 + 5, gray * 0]), crs, transform, nodata=0
    )
    assert read_square([describe_raster(dark).source], lon, lat)[1].all(), (
        "one band that is not nodata is enough"
    )
    empty = write(tmp_path / "empty.tif", np.zeros((3, 64, 64), np.uint8), crs, transform, nodata=0)
    with pytest.raises(RasterError) as caught:
        describe_raster(empty)
    assert caught.value.reason == "no_valid_pixels"


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64", "uint32", "int8"])
def test_wide_types_are_stretched_once_per_raster(tmp_path: Path, dtype: str) -> None:
    crs, lon, lat = "EPSG:3035", 9.0, 50.0
    transform = centred(crs, lon, lat, 1.0)
    top = {"int8": 100}.get(dtype, 10_000)
    ramp_values = np.broadcast_to(np.linspace(0, top, 256), (3, 256, 256)).astype(dtype)
    info = describe_raster(write(tmp_path / "wide.tif", ramp_values, crs, transform))
    assert info.dtype == dtype and info.source.stretch is not None
    for low, high in info.source.stretch:
        assert low == pytest.approx(0.02 * top, abs=0.01 * top) and high == pytest.approx(
            0.98 * top, abs=0.01 * top
        )
    # The same ground in two different squares has the same colour, and the row restores the same stretch.
    again = RasterSource.from_row(
        info.source.uri, info.source.kind, info.crs, json.loads(json.dumps(info.source.to_reading()))
    )
    x, y = transform @ (128.5, 128.5)
    east = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    one, _ = read_square([info.source], *east, side_m=50, size_px=51)
    two, _ = read_square([again], *east, side_m=50, size_px=51, offset_m=(20.0, 0.0))
    assert abs(int(one[25, 45, 0]) - int(two[25, 25, 0])) <= 1
    assert one[25, :, 0].min() > 60 and one[25, :, 0].max() < 195


def test_sources_are_mosaicked_in_order(tmp_path: Path) -> None:
    crs, lon, lat = "EPSG:25832", 9.0, 50.0
    left = centred(crs, lon, lat, 1.0)
    paths = []
    for number, shift in enumerate((-128, 64, 0)):
        values = np.full((3, 256, 256), 50 * (number + 1), np.uint8)
        paths.append(write(tmp_path / f"{number}.tif", values, crs, left @ Affine.translation(shift, 0)))
    rgb, valid = read_square(paths, lon, lat, 150.0, 150)
    assert valid.all()
    assert (rgb[:, :60] == 50).all(), "the first source wins"
    _, alone = read_square(paths[:1], lon + 1.0, lat)
    assert not alone.any(), "missing a square is no error"


def reason_of(path: Path, **how: object) -> str:
    with pytest.raises(RasterError) as caught:
        describe_raster(path, **how)  # type: ignore[arg-type]
    assert str(path) in str(caught.value) or path.name in str(caught.value)
    return caught.value.reason


def test_bad_rasters_name_their_reason(tmp_path: Path) -> None:
    crs = "EPSG:25832"
    transform = centred(crs, 9.0, 50.0, 1.0)
    noise = np.random.default_rng(1).integers(0, 255, (3, 512, 512)).astype(np.uint8)
    assert reason_of(write(tmp_path / "nocrs.tif", noise, None, transform)) == "missing_crs"
    assert reason_of(write(tmp_path / "noplace.tif", noise, None, None)) == "missing_georeference"
    local = 'LOCAL_CS["site",UNIT["metre",1]]'
    assert reason_of(write(tmp_path / "site.tif", noise, local, transform)) == "missing_crs"
    for compress in ("none", "deflate"):
        whole = write(tmp_path / f"{compress}.tif", noise, crs, transform, compress=compress, tiled=True)
        cut = tmp_path / f"cut-{compress}.tif"
        cut.write_bytes(whole.read_bytes()[:400_000])
        assert reason_of(cut) in ("truncated", "unreadable")
    (tmp_path / "empty.tif").touch()
    assert reason_of(tmp_path / "empty.tif") == "zero_sized"
    (tmp_path / "text.tif").write_text("not a raster")
    assert reason_of(tmp_path / "text.tif") == "unreadable"
    assert reason_of(tmp_path / "absent.tif") == "unreadable"
    wave = write(tmp_path / "wave.tif", np.ones((1, 64, 64), np.complex64), crs, transform)
    assert reason_of(wave) == "not_showable"
    far = write(tmp_path / "far.tif", noise, crs, Affine.translation(1e12, 1e12) @ transform)
    assert reason_of(far) in ("outside_earth", "bad_transform")
    assert reason_of(tmp_path / "none.tif", transform=(0.0,) * 6, crs=crs) == "bad_transform"
    assert reason_of(tmp_path / "nocrs.tif", crs="EPSG:999999") == "unknown_crs"
    secret = write(tmp_path / "whole.tif", noise, crs, transform)
    with rasterio.open(secret) as inner:
        rasterio.shutil.copy(inner, tmp_path / "points-elsewhere.tif.vrt", driver="VRT")
    (tmp_path / "points-elsewhere.tif.vrt").rename(tmp_path / "vrt.tif")
    assert reason_of(tmp_path / "vrt.tif") == "unreadable"


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


def _read_in_child(source: RasterSource, lon: float, lat: float) -> int:
    return int(read_square([source], lon, lat)[0].astype(np.int64).sum())


def test_handles_survive_fork_and_spawn_and_stay_few(tmp_path: Path) -> None:
    crs, lon, lat = "EPSG:25832", 9.0, 50.0
    transform = centred(crs, lon, lat, 1.0)
    source = RasterSource(str(write(tmp_path / "ramp.tif", ramp(), crs, transform)))
    here = _read_in_child(source, lon, lat)
    for method in ("spawn", "fork"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply(_read_in_child, (source, lon, lat)) == here
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"%d" % len(handles._handles.open))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 10) == b"0", "a child starts with no handle of its parent's"
    close_all()
    for number in range(handles.MAX_OPEN + 5):
        describe_raster(write(tmp_path / f"{number}.tif", ramp(16), crs, transform))
    assert len(handles._handles.open) == handles.MAX_OPEN
    close_all()


def test_dates_in_tags_and_names(tmp_path: Path) -> None:
    crs = "EPSG:25832"
    path = write(tmp_path / "t.tif", ramp(16), crs, centred(crs, 9.0, 50.0, 1.0))
    assert describe_raster(path).captured_at is None
    close_all()
    with rasterio.open(path, "r+") as out:
        out.update_tags(TIFFTAG_DATETIME="2021:06:07 10:00:00")
    assert str(describe_raster(path).captured_at) == "2021-06-07"
    assert str(parse_date("m_4709963_se_14_1_20090818.tif")) == "2009-08-18"
    assert parse_date("111050484379850.jpg") is None
    assert parse_date("tile_20201332") is None


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


@pytest.mark.shared
def test_real_naip_dates_lie_on_each_other(shared: Path) -> None:
    folder = shared / "data" / "aerial" / "geotiff"
    old, new = (describe_raster(folder / f"m_4709963_se_14_1_{d}.tif") for d in ("20090818", "20200831"))
    assert (old.epsg, old.bands, old.dtype, old.nodata) == (26914, 4, "uint8", 0.0)
    assert old.gsd_m == pytest.approx(5.0, rel=2e-3) and old.source.stretch is None
    overlap = old.footprint.intersection(new.footprint).area
    assert overlap / old.footprint.area > 0.98
    # Fields and lakes change with the year, their borders do not: edges agree best without a shift.
    centre = old.footprint.centroid
    size = 256
    first, valid = read_square([old.source], centre.x, centre.y, 2000.0, size)
    assert valid.all()

    def edges(rgb: np.ndarray) -> np.ndarray:
        gray = rgb.astype(float).mean(-1)
        out: np.ndarray = np.hypot(*np.gradient(gray))
        return np.asarray(out - out.mean())

    scores = {}
    for shift in (-40.0, 0.0, 40.0):
        other, _ = read_square([new.source], centre.x, centre.y, 2000.0, size, offset_m=(shift, 0.0))
        scores[shift] = float((edges(first) * edges(other)).sum())
    assert max(scores, key=lambda s: scores[s]) == 0.0


@pytest.mark.shared
def test_real_float_cog_and_helsinki_pictures(shared: Path) -> None:
    info = describe_raster(shared / "data" / "aerial" / "geotiff" / "cog.tif")
    assert (info.epsg, info.dtype, info.bands) == (4326, "float64", 4)
    assert info.source.stretch is not None and info.source.stretch[0][0] == pytest.approx(636, abs=5)
    rgb, valid = read_square([info.source], info.footprint.centroid.x, info.footprint.centroid.y, 1000.0)
    assert valid.all() and 40 < rgb.mean() < 200
    folder = shared / "data" / "aerial" / "helsinki_fi_pairs"
    extents, errors = read_extents(folder / "metadata.csv")
    assert len(extents) == 10 and not errors
    name, place = next(iter(extents.items()))
    info = describe_raster(folder / name, kind="extent", crs=place.crs, transform=place.transform(500, 500))
    assert info.gsd_m == pytest.approx(0.4, rel=1e-3)
    centre = info.footprint.centroid
    rgb, valid = read_square([info.source], centre.x, centre.y)
    assert valid.all() and rgb.std() > 15
