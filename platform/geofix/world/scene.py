"""One scene description per patch, from which both views are rendered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from geofix.world import tables as t
from geofix.world.land import make_coast
from geofix.world.noise import F32, F64, harmonics, rng_for
from geofix.world.objects import Layout, Site, make_buildings, make_fences, make_furniture
from geofix.world.roads import make_roads, make_town
from geofix.world.styles import STYLES, make_districts
from geofix.world.surface import STEP_M, Surface, make_surface
from geofix.world.tables import Boxes, Sprites
from geofix.world.terrain import Continent, Patch, land_mask
from geofix.world.trees import make_trees

MARGIN_M = 170.0
COAST_STEP_M = 4.0


@dataclass(frozen=True)
class Without:
    """What an ablation leaves out: objects seen from the ground only, or those seen in both views."""

    ground_only: bool = False
    shared: bool = False


@dataclass
class Scene:
    """A patch with everything on it; lengths in local metres."""

    patch: Patch
    site: Site
    boxes: Boxes
    sprites: Sprites
    hills: F64
    box_tree: cKDTree
    sprite_tree: cKDTree

    @property
    def surface(self) -> Surface:
        """The flat part."""
        return self.site.surface


def build_layout(continent: Continent, patch: Patch, seed: int) -> Layout:
    """Coast, town, districts and roads of a patch."""
    half = float(np.ceil(patch.half_extent + MARGIN_M))
    rng = rng_for(seed, 3, patch.index)
    style = STYLES[patch.country]
    land = land_mask(continent, patch, half, COAST_STEP_M)
    coast = make_coast(rng_for(seed, 4, patch.index), land, half, COAST_STEP_M)
    town = make_town(rng, patch.kind, patch.half_extent)
    districts = make_districts(rng, patch.country, half)
    roads = make_roads(rng, town, coast, districts, half)
    return Layout(roads, town, coast, districts, style, half)


def build_site(continent: Continent, patch: Patch, seed: int, without: Without) -> Site:
    """A patch's layout with roads and land cover drawn."""
    at = build_layout(continent, patch, seed)
    rng, shared = rng_for(seed, 15, patch.index), not without.shared
    surface = make_surface(rng, at.half_m, at.roads, at.town, at.coast, at.districts, shared=shared)
    return Site(at.roads, at.town, at.coast, at.districts, at.style, at.half_m, surface)


def build_scene(continent: Continent, patch: Patch, seed: int, without: Without = Without()) -> Scene:
    """The scene of a patch; the same for the same seed, whoever builds it."""
    site = build_site(continent, patch, seed, without)
    keep = {"ground_only": not without.ground_only, "shared": not without.shared}
    buildings = make_buildings(rng_for(seed, 5, patch.index), site, **keep)
    boxes = Boxes.join([buildings, make_fences(rng_for(seed, 6, patch.index), site, **keep)])
    sprites = [make_furniture(rng_for(seed, 7, patch.index), site)] if keep["ground_only"] else []
    if keep["shared"]:
        sprites.append(make_trees(rng_for(seed, 8, patch.index), site, buildings))
    joined = Sprites.join(sprites) if sprites else Sprites.make(0, **{k: np.zeros(0) for k in _REQUIRED})
    for epoch in (0, 1):
        site.surface.height.append(_heights(site, boxes, joined, epoch))
    hills = 0.018 * (1.3 + harmonics(rng_for(seed, 9, patch.index), 720, 2, 60, 1.1))
    return Scene(
        patch, site, boxes, joined, np.clip(hills, 0.0, None), cKDTree(np.c_[boxes.x, boxes.y]),
        cKDTree(np.c_[joined.x, joined.y]),
    )  # fmt: skip


_REQUIRED = ("x", "y", "hi", "half", "material")


def _heights(site: Site, boxes: Boxes, sprites: Sprites, epoch: int) -> F32:
    """Height of what stands on each pixel of the surface, metres."""
    n = site.surface.offset.shape[0]
    out = np.zeros((n, n), dtype=np.float32)
    tall = boxes.take(boxes.alive[:, epoch] & (boxes.material == t.BUILDING))
    for i in range(len(tall)):
        a = np.arange(-tall.hx[i], tall.hx[i] + 0.4, 0.8)[:, None]
        b = np.arange(-tall.hy[i], tall.hy[i] + 0.4, 0.8)[None, :]
        px = (tall.x[i] + a * tall.ux[i] - b * tall.uy[i] + site.half_m) / STEP_M
        py = (tall.y[i] + a * tall.uy[i] + b * tall.ux[i] + site.half_m) / STEP_M
        z = tall.eave[i] + tall.rise[i] * (1 - np.abs(b) / tall.hy[i]) + 0 * a
        out[np.clip(py, 0, n - 1).astype(int), np.clip(px, 0, n - 1).astype(int)] = z
    crowns = sprites.take(sprites.alive[:, epoch] & np.isin(sprites.material, (t.LEAF, t.NEEDLE)))
    golden = np.arange(24)
    dx, dy = (
        np.sqrt((golden + 0.5) / 24) * np.cos(2.4 * golden),
        np.sqrt((golden + 0.5) / 24) * np.sin(2.4 * golden),
    )
    px = (crowns.x[:, None] + crowns.half[:, None] * dx + site.half_m) / STEP_M
    py = (crowns.y[:, None] + crowns.half[:, None] * dy + site.half_m) / STEP_M
    rows, cols = np.clip(py, 0, n - 1).astype(int), np.clip(px, 0, n - 1).astype(int)
    np.maximum.at(out, (rows, cols), np.broadcast_to(0.85 * crowns.hi[:, None], rows.shape))
    return out
