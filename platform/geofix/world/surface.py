"""Everything flat: roads, fields, lawns, forest floor, beach and sea, and how high what stands on it is."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from geofix.world.land import GREEN, LAND_STEP_M, PLAIN, WATER, Coast, make_land
from geofix.world.noise import F32, F64, I32, Mask, grain, noise_tile, rgb_of
from geofix.world.roads import MAIN, TRACK, Roads, Town
from geofix.world.styles import Districts

STEP_M = 1.0
REACH_M = 15.0


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
    junction: Mask
    land: I32
    lut: F32
    stripe: F32
    cover: I32
    road_half: F32
    road_paved: F32
    road_marked: Mask
    road_laned: Mask
    road_rgb: F32
    strip_rgb: F32
    marking_rgb: F32
    lane_rgb: F32
    height: list[F32]

    def index(self, x: F32, y: F32, step_m: float, n: int) -> I32:
        """Flat index of the raster pixel at local points, clamped to the raster."""
        col = np.clip((x + self.half_m) * (1 / step_m), 0, n - 1).astype(np.int64)
        row = np.clip((y + self.half_m) * (1 / step_m), 0, n - 1).astype(np.int64)
        return np.asarray(row * n + col)

    def clearance(self, x: F64, y: F64) -> F32:
        """Metres to the nearest edge of a road or pavement; REACH_M or more when far."""
        at = self.index(np.asarray(x, np.float32), np.asarray(y, np.float32), STEP_M, self.offset.shape[0])
        road = self.road.ravel()[at]
        gap = np.abs(self.offset.ravel()[at]) - self.road_half[road] - self.road_paved[road]
        return np.where(road >= 0, gap, REACH_M).astype(np.float32)


def draw_roads(roads: Roads, half_m: float) -> tuple[F32, F32, NDArray[np.int16], Mask]:
    """Signed offset, position along, edge index and junction flag of the nearest road within REACH_M."""
    n = int(np.ceil(2 * half_m / STEP_M))
    best = np.full((n, n), REACH_M, dtype=np.float32)
    offset, along = np.full((n, n), 99, dtype=np.float32), np.zeros((n, n), dtype=np.float32)
    road, junction = np.full((n, n), -1, dtype=np.int16), np.zeros((n, n), dtype=bool)
    ticks = (np.arange(n) + 0.5) * STEP_M - half_m
    for e, line in enumerate(roads.lines):
        start = 0.0
        for a, b in pairwise(line):
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
    rng: np.random.Generator,
    half_m: float,
    roads: Roads,
    town: Town,
    coast: Coast,
    districts: Districts,
    *,
    shared: bool,
) -> Surface:
    """Rasters of a patch; without `shared` fields, lawns and roads have one colour each and no marking."""
    offset, along, road, junction = draw_roads(roads, half_m)
    mid = roads.lines[:, roads.lines.shape[1] // 2]
    district = districts.at(mid[:, 0], mid[:, 1])
    jitter = rng.normal(1, 0.06, (len(district), 1))
    which = rng.integers(0, 2, (2, roads.street.max() + 1 if len(roads.street) else 0))[:, roads.street]
    asphalt = np.where(
        (roads.kind > TRACK)[:, None],
        districts.asphalt[district, which[0]],
        districts.verge[district] * 0.3 + (0.33, 0.27, 0.2),
    )
    in_town = roads.paved > 0
    strip = np.where(in_town[:, None], districts.paving[district, which[1]], districts.verge[district])
    if not shared:
        asphalt, strip, jitter = (
            np.full_like(asphalt, 0.42),
            np.where(in_town[:, None], 0.55, rgb_of(PLAIN)),
            np.ones_like(jitter),
        )
    land, lut, stripe, cover = make_land(rng, half_m, town, coast, districts, shared=shared)
    return Surface(
        half_m=half_m,
        offset=offset,
        along=along,
        road=road,
        junction=junction,
        land=land,
        lut=lut,
        stripe=stripe,
        cover=cover,
        road_half=roads.half_width.astype(np.float32),
        road_paved=np.where(in_town, roads.paved, 0.8 * districts.strip_m[district]).astype(np.float32),
        road_marked=((roads.kind == MAIN) | (districts.marked[district] & (roads.kind > TRACK))) & shared,
        road_laned=districts.has_lane[district] & (roads.kind > TRACK) & shared,
        road_rgb=(asphalt * jitter).astype(np.float32),
        strip_rgb=strip.astype(np.float32),
        marking_rgb=districts.marking[district].astype(np.float32),
        lane_rgb=districts.lane[district].astype(np.float32),
        height=[],
    )


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
    out = rgb + (dull * rgb_of([1.05, 0.95, 0.65]) - rgb) * 0.4 * season.winter
    out = out + (rgb_of([0.72, 0.62, 0.36]) - out) * 0.25 * season.dry
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
        o = smooth_offset(s, x[on], y[on], at[on])
        gap = np.abs(o) - s.road_half[e]
        soft = np.maximum(blur[on], 0.12)
        tarmac = s.road_rgb[e] * (1 + 0.07 * g_fine[on] + 0.06 * g_coarse[on])[:, None]
        lane = np.clip(0.5 - np.abs(gap + 1.1) / soft + 0.85 / soft, 0, 1) * s.road_laned[e]
        tarmac += (s.lane_rgb[e] - tarmac) * (0.85 * lane)[:, None]
        marked = s.road_marked[e] & ~s.junction.ravel()[at[on]]
        dash = (np.abs(o) < 0.11 + 0.3 * soft) & (s.along.ravel()[at[on]] % 8.0 < 4.2)
        edge = np.abs(gap + 0.45) < 0.09 + 0.2 * soft
        line = marked & (dash | edge)
        fade = np.minimum(1, 0.3 / soft[line])[:, None] * 0.9
        tarmac[line] += (s.marking_rgb[e[line]] - tarmac[line]) * fade
        paved = s.road_paved[e]
        kerb = np.where(gap < 0.18, 1.12, 1.0) + 0.05 * g_fine[on]
        walk = s.strip_rgb[e] * kerb[:, None]
        side = rgb[on]
        edge_mix = np.clip((paved - gap) / soft + 0.5, 0, 1) * (paved > 0)
        side += (walk - side) * edge_mix[:, None]
        side += (tarmac - side) * np.clip(0.5 - gap / soft, 0, 1)[:, None]
        rgb[on] = side
    if season.snow > 0:
        mix = np.clip(season.snow * (0.75 + 0.6 * g_coarse), 0, 1) * np.where(road >= 0, 0.35, 0.9) * ~sea
        rgb += (rgb_of([0.9, 0.92, 0.95]) - rgb) * mix[:, None]
    return np.clip(rgb, 0, 1).astype(np.float32)


def _land_colour(s: Surface, x: F32, y: F32, epoch: int) -> tuple[F32, I32]:
    label = s.land.ravel()[s.index(x, y, LAND_STEP_M, s.land.shape[0])]
    rgb = s.lut[epoch][label]
    kx, ky, depth = s.stripe[label].T
    rgb *= (1 + depth * np.sin(x * kx + y * ky))[:, None]
    return rgb, s.cover[label]


def smooth_offset(s: Surface, x: F32, y: F32, at: I32) -> F32:
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


def shade(s: Surface, x: F32, y: F32, sun: tuple[float, float, float], epoch: int, z: float = 0.0) -> Mask:
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
