"""What a raster shows: bands, masks, stretches, mosaics, faults, handles."""

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
from raster_files import centred, ramp, reason_of, write
from rasterio.enums import ColorInterp

from geofix.imagery import handles
from geofix.imagery.describe import parse_date
from geofix.imagery.extents import read_extents
from geofix.imagery.raster import RasterError, RasterSource, close_all, describe_raster, read_square


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
