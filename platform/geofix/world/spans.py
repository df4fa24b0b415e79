"""Upright things cut into vertical spans, one per image column: what a column's ray meets, and where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geofix.world import tables as t
from geofix.world.camera import Camera
from geofix.world.noise import F32, I32
from geofix.world.tables import Boxes, Sprites, Table

NEAR_M, FAR_M = 0.7, 170.0
ROOF = 20


@dataclass
class Spans(Table):
    """Spans of rows `top`..`bottom` in `column` at `depth` metres; `row` of the table named by `material`.

    `s` runs along the wall or across the sprite; `half` is half that face's length, `nx`, `ny` its normal.
    """

    column: I32
    depth: F32
    top: F32
    bottom: F32
    material: I32
    row: I32
    s: F32
    half: F32
    nx: F32
    ny: F32


def box_spans(boxes: Boxes, camera: Camera, width: int) -> list[Spans]:
    """Walls and visible roofs of boxes. Slab test in the frame of each box; heights are exact for gables."""
    if len(boxes) == 0:
        return []
    _, dx, dy = camera.columns(width)
    rx, ry = camera.x - boxes.x, camera.y - boxes.y
    ox, oy = (rx * boxes.ux + ry * boxes.uy)[:, None], (ry * boxes.ux - rx * boxes.uy)[:, None]
    ux, uy = boxes.ux[:, None], boxes.uy[:, None]
    lx, ly = dx * ux + dy * uy, dy * ux - dx * uy
    lx[np.abs(lx) < 1e-6], ly[np.abs(ly) < 1e-6] = 1e-6, 1e-6
    hx, hy = boxes.hx[:, None], boxes.hy[:, None]
    mid_x, ext_x, mid_y, ext_y = -ox / lx, np.abs(hx / lx), -oy / ly, np.abs(hy / ly)
    in_x, in_y = mid_x - ext_x, mid_y - ext_y
    enter, leave = np.maximum(in_x, in_y), np.minimum(mid_x + ext_x, mid_y + ext_y)
    b, c = np.nonzero((leave > enter) & (enter > NEAR_M) & (enter < FAR_M))
    z, out = enter[b, c], leave[b, c]
    gable = in_x[b, c] > in_y[b, c]
    ox, oy, lx, ly = ox[b, 0], oy[b, 0], lx[b, c], ly[b, c]
    x_in, y_in = ox + lx * z, oy + ly * z
    hx, hy, rise, eave, base = boxes.hx[b], boxes.hy[b], boxes.rise[b], boxes.eave[b], boxes.base[b]
    z_in = eave + rise * np.where(gable, np.maximum(0, 1 - np.abs(y_in) / hy), 0)
    h = camera.height_m
    wall_top = (h - z_in) / z
    sx, sy = -np.sign(lx), -np.sign(ly)
    bux, buy = boxes.ux[b], boxes.uy[b]
    nx, ny = np.where(gable, sx * bux, -sy * buy), np.where(gable, sx * buy, sy * bux)
    walls = Spans(
        c.astype(np.int32),
        z,
        wall_top,
        (h - base) / z,
        boxes.material[b],
        b.astype(np.int32),
        np.where(gable, y_in, x_in),
        np.where(gable, hy, hx),
        nx,
        ny,
    )
    ridge = mid_y[b, c]
    crosses = (ridge > z) & (ridge < out)
    y_out = oy + ly * out
    z_out = eave + rise * np.maximum(0, 1 - np.abs(y_out) / hy)
    at_ridge = np.where(crosses, (h - eave - rise) / np.maximum(ridge, NEAR_M), np.inf)
    roof_top = np.minimum(at_ridge, (h - z_out) / out)
    seen = np.flatnonzero(roof_top < wall_top)
    side = np.sign(oy + ly * (z + 0.5 * (np.where(crosses, ridge, out) - z)))[seen]
    tilt = rise[seen] / hy[seen]
    norm = np.sqrt(1 + tilt * tilt)
    roofs = Spans(
        c[seen].astype(np.int32),
        z[seen] + 0.02,
        roof_top[seen],
        wall_top[seen],
        np.full(len(seen), ROOF, np.int32),
        b[seen].astype(np.int32),
        x_in[seen],
        hx[seen],
        (-buy[seen] * side * tilt / norm).astype(np.float32),
        (bux[seen] * side * tilt / norm).astype(np.float32),
    )
    return [walls, roofs]


def sprite_spans(sprites: Sprites, camera: Camera, width: int) -> list[Spans]:
    """Silhouettes of sprites: rectangles, ellipses and triangles facing the camera."""
    rx, ry = sprites.x - camera.x, sprites.y - camera.y
    (fx, fy), (sx, sy) = camera.forward, camera.right
    z, across = rx * fx + ry * fy, rx * sx + ry * sy
    k = camera.pixels_per_slope(width)
    near = z > np.maximum(1.2, np.where(sprites.hi > 3, sprites.half + 0.4, 0))
    middle = width / 2 + k * across / np.maximum(z, 1)
    half = k * sprites.half / np.maximum(z, 1)
    first = np.maximum(np.ceil(middle - half - 0.5), 0)
    count = np.minimum(np.ceil(middle + half - 0.5), width) - first
    index = np.flatnonzero(near & (z < FAR_M) & (count > 0))
    if len(index) == 0:
        return []
    count = count[index].astype(np.int64)
    b = np.repeat(index, count)
    start = np.repeat(np.cumsum(count) - count, count)
    column = (first[b] + np.arange(len(b)) - start).astype(np.int32)
    e = np.clip((column + 0.5 - middle[b]) / half[b], -1, 1).astype(np.float32)
    lo, hi, shape = sprites.lo[b], sprites.hi[b], sprites.shape[b]
    bulge = np.sqrt(1 - e * e)
    centre, reach = (lo + hi) / 2, (hi - lo) / 2
    top = np.select(
        [shape == t.RECT, shape == t.CONE], [hi, hi - (hi - lo) * np.abs(e)], centre + reach * bulge
    )
    low = np.where(shape == t.ELLIPSE, centre - reach * bulge, lo)
    depth, h = z[b].astype(np.float32), camera.height_m
    zero = np.zeros(len(b), np.float32)
    return [
        Spans(
            column,
            depth,
            (h - top) / depth,
            (h - low) / depth,
            sprites.material[b],
            b.astype(np.int32),
            e * sprites.half[b],
            sprites.half[b],
            zero,
            zero,
        )
    ]


@dataclass
class Pixels:
    """Pixels of all spans, far to near: flat index into the image, span, slope below the horizon."""

    at: I32
    span: I32
    slope: F32


def spread(spans: Spans, height: int, width: int, horizon_row: float, per_slope: float) -> Pixels:
    """Every pixel that every span covers, in order of decreasing depth."""
    top = np.clip(np.ceil(horizon_row + spans.top * per_slope - 0.5), 0, height)
    bottom = np.clip(np.ceil(horizon_row + spans.bottom * per_slope - 0.5), 0, height)
    count = np.maximum(bottom - top, 0).astype(np.int64)
    order = np.argsort(-spans.depth, kind="stable")
    order = order[count[order] > 0]
    count = count[order]
    span = np.repeat(order, count)
    start = np.repeat(np.cumsum(count) - count, count)
    row = (np.arange(len(span)) - start) + top[span].astype(np.int64)
    slope = ((row + 0.5 - horizon_row) / per_slope).astype(np.float32)
    return Pixels(row * width + spans.column[span], span, slope)
