from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyproj import Transformer

from geofix.imagery import xyz
from geofix.imagery.pyramid import footprint, is_pyramid, listing_digest, missing_tiles, scan_pyramid
from geofix.imagery.raster import RasterError, RasterSource, XyzLayout, read_square, square_points
from geofix.imagery.raster import Square as GroundSquare

TILE = 64


def make_pyramid(
    root: Path, lon: float, lat: float, zooms: dict[int, int], *, tms: bool = False, skip: int = 0
) -> dict[int, tuple[int, int]]:
    """Per zoom n x n tiles around a position; red and green are the pixel column and row within them."""
    corners = {}
    for zoom, n in zooms.items():
        px, py = xyz.lonlat_to_pixel(np.array([lon]), np.array([lat]), zoom, TILE)
        x0, y0 = round(px[0] / TILE) - n // 2, round(py[0] / TILE) - n // 2
        corners[zoom] = (x0 * TILE, y0 * TILE)
        step = 256 // (n * TILE)
        for i in range(n):
            for j in range(n):
                if i * n + j < skip:
                    continue
                row = 2**zoom - 1 - (y0 + j) if tms else y0 + j
                path = root / str(zoom) / str((x0 + i) % 2**zoom) / f"{row}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                column, line = np.meshgrid(np.arange(TILE) + i * TILE, np.arange(TILE) + j * TILE)
                pixels = np.stack([column * step, line * step, np.full_like(line, zoom)], -1)
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return corners


def test_tile_arithmetic_equals_proj() -> None:
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-180, 180, 500), rng.uniform(-85, 85, 500)
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True).transform(lon, lat)
    for zoom in (0, 5, 19):
        px, py = xyz.lonlat_to_pixel(lon, lat, zoom)
        world = 2 * np.pi * xyz.RADIUS_M
        np.testing.assert_allclose(px, (x / world + 0.5) * 256 * 2**zoom, rtol=0, atol=1e-3)
        np.testing.assert_allclose(py, (0.5 - y / world) * 256 * 2**zoom, rtol=0, atol=1e-3)
    west, south, east, north = xyz.tile_bounds(1, 1, 0)
    assert (west, south, east) == (0.0, 0.0, 180.0) and north == pytest.approx(85.0511287798066)
    assert xyz.gsd_m(17, 46.97) == pytest.approx(0.815, abs=0.001)


@pytest.mark.parametrize("tms", [False, True])
@pytest.mark.parametrize(("lon", "lat"), [(9.57, 46.97), (-70.6, -33.4), (24.9, 60.2), (179.99995, 65.0)])
@pytest.mark.parametrize("turn", [0.0, 41.0])
def test_square_lies_where_it_should(tmp_path: Path, lon: float, lat: float, tms: bool, turn: float) -> None:
    corners = make_pyramid(tmp_path, lon, lat, {20: 4}, tms=tms)
    index = scan_pyramid(tmp_path, tms=tms)
    assert index.layout == XyzLayout("png", TILE, (20,), tms) and not index.bad
    source = RasterSource(str(tmp_path), "xyz", "EPSG:3857", xyz=index.layout)
    side = 90 * xyz.gsd_m(20, lat, TILE)
    rgb, valid = read_square([source], lon, lat, side, 90, turn, (3.0, -2.0))
    assert valid.mean() > 0.95
    i = (np.arange(90) + 0.5) * side / 90
    right, up = np.meshgrid(i - side / 2 + 3.0, side / 2 - i - 2.0)
    bearing = np.radians(turn)
    east, north = (
        right * np.cos(bearing) + up * np.sin(bearing),
        up * np.cos(bearing) - right * np.sin(bearing),
    )
    local = f"+proj=aeqd +lat_0={lat} +lon_0={lon} +datum=WGS84"
    to_lonlat = Transformer.from_crs(local, "EPSG:4326", always_xy=True)
    lons, lats = to_lonlat.transform(east, north)
    lons = lon + (lons - lon + 180) % 360 - 180
    px, py = xyz.lonlat_to_pixel(lons, lats, 20, TILE)
    column, row = px - corners[20][0] - 0.5, py - corners[20][1] - 0.5
    assert np.abs(rgb[..., 0] - column)[valid].max() < 1.0
    assert np.abs(rgb[..., 1] - row)[valid].max() < 1.0


def test_the_zoom_fits_the_resolution(tmp_path: Path) -> None:
    lon, lat = 9.57, 46.97
    make_pyramid(tmp_path, lon, lat, {18: 4, 19: 4, 20: 4, 21: 4})
    layout = scan_pyramid(tmp_path).layout
    source = RasterSource(str(tmp_path), "xyz", "EPSG:3857", xyz=layout)
    for zoom in (19, 20):
        size = 64
        rgb, _ = read_square([source], lon, lat, size * xyz.gsd_m(zoom, lat, TILE), size)
        assert (rgb[20:40, 20:40, 2] == zoom).all()
    assert xyz.fitting_zoom(layout, lat, 1e-3) == 21, "nothing finer than the finest"
    assert xyz.fitting_zoom(layout, lat, 1e6) == 18


def test_missing_and_damaged_tiles_are_invalid_until_a_fallback_is_asked_for(tmp_path: Path) -> None:
    lon, _, _, lat = xyz.tile_bounds(19, 276_081, 184_500)  # a corner of tiles
    make_pyramid(tmp_path, lon, lat, {19: 4})
    make_pyramid(tmp_path, lon, lat, {20: 4}, skip=8)
    size, side = 160, 160 * xyz.gsd_m(20, lat, TILE)
    strict = RasterSource(str(tmp_path), "xyz", "EPSG:3857", xyz=scan_pyramid(tmp_path).layout)
    rgb, valid = read_square([strict], lon, lat, side, size)
    assert not valid[:, :75].any() and valid[:, 85:].all() and not rgb[~valid].any()
    _, lons, lats = square_points(GroundSquare(lon, lat, side, size))
    needed, missing = missing_tiles(strict, 20, lons, lats)
    assert needed == 16 and len(missing) == 8
    assert all(not (tmp_path / name).exists() for name in missing)
    patient = RasterSource(
        str(tmp_path), "xyz", "EPSG:3857", xyz=scan_pyramid(tmp_path, fallback_zooms=1).layout
    )
    rgb, valid = read_square([patient], lon, lat, side, size)
    assert valid.all()
    assert (rgb[:, :70, 2] == 19).all() and (rgb[:, 90:, 2] == 20).all()
    victim = sorted((tmp_path / "20").rglob("*.png"))[-1]
    victim.write_bytes(victim.read_bytes()[:40])
    xyz.load_tile.cache_clear()
    _, valid = read_square([strict], lon, lat, side, size)
    assert not valid[-14:, -14:].any()


def test_scan_reports_what_is_no_tile(tmp_path: Path) -> None:
    make_pyramid(tmp_path, 9.0, 47.0, {3: 2})
    (tmp_path / "tiles.csv").write_text("z,x,y\n")
    folder = next((tmp_path / "3").iterdir())
    (folder / "0.png").touch()
    (folder / "99.png").write_bytes(next(folder.glob("?.png")).read_bytes())
    (folder / "1.png").write_text("no picture")
    outside = tmp_path.parent / f"outside-{os.getpid()}.png"
    Image.new("RGB", (TILE, TILE)).save(outside)
    (folder / "7.png").symlink_to(outside)
    index = scan_pyramid(tmp_path)
    assert len(index.tiles[3]) == 4
    reasons = {Path(name).stem: reason for name, reason in index.bad.items()}
    assert reasons == {"0": "zero_sized", "99": "outside_earth", "1": "unreadable", "7": "symlink_outside"}
    assert is_pyramid(tmp_path) and not is_pyramid(tmp_path / "3") and not is_pyramid(tmp_path.parent)
    before = listing_digest(tmp_path)
    assert before == listing_digest(tmp_path)
    (folder / "0.png").unlink()
    assert listing_digest(tmp_path)[0] != before[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(RasterError) as caught:
        scan_pyramid(tmp_path / "empty")
    assert caught.value.reason == "no_tiles"


def test_footprint_is_the_union_of_tiles(tmp_path: Path) -> None:
    make_pyramid(tmp_path, 9.0, 47.0, {8: 4})
    index = scan_pyramid(tmp_path)
    whole = footprint(index, 8)
    area = sum(
        (b[2] - b[0]) * (b[3] - b[1]) for b in (xyz.tile_bounds(8, int(x), int(y)) for x, y in index.tiles[8])
    )
    assert whole.area == pytest.approx(area) and len(whole.geoms) == 1
    next((tmp_path / "8").rglob("*.png")).unlink()
    assert footprint(scan_pyramid(tmp_path), 8).area < area


def test_blank_colour_is_no_imagery(tmp_path: Path) -> None:
    lon, _, _, lat = xyz.tile_bounds(20, 552_163, 369_001)  # a corner of tiles
    blank = (212, 230, 206)
    make_pyramid(tmp_path, lon, lat, {20: 2})
    for path in (tmp_path / "20").rglob("*.png"):
        pixels = np.full((TILE, TILE, 3), 90, np.uint8)
        pixels[:, : TILE // 2] = blank
        pixels[10, 50] = blank
        Image.fromarray(pixels).save(path)
    layout = scan_pyramid(tmp_path, blank_rgb=blank).layout
    side = 100 * xyz.gsd_m(20, lat, TILE)
    _, valid = read_square([RasterSource(str(tmp_path), "xyz", xyz=layout)], lon, lat, side, 100)
    assert valid.mean() == pytest.approx(0.5, abs=0.15)
    row = RasterSource(str(tmp_path), "xyz", "EPSG:3857", xyz=layout)
    assert RasterSource.from_row(row.uri, "xyz", "EPSG:3857", row.to_reading()) == row


@pytest.mark.shared
def test_swissimage_pyramid(shared: Path) -> None:
    root = shared / "data" / "aerial" / "swissimage_ch_xyz"
    index = scan_pyramid(root, fallback_zooms=1)
    assert sum(len(tiles) for tiles in index.tiles.values()) == 1023 and not index.bad
    assert index.layout.zooms == tuple(range(1, 20))
    with (root / "tiles.csv").open() as stream:
        lines = [line.strip().split(",") for line in stream.readlines()[1:]]
    for z, x, y, _, south, west, north, east in lines[::50]:
        bounds = xyz.tile_bounds(int(z), int(x), int(y))
        assert bounds == pytest.approx((float(west), float(south), float(east), float(north)), abs=1e-9)
    source = RasterSource(str(root), "xyz", "EPSG:3857", xyz=index.layout)
    centre = footprint(index, 18).representative_point()
    assert xyz.fitting_zoom(index.layout, centre.y, 154 / 256) == 18
    rgb, valid = read_square([source], centre.x, centre.y)
    assert valid.all() and rgb.std() > 10
    # The same ground through another zoom is the same picture, so both lie right.
    coarse, seen = read_square([source], centre.x, centre.y, 154.0, 64)
    small = np.asarray(Image.fromarray(rgb).resize((64, 64), Image.Resampling.BOX), float)
    assert seen.all()
    assert np.corrcoef(small.ravel(), coarse.astype(float).ravel())[0, 1] > 0.9
