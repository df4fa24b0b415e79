"""Trees: along streets, in gardens, woods and hedgerows; each is a crown and a trunk."""

from __future__ import annotations

import numpy as np

from geofix.world import tables as t
from geofix.world.land import FOREST, LAND_STEP_M
from geofix.world.noise import F64, Mask
from geofix.world.objects import Site, change, stations
from geofix.world.roads import TRACK
from geofix.world.tables import Boxes, Sprites

# per species: crown radius, total height, where the crown starts (share of height), crown shape
RADIUS_M = np.array([2.9, 2.0, 1.3, 1.7])
HEIGHT_M = np.array([9.0, 11.5, 13.0, 4.0])
CROWN_FROM = np.array([0.25, 0.08, 0.08, 0.12])
SHAPE = np.array([t.ELLIPSE, t.CONE, t.ELLIPSE, t.ELLIPSE])
TINT = np.array([[1.0, 1.0, 1.0], [0.62, 0.78, 0.82], [1.05, 1.05, 0.85], [1.0, 1.02, 1.1]])


def make_trees(rng: np.random.Generator, site: Site, buildings: Boxes) -> Sprites:
    """All trees of a patch, crowns first, then their trunks."""
    groups = [_along_streets(rng, site), _gardens(rng, site), _woods(rng, site), _hedgerows(rng, site)]
    x, y, scale = (np.concatenate([g[i] for g in groups]) for i in range(3))
    street = np.arange(len(x)) < len(groups[0][0])
    far = site.surface.clearance(x, y) > np.where(street, 0.05, 1.2)
    keep = far & (site.coast(x, y) > 8) & ~_inside(buildings, x, y, site.half_m)
    keep &= np.maximum(np.abs(x), np.abs(y)) < site.half_m - 3
    x, y, scale = x[keep], y[keep], scale[keep]
    n = len(x)
    of = site.district(rng, x, y)
    species = (rng.random((n, 1)) > np.cumsum(site.districts.species[of], axis=1)[:, :3]).sum(axis=1)
    size = scale * rng.lognormal(0, 0.2, n)
    height = HEIGHT_M[species] * size
    radius = RADIUS_M[species] * size * rng.uniform(0.85, 1.15, n)
    rgb = (
        site.districts.foliage[of, (rng.random(n) < 0.3).astype(int)]
        * TINT[species]
        * rng.normal(1, 0.13, (n, 1))
    )
    purple = rng.random(n) < 0.02
    rgb[purple] = (0.36, 0.16, 0.2)
    alive, key = change(rng, n), rng.random(n)
    crowns = Sprites.make(
        n, x=x, y=y, lo=height * CROWN_FROM[species], hi=height, half=radius, shape=SHAPE[species],
        material=np.where(species == 1, t.NEEDLE, t.LEAF), rgb=np.clip(rgb, 0.02, 1), code=species, key=key,
        alive=alive,
    )  # fmt: skip
    trunks = Sprites.make(
        n, x=x, y=y, hi=height * (CROWN_FROM[species] + 0.35), half=0.03 + 0.022 * height,
        material=np.full(n, t.TRUNK), rgb=np.full((n, 3), (0.27, 0.2, 0.14)), key=key, alive=alive,
    )  # fmt: skip
    return Sprites.join([crowns, trunks])


def _along_streets(rng: np.random.Generator, site: Site) -> tuple[F64, F64, F64]:
    s = stations(site.roads, 10.5)
    edge = s["edge"].astype(int)
    of = site.districts.at(s["x"], s["y"])
    xs, ys = [], []
    for side in (-1.0, 1.0):
        chance = site.districts.tree_lined[of] * np.where(site.roads.kind[edge] == TRACK, 0.3, 1.0)
        keep = (rng.random(len(edge)) < chance * np.where(site.roads.paved[edge] > 0, 0.8, 0.45)) & (
            s["end"] > 8
        )
        away = site.roads.half_width[edge] + np.maximum(site.roads.paved[edge], 1.5) + 0.35
        xs.append((s["x"] - s["uy"] * side * away)[keep])
        ys.append((s["y"] + s["ux"] * side * away)[keep])
    x, y = np.concatenate(xs), np.concatenate(ys)
    return x, y, np.full(len(x), 0.75)


def _gardens(rng: np.random.Generator, site: Site) -> tuple[F64, F64, F64]:
    n = int((2 * site.half_m) ** 2 / 130)
    x, y = rng.uniform(-site.half_m, site.half_m, (2, n))
    of = site.districts.at(x, y)
    keep = (rng.random(n) < 0.5 * site.districts.garden[of]) & (site.town(x, y) > 0.15)
    return x[keep], y[keep], np.full(int(keep.sum()), 0.62)


def _woods(rng: np.random.Generator, site: Site) -> tuple[F64, F64, F64]:
    ticks = np.arange(-site.half_m + 3, site.half_m - 3, 6.5)
    x, y = (g.ravel() + rng.uniform(-2.2, 2.2, g.size) for g in np.meshgrid(ticks, ticks))
    s = site.surface
    at = s.index(x.astype(np.float32), y.astype(np.float32), LAND_STEP_M, s.land.shape[0])
    keep = s.land.ravel()[at] == FOREST
    return x[keep], y[keep], np.full(int(keep.sum()), 1.1)


def _hedgerows(rng: np.random.Generator, site: Site) -> tuple[F64, F64, F64]:
    land = site.surface.land.astype(np.int64)
    a, b = land[:-1, :-1], np.where(land[:-1, :-1] != land[1:, :-1], land[1:, :-1], land[:-1, 1:])
    pair = np.minimum(a, b) * 7919 + np.maximum(a, b) * 104_729
    ticks = (np.arange(land.shape[0] - 1) + 1) * LAND_STEP_M - site.half_m
    at = np.meshgrid(ticks, ticks)
    border = (a != b) & (site.town(*at) < 0.2) & (np.minimum(a, b) >= FOREST) & ((pair >> 3) % 100 < 38)
    rows, cols = np.nonzero(border & (rng.random(border.shape) < 0.3))
    x = (cols + rng.uniform(0, 1, len(cols))) * LAND_STEP_M - site.half_m
    y = (rows + rng.uniform(0, 1, len(rows))) * LAND_STEP_M - site.half_m
    return x, y, rng.uniform(0.45, 0.9, len(x))


def _inside(boxes: Boxes, x: F64, y: F64, half_m: float) -> Mask:
    """Whether points lie within about 1.5 m of a box, on a grid of 1 m."""
    n = int(2 * half_m)
    taken = np.zeros((n, n), dtype=bool)
    for i in range(len(boxes)):
        a = np.arange(-boxes.hx[i] - 1, boxes.hx[i] + 1.5, 0.9)[:, None]
        b = np.arange(-boxes.hy[i] - 1, boxes.hy[i] + 1.5, 0.9)[None, :]
        px = boxes.x[i] + a * boxes.ux[i] - b * boxes.uy[i] + half_m
        py = boxes.y[i] + a * boxes.uy[i] + b * boxes.ux[i] + half_m
        taken[np.clip(py, 0, n - 1).astype(int), np.clip(px, 0, n - 1).astype(int)] = True
    rows, cols = np.clip(y + half_m, 0, n - 1).astype(int), np.clip(x + half_m, 0, n - 1).astype(int)
    return np.asarray(taken[rows, cols])
