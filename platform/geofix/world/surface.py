"""Everything flat: roads, fields, lawns, forest floor, beach and sea, and how high what stands on it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from geofix.world.noise import F32, F64, Field, grain, noise_tile
from geofix.world.roads import MAIN, Roads, Town
from geofix.world.styles import Country, Districts

STEP_M = 1.0
LAND_STEP_M = 2.5
REACH_M = 15.0
CHANGED = 0.10
SEA, SAND, FOREST, PLOTS = 0, 1, 2, 3
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


def make_coast(rng: np.random.Generator, land: np.ndarray | None, half_m: float, step_m: float) -> Coast:
    """Distances from a land mask (row 0 in the south)."""
    ripple = Field.random(rng, 60.0)
    if land is None:
        return Coast(None, half_m, step_m, ripple)
    d = ndimage.distance_transform_edt(land) - ndimage.distance_transform_edt(~land)
    return Coast((d * step_m).astype(np.float32), half_m, step_m, ripple)


@dataclass
class Surface:
    """Rasters in local metres, row 0 in the south.

    `offset` signed metres from the nearest road's axis, `along` metres along it, `road` its edge (-1: none),
    on a grid of STEP_M; `land` labels on a grid of LAND_STEP_M, one per epoch, whose colours are in `lut`
    (epoch, label, 3); `height` of things above ground in metres, one per epoch.
    """

    half_m: float
    offset: F32
    along: F32
    road: NDArray[np.int16]
    junction: NDArray[np.bool_]
    land: NDArray[np.int16]
    lut: F32
    stripe: F32
    cover: NDArray[np.int8]
    road_half: F32
    road_paved: F32
    road_marked: NDArray[np.bool_]
    road_rgb: F32
    paving_rgb: F32
    marking_rgb: F32
    height: list[F32]

    def index(self, x: F32, y: F32, step_m: float, n: int) -> NDArray[np.int64]:
        """Flat index of the raster pixel at local points, clamped to the raster."""
        col = np.clip((x + self.half_m) * (1 / step_m), 0, n - 1).astype(np.int64)
        row = np.clip((y + self.half_m) * (1 / step_m), 0, n - 1).astype(np.int64)
        return row * n + col

    def clearance(self, x: F64, y: F64) -> F32:
        """Metres to the nearest edge of a road or pavement; REACH_M or more when far."""
        at = self.index(np.asarray(x, np.float32), np.asarray(y, np.float32), STEP_M, self.offset.shape[0])
        road = self.road.ravel()[at]
        gap = np.abs(self.offset.ravel()[at]) - self.road_half[road] - self.road_paved[road]
        return np.where(road >= 0, gap, REACH_M).astype(np.float32)


def draw_roads(roads: Roads, half_m: float) -> tuple[F32, F32, NDArray[np.int16], NDArray[np.bool_]]:
    """Signed offset, position along, edge index and junction flag of the nearest road within REACH_M."""
    n = int(np.ceil(2 * half_m / STEP_M))
    best = np.full((n, n), REACH_M, dtype=np.float32)
    offset, along = np.full((n, n), 99, dtype=np.float32), np.zeros((n, n), dtype=np.float32)
    road, junction = np.full((n, n), -1, dtype=np.int16), np.zeros((n, n), dtype=bool)
    ticks = (np.arange(n) + 0.5) * STEP_M - half_m
    for e, line in enumerate(roads.lines):
        start = 0.0
        for a, b in zip(line[:-1], line[1:], strict=True):
            lo = np.clip(((np.minimum(a, b) - REACH_M + half_m) / STEP_M).astype(int), 0, n)
            hi = np.clip(((np.maximum(a, b) + REACH_M + half_m) / STEP_M).astype(int) + 1, 0, n)
            length = float(np.hypot(*(b - a)))
            if (hi <= lo).any() or length == 0:
                continue
            window = (slice(lo[1], hi[1]), slice(lo[0], hi[0]))
            x, y = ticks[lo[0] : hi[0]][None] - a[0], ticks[lo[1] : hi[1]][:, None] - a[1]
            ux, uy = (b - a) / length
            t, side = x * ux + y * uy, x * uy - y * ux
            beyond = np.maximum(np.maximum(-t, t - length), 0)
            d = np.sqrt(side * side + beyond * beyond)
            rank = d - roads.half_width[e] * 0.5
            closer = rank < best[window]
            best[window][closer] = rank[closer]
            offset[window][closer] = np.copysign(d, side)[closer]
            along[window][closer] = (t + start)[closer]
            road[window][closer] = e
            start += length
    crossing = roads.nodes[roads.degree() >= 3]
    for x0, y0 in crossing:
        c, r = int((x0 + half_m) / STEP_M), int((y0 + half_m) / STEP_M)
        junction[max(r - 6, 0) : r + 7, max(c - 6, 0) : c + 7] = True
    return offset, along, road, junction


def make_surface(
    rng: np.random.Generator, half_m: float, roads: Roads, town: Town, coast: Coast, districts: Districts,
    style: Country, *, shared: bool,
) -> Surface:  # fmt: skip
    """Rasters of a patch; without `shared` fields, lawns and roads have one colour each and no marking."""
    offset, along, road, junction = draw_roads(roads, half_m)
    mid = roads.lines[:, roads.lines.shape[1] // 2]
    district = districts.at(mid[:, 0], mid[:, 1])
    jitter = rng.normal(1, 0.06, (len(district), 1))
    asphalt = np.where(
        (roads.kind > 0)[:, None],
        districts.asphalt[district],
        districts.lawn[district] * 0.3 + (0.33, 0.27, 0.2),
    )
    paving = districts.paving[district]
    if not shared:
        asphalt, paving, jitter = (
            np.full_like(asphalt, 0.42),
            np.full_like(paving, 0.55),
            np.ones_like(jitter),
        )
    land, lut, stripe, cover = _land(rng, half_m, town, coast, districts, shared=shared)
    return Surface(
        half_m=half_m, offset=offset, along=along, road=road, junction=junction, land=land, lut=lut, stripe=stripe,
        cover=cover, road_half=roads.half_width.astype(np.float32), road_paved=roads.paved.astype(np.float32),
        road_marked=(roads.kind == MAIN) & shared, road_rgb=(asphalt * jitter).astype(np.float32),
        paving_rgb=paving.astype(np.float32), marking_rgb=np.asarray(style.marking, np.float32), height=[],
    )  # fmt: skip


@dataclass(frozen=True)
class _Mosaic:
    """Voronoi pieces: which piece each raster pixel belongs to, and the pieces' centres (N, 2)."""

    piece: NDArray[np.int64]
    centre: F64


def _mosaic(rng: np.random.Generator, x: F64, y: F64, half_m: float, area_m2: float, turn: float) -> _Mosaic:
    stretch = rng.uniform(1.2, 2.2)
    seeds = rng.uniform(-half_m, half_m, (int((2 * half_m) ** 2 / area_m2), 2))
    frame = np.array([[np.cos(turn), -np.sin(turn) * stretch], [np.sin(turn), np.cos(turn) * stretch]])
    _, piece = cKDTree(seeds @ frame).query(np.c_[x.ravel(), y.ravel()] @ frame)
    return _Mosaic(piece.reshape(x.shape), seeds)


def _land(
    rng: np.random.Generator, half_m: float, town: Town, coast: Coast, districts: Districts, *, shared: bool
) -> tuple[NDArray[np.int16], F32, F32, NDArray[np.int8]]:
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
        lut[:, PLOTS:], stripe[:, 2] = (0.38, 0.45, 0.26), 0
    return label, lut, stripe, cover


def _plot_colours(rng: np.random.Generator, centre: F64, districts: Districts) -> F32:
    """Lawns for the most part; some gravel, some kitchen garden, a tenth changed at the second date."""
    n = len(centre)
    of = districts.at(*(centre + rng.normal(0, 35, centre.shape)).T)
    out = np.empty((2, n, 3), dtype=np.float32)
    kind = rng.choice(3, (2, n), p=[0.78, 0.12, 0.10])
    kind[1] = np.where(rng.random(n) < CHANGED, kind[1], kind[0])
    jitter = rng.normal(1, 0.08, (n, 1)) + rng.normal(0, 0.04, (n, 3))
    lawn = 0.8 * districts.lawn[of] + 0.2 * np.float32([0.38, 0.45, 0.26])
    choices = np.stack([lawn, 0.8 * districts.paving[of] + 0.08, np.full_like(lawn, (0.36, 0.31, 0.2))])
    for epoch in (0, 1):
        out[epoch] = np.clip(choices[kind[epoch], np.arange(n)] * jitter, 0, 1)
    return out


def _crop_colours(rng: np.random.Generator, centre: F64, districts: Districts) -> F32:
    n = len(centre)
    of = districts.at(*(centre + rng.normal(0, 40, centre.shape)).T)
    crop = rng.integers(0, 4, (2, n))
    crop[1] = np.where(rng.random(n) < CHANGED, crop[1], crop[0])
    jitter = rng.normal(1, 0.06, (n, 1)) + rng.normal(0, 0.03, (n, 3))
    return np.stack([np.clip(districts.crops[of, crop[e]] * jitter, 0, 1) for e in (0, 1)]).astype(np.float32)


@dataclass(frozen=True)
class Season:
    """How far vegetation has turned: 0..1 each."""

    autumn: float = 0.0
    winter: float = 0.0
    dry: float = 0.0
    snow: float = 0.0


def green_in(rgb: F32, season: Season) -> F32:
    """Colours of grass and crops in a season."""
    dull = rgb.mean(axis=-1, keepdims=True)
    out = rgb + (dull * np.float32([1.05, 0.95, 0.65]) - rgb) * np.float32(0.55 * season.winter)
    out = out + (np.float32([0.72, 0.62, 0.36]) - out) * np.float32(0.4 * season.dry)
    return np.asarray(out, dtype=np.float32)


def ground_colour(s: Surface, x: F32, y: F32, blur: F32, season: Season, epoch: int) -> F32:
    """Colour of the ground at local points (N,), in both views.

    `blur` is the width of a pixel on the ground in metres; markings fade with it.
    """
    fine, coarse = noise_tile(0.6, 1), noise_tile(1.2, 2)
    g_fine, g_coarse = grain(fine, x * 5, y * 5), grain(coarse, x * 0.9, y * 0.9)
    n = s.offset.shape[0]
    rgb, cover = _land_colour(s, x + 1.6 * g_coarse, y + 1.6 * g_fine, epoch)
    green = cover == GREEN
    rgb[green] = green_in(rgb[green], season)
    rgb *= (1 + 0.10 * g_fine * np.minimum(1, 0.25 / blur) + 0.10 * g_coarse)[:, None]
    sea = cover == WATER
    rgb[sea] += (0.10 * grain(fine, x[sea] * 0.7, y[sea] * 1.3))[:, None]
    at = s.index(x, y, STEP_M, n)
    road = s.road.ravel()[at]
    on = np.flatnonzero(road >= 0)
    if len(on):
        e = road[on]
        o = _smooth_offset(s, x[on], y[on], at[on])
        gap = np.abs(o) - s.road_half[e]
        soft = np.maximum(blur[on], 0.12)
        tarmac = s.road_rgb[e] * (1 + 0.07 * g_fine[on] + 0.06 * g_coarse[on])[:, None]
        marked = s.road_marked[e] & ~s.junction.ravel()[at[on]]
        dash = (np.abs(o) < 0.11 + 0.3 * soft) & (s.along.ravel()[at[on]] % 8.0 < 4.2)
        edge = np.abs(gap + 0.45) < 0.09 + 0.2 * soft
        line = marked & (dash | edge)
        fade = np.minimum(1, 0.3 / soft[line])[:, None] * 0.9
        tarmac[line] += (s.marking_rgb - tarmac[line]) * fade
        paved = s.road_paved[e]
        kerb = np.where(gap < 0.18, 1.12, 1.0) + 0.05 * g_fine[on]
        walk = s.paving_rgb[e] * kerb[:, None]
        side = rgb[on]
        edge_mix = np.clip((paved - gap) / soft + 0.5, 0, 1) * (paved > 0)
        side += (walk - side) * edge_mix[:, None]
        side += (tarmac - side) * np.clip(0.5 - gap / soft, 0, 1)[:, None]
        rgb[on] = side
    if season.snow > 0:
        mix = np.clip(season.snow * (0.75 + 0.6 * g_coarse), 0, 1) * np.where(road >= 0, 0.35, 0.9) * ~sea
        rgb += (np.float32([0.9, 0.92, 0.95]) - rgb) * mix[:, None]
    return np.clip(rgb, 0, 1).astype(np.float32)


def _land_colour(s: Surface, x: F32, y: F32, epoch: int) -> tuple[F32, NDArray[np.int8]]:
    label = s.land.ravel()[s.index(x, y, LAND_STEP_M, s.land.shape[0])]
    rgb = s.lut[epoch][label]
    kx, ky, depth = s.stripe[label].T
    rgb *= (1 + depth * np.sin(x * kx + y * ky))[:, None]
    return rgb, s.cover[label]


def _smooth_offset(s: Surface, x: F32, y: F32, at: NDArray[np.int64]) -> F32:
    """Bilinear signed offset from the axis; nearest where roads meet, where it jumps."""
    n = s.offset.shape[0]
    u = np.clip((x + s.half_m) / STEP_M - 0.5, 0, n - 1.01)
    v = np.clip((y + s.half_m) / STEP_M - 0.5, 0, n - 1.01)
    c, r = u.astype(np.int64), v.astype(np.int64)
    fu, fv, flat, i = u - c, v - r, s.offset.ravel(), r * n + c
    a, b, p, q = flat[i], flat[i + 1], flat[i + n], flat[i + n + 1]
    jump = (
        np.maximum(np.maximum(a, b), np.maximum(p, q)) - np.minimum(np.minimum(a, b), np.minimum(p, q)) > 2.9
    )
    mixed = (a * (1 - fu) + b * fu) * (1 - fv) + (p * (1 - fu) + q * fu) * fv
    return np.where(jump, flat[at], mixed).astype(np.float32)


def shade(
    s: Surface, x: F32, y: F32, sun: tuple[float, float, float], epoch: int, z: float = 0.0
) -> NDArray[np.bool_]:
    """Whether points at height `z` lie in the shadow of something, up to 16 m away.

    `sun` is a unit vector towards the sun. Sampled every 2 m, so a shadow's end is right to 2 m.
    """
    flat = float(np.hypot(sun[0], sun[1]))
    dark = np.zeros(x.shape, dtype=bool)
    n = s.offset.shape[0]
    heights = s.height[epoch].ravel()
    for step in (1.5, 3.5, 6.0, 9.0, 13.0):
        at = s.index(x + np.float32(sun[0] / flat * step), y + np.float32(sun[1] / flat * step), STEP_M, n)
        dark |= heights[at] > z + step * sun[2] / flat
    return dark
