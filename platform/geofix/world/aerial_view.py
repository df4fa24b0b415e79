"""Orthophotos of a scene: grid north up, seen straight from above."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geofix.world import tables as t
from geofix.world.materials import foliage_rgb
from geofix.world.noise import F32, Mask, grain, noise_tile, rng_for
from geofix.world.scene import Scene
from geofix.world.surface import Season, ground_colour, shade
from geofix.world.tables import Boxes, Sprites

STRIP_ROWS = 256


@dataclass(frozen=True)
class Flight:
    """One date of imagery: the light and season in which it was flown, and the colours of its camera."""

    date: str
    epoch: int
    season: Season
    sun: tuple[float, float, float]
    gain: tuple[float, float, float]


FLIGHTS = (
    Flight("2019-07-16", 0, Season(dry=0.25), (0.42, -0.42, 0.80), (1.0, 1.0, 0.98)),
    Flight("2023-04-21", 1, Season(winter=0.25), (-0.35, -0.5, 0.79), (1.06, 1.0, 0.93)),
)


@dataclass
class Canvas:
    """An image (row 0 in the north) of `step_m` metres a pixel around the patch's centre."""

    rgb: F32
    half_m: float
    step_m: float

    def window(self, x: float, y: float, reach: float) -> tuple[tuple[slice, slice], F32, F32] | None:
        """The part within `reach` of a local point, and its pixels' offsets from it in metres."""
        n = self.rgb.shape[0]
        c0 = max(int((x - reach + self.half_m) / self.step_m), 0)
        c1 = min(int((x + reach + self.half_m) / self.step_m) + 1, n)
        r0 = max(int((self.half_m - y - reach) / self.step_m), 0)
        r1 = min(int((self.half_m - y + reach) / self.step_m) + 1, n)
        if c1 <= c0 or r1 <= r0:
            return None
        dx = ((np.arange(c0, c1) + 0.5) * self.step_m - self.half_m - x).astype(np.float32)
        dy = (self.half_m - (np.arange(r0, r1) + 0.5) * self.step_m - y).astype(np.float32)
        return (slice(r0, r1), slice(c0, c1)), dx[None], dy[:, None]


def render_aerial(scene: Scene, flight: Flight, step_m: float, seed: int) -> tuple[NDArray[np.uint8], Mask]:
    """Orthophoto (n, n, 3) of the square around the patch, and which pixels lie inside the patch."""
    n = int(np.ceil(2 * scene.patch.half_extent / step_m))
    half = n * step_m / 2
    rng = rng_for(seed, 10, scene.patch.index, flight.epoch)
    canvas = Canvas(np.empty((n, n, 3), dtype=np.float32), half, step_m)
    ticks = ((np.arange(n) + 0.5) * step_m - half).astype(np.float32)
    inside = np.empty((n, n), dtype=bool)
    for r in range(0, n, STRIP_ROWS):
        part = slice(r, r + STRIP_ROWS)
        y, x = np.meshgrid(-ticks[part], ticks, indexing="ij")
        inside[part] = scene.patch.contains(x, y)
        canvas.rgb[part] = 0
        canvas.rgb[part][inside[part]] = _flat(scene, flight, x[inside[part]], y[inside[part]], step_m)
    _cars(canvas, scene, rng)
    _hedges(canvas, scene.boxes, flight)
    _roofs(canvas, scene.boxes, flight)
    _crowns(canvas, scene.sprites, flight)
    rgb = ndimage.gaussian_filter(canvas.rgb, (0.45, 0.45, 0))
    rgb = rgb * np.asarray(flight.gain, np.float32) * 0.93 + 0.02
    rgb += rng.standard_normal(rgb.shape, dtype=np.float32) * np.float32(0.012)
    rgb[~inside] = 0
    return np.clip(rgb * 255 + 0.5, 0, 255).astype(np.uint8), inside


def _flat(scene: Scene, flight: Flight, x: F32, y: F32, step_m: float) -> F32:
    """The ground at points inside the patch, with the shadows that fall on it."""
    if len(x) == 0:
        return np.zeros((0, 3), dtype=np.float32)
    blur = np.full(len(x), step_m, dtype=np.float32)
    rgb = ground_colour(scene.surface, x, y, blur, flight.season, flight.epoch)
    dark = shade(scene.surface, x, y, flight.sun, flight.epoch)
    return rgb * np.where(dark, 0.52, 1.0).astype(np.float32)[:, None]


def _blend(canvas: Canvas, part: tuple[slice, slice], rgb: F32, alpha: F32) -> None:
    target = canvas.rgb[part]
    target += (rgb - target) * alpha[..., None]


def _roofs(canvas: Canvas, boxes: Boxes, flight: Flight) -> None:
    sun = flight.sun
    for i in np.flatnonzero(boxes.alive[:, flight.epoch] & (boxes.material == t.BUILDING)):
        hx, hy, ux, uy = float(boxes.hx[i]), float(boxes.hy[i]), float(boxes.ux[i]), float(boxes.uy[i])
        found = canvas.window(float(boxes.x[i]), float(boxes.y[i]), float(np.hypot(hx, hy)) + canvas.step_m)
        if found is None:
            continue
        part, dx, dy = found
        lx, ly = dx * ux + dy * uy, dy * ux - dx * uy
        soft = 1 / canvas.step_m
        alpha = np.clip((hx + 0.25 - np.abs(lx)) * soft + 0.5, 0, 1) * np.clip(
            (hy + 0.25 - np.abs(ly)) * soft + 0.5, 0, 1
        )
        tilt = float(boxes.rise[i]) / hy
        side = np.sign(ly)
        facing = (-uy * side * tilt * sun[0] + ux * side * tilt * sun[1] + sun[2]) / np.sqrt(1 + tilt * tilt)
        lit = 0.5 + 0.62 * np.maximum(facing, 0)
        if boxes.rise[i] == 0:
            rim = (np.abs(lx) > hx - 0.7) | (np.abs(ly) > hy - 0.7)
            plant = (np.abs(lx - hx * (float(boxes.key[i]) - 0.5)) < 1.2) & (np.abs(ly) < 1.0)
            lit = lit * np.where(rim, 1.12, 1.0) * np.where(plant, 0.72, 1.0)
        rough = 1 + 0.06 * grain(noise_tile(0.4, 3), lx * 3 + 90, ly * 3 + 211 * float(boxes.key[i]))
        _blend(canvas, part, boxes.roof[i] * (lit * rough)[..., None], alpha)


def _hedges(canvas: Canvas, boxes: Boxes, flight: Flight) -> None:
    for i in np.flatnonzero(boxes.alive[:, flight.epoch] & (boxes.material == t.HEDGE)):
        found = canvas.window(float(boxes.x[i]), float(boxes.y[i]), 4.5)
        if found is None:
            continue
        part, dx, dy = found
        ux, uy = float(boxes.ux[i]), float(boxes.uy[i])
        lx, ly = dx * ux + dy * uy, dy * ux - dx * uy
        soft = 1 / canvas.step_m
        alpha = np.clip((3.4 - np.abs(lx)) * soft + 0.5, 0, 1) * np.clip(
            (0.95 - np.abs(ly)) * soft + 0.5, 0, 1
        )
        _blend(canvas, part, np.broadcast_to(boxes.wall[i], (*alpha.shape, 3)), 0.9 * alpha)


def _crowns(canvas: Canvas, sprites: Sprites, flight: Flight) -> None:
    leafy = np.flatnonzero(sprites.alive[:, flight.epoch] & np.isin(sprites.material, (t.LEAF, t.NEEDLE)))
    leafy = leafy[np.argsort(sprites.hi[leafy], kind="stable")]
    colour = foliage_rgb(sprites, leafy, flight.season)
    sun = np.asarray(flight.sun[:2]) / np.hypot(*flight.sun[:2])
    tile = noise_tile(0.7, 4)
    for i, rgb in zip(leafy, colour, strict=True):
        radius = float(sprites.half[i])
        found = canvas.window(float(sprites.x[i]), float(sprites.y[i]), radius + canvas.step_m)
        if found is None:
            continue
        part, dx, dy = found
        rough = grain(tile, dx * 9 + 131 * sprites.key[i], dy * 9 + 37)
        d = np.sqrt(dx * dx + dy * dy) / radius
        alpha = np.clip((1 + 0.22 * rough - d) * radius / canvas.step_m + 0.5, 0, 1)
        lit = 0.86 + 0.3 * (dx * sun[0] + dy * sun[1]) / radius + 0.22 * rough
        _blend(canvas, part, (rgb * lit[..., None]).astype(np.float32), (0.95 * alpha).astype(np.float32))


def _cars(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """Cars that happened to be there on the day of the flight."""
    roads = scene.site.roads
    for e in np.flatnonzero((roads.paved > 0) & (rng.random(len(roads.kind)) < 0.7)):
        for _ in range(int(rng.integers(1, 4))):
            line = roads.lines[e]
            k = int(rng.integers(0, len(line) - 1))
            u = line[k + 1] - line[k]
            u = u / np.hypot(*u)
            side = (roads.half_width[e] - 1.0) * rng.choice([-1, 1])
            p = line[k] + (line[k + 1] - line[k]) * rng.random() + side * np.array([u[1], -u[0]])
            found = canvas.window(float(p[0]), float(p[1]), 3.0)
            rgb = rng.choice([0.12, 0.3, 0.55, 0.85]) * rng.uniform(0.8, 1.2, 3)
            if found is not None:
                part, dx, dy = found
                lx, ly = dx * u[0] + dy * u[1], dy * u[0] - dx * u[1]
                soft = 1 / canvas.step_m
                alpha = np.clip((2.1 - np.abs(lx)) * soft + 0.5, 0, 1) * np.clip(
                    (0.9 - np.abs(ly)) * soft + 0.5, 0, 1
                )
                _blend(canvas, part, np.broadcast_to(rgb, (*alpha.shape, 3)), alpha.astype(np.float32))
