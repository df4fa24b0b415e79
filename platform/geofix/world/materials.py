"""Colours of walls, roofs, crowns and street furniture, pixel by pixel."""

from __future__ import annotations

import numpy as np

from geofix.world import tables as t
from geofix.world.camera import Light
from geofix.world.noise import F32, I32, Mask, grain, noise_tile, rgb_of
from geofix.world.surface import Season
from geofix.world.tables import Boxes, Sprites

# per window style: period in metres, share of it that is glass, sill and head in a 3 m storey, frame width
WINDOWS = np.array(
    [
        [2.6, 0.42, 0.9, 2.3, 0.10], [1.7, 0.55, 0.7, 2.5, 0.08], [4.2, 0.62, 1.0, 2.2, 0.06],
        [3.0, 0.36, 0.9, 2.3, 0.45], [9.0, 0.97, 1.0, 2.1, 0.05], [2.2, 0.34, 0.5, 2.6, 0.16],
        [3.2, 0.34, 1.0, 2.2, 0.10], [5.0, 0.30, 0.2, 2.4, 0.10], [9.0, 0.0, 0.0, 0.0, 0.0],
    ],
    dtype=np.float32,
)  # fmt: skip
TIMBERED, BALCONIES = 6, 7


def wall_colour(boxes: Boxes, row: I32, s: F32, z: F32, half: F32, light: F32, near: F32) -> F32:
    """Facades: windows, frames, shutters, doors, shop fronts with sign bands, plinths, eaves."""
    rgb = boxes.wall[row].copy()
    key, style = boxes.key[row], boxes.window[row]
    rgb *= (1 + 0.07 * grain(noise_tile(0.4, 3), s * 4 + 97 * key, z * 9))[:, None]
    clad = z < boxes.clad[row]
    rgb[clad] = boxes.lower[row[clad]]
    hung = z > boxes.eave[row] - boxes.hung[row]
    courses = np.where((z[hung] * 2.1) % 1.0 < 0.3, 0.86, 1.0).astype(np.float32)
    rgb[hung] = boxes.roof[row[hung]] * courses[:, None]
    period, share, sill, head, frame = WINDOWS[style].T
    phase = np.abs((s / period + key) % 1.0 - 0.5)
    floor = z % 3.0
    body = (np.abs(s) < half - 0.5) & (z < boxes.eave[row] - 0.35) & (z > 0.4)
    ground = boxes.has_shop[row] & (z < 3.4)
    across, up = phase < share / 2, (floor > sill) & (floor < head)
    glass = across & up & body & ~ground
    framed = (
        (phase < share / 2 + frame / period) & (floor > sill - 0.12) & (floor < head + 0.12) & body & ~glass
    )
    framed &= ~ground & (share > 0)
    trim = boxes.trim[row]
    beams = (style == TIMBERED) & body & ((phase > 0.46) | (floor < 0.22) | (np.abs(phase - 0.28) < 0.025))
    rgb[beams] = 0.35 * trim[beams]
    rgb[framed] = trim[framed]
    rgb[glass] = _glass(s[glass], z[glass], key[glass])
    rail = (style == BALCONIES) & (floor < 0.95) & (z > 3) & body & (phase < 0.33)
    rgb[rail] = 0.75 * trim[rail] + 0.1
    _shop_front(rgb, boxes, row, s, z, half, ground)
    door = (np.abs(s - (key - 0.5) * half) < 0.55) & (z < 2.15) & (style < 8)
    rgb[door] = 0.6 * boxes.shop[row[door]]
    rgb[(z < 0.4) & (style < 8)] *= 0.72
    rgb[z > boxes.eave[row] - 0.22] *= 0.62
    return np.asarray(rgb * light[:, None], np.float32)


def _glass(s: F32, z: F32, key: F32) -> F32:
    dark = 0.16 + 0.16 * ((np.floor(z / 3) * 7.3 + np.floor(s / 2.5) * 3.1 + 41 * key) % 1.0)
    return np.asarray(dark[:, None] * rgb_of([0.85, 1.0, 1.2]), np.float32)


def _shop_front(rgb: F32, boxes: Boxes, row: I32, s: F32, z: F32, half: F32, ground: Mask) -> None:
    window = ground & (z > 0.5) & (z < 2.4) & (np.abs(s) < half - 0.4)
    rgb[window] = rgb_of([0.2, 0.23, 0.26]) + 0.08 * (np.abs((s[window] / 2.8) % 1.0 - 0.5) < 0.04)[:, None]
    band = np.flatnonzero(ground & (z > 2.55))
    bit = (boxes.code[row[band]] >> (np.floor(s[band] / 0.7).astype(np.int32) % 9)) & 1
    letters = (bit == 1) & (z[band] > 2.75) & (z[band] < 3.2)
    rgb[band] = np.where(letters[:, None], 0.95 - 0.6 * boxes.shop[row[band]], boxes.shop[row[band]])


def roof_colour(boxes: Boxes, row: I32, s: F32, z: F32, light: F32, season: Season) -> F32:
    """Tiles in rows; snow lies on them in winter."""
    rgb = boxes.roof[row] * (1 + 0.09 * grain(noise_tile(0.4, 3), s * 5, z * 14))[:, None]
    rgb += (rgb_of([0.88, 0.9, 0.93]) - rgb) * 0.85 * season.snow
    return np.asarray(rgb * light[:, None], np.float32)


def foliage_rgb(sprites: Sprites, row: I32, season: Season) -> F32:
    """Crown colours in a season, both views; conifers stay green."""
    rgb, key = sprites.rgb[row].copy(), sprites.key[row]
    leafy = sprites.material[row] == t.LEAF
    turned = np.clip(season.autumn * 1.5 - 0.5 * key, 0, 1) * leafy
    gold = rgb_of([0.72, 0.45, 0.13]) + (key[:, None] - 0.5) * rgb_of([0.2, -0.35, 0.05])
    rgb += (gold - rgb) * (0.6 * turned)[:, None]
    bare = season.winter * leafy
    rgb += (rgb_of([0.34, 0.29, 0.24]) - rgb) * (0.65 * bare)[:, None]
    return np.asarray(rgb + (rgb_of([0.85, 0.87, 0.9]) - rgb) * 0.4 * season.snow, np.float32)


def crown_colour(sprites: Sprites, row: I32, s: F32, z: F32, light: Light) -> F32:
    """Crowns: lit from above, mottled."""
    lo, hi, half = sprites.lo[row], sprites.hi[row], sprites.half[row]
    up = np.clip((z - lo) / (hi - lo), 0, 1)
    mottle = grain(noise_tile(0.7, 4), s * 9 + 131 * sprites.key[row], z * 9)
    bright = light.ambient * (0.62 + 0.45 * up) + light.direct * (
        0.25 + 0.7 * up * (1 - 0.35 * np.abs(s) / half)
    )
    return foliage_rgb(sprites, row, light.season) * (bright * (1 + 0.38 * mottle))[:, None]


def sprite_colour(sprites: Sprites, row: I32, s: F32, z: F32, light: Light) -> F32:
    """Trunks, poles, signs with their glyphs, lamps, people."""
    rgb = sprites.rgb[row].copy()
    half, material = sprites.half[row], sprites.material[row]
    panel = np.flatnonzero(material == t.PANEL)
    if len(panel):
        lo, hi = sprites.lo[row[panel]], sprites.hi[row[panel]]
        a = np.clip((s[panel] / half[panel] / 0.72 + 1) * 1.5, -1, 3).astype(np.int32)
        b = np.clip(((z[panel] - lo) / (hi - lo) - 0.14) / 0.72 * 3, -1, 3).astype(np.int32)
        field = (a >= 0) & (a < 3) & (b >= 0) & (b < 3)
        bit = (sprites.code[row[panel]] >> np.clip(a + 3 * b, 0, 8)) & 1
        rgb[panel] = np.where((field & (bit == 1))[:, None], sprites.rgb2[row[panel]], rgb[panel])
    round_ = 0.75 + 0.3 * (1 - np.abs(s) / np.maximum(half, 0.01))
    round_[material == t.PANEL] = 1.0
    return np.asarray(rgb * (round_ * (light.ambient + 0.5 * light.direct))[:, None], np.float32)
