"""Perspective photos of a scene, by rays per column and a painter's order over their spans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geofix.world import tables as t
from geofix.world.camera import Camera, Light
from geofix.world.materials import crown_colour, roof_colour, sprite_colour, wall_colour
from geofix.world.noise import F32, F64, I32, grain, noise_tile, rgb_of
from geofix.world.scene import Scene
from geofix.world.spans import FAR_M, ROOF, Pixels, Spans, box_spans, spread, sprite_spans
from geofix.world.surface import ground_colour, shade
from geofix.world.tables import Boxes, Sprites

SAMPLES = 2
MAX_BOXES, MAX_SPRITES = 160, 420


@dataclass
class View:
    """What one camera sees of the movable and the fixed: boxes and sprites near it."""

    boxes: Boxes
    sprites: Sprites


def _near(tree_points: F64, camera: Camera, reach: np.ndarray, most: int) -> I32:
    """Indices of the `most` nearest points inside the widened field of view."""
    if len(tree_points) == 0:
        return np.zeros(0, dtype=int)
    rel = tree_points - (camera.x, camera.y)
    z, across = rel @ np.asarray(camera.forward), rel @ np.asarray(camera.right)
    wide = np.tan(np.radians(camera.fov_deg) / 2)
    index = np.flatnonzero((z > -reach) & (np.abs(across) < wide * z + 1.6 * reach))
    if len(index) > most:
        index = index[np.argpartition(z[index] - reach[index], most)[:most]]
    return index


def gather(
    scene: Scene, camera: Camera, epoch: int, extra_boxes: Boxes | None, extra: Sprites | None
) -> View:
    """The things near a camera that exist in `epoch`, with a photo's own passers-by and cars."""
    parts = []
    at = (camera.x, camera.y)
    for tree, table, most in (
        (scene.box_tree, scene.boxes, MAX_BOXES),
        (scene.sprite_tree, scene.sprites, MAX_SPRITES),
    ):
        index = np.asarray(tree.query_ball_point(at, FAR_M), dtype=int)
        index.sort()
        index = index[table.alive[index, epoch]]
        reach = table.hx[index] + 2 if isinstance(table, Boxes) else table.half[index] + 1
        points = np.c_[table.x[index], table.y[index]]
        parts.append(table.take(index[_near(points, camera, reach, most)]))
    boxes, sprites = parts
    assert isinstance(boxes, Boxes) and isinstance(sprites, Sprites)
    if extra_boxes is not None:
        boxes = Boxes.join([boxes, extra_boxes])
    if extra is not None:
        sprites = Sprites.join([sprites, extra])
    return View(boxes, sprites)


def render(
    scene: Scene,
    camera: Camera,
    light: Light,
    epoch: int,
    size: tuple[int, int],
    extra_boxes: Boxes | None = None,
    extra: Sprites | None = None,
) -> F32:
    """The light that reaches the sensor, (height, width, 3), about 0..1; SAMPLES squared rays per pixel."""
    width, height = size[0] * SAMPLES, size[1] * SAMPLES
    per_slope, horizon = camera.pixels_per_slope(width), camera.horizon * height
    image = np.empty((height, width, 3), dtype=np.float32)
    row0 = int(np.clip(np.ceil(horizon + 0.5), 0, height))
    _sky(image[:row0], scene, camera, light, horizon, per_slope)
    _ground(image[row0:], scene, camera, light, epoch, row0 - horizon, per_slope)
    view = gather(scene, camera, epoch, extra_boxes, extra)
    parts = box_spans(view.boxes, camera, width)
    boxes_end = sum(len(p) for p in parts)
    parts += sprite_spans(view.sprites, camera, width)
    if parts:
        spans = Spans.join(parts)
        pixels = spread(spans, height, width, horizon, per_slope)
        _paint(image.reshape(-1, 3), spans, pixels, boxes_end, view, camera, light)
    small = image.reshape(size[1], SAMPLES, size[0], SAMPLES, 3).mean(axis=(1, 3))
    return np.asarray(small, dtype=np.float32)


def _sky(image: F32, scene: Scene, camera: Camera, light: Light, horizon: float, per_slope: float) -> None:
    rows, width = image.shape[:2]
    if rows == 0:
        return
    u, _, _ = camera.columns(width)
    up = ((horizon - np.arange(rows) - 0.5) / per_slope)[:, None]
    azimuth = np.radians(camera.azimuth_deg) + np.arctan(u)
    blend = np.clip(up * 1.15, 0, 1) ** 0.6
    image[:] = light.horizon_rgb + (light.zenith_rgb - light.horizon_rgb) * blend[..., None]
    reach = 1 / (up + 0.22)
    puff = grain(noise_tile(1.4, 5), 40 * azimuth[None] + 35 * reach, 60 * reach + 90 * light.haze_m)
    cover = np.clip((puff + 1.6 * light.cloud - 0.75) * 2.2, 0, 1) * (0.35 + 0.45 * np.clip(up * 4, 0, 1))
    cloud = rgb_of([0.93, 0.93, 0.95]) * light.level * (1 - 0.22 * light.cloud)
    image += (cloud - image) * cover[..., None]
    ridge = ridge_of(scene, azimuth, up)
    far = light.horizon_rgb * 0.55 + rgb_of([0.24, 0.31, 0.27]) * 0.45 * light.level
    image[ridge] = far


def ridge_of(scene: Scene, azimuth: F32, up: F32) -> NDArray[np.bool_]:
    """Where hills on the horizon cover the sky: directions (W,) in radians, slopes above it (H, 1)."""
    hill = scene.hills[(azimuth * 720 / (2 * np.pi)).astype(int) % 720]
    found: NDArray[np.bool_] = up < (
        hill[None] + 0.004 * grain(noise_tile(0.8, 6), azimuth * 600, azimuth * 0)[None]
    )
    return found


def _ground(
    image: F32, scene: Scene, camera: Camera, light: Light, epoch: int, first: float, per_slope: float
) -> None:
    rows, width = image.shape[0], image.shape[1] // SAMPLES
    if rows == 0:
        return
    _, dx, dy = camera.columns(width)
    slope = ((np.arange(rows) + first + 0.5) / per_slope).astype(np.float32)[:, None]
    depth = np.minimum(camera.height_m / slope, 900.0)
    x, y = (camera.x + depth * dx).ravel(), (camera.y + depth * dy).ravel()
    blur = np.broadcast_to(depth / per_slope * 1.5, (rows, width)).ravel()
    rgb = ground_colour(scene.surface, x, y, blur, light.season, epoch)
    bright = np.full(len(x), light.ambient + light.direct * light.sun[2], dtype=np.float32)
    if light.direct > 0.2:
        near = np.flatnonzero(np.broadcast_to(depth < 70, (rows, width)).ravel())
        dark = shade(scene.surface, x[near], y[near], light.sun, epoch)
        bright[near[dark]] = light.ambient * 0.82
    rgb *= bright[:, None]
    hazy = _haze(rgb, np.broadcast_to(depth, (rows, width)).ravel(), light).reshape(rows, width, 3)
    image[:] = np.repeat(hazy, SAMPLES, axis=1)


def _haze(rgb: F32, depth: F32, light: Light) -> F32:
    mix = 1 - np.exp(-depth / (2.2 * light.haze_m))
    return np.asarray(rgb + (light.horizon_rgb - rgb) * mix[:, None], np.float32)


def _paint(
    image: F32, spans: Spans, pixels: Pixels, boxes_end: int, view: View, camera: Camera, light: Light
) -> None:
    """Keep the nearest span of each pixel (holes in crowns let the one behind through) and colour it."""
    z = camera.height_m - pixels.slope * spans.depth[pixels.span]
    solid = solid_pixels(spans, pixels, z, view, light)
    owner = np.full(len(image), -1, dtype=np.int64)
    owner[pixels.at[solid]] = solid
    won = owner[owner >= 0]
    at, span, z = pixels.at[won], pixels.span[won], z[won]
    material, row, s = spans.material[span], spans.row[span], spans.s[span]
    depth = spans.depth[span]
    rgb = np.empty((len(at), 3), dtype=np.float32)
    is_box = span < boxes_end
    lit = light.on(spans.nx[span], spans.ny[span], np.where(material == ROOF, 0.75, 0.0).astype(np.float32))
    for mask, kind in (
        (is_box & (material == t.BUILDING), "wall"),
        (is_box & (material == ROOF), "roof"),
        (is_box & (material != t.BUILDING) & (material != ROOF), "low"),
        (~is_box & ((material == t.LEAF) | (material == t.NEEDLE)), "crown"),
        (~is_box & (material > t.NEEDLE), "other"),
    ):
        i = np.flatnonzero(mask)
        if len(i) == 0:
            continue
        r, si, zi, li = row[i], s[i], z[i], lit[i]
        if kind == "wall":
            rgb[i] = wall_colour(view.boxes, r, si, zi, spans.half[span[i]], li, depth[i])
        elif kind == "roof":
            rgb[i] = roof_colour(view.boxes, r, si, zi, li, light.season)
        elif kind == "low":
            rgb[i] = _low_colour(view.boxes, r, si, zi, li)
        elif kind == "crown":
            rgb[i] = crown_colour(view.sprites, r, si, zi, light)
        else:
            rgb[i] = sprite_colour(view.sprites, r, si, zi, light)
    image[at] = _haze(rgb, depth, light)


def solid_pixels(spans: Spans, pixels: Pixels, z: F32, view: View, light: Light) -> I32:
    """Indices of pixels that are not holes: crowns are ragged, and thin out in winter; fences have gaps."""
    material = spans.material[pixels.span]
    keep = np.ones(len(material), dtype=bool)
    leaf = np.flatnonzero((material == t.LEAF) | (material == t.NEEDLE))
    if len(leaf):
        span = pixels.span[leaf]
        row, s = spans.row[span], spans.s[span]
        tree = view.sprites
        key, half = tree.key[row], spans.half[span]
        rough = grain(noise_tile(0.7, 4), s * 14 + 57 * key, z[leaf] * 14 + 91 * key)
        middle, reach = (tree.lo[row] + tree.hi[row]) / 2, (tree.hi[row] - tree.lo[row]) / 2
        rim = (s / half) ** 2 + ((z[leaf] - middle) / reach) ** 2
        hole = np.where(material[leaf] == t.LEAF, 0.72 - 0.75 * light.season.winter, 0.8)
        keep[leaf] = rough < hole - 0.9 * np.clip(rim - 0.55, 0, 1) * (material[leaf] == t.LEAF)
    fence = np.flatnonzero(material == t.FENCE)
    if len(fence):
        span = pixels.span[fence]
        slats = view.boxes.window[spans.row[span]] == 2
        keep[fence] = ~(slats & ((spans.s[span] * 3.3) % 1.0 < 0.45) & (z[fence] < 0.9))
    return np.flatnonzero(keep)


def _low_colour(boxes: Boxes, row: np.ndarray, s: F32, z: F32, light: F32) -> F32:
    """Hedges, fences, garden walls and cars."""
    material = boxes.material[row]
    rgb = boxes.wall[row].copy()
    rough = grain(noise_tile(0.7, 4), s * 12 + 31 * boxes.key[row], z * 12)
    rgb *= (1 + np.where(material == t.HEDGE, 0.4, 0.12) * rough)[:, None]
    courses = (material == t.WALL) & ((z * 3.2) % 1.0 < 0.16)
    rgb[courses] *= 0.75
    wheels = (material == t.CAR) & (z < 0.42)
    rgb[wheels] = 0.07
    rgb[material == t.GLASS] = (0.13, 0.15, 0.18)
    return np.asarray(rgb * light[:, None], np.float32)
