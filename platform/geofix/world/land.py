"""What grows or lies on the ground away from roads: sea, beach, woods, plots in town, fields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from geofix.world.noise import F32, F64, I32, Field, Mask, rgb_of
from geofix.world.roads import Town
from geofix.world.styles import Districts

LAND_STEP_M = 2.5
CHANGED = 0.10
SEA, SAND, FOREST, PLOTS = 0, 1, 2, 3
PLAIN = [0.38, 0.45, 0.26]
GREEN, BARE, WATER, BEACH = 0, 1, 2, 3


@dataclass(frozen=True)
class Coast:
    """Distance to the sea on a grid; positive on land."""

    distance: F32 | None
    half_m: float
    step_m: float
    ripple: Field

    def __call__(self, x: F64, y: F64) -> F64:
        """Metres to the shore at local points, negative in the sea; within one grid step of the polygon."""
        if self.distance is None:
            return np.full(np.shape(x), 1e4)
        rows = (np.asarray(y) + self.half_m) / self.step_m - 0.5
        cols = (np.asarray(x) + self.half_m) / self.step_m - 0.5
        d = ndimage.map_coordinates(self.distance, [rows, cols], order=1, mode="nearest")
        return np.asarray(d + 5.0 * self.ripple(np.asarray(x), np.asarray(y)), dtype=float)


def make_coast(rng: np.random.Generator, land: Mask | None, half_m: float, step_m: float) -> Coast:
    """Distances from a land mask (row 0 in the south)."""
    ripple = Field.random(rng, 60.0)
    if land is None:
        return Coast(None, half_m, step_m, ripple)
    d = ndimage.distance_transform_edt(land) - ndimage.distance_transform_edt(~land)
    return Coast((d * step_m).astype(np.float32), half_m, step_m, ripple)


@dataclass(frozen=True)
class _Mosaic:
    """Voronoi pieces: which piece each raster pixel belongs to, and the pieces' centres (N, 2)."""

    piece: I32
    centre: F64


def _mosaic(rng: np.random.Generator, x: F64, y: F64, half_m: float, area_m2: float, turn: float) -> _Mosaic:
    stretch = rng.uniform(1.2, 2.2)
    seeds = rng.uniform(-half_m, half_m, (int((2 * half_m) ** 2 / area_m2), 2))
    frame = np.array([[np.cos(turn), -np.sin(turn) * stretch], [np.sin(turn), np.cos(turn) * stretch]])
    _, piece = cKDTree(seeds @ frame).query(np.c_[x.ravel(), y.ravel()] @ frame)
    return _Mosaic(piece.reshape(x.shape), seeds)


def make_land(
    rng: np.random.Generator, half_m: float, town: Town, coast: Coast, districts: Districts, *, shared: bool
) -> tuple[I32, F32, F32, I32]:
    """Labels per pixel (special covers, then plots of land in town, then fields) and what they look like."""
    n = int(np.ceil(2 * half_m / LAND_STEP_M))
    ticks = (np.arange(n) + 0.5) * LAND_STEP_M - half_m
    x, y = np.meshgrid(ticks, ticks)
    shore, turn = coast(x, y), rng.uniform(0, np.pi)
    fields, plots = _mosaic(rng, x, y, half_m, 11_000, turn), _mosaic(rng, x, y, half_m, 1_100, turn + 0.7)
    first = PLOTS + len(plots.centre)
    label = (first + fields.piece).astype(np.int16)
    woods = Field.random(rng, 420.0)
    wood = woods(*fields.centre.T) + 0.4 * rng.standard_normal(len(fields.centre)) > 0.95
    label[wood[fields.piece]] = FOREST
    settled = town(*plots.centre.T)[plots.piece] > 0.2
    label[settled] = (PLOTS + plots.piece)[settled]
    label[shore < 22] = SAND
    label[shore < 0] = SEA
    lut = np.zeros((2, first + len(fields.centre), 3), dtype=np.float32)
    lut[:, SEA], lut[:, SAND], lut[:, FOREST] = (0.16, 0.3, 0.4), (0.78, 0.7, 0.52), (0.26, 0.25, 0.15)
    lut[:, PLOTS:first] = _plot_colours(rng, plots.centre, districts)
    lut[:, first:] = _crop_colours(rng, fields.centre, districts)
    count = len(fields.centre)
    stripe = np.zeros((lut.shape[1], 3), dtype=np.float32)
    rows = np.where(rng.random(count) < 0.7, turn, turn + np.pi / 2) + rng.normal(0, 0.12, count)
    wave = 2 * np.pi / rng.uniform(1.6, 5.0, count)
    stripe[first:] = np.c_[np.cos(rows) * wave, np.sin(rows) * wave, rng.uniform(0.0, 0.17, count)]
    cover = np.full(lut.shape[1], GREEN, dtype=np.int8)
    cover[SEA], cover[SAND], cover[FOREST] = WATER, BEACH, BARE
    if not shared:
        lut[:, PLOTS:], stripe[:, 2] = rgb_of(PLAIN), 0
    return label, lut, stripe, cover


def _plot_colours(rng: np.random.Generator, centre: F64, districts: Districts) -> F32:
    """Lawns, yards of the local stone and some kitchen garden; a tenth changed at the second date."""
    n = len(centre)
    of = districts.at(*(centre + rng.normal(0, 35, centre.shape)).T)
    out = np.empty((2, n, 3), dtype=np.float32)
    draw, share = rng.random((2, n)), districts.bed_share[of]
    kind = np.where(draw < 0.9 * share, 1, np.where(draw < 0.92, 0, 2))
    kind[1] = np.where(rng.random(n) < CHANGED, kind[1], kind[0])
    jitter = rng.normal(1, 0.08, (n, 1)) + rng.normal(0, 0.04, (n, 3))
    lawn = districts.lawn[of]
    choices = np.stack([lawn, districts.bed[of], np.full_like(lawn, (0.36, 0.31, 0.2))])
    for epoch in (0, 1):
        out[epoch] = np.clip(choices[kind[epoch], np.arange(n)] * jitter, 0, 1)
    return out


def _crop_colours(rng: np.random.Generator, centre: F64, districts: Districts) -> F32:
    n = len(centre)
    of = districts.at(*(centre + rng.normal(0, 40, centre.shape)).T)
    crop = rng.integers(0, 2, (2, n))
    crop[1] = np.where(rng.random(n) < CHANGED, crop[1], crop[0])
    jitter = rng.normal(1, 0.06, (n, 1)) + rng.normal(0, 0.03, (n, 3))
    return np.stack([np.clip(districts.crops[of, crop[e]] * jitter, 0, 1) for e in (0, 1)]).astype(np.float32)
