"""What places look like: a style per country, and in it districts of 250 to 500 m with their own palettes."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from geofix.world.noise import F32, F64, I32, Mask
from geofix.world.palettes import HERBS, LANES, LAWN, LEAVES, PAVING, ROOFS, SURFACES, Hsv

SPACING_M = 300.0
SPECIES = ("broadleaf", "conifer", "poplar", "bush")


@dataclass(frozen=True)
class Country:
    """Ranges (hue, saturation, value) from which the districts of a country draw."""

    roofs: tuple[Hsv, ...]
    facades: tuple[Hsv, ...]
    crops: tuple[Hsv, ...]
    species: tuple[float, float, float, float]
    foliage: Hsv
    asphalt: Hsv
    marking: tuple[float, float, float]
    flat_share: float
    storeys: float
    sign_shape: int
    drives_left: bool
    lamp: tuple[float, float, float]


STYLES = (
    Country(
        roofs=(((0.0, 0.06), (0.5, 0.75), (0.42, 0.68)), ((0.03, 0.08), (0.3, 0.5), (0.3, 0.5))),
        facades=(((0.08, 0.16), (0.05, 0.3), (0.8, 0.95)), ((0.0, 1.0), (0.1, 0.4), (0.75, 0.92))),
        crops=(
            ((0.12, 0.15), (0.45, 0.65), (0.65, 0.8)),
            ((0.22, 0.3), (0.4, 0.65), (0.35, 0.6)),
            ((0.07, 0.1), (0.3, 0.45), (0.4, 0.55)),
        ),
        species=(0.65, 0.12, 0.08, 0.15),
        foliage=((0.21, 0.31), (0.4, 0.65), (0.28, 0.48)),
        asphalt=((0.55, 0.7), (0.0, 0.08), (0.36, 0.52)),
        marking=(0.92, 0.92, 0.9),
        flat_share=0.12,
        storeys=2.0,
        sign_shape=1,
        drives_left=False,
        lamp=(0.3, 0.36, 0.33),
    ),
    Country(
        roofs=(((0.55, 0.68), (0.05, 0.25), (0.22, 0.42)), ((0.04, 0.09), (0.15, 0.35), (0.25, 0.4))),
        facades=(((0.01, 0.06), (0.4, 0.65), (0.42, 0.65)), ((0.0, 1.0), (0.05, 0.3), (0.5, 0.75))),
        crops=(
            ((0.25, 0.33), (0.45, 0.7), (0.4, 0.6)),
            ((0.145, 0.165), (0.6, 0.78), (0.72, 0.84)),
            ((0.05, 0.08), (0.25, 0.4), (0.28, 0.4)),
        ),
        species=(0.3, 0.5, 0.1, 0.1),
        foliage=((0.27, 0.4), (0.35, 0.6), (0.2, 0.38)),
        asphalt=((0.6, 0.7), (0.02, 0.1), (0.24, 0.38)),
        marking=(0.9, 0.72, 0.2),
        flat_share=0.1,
        storeys=2.5,
        sign_shape=3,
        drives_left=True,
        lamp=(0.15, 0.15, 0.17),
    ),
    Country(
        roofs=(((0.05, 0.11), (0.25, 0.5), (0.58, 0.8)), ((0.1, 0.14), (0.02, 0.12), (0.65, 0.85))),
        facades=(((0.05, 0.12), (0.25, 0.6), (0.7, 0.92)), ((0.0, 1.0), (0.15, 0.45), (0.7, 0.9))),
        crops=(
            ((0.04, 0.07), (0.4, 0.6), (0.45, 0.62)),
            ((0.18, 0.24), (0.3, 0.5), (0.4, 0.58)),
            ((0.7, 0.78), (0.25, 0.45), (0.45, 0.6)),
        ),
        species=(0.2, 0.15, 0.3, 0.35),
        foliage=((0.17, 0.26), (0.25, 0.5), (0.32, 0.52)),
        asphalt=((0.08, 0.12), (0.05, 0.15), (0.45, 0.6)),
        marking=(0.95, 0.95, 0.92),
        flat_share=0.45,
        storeys=2.6,
        sign_shape=0,
        drives_left=False,
        lamp=(0.7, 0.7, 0.72),
    ),
)


def _draw(rng: np.random.Generator, ranges: Hsv) -> tuple[float, float, float]:
    h, s, v = (float(rng.uniform(lo, hi)) for lo, hi in ranges)
    return colorsys.hsv_to_rgb(h % 1.0, s, v)


def _either(rng: np.random.Generator, chance: float, common: tuple[Hsv, ...], own: tuple[Hsv, ...]) -> Hsv:
    """Ranges out of what all countries share with a `chance`, else out of the country's own."""
    return _pick(rng, common if rng.random() < chance else own)


def _near(rng: np.random.Generator, rgb: tuple[float, float, float], spread: float) -> tuple[float, ...]:
    """The same stuff a little lighter or darker."""
    return tuple(float(np.clip(v, 0.02, 0.98)) for v in np.asarray(rgb) * rng.normal(1, spread))


def _pick(rng: np.random.Generator, ranges: tuple[Hsv, ...]) -> Hsv:
    return ranges[int(rng.integers(len(ranges)))]


def _family(rng: np.random.Generator, ranges: Hsv, count: int) -> list[tuple[float, float, float]]:
    """Colours of about one hue, as the builders of one neighbourhood liked it."""
    h, s, v = (float(rng.uniform(lo, hi)) for lo, hi in ranges)
    out = []
    for _ in range(count):
        hue, value = (h + rng.normal(0, 0.025)) % 1.0, float(np.clip(v * rng.uniform(0.8, 1.12), 0, 1))
        out.append(colorsys.hsv_to_rgb(hue, float(np.clip(s * rng.uniform(0.7, 1.25), 0, 1)), value))
    return out


@dataclass(frozen=True)
class Districts:
    """Palettes of the districts of one patch; every array has one row per district."""

    x: F64
    y: F64
    facades: F32
    roofs: F32
    lower: F32
    trim: F32
    shop: F32
    sign: F32
    glyph: I32
    flat_share: F64
    storeys: F64
    setback_m: F64
    plot_m: F64
    window: I32
    fence: I32
    fence_rgb: F32
    tree_lined: F64
    garden: F64
    species: F64
    foliage: F32
    hedge: F32
    asphalt: F32
    paving: F32
    lane: F32
    has_lane: Mask
    marking: F32
    marked: Mask
    verge: F32
    strip_m: F64
    hung_m: F64
    clad_m: F64
    lawn: F32
    bed: F32
    bed_share: F64
    crops: F32

    def at(self, x: F64, y: F64) -> I32:
        """Index of the nearest district of points in local metres, any shape."""
        best = np.full(np.shape(x), np.inf, dtype=np.float32)
        index = np.zeros(np.shape(x), dtype=np.int32)
        for i, (sx, sy) in enumerate(zip(self.x, self.y, strict=True)):
            d = ((x - sx) ** 2 + (y - sy) ** 2).astype(np.float32)
            closer = d < best
            best[closer], index[closer] = d[closer], i
        return index


def make_districts(rng: np.random.Generator, country: int, half_m: float) -> Districts:
    """Districts on a jittered grid that covers the square of half side `half_m`."""
    style = STYLES[country]
    ticks = np.arange(-half_m - SPACING_M / 2, half_m + SPACING_M, SPACING_M)
    gx, gy = (g.ravel() for g in np.meshgrid(ticks, ticks))
    n = len(gx)
    jitter = rng.uniform(-0.38, 0.38, (2, n)) * SPACING_M
    rows: dict[str, list[object]] = {
        k: [] for k in ("facades", "roofs", "lower", "trim", "shop", "sign", "fence_rgb")
    }
    ground: dict[str, list[object]] = {
        k: []
        for k in (
            "foliage", "hedge", "asphalt", "paving", "lane", "marking", "verge", "lawn", "bed", "crops",
        )
    }  # fmt: skip
    anywhere: Hsv = ((0.0, 1.0), (0.35, 0.7), (0.5, 0.92))
    vivid: Hsv = ((0.0, 1.0), (0.5, 0.9), (0.45, 0.85))
    for _ in range(n):
        rows["facades"].append(_family(rng, anywhere if rng.random() < 0.85 else style.facades[0], 3))
        rows["roofs"].append(_family(rng, _either(rng, 0.7, ROOFS, style.roofs), 2))
        rows["lower"].append(_draw(rng, anywhere))
        rows["trim"].append(_draw(rng, vivid) if rng.random() < 0.7 else (0.9, 0.9, 0.88))
        rows["shop"].append(_family(rng, vivid, 2))
        rows["sign"].append(
            [_draw(rng, vivid), (0.93, 0.93, 0.9) if rng.random() < 0.6 else (0.1, 0.1, 0.12)]
        )
        rows["fence_rgb"].append(_draw(rng, ((0.0, 1.0), (0.1, 0.45), (0.3, 0.85))))
        ground["foliage"].append(
            [_draw(rng, _either(rng, 0.6, LEAVES, (style.foliage,))), _draw(rng, style.foliage)]
        )
        ground["hedge"].append(_draw(rng, _either(rng, 0.6, LEAVES, (style.foliage,))))
        stone = _draw(rng, _either(rng, 0.5, SURFACES, (style.asphalt,)))
        plant = _draw(rng, _either(rng, 0.45, HERBS, (LAWN,)))
        ground["asphalt"].append([_near(rng, stone, 0.12), _near(rng, stone, 0.12)])
        ground["paving"].append([_draw(rng, _either(rng, 0.6, SURFACES, (PAVING,))) for _ in range(2)])
        ground["lane"].append(_draw(rng, _pick(rng, LANES)))
        ground["marking"].append(style.marking if rng.random() < 0.6 else _draw(rng, _pick(rng, LANES)))
        ground["verge"].append(_near(rng, plant, 0.06))
        ground["lawn"].append(_near(rng, plant, 0.06))
        ground["bed"].append(_near(rng, stone, 0.08))
        ground["crops"].append([plant, _draw(rng, _either(rng, 0.6, HERBS, style.crops))])
    colours = {k: np.asarray(v, dtype=np.float32) for k, v in {**rows, **ground}.items()}
    species = np.asarray([rng.dirichlet(6 * np.asarray(style.species) + 0.15) for _ in range(n)])
    return Districts(
        x=gx + jitter[0],
        y=gy + jitter[1],
        glyph=rng.integers(1, 512, n).astype(np.int32),
        flat_share=np.clip(style.flat_share + rng.choice([-0.1, 0.0, 0.5], n, p=[0.5, 0.3, 0.2]), 0, 1),
        storeys=np.clip(style.storeys + rng.normal(1.0, 0.8, n), 1, 6),
        setback_m=rng.choice([0.5, 1.5, 3.0, 6.0], n, p=[0.25, 0.3, 0.3, 0.15]),
        plot_m=rng.uniform(13, 24, n),
        window=rng.integers(0, 8, n).astype(np.int32),
        fence=rng.choice(5, n, p=[0.1, 0.45, 0.15, 0.15, 0.15]).astype(np.int32),
        tree_lined=rng.choice([0.0, 0.35, 0.9], n, p=[0.4, 0.3, 0.3]),
        garden=rng.uniform(0.2, 1.0, n),
        has_lane=rng.random(n) < 0.5,
        marked=rng.random(n) < 0.5,
        strip_m=rng.uniform(1.5, 4.2, n),
        hung_m=rng.choice([0.0, 1.4, 2.4], n, p=[0.4, 0.3, 0.3]),
        clad_m=rng.choice([0.0, 1.6, 3.0], n, p=[0.3, 0.35, 0.35]),
        bed_share=rng.choice([0.15, 0.4, 0.65], n),
        species=species,
        **colours,
    )
