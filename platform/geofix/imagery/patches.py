"""Pieces of a raster as float RGB with a mask, never larger than a few times what is asked for."""

from __future__ import annotations

import math
import warnings
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import NodataShadowWarning, RasterioError
from rasterio.windows import Window

from geofix.imagery.bands import BandPlan
from geofix.imagery.handles import REMOTE_OPTIONS, OpenRaster, is_remote
from geofix.imagery.sources import RasterError

warnings.filterwarnings("ignore", category=NodataShadowWarning)
Stretch = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Patch:
    """A piece of imagery.

    Args:
        rgb: (3, height, width) float32, 0..255; 0 where not valid.
        valid: (height, width) bool.
        transform: Pixel corner of this patch -> units of the source's CRS.
    """

    rgb: NDArray[np.float32]
    valid: NDArray[np.bool_]
    transform: Affine


def decimation(source_px_per_target_px: float) -> int:
    """The power of two that leaves 0.95 to 1.9 source pixels per target pixel, as overviews are spaced.

    Not 1 to 2: a raster twice as fine as what is asked for, give or take its projection's scale, is usual.
    """
    ratio = source_px_per_target_px / 0.95
    return 2 ** math.floor(math.log2(ratio)) if ratio > 1 else 1


def read_raw(
    opened: OpenRaster, uri: str, window: Window, shape: tuple[int, int], resampling: Resampling
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """The shown bands as stored, (bands, *shape), and their validity, (*shape); GDAL picks the overview.

    Raises:
        RasterError: the file breaks off or is damaged here.
    """
    plan, dataset = opened.plan, opened.dataset
    try:
        # An environment of its own costs as much as reading a small window.
        with rasterio.Env(**REMOTE_OPTIONS) if is_remote(uri) else nullcontext():
            values = dataset.read(
                list(plan.indexes),
                window=window,
                out_shape=(len(plan.indexes), *shape),
                resampling=resampling,
            )
            if plan.masked and plan.palette is None:
                # One valid band is enough: a dark pixel may equal the nodata value in some bands.
                mask = dataset.dataset_mask(window=window, out_shape=shape, resampling=Resampling.nearest)
                valid = mask >= 128
            elif plan.masked:
                valid = dataset.read_masks(1, window=window, out_shape=shape) >= 128
            else:
                valid = np.ones(shape, bool)
    except RasterioError as error:
        raise RasterError(
            "truncated",
            f"{uri}: pixels cannot be read ({error}).",
            hint="The file is damaged: copy it again.",
        ) from error
    if np.issubdtype(values.dtype, np.floating):
        valid = valid & np.isfinite(values).all(axis=0)
    return values, valid


def show(
    values: NDArray[np.generic], valid: NDArray[np.bool_], plan: BandPlan, stretch: Stretch | None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Stored values -> RGB 0..255, (3, height, width) float32, and the mask narrowed by palette alpha."""
    if plan.palette is not None:
        colours = plan.palette[np.clip(values[0], 0, 255).astype(np.uint8)]
        valid = valid & (colours[..., 3] >= 128)
        rgb = np.moveaxis(colours[..., :3], -1, 0).astype(np.float32)
    else:
        rgb = values.astype(np.float32)
        if np.issubdtype(values.dtype, np.floating):
            rgb = np.nan_to_num(rgb)
        if stretch is not None:
            for band, (low, high) in enumerate(stretch):
                rgb[band] = (rgb[band] - low) * (255.0 / (high - low))
        if plan.cmyk:
            rgb = (255.0 - rgb[:3]) * (255.0 - rgb[3:]) / 255.0
        if len(rgb) == 1:
            rgb = np.repeat(rgb, 3, axis=0)
    if values.dtype != np.uint8 or stretch is not None:
        rgb = np.clip(rgb, 0.0, 255.0)
    return rgb if valid.all() else np.where(valid, rgb, np.float32(0)), valid


def read_patch(
    opened: OpenRaster,
    uri: str,
    stretch: Stretch | None,
    bounds: tuple[float, float, float, float],
    factor: int,
) -> Patch | None:
    """The part of a raster within pixel `bounds` (left, top, right, bottom), shrunk `factor` times.

    The window is widened to multiples of `factor`, so that the shrunk pixels lie exactly where the
    returned transform says; at the right and lower edge of the raster, where its size is no multiple,
    the last row and column are narrower and the transform is off by less than one source pixel.

    Returns:
        None where the bounds miss the raster.
    """
    margin = 2 * factor
    left = max(0, math.floor((bounds[0] - margin) / factor) * factor)
    top = max(0, math.floor((bounds[1] - margin) / factor) * factor)
    right = min(opened.dataset.width, math.ceil((bounds[2] + margin) / factor) * factor)
    bottom = min(opened.dataset.height, math.ceil((bounds[3] + margin) / factor) * factor)
    if right <= left or bottom <= top:
        return None
    width, height = right - left, bottom - top
    shape = (math.ceil(height / factor), math.ceil(width / factor))
    smooth = factor > 1 and opened.plan.palette is None
    values, valid = read_raw(
        opened,
        uri,
        Window(left, top, width, height),
        shape,
        Resampling.average if smooth else Resampling.nearest,
    )
    rgb, valid = show(values, valid, opened.plan, stretch)
    return Patch(
        rgb,
        valid,
        opened.transform @ Affine.translation(left, top) @ Affine.scale(width / shape[1], height / shape[0]),
    )
