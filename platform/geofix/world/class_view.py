"""What each pixel of a photo of the built-in world shows: the renderer's own semantic map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geofix.imagery.semantics import ClassList
from geofix.world import tables as t
from geofix.world.camera import Camera, Light
from geofix.world.ground_view import SAMPLES, View, gather, ridge_of, solid_pixels
from geofix.world.land import FOREST, LAND_STEP_M, SAND, SEA
from geofix.world.noise import F32, grain, noise_tile
from geofix.world.scene import Scene
from geofix.world.spans import ROOF, Spans, box_spans, spread, sprite_spans
from geofix.world.surface import STEP_M, Surface, smooth_offset
from geofix.world.tables import Boxes, Sprites

Classes = NDArray[np.uint8]
_LISTED = {
    "sky": (130, 180, 230),
    "hill": (120, 140, 150),
    "water": (20, 70, 160),
    "beach": (230, 210, 150),
    "forest floor": (70, 60, 30),
    "grass": (120, 190, 80),
    "field": (190, 180, 90),
    "road": (90, 90, 90),
    "pavement": (170, 160, 160),
    "building": (180, 90, 70),
    "roof": (120, 40, 30),
    "hedge": (60, 140, 60),
    "fence": (150, 110, 60),
    "wall": (200, 190, 170),
    "car": (20, 20, 120),
    "tree": (20, 100, 30),
    "trunk": (80, 50, 20),
    "pole": (220, 220, 220),
    "sign": (250, 220, 0),
    "lamp": (255, 250, 200),
    "person": (250, 60, 160),
}
SOURCE = "renderer of the built-in world"
"""How these maps are marked: no network made them, and none of their pixels is wrong."""
CLASSES = ClassList(tuple(_LISTED), tuple(_LISTED.values()), SOURCE)
_NUMBER = {name: number for number, name in enumerate(_LISTED)}
_BOXES = {
    t.BUILDING: "building",
    t.HEDGE: "hedge",
    t.FENCE: "fence",
    t.WALL: "wall",
    t.CAR: "car",
    t.GLASS: "car",
    ROOF: "roof",
}
_SPRITES = {
    t.LEAF: "tree",
    t.NEEDLE: "tree",
    t.TRUNK: "trunk",
    t.POLE: "pole",
    t.PANEL: "sign",
    t.LAMP: "lamp",
    t.PERSON: "person",
}
TALLEST_M = 1.9


def class_number(name: str) -> int:
    """Number of a class."""
    return _NUMBER[name]


def render_classes(
    scene: Scene,
    camera: Camera,
    light: Light,
    epoch: int,
    size: tuple[int, int],
    extra_boxes: Boxes | None = None,
    extra: Sprites | None = None,
) -> Classes:
    """Class numbers (height, width) of the photo that `render` makes of the same arguments.

    Of the rays that a photo's pixel is the mean of, one decides: borders are right to a pixel.
    """
    width, height = size[0] * SAMPLES, size[1] * SAMPLES
    per_slope, horizon = camera.pixels_per_slope(width), camera.horizon * height
    image = np.empty((height, width), np.uint8)
    row0 = int(np.clip(np.ceil(horizon + 0.5), 0, height))
    _above(image[:row0], scene, camera, horizon, per_slope)
    _below(image[row0:], scene, camera, row0 - horizon, per_slope)
    view = gather(scene, camera, epoch, extra_boxes, extra)
    parts = box_spans(view.boxes, camera, width)
    boxes_end = sum(len(part) for part in parts)
    parts += sprite_spans(view.sprites, camera, width)
    if parts:
        spans = Spans.join(parts)
        pixels = spread(spans, height, width, horizon, per_slope)
        z = camera.height_m - pixels.slope * spans.depth[pixels.span]
        solid = solid_pixels(spans, pixels, z, view, light)
        # Far to near: the last one that is written to a pixel is the nearest.
        things = _things(spans, boxes_end, view)
        image.reshape(-1)[pixels.at[solid]] = things[pixels.span[solid]]
    return np.ascontiguousarray(image[SAMPLES // 2 :: SAMPLES, SAMPLES // 2 :: SAMPLES])


def _things(spans: Spans, boxes_end: int, view: View) -> Classes:
    """Class of every span; what covers anything but a building from above belongs to the thing itself."""
    out = np.zeros(len(spans), np.uint8)
    is_box = np.arange(len(spans)) < boxes_end
    material = spans.material.copy()
    covers = np.flatnonzero(is_box & (material == ROOF))
    below = view.boxes.material[spans.row[covers]]
    material[covers] = np.where(below == t.BUILDING, ROOF, below)
    # Passing poles are made like people (`passers_by`), but taller than any of them.
    person = np.flatnonzero(~is_box & (material == t.PERSON))
    material[person[view.sprites.hi[spans.row[person]] > TALLEST_M]] = t.POLE
    for own, table in ((is_box, _BOXES), (~is_box, _SPRITES)):
        for value, name in table.items():
            out[own & (material == value)] = _NUMBER[name]
    return out


def _above(image: Classes, scene: Scene, camera: Camera, horizon: float, per_slope: float) -> None:
    rows, width = image.shape
    if rows == 0:
        return
    u, _, _ = camera.columns(width)
    up = ((horizon - np.arange(rows) - 0.5) / per_slope)[:, None]
    azimuth = np.radians(camera.azimuth_deg) + np.arctan(u)
    image[:] = np.where(ridge_of(scene, azimuth, up), _NUMBER["hill"], _NUMBER["sky"])


def _below(image: Classes, scene: Scene, camera: Camera, first: float, per_slope: float) -> None:
    rows, width = image.shape
    if rows == 0:
        return
    _, dx, dy = camera.columns(width)
    slope = ((np.arange(rows) + first + 0.5) / per_slope).astype(np.float32)[:, None]
    depth = np.minimum(camera.height_m / slope, 900.0)
    x, y = (camera.x + depth * dx).ravel(), (camera.y + depth * dy).ravel()
    image[:] = ground_classes(scene.surface, x, y).reshape(rows, width)


def ground_classes(s: Surface, x: F32, y: F32) -> Classes:
    """Classes of the ground at local points (N,), with the same ragged borders as its colours."""
    g_fine, g_coarse = grain(noise_tile(0.6, 1), x * 5, y * 5), grain(noise_tile(1.2, 2), x * 0.9, y * 0.9)
    label = land_labels(s, x + 1.6 * g_coarse, y + 1.6 * g_fine)
    farmed = s.stripe[label][:, :2].any(axis=1)
    out = np.where(farmed, _NUMBER["field"], _NUMBER["grass"]).astype(np.uint8)
    for special, name in ((SEA, "water"), (SAND, "beach"), (FOREST, "forest floor")):
        out[label == special] = _NUMBER[name]
    at = s.index(x, y, STEP_M, s.offset.shape[0])
    road = s.road.ravel()[at]
    on = np.flatnonzero(road >= 0)
    if len(on):
        gap = np.abs(smooth_offset(s, x[on], y[on], at[on])) - s.road_half[road[on]]
        out[on[gap < s.road_paved[road[on]]]] = _NUMBER["pavement"]
        out[on[gap < 0]] = _NUMBER["road"]
    return out


def land_labels(s: Surface, x: F32, y: F32) -> NDArray[np.int64]:
    """Labels of the land at local points (N,)."""
    return np.asarray(s.land.ravel()[s.index(x, y, LAND_STEP_M, s.land.shape[0])], np.int64)
