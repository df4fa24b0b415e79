"""Small rasters on disk, and where their pixels must come out: for the tests of rasters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from pyproj import Transformer

from geofix.imagery.raster import RasterError, RasterSource, describe_raster, read_square


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


def reason_of(path: Path, **how: object) -> str:
    with pytest.raises(RasterError) as caught:
        describe_raster(path, **how)  # type: ignore[arg-type]
    assert str(path) in str(caught.value) or path.name in str(caught.value)
    return caught.value.reason
