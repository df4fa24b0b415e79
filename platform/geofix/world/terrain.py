"""The continent: coast, three countries and their provinces, and where its imagery lies.

It lies in the Atlantic around 45 N 14 W, inside the area of use of EPSG:3035 and away from real land, and
the edge between two S2 cube faces crosses it, as it crosses Europe.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import shapely
from pyproj import Geod, Transformer
from shapely.geometry import LineString, Point, Polygon
from shapely.geometry.base import BaseGeometry
from shapely.ops import polygonize, unary_union

from geofix.world.noise import F64, Mask, harmonics, rng_for
from geofix.world.sizes import Size

CRS = "EPSG:3035"
CENTRE_LON, CENTRE_LAT = -14.0, 45.0
RADIUS_X_M, RADIUS_Y_M = 235_000.0, 176_000.0
VERTICES = 8192
COUNTRIES = (("XA", "XAA", "Aldmark"), ("XB", "XBB", "Brennia"), ("XC", "XCC", "Corvania"))
PROVINCES = ("Upper", "Hither", "Farther")
PUBLISHED_STRIDE = 3
CANDIDATES = 60
KINDS = ("town", "coast", "village", "coast", "town", "town", "village", "town")


@dataclass(frozen=True)
class Region:
    """A named polygon in EPSG:3035."""

    code: str
    code3: str
    name: str
    country: int
    geom: BaseGeometry


@dataclass(frozen=True)
class Continent:
    """Land with its exact coast; countries and provinces as published, with a generalised coast.

    The published coast keeps every third vertex (about 400 m apart), so photos by the sea may lie outside
    every region, as they do with real boundary files. `border_angles` is where borders leave the centre.
    """

    land: BaseGeometry
    countries: tuple[Region, ...]
    provinces: tuple[Region, ...]
    centre: tuple[float, float]
    border_angles: tuple[float, float, float]
    radius: F64


@dataclass(frozen=True)
class Patch:
    """A rotated rectangle with imagery: centre in EPSG:3035, half sides in metres, angle in radians."""

    index: int
    country: int
    kind: str
    x: float
    y: float
    half_w: float
    half_h: float
    angle: float

    @property
    def half_extent(self) -> float:
        """Half side of the axis-parallel square around the patch."""
        c, s = abs(np.cos(self.angle)), abs(np.sin(self.angle))
        return float(max(self.half_w * c + self.half_h * s, self.half_w * s + self.half_h * c))

    def contains(self, x: F64, y: F64, inset_m: float = 0.0) -> Mask:
        """Whether local points (metres from the centre) lie at least `inset_m` inside the patch."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        across, up = x * c + y * s, y * c - x * s
        inside: np.ndarray = (np.abs(across) <= self.half_w - inset_m) & (np.abs(up) <= self.half_h - inset_m)
        return inside


@lru_cache(maxsize=1)
def _to_lonlat() -> Transformer:
    return Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)


def lonlat(x: F64, y: F64) -> tuple[F64, F64]:
    """EPSG:3035 metres to degrees."""
    lon, lat = _to_lonlat().transform(x, y)
    return np.asarray(lon), np.asarray(lat)


def true_azimuth(x: F64, y: F64, grid_azimuth_deg: F64) -> F64:
    """Azimuth from true north of a direction given from grid north, degrees; exact along 20 m."""
    a = np.radians(grid_azimuth_deg)
    lon0, lat0 = lonlat(x, y)
    lon1, lat1 = lonlat(x + 20 * np.sin(a), y + 20 * np.cos(a))
    azimuth, _, _ = Geod(ellps="GRS80").inv(lon0, lat0, lon1, lat1)
    return np.asarray(azimuth) % 360.0


def _ray(rng: np.random.Generator, centre: tuple[float, float], angle: float, start: float) -> LineString:
    wiggle = harmonics(rng, 1024, 1, 200, 1.3)[:400]
    wiggle = (wiggle - wiggle[0]) * 0.05
    r = np.linspace(start, 1.6 * RADIUS_X_M, 400)
    return LineString(np.c_[centre[0] + r * np.cos(angle + wiggle), centre[1] + r * np.sin(angle + wiggle)])


@lru_cache(maxsize=2)
def build_continent(seed: int) -> Continent:
    """The geography of a seed; the same for every size."""
    rng = rng_for(seed, 1)
    cx, cy = Transformer.from_crs("EPSG:4326", CRS, always_xy=True).transform(CENTRE_LON, CENTRE_LAT)
    theta = np.linspace(0, 2 * np.pi, VERTICES, endpoint=False)
    ellipse = 1 / np.hypot(np.cos(theta) / RADIUS_X_M, np.sin(theta) / RADIUS_Y_M)
    radius = ellipse * (0.88 + 0.07 * np.clip(harmonics(rng, VERTICES, 2, 1500, 1.25), -2.4, 1.7))
    coast = Polygon(np.c_[cx + radius * np.cos(theta), cy + radius * np.sin(theta)])
    turn = rng.uniform(0, 2 * np.pi / 3)
    angles = [turn + k * 2 * np.pi / 3 + rng.uniform(-0.15, 0.15) for k in range(3)]
    ring = radius * (0.42 + 0.03 * harmonics(rng, VERTICES, 2, 300, 1.5))
    inner = Polygon(np.c_[cx + ring * np.cos(theta), cy + ring * np.sin(theta)])
    middles = [(a + b) / 2 for a, b in zip(angles, [*angles[1:], angles[0] + 2 * np.pi], strict=True)]
    published = Polygon(coast.exterior.coords[:-1][::PUBLISHED_STRIDE])
    lines = [published.exterior, inner.exterior, *(_ray(rng, (cx, cy), a, 0.0) for a in angles)]
    lines += [_ray(rng, (cx, cy), m, 0.25 * RADIUS_Y_M) for m in middles]
    pieces = [p for p in polygonize(unary_union(lines)) if published.contains(p.representative_point())]
    groups = _group_pieces(pieces, inner, (cx, cy), angles, middles)
    islands = _islands(rng, (cx, cy), radius)
    for island in islands:
        angle = float(np.arctan2(island.centroid.y - cy, island.centroid.x - cx))
        country, half = _sector(angle, angles, middles)
        groups[country, 1 + half].append(island)
    provinces = tuple(
        Region(
            f"{COUNTRIES[c][0]}-{p + 1:02d}", "", f"{PROVINCES[p]} {COUNTRIES[c][2]}", c, unary_union(geoms)
        )
        for (c, p), geoms in sorted(groups.items())
    )
    countries = tuple(
        Region(*COUNTRIES[c], c, unary_union([p.geom for p in provinces if p.country == c])) for c in range(3)
    )
    land = unary_union([coast, *islands])
    return Continent(land, countries, provinces, (cx, cy), (angles[0], angles[1], angles[2]), radius)


def _sector(angle: float, angles: list[float], middles: list[float]) -> tuple[int, int]:
    """Country and half of it (before or after its middle) in which an angle from the centre lies."""
    for k in range(3):
        end = angles[(k + 1) % 3] + (2 * np.pi if k == 2 else 0.0)
        offset = (angle - angles[k]) % (2 * np.pi)
        if offset < end - angles[k]:
            return k, int(offset > middles[k] - angles[k])
    return 2, 1


def _group_pieces(
    pieces: list[Polygon],
    inner: Polygon,
    centre: tuple[float, float],
    angles: list[float],
    middles: list[float],
) -> dict[tuple[int, int], list[BaseGeometry]]:
    groups: dict[tuple[int, int], list[BaseGeometry]] = {(c, p): [] for c in range(3) for p in range(3)}
    for piece in pieces:
        point: Point = piece.representative_point()
        country, half = _sector(float(np.arctan2(point.y - centre[1], point.x - centre[0])), angles, middles)
        groups[country, 0 if inner.contains(point) else 1 + half].append(piece)
    return groups


def _islands(rng: np.random.Generator, centre: tuple[float, float], radius: F64) -> list[Polygon]:
    islands = []
    for at in rng.integers(0, VERTICES, 5):
        theta = 2 * np.pi * at / VERTICES
        r = radius[at] + rng.uniform(14_000, 18_000)
        t = np.linspace(0, 2 * np.pi, 256, endpoint=False)
        size = rng.uniform(2_000, 5_000) * (1 + 0.12 * np.clip(harmonics(rng, 256, 2, 100, 1.2), -3, 3))
        x = centre[0] + r * np.cos(theta) + size * np.cos(t)
        islands.append(Polygon(np.c_[x, centre[1] + r * np.sin(theta) + size * np.sin(t)]))
    return islands


def place_patches(continent: Continent, size: Size, seed: int) -> list[Patch]:
    """Patches of `size.side_m` squared each, in turn in every country, far from each other."""
    patches: list[Patch] = []
    for i in range(size.patches):
        rng, kind = rng_for(seed, 2, i), KINDS[i % len(KINDS)]
        inland = 0.22 * size.side_m if kind == "coast" else None
        spots = [_spot(rng, continent, i % 3, inland) for _ in range(CANDIDATES)]
        x, y = max(spots, key=lambda s: min((np.hypot(s[0] - p.x, s[1] - p.y) for p in patches), default=0.0))
        aspect, half = float(np.sqrt(rng.uniform(0.72, 1.4))), size.side_m / 2
        angle = float(rng.uniform(-0.35, 0.35))
        patches.append(Patch(i, i % 3, kind, round(x), round(y), half * aspect, half / aspect, angle))
    return patches


def _spot(
    rng: np.random.Generator, continent: Continent, country: int, inland_m: float | None
) -> tuple[float, float]:
    """A place in a country: `inland_m` from the coast, or anywhere between its heart and its coast."""
    a = continent.border_angles
    start, end = a[country], a[(country + 1) % 3] + (2 * np.pi if country == 2 else 0.0)
    theta = start + (end - start) * rng.uniform(0.15, 0.85)
    r_coast = continent.radius[int(theta / (2 * np.pi) * VERTICES) % VERTICES]
    r = r_coast * np.sqrt(rng.uniform(0.07, 0.88)) if inland_m is None else r_coast - inland_m
    return float(continent.centre[0] + r * np.cos(theta)), float(continent.centre[1] + r * np.sin(theta))


def land_mask(continent: Continent, patch: Patch, half_m: float, step_m: float) -> Mask | None:
    """True on land on a grid of `step_m` around the patch, row 0 in the south; None when all is land."""
    box = shapely.box(patch.x - half_m, patch.y - half_m, patch.x + half_m, patch.y + half_m)
    land = shapely.clip_by_rect(continent.land, *box.bounds)
    if land.area > 0.9999 * box.area:
        return None
    shapely.prepare(land)
    ticks = np.arange(-half_m + step_m / 2, half_m, step_m)
    gx, gy = np.meshgrid(patch.x + ticks, patch.y + ticks)
    return np.asarray(shapely.contains_xy(land, gx, gy))
