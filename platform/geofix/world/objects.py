"""Buildings and what stands along roads: placed once, seen from the ground and from the air."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geofix.world import tables as t
from geofix.world.land import CHANGED, Coast
from geofix.world.noise import F64, I32, Mask
from geofix.world.roads import MAIN, TRACK, Roads, Town
from geofix.world.styles import Country, Districts
from geofix.world.surface import Surface
from geofix.world.tables import Boxes, Sprites


@dataclass
class Layout:
    """Where things are in a patch: all that is needed to plan photos."""

    roads: Roads
    town: Town
    coast: Coast
    districts: Districts
    style: Country
    half_m: float


@dataclass
class Site(Layout):
    """A layout with its ground drawn: all that is needed to place things on it."""

    surface: Surface

    def district(self, rng: np.random.Generator, x: F64, y: F64) -> I32:
        """District of each object; borders are soft to about 30 m."""
        shift = rng.normal(0, 30, (2, len(x)))
        return self.districts.at(x + shift[0], y + shift[1])


def stations(roads: Roads, step_m: float) -> dict[str, np.ndarray]:
    """Points every `step_m` along all roads: x, y, unit direction ux, uy, edge, metres to the nearer end."""
    columns: dict[str, list[np.ndarray]] = {k: [] for k in ("x", "y", "ux", "uy", "edge", "end")}
    for e, line in enumerate(roads.lines):
        leg = np.diff(line, axis=0)
        length = np.hypot(*leg.T)
        total = np.concatenate([[0], np.cumsum(length)])
        at = np.arange(step_m / 2, total[-1], step_m)
        k = np.clip(np.searchsorted(total, at) - 1, 0, len(leg) - 1)
        u = leg[k] / length[k][:, None]
        p = line[k] + u * (at - total[k])[:, None]
        values = (p[:, 0], p[:, 1], u[:, 0], u[:, 1], np.full(len(at), e), np.minimum(at, total[-1] - at))
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    return {k: np.concatenate(v) for k, v in columns.items()}


def change(rng: np.random.Generator, n: int) -> Mask:
    """Alive per epoch (n, 2): a tenth of all objects is gone or new at the second date."""
    alive = np.ones((n, 2), dtype=bool)
    draw = rng.random(n)
    alive[draw < CHANGED / 2, 1] = False
    alive[draw > 1 - CHANGED / 2, 0] = False
    return alive


def make_buildings(rng: np.random.Generator, site: Site, *, ground_only: bool, shared: bool) -> Boxes:
    """Houses along the roads; without `ground_only` blank facades, without `shared` grey flat roofs."""
    d = site.districts
    s = stations(site.roads, 4.0)
    side = np.repeat([1.0, -1.0], len(s["x"]))
    x, y, ux, uy, edge, end = (np.tile(s[k], 2) for k in ("x", "y", "ux", "uy", "edge", "end"))
    edge = edge.astype(int)
    nx, ny = -uy * side, ux * side
    of = site.district(rng, x, y)
    built = site.town(x, y)
    want = np.where(built > 0.15, 0.25 + 0.75 * built, 0.012) * (4.0 / d.plot_m[of]) * 3.5
    want = np.where(site.roads.kind[edge] == TRACK, 0.3 * want, want)
    n = len(x)
    hx = np.clip(d.plot_m[of] / 2 - rng.uniform(0.5, 2.5, n), 3.5, 11)
    hy = rng.uniform(4.0, 6.2, n)
    setback = d.setback_m[of] * rng.uniform(0.7, 1.3, n) + np.where(built > 0.15, 0, 8)
    away = site.roads.half_width[edge] + site.roads.paved[edge] + 0.8 + setback + hy
    bx, by = x + nx * away, y + ny * away
    inside = np.maximum(np.abs(bx), np.abs(by)) < site.half_m - 14
    pick = np.flatnonzero((rng.random(n) < want) & (end > 9) & inside & (site.coast(bx, by) > 14))
    pick = pick[_free(bx[pick], by[pick], ux[pick], uy[pick], hx[pick], hy[pick], site)]
    n, of, built = len(pick), of[pick], built[pick]
    flat = rng.random(n) < d.flat_share[of]
    floors = np.clip(np.round(d.storeys[of] * (0.55 + 0.6 * built) + rng.normal(0, 0.5, n)), 1, 6)
    hx, hy = hx[pick], hy[pick]
    across = (hy > hx) | (rng.random(n) < 0.2)
    ridge_x = np.where(across, -uy[pick], ux[pick])
    ridge_y = np.where(across, ux[pick], uy[pick])
    wall = d.facades[of, rng.integers(0, 3, n)] * rng.normal(1, 0.07, (n, 1)) + rng.normal(0, 0.03, (n, 3))
    roof = d.roofs[of, rng.integers(0, 2, n)] * rng.normal(1, 0.10, (n, 1)) + rng.normal(0, 0.025, (n, 3))
    own = rng.random(n) < 0.12
    wall[own] = rng.uniform(0.35, 0.9, (int(own.sum()), 3))
    rise = np.where(flat, 0.0, np.where(across, hx, hy) * rng.uniform(0.75, 1.2, n))
    roof = np.where(flat[:, None], 0.75 * roof + 0.12, roof)
    shop = (rng.random(n) < np.clip(built - 0.1, 0, 0.65)) & (floors > 1)
    if not ground_only:
        wall, shop = np.full_like(wall, 0.66), np.zeros(n, dtype=bool)
    if not shared:
        roof, rise = np.full_like(roof, 0.45), 0 * rise
    eave = floors * 3.0 + rng.uniform(0.2, 0.8, n)
    window = np.where(rng.random(n) < 0.9, d.window[of], rng.integers(0, 8, n))
    return Boxes.make(
        n,
        x=bx[pick],
        y=by[pick],
        ux=ridge_x,
        uy=ridge_y,
        hx=np.where(across, hy, hx),
        hy=np.where(across, hx, hy),
        eave=eave,
        rise=rise,
        material=np.full(n, t.BUILDING),
        wall=np.clip(wall, 0.03, 1),
        roof=np.clip(roof, 0.03, 1),
        hung=np.minimum(d.hung_m[of], 0.55 * eave) * shared,
        clad=np.minimum(d.clad_m[of], 0.6 * eave) * ground_only,
        lower=d.lower[of] * rng.normal(1, 0.07, (n, 1)),
        trim=d.trim[of],
        shop=d.shop[of, rng.integers(0, 2, n)] * rng.normal(1, 0.08, (n, 1)),
        has_shop=shop,
        window=window if ground_only else np.full(n, 8),
        code=d.glyph[of] ^ np.where(rng.random(n) < 0.5, 0, 21),
        key=rng.random(n),
        alive=change(rng, n),
    )


def _free(x: F64, y: F64, ux: F64, uy: F64, hx: F64, hy: F64, site: Site) -> I32:
    """Indices of boxes that touch no road and no box before them; sampled every 1.5 m."""
    size = int(2 * site.half_m)
    taken = np.zeros((size, size), dtype=bool)
    accepted = []
    for i in range(len(x)):
        a = np.linspace(-hx[i] - 1, hx[i] + 1, int(2 * hx[i] / 1.5) + 3)[:, None]
        b = np.linspace(-hy[i] - 1, hy[i] + 1, int(2 * hy[i] / 1.5) + 3)[None, :]
        px, py = x[i] + a * ux[i] - b * uy[i], y[i] + a * uy[i] + b * ux[i]
        cells = (
            np.clip(py + site.half_m, 0, size - 1).astype(int),
            np.clip(px + site.half_m, 0, size - 1).astype(int),
        )
        if taken[cells].any() or site.surface.clearance(px, py).min() < 0.3:
            continue
        taken[cells] = True
        accepted.append(i)
    return np.asarray(accepted, dtype=int)


def make_fences(rng: np.random.Generator, site: Site, *, ground_only: bool, shared: bool) -> Boxes:
    """Hedges (in both views) and fences and walls (too thin for the aerial view) along built-up roads."""
    d = site.districts
    s = stations(site.roads, 7.0)
    side = np.repeat([1.0, -1.0], len(s["x"]))
    x, y, ux, uy, edge, end = (np.tile(s[k], 2) for k in ("x", "y", "ux", "uy", "edge", "end"))
    edge = edge.astype(int)
    of = site.district(rng, x, y)
    kind = np.where(rng.random(len(x)) < 0.85, d.fence[of], rng.integers(0, 5, len(x)))
    allowed = ((kind == 1) & shared) | ((kind > 1) & ground_only)
    keep = (
        (site.town(x, y) > 0.18) & (rng.random(len(x)) < 0.62) & (end > 11) & (d.setback_m[of] > 1) & allowed
    )
    away = site.roads.half_width[edge] + site.roads.paved[edge] + 0.7
    fx, fy = x - uy * side * away, y + ux * side * away
    keep &= site.surface.clearance(fx, fy) > 0.25
    n, of, kind = int(keep.sum()), of[keep], kind[keep]
    material = np.select([kind == 1, kind == 4], [t.HEDGE, t.WALL], t.FENCE)
    rgb = np.where((kind == 1)[:, None], d.hedge[of], d.fence_rgb[of]) * rng.normal(1, 0.07, (n, 1))
    height = np.select([kind == 1, kind == 2, kind == 3], [1.5, 1.05, 1.7], 1.2) * rng.uniform(0.85, 1.2, n)
    return Boxes.make(
        n,
        x=fx[keep],
        y=fy[keep],
        ux=ux[keep],
        uy=uy[keep],
        hx=np.full(n, 3.4),
        hy=np.where(kind == 1, 0.8, 0.08),
        eave=height,
        material=material,
        wall=rgb,
        roof=rgb,
        trim=d.trim[of],
        window=kind,
        key=rng.random(n),
        alive=change(rng, n),
    )


def make_furniture(rng: np.random.Generator, site: Site) -> Sprites:
    """Signs with their poles, and street lamps: seen from the ground only."""
    d, style = site.districts, site.style
    parts = []
    s = stations(site.roads, 5.0)
    edge = s["edge"].astype(int)
    built = site.town(s["x"], s["y"])
    for chance, is_sign in (((0.07 + 0.14 * (built > 0.2)), True), (0.16 * (built > 0.2), False)):
        keep = (rng.random(len(edge)) < chance) & (site.roads.kind[edge] > TRACK) & (s["end"] > 5)
        e, n = edge[keep], int(keep.sum())
        side = rng.choice([-1.0, 1.0], n)
        away = site.roads.half_width[e] + np.where(site.roads.paved[e] > 0, 0.5, 1.0)
        x, y = s["x"][keep] - s["uy"][keep] * side * away, s["y"][keep] + s["ux"][keep] * side * away
        of, alive = site.district(rng, x, y), change(rng, n)
        top = (
            rng.uniform(2.1, 2.6, n) if is_sign else rng.uniform(5, 7, n) + 1.5 * (site.roads.kind[e] == MAIN)
        )
        pole = np.broadcast_to((0.55, 0.55, 0.56) if is_sign else style.lamp, (n, 3))
        parts.append(
            Sprites.make(
                n,
                x=x,
                y=y,
                hi=top,
                half=np.full(n, 0.06 if is_sign else 0.08),
                rgb=pole,
                material=np.full(n, t.POLE),
                alive=alive,
            )
        )
        if is_sign:
            size = rng.uniform(0.45, 0.75, n) * np.where(rng.random(n) < 0.2, 1.8, 1)
            shape = {0: t.RECT, 1: t.ELLIPSE, 3: t.CONE}[style.sign_shape]
            shape_n = np.where(rng.random(n) < 0.7, shape, t.RECT)
            code = d.glyph[of] ^ np.where(rng.random(n) < 0.6, 0, 1 << rng.integers(0, 9, n))
            parts.append(
                Sprites.make(
                    n,
                    x=x,
                    y=y,
                    lo=top - size,
                    hi=top + size,
                    half=size,
                    shape=shape_n,
                    material=np.full(n, t.PANEL),
                    rgb=d.sign[of, 0] * rng.normal(1, 0.08, (n, 1)),
                    rgb2=d.sign[of, 1],
                    code=code,
                    alive=alive,
                )
            )
        else:
            parts.append(
                Sprites.make(
                    n,
                    x=x,
                    y=y,
                    lo=top - 0.1,
                    hi=top + 0.35,
                    half=np.full(n, 0.4),
                    rgb=pole * 0.8,
                    shape=np.full(n, t.ELLIPSE),
                    material=np.full(n, t.LAMP),
                    alive=alive,
                )
            )
    return Sprites.join(parts)
