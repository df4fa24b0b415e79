"""The maximum of a blurred degree grid in two stages, as [L]kNN was published.

Points fall into cells of sigma / 4 (1 degree at sigma = 4 degrees), the grid is blurred by a Gaussian of 4
cells cut at 8, and the largest cell is taken; then the same with cells of sigma / 40, a blur of 40 cells cut
at 80, and only within 5 sigma of the first maximum. Kept as published: the blur is in degrees, so it shrinks
in metres towards the poles, and nothing wraps at the 180th meridian. Changed: a point on the grid's
outermost edge (longitude -180, latitude -90) counts in the first cell instead of being dropped.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from geofix.localizers.base import Floats, Ints
from geofix.spatial.distance import EARTH_RADIUS_M

DEGREE_M = EARTH_RADIUS_M * np.pi / 180.0
"""Metres per degree of latitude on the sphere of 6,371 km."""

_COARSE, _FINE = 4, 40
_WINDOW_SIGMAS = 5.0
_CUT_SIGMAS = 2.0


def grid_maximum(lon: Floats, lat: Floats, weights: Floats, sigma_m: float) -> tuple[float, float, float]:
    """Centre of the fine grid's largest cell in degrees, and its density relative to the kernel's peak.

    Args:
        lon: (n,) degrees.
        lat: (n,) degrees.
        weights: (n,).
        sigma_m: Kernel width in metres, turned into degrees of latitude.
    """
    sigma = sigma_m / DEGREE_M
    everywhere = np.ones(len(lon), dtype=bool)
    east, north, _ = _stage(lon, lat, weights, sigma, _COARSE, everywhere)
    # The window's centre is clamped so that the window stays on the grid.
    half = _WINDOW_SIGMAS * sigma
    east = float(np.clip(east, min(-180 + half, 0.0), max(180 - half, 0.0)))
    north = float(np.clip(north, min(-90 + half, 0.0), max(90 - half, 0.0)))
    half += sigma / _FINE  # a point on the window's own edge stays in it whatever the rounding
    inside = (np.abs(lon - east) <= half) & (np.abs(lat - north) <= half)
    return _stage(lon, lat, weights, sigma, _FINE, inside)


def _stage(
    lon: Floats, lat: Floats, weights: Floats, sigma: float, per_sigma: int, used: np.ndarray
) -> tuple[float, float, float]:
    """Largest cell of one blurred grid.

    Each point adds its kernel to the cells around it, which equals blurring the whole grid with zeros
    outside; rows and columns that no kernel reaches are left out.
    """
    cell = sigma / per_sigma
    row = _index(lat[used], -90.0, 180.0, cell)
    column = _index(lon[used], -180.0, 360.0, cell)
    cut = int(_CUT_SIGMAS * per_sigma)
    rows = _reach(row, cut, _count(180.0, cell))
    columns = _reach(column, cut, _count(360.0, cell))
    kernel = _kernel(per_sigma, cut)
    density = np.zeros((len(rows), len(columns)))
    above, below, first_row = _around(row, rows, cut)
    left, right, first_column = _around(column, columns, cut)
    for i, weight in enumerate(weights[used]):
        density[above[i] : below[i], left[i] : right[i]] += (
            weight * kernel[first_row[i] :, first_column[i] :][: below[i] - above[i], : right[i] - left[i]]
        )
    best_row, best_column = np.unravel_index(int(np.argmax(density)), density.shape)
    north = min(-90.0 + (rows[best_row] + 0.5) * cell, 90.0)
    east = min(-180.0 + (columns[best_column] + 0.5) * cell, 180.0)
    return float(east), float(north), float(density[best_row, best_column])


def _count(span: float, cell: float) -> int:
    return int(np.ceil(span / cell - 1e-9))


def _index(value: Floats, low: float, span: float, cell: float) -> Ints:
    """Cell of each value, counted from 0; a value on a boundary belongs to the lower cell, as ceil has it."""
    index = np.ceil((value - low) / cell).astype(np.int64) - 1
    return np.clip(index, 0, _count(span, cell) - 1)


def _reach(index: Ints, cut: int, count: int) -> Ints:
    """Every cell that some kernel reaches, sorted."""
    reached = np.unique(np.unique(index)[:, None] + np.arange(-cut, cut + 1))
    return reached[(reached >= 0) & (reached < count)]


def _around(index: Ints, cells: Ints, cut: int) -> tuple[Ints, Ints, Ints]:
    """Where in the reached cells each kernel begins and ends, and how much of it the grid's edge cuts off."""
    first = index - cut
    return np.searchsorted(cells, first), np.searchsorted(cells, index + cut, "right"), np.maximum(-first, 0)


@cache
def _kernel(per_sigma: int, cut: int) -> Floats:
    values = np.exp(-0.5 * (np.arange(-cut, cut + 1) / per_sigma) ** 2)
    return np.outer(values, values)
