"""Pixels of a patch seen through an affine map: bilinear, averaged where it is shrunk, by NumPy alone.

GDAL's warper gives the same picture along the grid of the raster, but needs a millisecond to set itself up
for each of the small squares that training asks for by the thousand, and widens its kernel when a square is
turned, so that a picture's sharpness would tell its bearing.
"""

from __future__ import annotations

import math

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geofix.imagery.patches import Patch

Floats = NDArray[np.float32]
_SHARP = 0.02


def sample(patch: Patch, to_patch: Affine, size_px: int) -> tuple[Floats, NDArray[np.bool_]]:
    """A picture of size_px x size_px pixels; invalid pixels lend no colour.

    Args:
        patch: What is sampled.
        to_patch: Picture pixel corner -> patch pixel corner.
        size_px: Side of the picture.

    Returns:
        rgb (3, size_px, size_px) float32, 0..255, 0 where invalid; valid (size_px, size_px).
    """
    height, width = patch.valid.shape
    ticks = np.arange(size_px) + 0.5
    x = to_patch.a * ticks[None, :] + (to_patch.b * ticks[:, None] + to_patch.c)
    y = to_patch.d * ticks[None, :] + (to_patch.e * ticks[:, None] + to_patch.f)
    inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
    whole = bool(patch.valid.all())
    bands = patch.rgb if whole else np.concatenate([patch.rgb, patch.valid[None].astype(np.float32)])
    bands = _smoothed(bands, math.hypot(to_patch.a, to_patch.b), axis=2)
    bands = _smoothed(bands, math.hypot(to_patch.d, to_patch.e), axis=1)
    out = _bilinear(bands, x.ravel() - 0.5, y.ravel() - 0.5).reshape(len(bands), size_px, size_px)
    if whole:
        return np.where(inside, out, np.float32(0)), inside
    valid = inside & (out[3] >= 0.5)
    rgb = np.where(valid, out[:3] / np.where(valid, out[3], np.float32(1)), np.float32(0))
    return np.clip(rgb, 0.0, 255.0), valid


def _smoothed(bands: Floats, step: float, *, axis: int) -> Floats:
    """What bilinear sampling at every `step`-th pixel needs before, so that together they average.

    Sampling between neighbours is a triangle of half-width 1. For a whole step n, the weights of the triangle
    of half-width n at whole pixels, sampled so, are exactly that triangle; between whole steps the two next
    are mixed so that the variance, step^2 / 6, is right. Past the edge the weights left are scaled up.
    """
    low = math.floor(step)
    share = (step * step - low * low) / (2 * low + 1)
    if step <= 1.0 or (low == 1 and share < _SHARP):
        return bands
    lines = bands if axis == 2 else bands.swapaxes(1, 2)
    total = np.zeros(lines.shape[2], np.float32)
    out = np.zeros_like(lines)
    for reach in range(low + 1):
        weight = (1 - share) * max(0.0, 1 - reach / low) / low + share * (1 - reach / (low + 1)) / (low + 1)
        part = lines * np.float32(weight)
        for target, source in {(reach, 0), (0, reach)}:
            length = max(0, lines.shape[2] - reach)
            out[:, :, target : target + length] += part[:, :, source : source + length]
            total[target : target + length] += np.float32(weight)
    out /= total
    return out if axis == 2 else out.swapaxes(1, 2)


def _bilinear(bands: Floats, x: NDArray[np.float64], y: NDArray[np.float64]) -> Floats:
    """Bands (c, h, w) at coordinates (n,) of pixel centres: (c, n); past the edge the last pixel goes on."""
    count, height, width = bands.shape
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    column, row = x.astype(np.intp), y.astype(np.intp)
    across, down = (x - column).astype(np.float32), (y - row).astype(np.float32)
    pixels = np.ascontiguousarray(bands).reshape(count, height * width)
    # The last row and column have weight 0 beyond them: any pixel serves there.
    first = row * width + column
    upper = _between(pixels, first, np.minimum(first + 1, height * width - 1), across)
    first = np.minimum(first + width, height * width - 1)
    lower = _between(pixels, first, np.minimum(first + 1, height * width - 1), across)
    lower -= upper
    lower *= down
    upper += lower
    return upper


def _between(pixels: Floats, first: NDArray[np.intp], second: NDArray[np.intp], share: Floats) -> Floats:
    start = np.take(pixels, first, axis=1)
    step = np.take(pixels, second, axis=1)
    step -= start
    step *= share
    start += step
    return start
