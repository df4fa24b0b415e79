"""A square of ground as seen from above, from any mixture of rasters and tile pyramids."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import Geod
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import reproject

from geofix.errors import UsageError
from geofix.imagery import xyz
from geofix.imagery.describe import RasterInfo, describe_raster
from geofix.imagery.handles import close_all, lonlat_to, open_raster
from geofix.imagery.patches import Patch, decimation, read_patch
from geofix.imagery.sampling import sample
from geofix.imagery.sources import RasterError, RasterSource, XyzLayout

__all__ = [
    "RasterError",
    "RasterInfo",
    "RasterSource",
    "Square",
    "XyzLayout",
    "close_all",
    "describe_raster",
    "read_square",
    "square_points",
]

SIDE_M = 154.0
"""Side of the tile that covers an S2 cell of level 16."""
SIZE_PX = 256
GRID = 5
AFFINE_TOLERANCE_PX = 0.05
"""A warp is done by an affine map where that is closer than this to the true one, in target pixels."""
_WGS84 = Geod(ellps="WGS84")


@dataclass(frozen=True)
class Square:
    """A square on the ground.

    Args:
        lon: Longitude of the reference position, degrees.
        lat: Latitude of the reference position, degrees.
        side_m: Side in metres.
        size_px: Side in pixels.
        rotation_deg: Compass bearing of the picture's upper edge: 0 is north-up, 90 has east at the top.
        offset_m: Centre of the square minus the position, metres right and up *in the picture's frame*.
    """

    lon: float
    lat: float
    side_m: float = SIDE_M
    size_px: int = SIZE_PX
    rotation_deg: float = 0.0
    offset_m: tuple[float, float] = (0.0, 0.0)

    def to_local(self) -> Affine:
        """Pixel corner -> metres east and north of the position."""
        step = self.side_m / self.size_px
        turn = math.radians(self.rotation_deg)
        right = self.offset_m[0] - self.side_m / 2
        up = self.offset_m[1] + self.side_m / 2
        frame = Affine(math.cos(turn), math.sin(turn), 0, -math.sin(turn), math.cos(turn), 0)
        return frame @ Affine.translation(right, up) @ Affine.scale(step, -step)

    def crs(self) -> CRS:
        """The local frame: azimuthal equidistant around the position on WGS 84.

        Distances from the position are exact; across the line of sight lengths are off by d^2 / 6 R^2
        (1e-10 at 150 m, 1e-7 at 5 km).
        """
        return CRS.from_proj4(
            f"+proj=aeqd +lat_0={self.lat!r} +lon_0={self.lon!r} +datum=WGS84 +units=m +no_defs"
        )


def square_points(
    square: Square, n: int = GRID
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """A grid of n x n points over a square.

    Returns:
        Pixel coordinates (n * n, 2), longitudes and latitudes in degrees (n * n,). Longitudes run on beyond
        180 degrees rather than jump. Geodesic, so exact in the frame of `Square.crs`.
    """
    points = _ticks(square.size_px, n)
    column, row = points.T
    frame = square.to_local()
    east = frame.a * column + frame.b * row + frame.c
    north = frame.d * column + frame.e * row + frame.f
    lon, lat, _ = _WGS84.fwd(
        np.full_like(east, square.lon),
        np.full_like(east, square.lat),
        np.degrees(np.arctan2(east, north)),
        np.hypot(east, north),
    )
    lon = square.lon + (np.asarray(lon) - square.lon + 180.0) % 360.0 - 180.0
    return points, lon, np.asarray(lat)


def read_square(
    sources: Sequence[RasterSource | str | Path],
    lon: float,
    lat: float,
    side_m: float = SIDE_M,
    size_px: int = SIZE_PX,
    rotation_deg: float = 0.0,
    offset_m: tuple[float, float] = (0.0, 0.0),
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Cut a square of ground out of imagery, resampled bilinearly (averaged where it is shrunk).

    Sources are laid over each other in order: a later one fills what the earlier ones left invalid.
    A source that misses the square is no error.

    Args:
        sources: What to read; a bare path is opened as it lies, without a stretch for wide data types.
        lon: Longitude in degrees.
        lat: Latitude in degrees.
        side_m: Side of the square, metres.
        size_px: Side of the picture, pixels.
        rotation_deg: Compass bearing of the picture's upper edge, degrees.
        offset_m: Shift of the square, metres to the right and up in the picture's own frame.

    Returns:
        rgb (size_px, size_px, 3) uint8, black where invalid; valid (size_px, size_px) bool.

    Raises:
        RasterError: a source is unreadable or has no place on earth.
        UsageError: position or size out of range.
    """
    square = Square(float(lon), float(lat), side_m, size_px, rotation_deg, offset_m)
    if not (abs(square.lat) <= 90 and abs(square.lon) <= 540 and side_m > 0 and size_px > 0):
        raise UsageError(f"No square at lon {lon}, lat {lat} with side {side_m} m and {size_px} px.")
    rgb = np.zeros((3, size_px, size_px), np.float32)
    valid = np.zeros((size_px, size_px), bool)
    for piece, seen in _pieces(sources, square):
        rgb = np.where(valid, rgb, piece) if valid.any() else piece
        valid = valid | seen
        if valid.all():
            break
    return np.ascontiguousarray(np.moveaxis(np.rint(rgb), 0, -1)).astype(np.uint8), valid


def _pieces(
    sources: Sequence[RasterSource | str | Path], square: Square
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Every source's share of the square, in order, read only when it is asked for."""
    points, lon, lat = square_points(square)
    for given in sources:
        source = given if isinstance(given, RasterSource) else RasterSource(str(given))
        if source.kind == "xyz":
            yield from _from_tiles(source, square, points, lon, lat)
        else:
            yield from _from_raster(source, square, points, lon, lat)


def _from_tiles(
    source: RasterSource,
    square: Square,
    points: NDArray[np.float64],
    lon: NDArray[np.float64],
    lat: NDArray[np.float64],
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """The square from a pyramid, zoom by zoom."""
    layout = source.xyz
    if layout is None or not layout.zooms:
        raise RasterError(
            "no_tiles", f"{source.uri}: the pyramid's layout is unknown.", hint="Ingest it first."
        )
    for zoom in xyz.zoom_order(layout, square.lat, square.side_m / square.size_px):
        patch = xyz.read_xyz(source, zoom, lon, lat)
        if patch is not None:
            fit, _ = _affine_fit(points, np.column_stack(xyz.lonlat_to_pixel(lon, lat, zoom, layout.tile_px)))
            yield sample(patch, ~patch.transform @ fit, square.size_px)


def _from_raster(
    source: RasterSource,
    square: Square,
    points: NDArray[np.float64],
    lon: NDArray[np.float64],
    lat: NDArray[np.float64],
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """The square from one raster; a geographic raster may reach beyond 180 degrees on either side."""
    opened = open_raster(source)
    back = ~opened.transform
    for turn in (0.0, 360.0, -360.0) if opened.crs.is_geographic else (0.0,):
        x, y = lonlat_to(opened.crs).transform(lon, lat)
        if opened.crs.is_geographic:
            # PROJ brings longitudes back below 180 degrees: undo that, the grid must not jump.
            x = np.asarray(x) + 360.0 * np.round((lon - x) / 360.0) + turn
        column = back.a * np.asarray(x) + back.b * np.asarray(y) + back.c
        row = back.d * np.asarray(x) + back.e * np.asarray(y) + back.f
        if not (np.isfinite(column).all() and np.isfinite(row).all()):
            continue
        bounds = (float(column.min()), float(row.min()), float(column.max()), float(row.max()))
        fit, miss = _affine_fit(points, np.column_stack([column, row]))
        ratio = _shrinkage(fit)
        patch = read_patch(opened, source.uri, source.stretch, bounds, decimation(ratio))
        if patch is None or not patch.valid.any():
            continue
        if miss <= AFFINE_TOLERANCE_PX * ratio:
            yield sample(patch, ~patch.transform @ opened.transform @ fit, square.size_px)
        else:
            # GDAL yields longitudes within 180 degrees: lay the patch there.
            turns = 360.0 * round(float(np.mean(x)) / 360.0) if opened.crs.is_geographic else 0.0
            placed = Affine.translation(-turns, 0.0) @ patch.transform
            yield _warp(patch, opened.crs, placed, square.crs(), square.to_local(), square.size_px)


def _shrinkage(fit: Affine) -> float:
    """Source pixels per picture pixel along the source's finer-sampled axis.

    Pixels in degrees are oblong far north; beyond 4 : 1 the mean of both axes bounds what is read.
    """
    across, down = math.hypot(fit.a, fit.b), math.hypot(fit.d, fit.e)
    return max(min(across, down), math.sqrt(abs(fit.determinant)) / 2, 1e-12)


def _affine_fit(points: NDArray[np.float64], target: NDArray[np.float64]) -> tuple[Affine, float]:
    """Least-squares affine map of a square's points (n, 2) to target (n, 2), and its largest miss there."""
    design, inverse = _design(float(points[-1, 0]), len(points))
    middle = target.mean(axis=0)
    solution = inverse @ (target - middle)
    worst = float(np.abs(design @ solution - (target - middle)).max())
    (a, d), (b, e), (c, f) = solution
    return Affine(a, b, c + middle[0], d, e, f + middle[1]), worst


@lru_cache(maxsize=64)
def _design(size_px: float, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows (column, row, 1) of a square's grid of points, and their pseudo-inverse."""
    points = _ticks(size_px, math.isqrt(count))
    design = np.column_stack([points, np.ones(len(points))])
    return design, np.linalg.pinv(design)


def _ticks(size_px: float, n: int) -> NDArray[np.float64]:
    """Pixel coordinates (n * n, 2) of a grid over a square, row by row."""
    ticks = np.linspace(0.0, size_px, n)
    column, row = np.meshgrid(ticks, ticks)
    return np.column_stack([column.ravel(), row.ravel()])


# Pixels in memory are warped between plane frames of our own, which GDAL takes for missing georeference.
warnings.filterwarnings(
    "ignore", message="Dataset has no geotransform", category=NotGeoreferencedWarning, module="rasterio.warp"
)


def _warp(
    patch: Patch, crs: CRS, transform: Affine, to_crs: CRS, to_transform: Affine, size_px: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """GDAL's warper on colour times mask and on the mask, so that invalid pixels lend no colour."""
    bands = np.concatenate([patch.rgb, patch.valid[None].astype(np.float32)])
    out = np.zeros((4, size_px, size_px), np.float32)
    reproject(
        bands,
        out,
        src_transform=transform,
        src_crs=crs,
        dst_transform=to_transform,
        dst_crs=to_crs,
        resampling=Resampling.bilinear,
        init_dest_nodata=True,
        warp_mem_limit=64,
    )
    valid = out[3] >= 0.5
    rgb = np.where(valid, out[:3] / np.where(valid, out[3], 1.0), 0.0).astype(np.float32)
    return np.clip(rgb, 0.0, 255.0), valid
