"""Folders of Web Mercator tiles, ``z/x/y.ext``: arithmetic, what exists, and pixels."""

from __future__ import annotations

import io
import math
from functools import lru_cache

import fsspec
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from scipy.ndimage import maximum_filter, minimum_filter

from geofix.imagery.handles import is_remote, local_path
from geofix.imagery.patches import Patch
from geofix.imagery.sources import RasterError, RasterSource, XyzLayout

RADIUS_M = 6378137.0
"""Radius of the sphere of Web Mercator."""
MAX_LATITUDE = math.degrees(2 * math.atan(math.exp(math.pi)) - math.pi / 2)
EXTENSIONS = ("jpg", "jpeg", "png", "webp")
MAX_TILE_PX = 1024
MARGIN_PX = 2
MAX_TILES = 1024
"""Tiles put together for one square at most."""
BLANK_TOLERANCE = 6
"""How far compression moves the colour of blank areas, in 8-bit steps."""
BLANK_PX = 5
"""Blank areas narrower than this are taken for imagery that happens to have the colour."""
FRINGE_PX = 4
"""Compression smears the border of blank areas over half a JPEG block."""


def lonlat_to_pixel(
    lon: NDArray[np.float64], lat: NDArray[np.float64], zoom: int, tile_px: int = 256
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Degrees -> global pixel coordinates at a zoom, x eastward and y southward; exact on the sphere."""
    size = tile_px * 2.0**zoom
    sine = np.sin(np.radians(np.clip(lat, -MAX_LATITUDE, MAX_LATITUDE)))
    return (lon / 360.0 + 0.5) * size, (0.5 - np.arctanh(sine) / (2 * np.pi)) * size


def tile_bounds(zoom: int, x: int, y: int) -> tuple[float, float, float, float]:
    """West, south, east, north of a tile in degrees."""
    count = 2**zoom

    def lat(row: int) -> float:
        return math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * row / count))))

    return x / count * 360 - 180, lat(y + 1), (x + 1) / count * 360 - 180, lat(y)


def gsd_m(zoom: int, lat: float, tile_px: int = 256) -> float:
    """Ground metres per pixel at a latitude; the sphere for the ellipsoid, wrong by at most 0.7 %."""
    return 2 * math.pi * RADIUS_M * math.cos(math.radians(lat)) / (tile_px * 2.0**zoom)


def fitting_zoom(layout: XyzLayout, lat: float, target_m: float) -> int:
    """The coarsest zoom at least as fine as `target_m` metres per pixel (10 % tolerance), else the finest."""
    for zoom in layout.zooms:
        if gsd_m(zoom, lat, layout.tile_px) <= 1.1 * target_m:
            return zoom
    return layout.zooms[-1]


def zoom_order(layout: XyzLayout, lat: float, target_m: float) -> list[int]:
    """Zooms to read in turn: the fitting one, then up to `fallback_zooms` finer, then coarser ones."""
    fit = fitting_zoom(layout, lat, target_m)
    if layout.fallback_zooms < 1:
        return [fit]
    finer = [zoom for zoom in layout.zooms if fit < zoom <= fit + layout.fallback_zooms]
    coarser = [zoom for zoom in reversed(layout.zooms) if fit - layout.fallback_zooms <= zoom < fit]
    return [fit, *finer, *coarser]


def tile_name(layout: XyzLayout, zoom: int, x: int, y: int) -> str:
    """Path of a tile below the pyramid's folder; y counts from the north, x may lie beyond 180 degrees."""
    row = 2**zoom - 1 - y if layout.tms else y
    return f"{zoom}/{x % 2**zoom}/{row}.{layout.extension}"


def needed_tiles(
    zoom: int, lon: NDArray[np.float64], lat: NDArray[np.float64], tile_px: int = 256
) -> list[tuple[int, int]]:
    """Tiles (x, y) that cover the box around given points at a zoom; x may lie beyond 180 degrees."""
    px, py = lonlat_to_pixel(lon, lat, zoom, tile_px)
    last = 2**zoom - 1
    rows = range(max(0, int(py.min() // tile_px)), min(last, int(py.max() // tile_px)) + 1)
    columns = range(int(px.min() // tile_px), int(px.max() // tile_px) + 1)
    return [(x, y) for x in columns for y in rows]


@lru_cache(maxsize=128)
def load_tile(
    root: str, name: str, tile_px: int, blank_rgb: tuple[int, int, int] | None = None
) -> NDArray[np.uint8] | None:
    """RGBA pixels of a tile, (tile_px, tile_px, 4), clear where blank; None where missing or damaged."""
    try:
        if is_remote(root):
            with fsspec.open(f"{root.rstrip('/')}/{name}", "rb") as stream:
                data = stream.read()
        else:
            data = (local_path(root) / name).read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            if image.size != (tile_px, tile_px):
                return None
            pixels = np.array(image.convert("RGBA"))
            if blank_rgb is not None:
                pixels[_blank(pixels, blank_rgb), 3] = 0
            pixels.setflags(write=False)
            return pixels
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError):
        return None


def _blank(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Where a tile is filled with the colour that stands for no imagery."""
    step = np.abs(pixels[..., :3].astype(np.int16) - np.array(colour, np.int16))
    near = np.asarray((step <= BLANK_TOLERANCE).all(axis=-1), bool)
    if not near.any():
        return near
    core = minimum_filter(near.astype(np.uint8), size=BLANK_PX, mode="nearest")
    grown = maximum_filter(core, size=BLANK_PX + 2 * FRINGE_PX, mode="nearest")
    return np.asarray(grown, bool)


def read_xyz(
    source: RasterSource, zoom: int, lon: NDArray[np.float64], lat: NDArray[np.float64]
) -> Patch | None:
    """The tiles around given points as one patch in global pixel coordinates of the zoom.

    Returns:
        None where not one tile exists.
    """
    layout = source.xyz
    assert layout is not None
    tiles = needed_tiles(zoom, lon, lat, layout.tile_px)
    if not tiles:
        return None
    if len(tiles) > MAX_TILES:
        raise RasterError(
            "no_tiles",
            f"{source.uri}: a square of {len(tiles)} tiles at zoom {zoom}; at most {MAX_TILES} are read.",
            hint="Ask for a smaller square, or add coarser zooms to the pyramid.",
        )
    size = layout.tile_px
    px, py = lonlat_to_pixel(lon, lat, zoom, size)
    left, top = math.floor(px.min()) - MARGIN_PX, math.floor(py.min()) - MARGIN_PX
    width, height = math.ceil(px.max()) + MARGIN_PX - left, math.ceil(py.max()) + MARGIN_PX - top
    rgb = np.zeros((3, height, width), np.float32)
    valid = np.zeros((height, width), bool)
    for x, y in tiles:
        name = tile_name(layout, zoom, x, y)
        if not (is_remote(source.uri) or (local_path(source.uri) / name).is_file()):
            continue  # would only push a tile out of the cache
        pixels = load_tile(source.uri, name, size, layout.blank_rgb)
        if pixels is None:
            continue
        # Where the tile's corner lies in the patch, and the part of the tile that the patch shows.
        column, row = x * size - left, y * size - top
        shown = pixels[max(0, -row) : height - row, max(0, -column) : width - column]
        place = (
            slice(max(0, row), max(0, row) + shown.shape[0]),
            slice(max(0, column), max(0, column) + shown.shape[1]),
        )
        seen = shown[..., 3] >= 128
        valid[place] = seen
        rgb[:, *place] = np.where(seen, np.moveaxis(shown[..., :3], -1, 0), 0)
    return Patch(rgb, valid, Affine.translation(left, top)) if valid.any() else None
