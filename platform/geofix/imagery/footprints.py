"""Outlines on the earth: from masks and corners, valid, and cut at the 180th meridian."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.features import shapes, sieve
from shapely import MultiPolygon, Polygon
from shapely.affinity import translate

SPECK_PX = 16
"""Holes and islands of a mask smaller than this many overview pixels are taken for noise."""
EDGE_POINTS = 21
"""Points per edge of an outline: a straight raster edge of 100 km deviates by under 0.5 m between them."""


def keep_polygons(geometry: shapely.Geometry | None) -> MultiPolygon:
    """The polygons of any geometry; lines and points that a repair leaves over are dropped."""
    if geometry is None or geometry.is_empty:
        return MultiPolygon()
    parts = [part for part in _flatten(geometry) if isinstance(part, Polygon) and not part.is_empty]
    if not parts:
        return MultiPolygon()
    if isinstance(geometry, MultiPolygon | Polygon):
        return MultiPolygon(parts)
    merged = shapely.union_all(parts)
    return MultiPolygon([part for part in _flatten(merged) if isinstance(part, Polygon)])


def _flatten(geometry: shapely.Geometry) -> Iterable[shapely.Geometry]:
    """Single geometries of a nested collection."""
    if hasattr(geometry, "geoms"):
        for part in geometry.geoms:
            yield from _flatten(part)
    else:
        yield geometry


def repair(geometry: shapely.Geometry) -> tuple[MultiPolygon, str | None]:
    """A valid MultiPolygon and, where something had to be done, why.

    Rings that jump over the 180th meridian are cut there; longitudes beyond 180 degrees are brought back;
    self-intersections are resolved by even-odd fill (`make_valid`).
    """
    reasons = []
    polygons = keep_polygons(geometry)
    if not polygons.is_empty and _crosses(polygons):
        polygons = split_antimeridian(polygons)
        reasons.append("crossed the 180th meridian: cut in two")
    if not polygons.is_valid:
        reasons.append(shapely.is_valid_reason(polygons))
        polygons = keep_polygons(shapely.make_valid(polygons))
    return polygons, "; ".join(reasons) or None


def _jumps(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turns (multiples of 360 degrees) to add to every vertex so that no edge is longer than 180 degrees.

    An edge of a whole turn (the closing edge of Antarctica, along the pole) is no jump.
    """
    step = np.diff(ring[:, 0])
    turns = np.where((np.abs(step) > 180.0) & (np.abs(step) < 360.0 - 1e-9), -np.sign(step) * 360.0, 0.0)
    total = np.concatenate([[0.0], np.cumsum(turns)])
    return np.zeros_like(total) if abs(total[-1]) > 1e-6 else total


def _crosses(polygons: MultiPolygon) -> bool:
    """Whether longitudes leave [-180, 180] or some ring jumps from one side to the other."""
    west, _, east, _ = polygons.bounds
    if west < -180.0 or east > 180.0:
        return True
    return any(
        bool(_jumps(np.asarray(ring.coords)[:, :2]).any())
        for polygon in polygons.geoms
        for ring in (polygon.exterior, *polygon.interiors)
    )


def split_antimeridian(polygons: MultiPolygon) -> MultiPolygon:
    """Unroll rings that jump by more than 180 degrees, cut at the 180th meridian, bring all into [-180, 180].

    A polygon whose single edge truly spans more than 180 degrees of longitude cannot be told from a jump and
    is read as one; densify such polygons first.
    """
    pieces: list[shapely.Geometry] = []
    for polygon in polygons.geoms:
        unrolled = _unroll(polygon)
        west, _, east, _ = unrolled.bounds
        for turn in range(int(np.floor((west + 180.0) / 360.0)), int(np.floor((east + 180.0) / 360.0)) + 1):
            low = -180.0 + 360.0 * turn
            cut = shapely.intersection(unrolled, shapely.box(low, -90.0, low + 360.0, 90.0))
            pieces.extend(translate(part, xoff=-360.0 * turn) for part in keep_polygons(cut).geoms)
    return keep_polygons(shapely.union_all(pieces)) if pieces else MultiPolygon()


def _unroll(polygon: Polygon) -> shapely.Geometry:
    """The polygon with continuous longitudes, holes beside their shell, made valid."""

    def ring(coordinates: NDArray[np.float64], near: float | None) -> NDArray[np.float64]:
        out = coordinates[:, :2].copy()
        out[:, 0] += _jumps(out)
        if near is not None:
            out[:, 0] += 360.0 * np.round((near - out[:, 0].mean()) / 360.0)
        return out

    shell = ring(np.asarray(polygon.exterior.coords), None)
    middle = float((shell[:, 0].min() + shell[:, 0].max()) / 2)
    holes = [ring(np.asarray(hole.coords), middle) for hole in polygon.interiors]
    return shapely.make_valid(Polygon(shell, holes))


def to_lonlat(polygons: MultiPolygon, transformer: Transformer) -> MultiPolygon:
    """Project to EPSG:4326, cut at the 180th meridian and make valid; vertices that fail are dropped."""

    def project(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = transformer.transform(xy[:, 0], xy[:, 1])
        return np.column_stack([x, y])

    out = []
    for polygon in polygons.geoms:
        rings = [project(np.asarray(ring.coords)) for ring in (polygon.exterior, *polygon.interiors)]
        rings = [ring[np.isfinite(ring).all(axis=1)] for ring in rings]
        if len(rings[0]) >= 4:
            out.append(Polygon(rings[0], [ring for ring in rings[1:] if len(ring) >= 4]))
    return repair(MultiPolygon(out))[0]


def outline(width: int, height: int, transform: Affine) -> MultiPolygon:
    """Border of a raster in its CRS, with `EDGE_POINTS` per edge so that it may be projected."""
    ticks = np.linspace(0.0, 1.0, EDGE_POINTS)[:-1]
    column = np.concatenate([ticks, np.ones_like(ticks), 1 - ticks, np.zeros_like(ticks)]) * width
    row = np.concatenate([np.zeros_like(ticks), ticks, np.ones_like(ticks), 1 - ticks]) * height
    xy = np.column_stack(
        [
            transform.a * column + transform.b * row + transform.c,
            transform.d * column + transform.e * row + transform.f,
        ]
    )
    return MultiPolygon([Polygon(xy)])


def mask_outline(valid: NDArray[np.bool_], transform: Affine) -> MultiPolygon:
    """Outline of the valid pixels in the CRS of `transform`, exact to one pixel of the mask."""
    if valid.all():
        return outline(valid.shape[1], valid.shape[0], transform)
    mask = valid.astype(np.uint8)
    if valid.size > 4 * SPECK_PX:
        mask = sieve(mask, size=SPECK_PX)
    pixels = [shapely.geometry.shape(geometry) for geometry, _ in shapes(mask, mask=mask == 1)]
    if not pixels:
        return MultiPolygon()
    merged = keep_polygons(shapely.make_valid(shapely.union_all(pixels).simplify(1.0)))
    dense = shapely.segmentize(merged, max(valid.shape) / (EDGE_POINTS - 1))
    return MultiPolygon(
        list(
            keep_polygons(
                shapely.transform(
                    dense,
                    lambda xy: np.column_stack(
                        [
                            transform.a * xy[:, 0] + transform.b * xy[:, 1] + transform.c,
                            transform.d * xy[:, 0] + transform.e * xy[:, 1] + transform.f,
                        ]
                    ),
                )
            ).geoms
        )
    )
