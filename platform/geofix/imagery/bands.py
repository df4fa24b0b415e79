"""Which bands of a raster are shown as RGB, and whether some of its pixels are marked invalid."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from geofix.imagery.sources import RasterError


@dataclass(frozen=True)
class BandPlan:
    """Which bands are shown, and how.

    Args:
        indexes: One (gray or palette), three (RGB) or four (CMYK) band numbers, from 1.
        palette: (256, 4) uint8 RGBA where the band holds colour numbers.
        cmyk: The four bands are inks.
        masked: The raster has nodata, alpha or a mask; otherwise all pixels are valid.
    """

    indexes: tuple[int, ...]
    palette: NDArray[np.uint8] | None = field(default=None, compare=False)
    cmyk: bool = False
    masked: bool = False


def band_plan(dataset: DatasetReader, wished: tuple[int, ...] | None = None) -> BandPlan:
    """Which bands show as RGB: the wished, else by colour interpretation, else the first three or the first.

    Raises:
        RasterError: complex numbers cannot be shown.
    """
    if any("complex" in kind or kind == "cint16" for kind in dataset.dtypes):
        raise RasterError("not_showable", f"{dataset.name}: {dataset.dtypes[0]} cannot be shown as RGB.")
    if wished and (len(wished) not in (1, 3) or not all(1 <= band <= dataset.count for band in wished)):
        raise RasterError(
            "not_showable", f"{dataset.name}: bands {wished} of {dataset.count}; name one or three."
        )
    roles = list(dataset.colorinterp)
    masked = any(flag != MaskFlags.all_valid for flags in dataset.mask_flag_enums for flag in flags)
    if ColorInterp.alpha in roles and MaskFlags.alpha in dataset.mask_flag_enums[0]:
        masked = _is_alpha(dataset, roles.index(ColorInterp.alpha) + 1, wished)

    def bands(*wanted: ColorInterp) -> tuple[int, ...] | None:
        return tuple(roles.index(role) + 1 for role in wanted) if all(r in roles for r in wanted) else None

    if wished:
        return BandPlan(wished, masked=masked)
    if roles[0] == ColorInterp.palette:
        palette = np.zeros((256, 4), np.uint8)
        for number, rgba in dataset.colormap(1).items():
            if 0 <= number < 256:
                palette[number] = rgba
        masked = masked or bool((palette[list(dataset.colormap(1))][:, 3] < 128).any())
        return BandPlan((1,), palette=palette, masked=masked)
    inks = bands(ColorInterp.cyan, ColorInterp.magenta, ColorInterp.yellow, ColorInterp.black)
    if inks:
        return BandPlan(inks, cmyk=True, masked=masked)
    colours = bands(ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    plain = tuple(i + 1 for i, role in enumerate(roles) if role != ColorInterp.alpha)
    if not colours:
        colours = plain[:3] if len(plain) >= 3 else plain[:1]
    if not colours:
        raise RasterError("not_showable", f"{dataset.name}: no band but alpha.")
    return BandPlan(colours, masked=masked)


def _is_alpha(dataset: DatasetReader, band: int, shown: tuple[int, ...] | None) -> bool:
    """Whether a band marked as alpha is one: GDAL calls the fourth band of a plain 8-bit TIFF so.

    True alpha is nearly everywhere either nothing or full; a band that is asked for as a colour is none.
    """
    if shown and band in shown:
        return False
    shape = (min(dataset.height, 256), min(dataset.width, 256))
    try:
        values = dataset.read(band, out_shape=shape, resampling=Resampling.nearest)
    except RasterioError:
        return True  # the damage is reported where pixels are read
    full = np.iinfo(values.dtype).max if np.issubdtype(values.dtype, np.integer) else values.max()
    return bool(np.isin(values, (0, 255, full)).mean() > 0.9)
