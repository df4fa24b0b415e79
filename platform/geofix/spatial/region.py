"""A region in the lon/lat plane, and on which side of its border S2 cells lie.

Regions are planar: an edge is straight in longitude and latitude, as PostGIS geometries and GeoJSON have it.
Cell edges are geodesics. A cell is therefore tested by an outline in the plane widened by a margin that
bounds how far the geodesics bulge from it, so "inside" and "outside" are never claimed wrongly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geofix.errors import BadInputError
from geofix.spatial import s2
from geofix.spatial.hilbert import LEAF_COUNT
from geofix.spatial.outline import ring

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_CHUNK = 1 << 13
_LONGEST_EDGE = 1.7049  # radians per unit of s, over the whole face: S2's kMaxEdge of the quadratic transform
_STRAIGHT_SIZE = LEAF_COUNT >> 6  # cells up to this side are drawn by their corners alone
_POLAR_LAT = 85.0
_SLACK_DEG = 1e-9  # 0.1 mm: rounding of coordinates and of the overlay


class Region:
    """Any geometry in degrees, made ready for many tests.

    Args:
        geometry: Longitudes may run to -540..540: they wrap, so a polygon over the 180th meridian is given
            either cut there or with longitudes that run on (170 to 190). From 179 to -179 is the long
            way round.

    Raises:
        BadInputError: An invalid polygon, coordinates that are not finite or out of range.
    """

    def __init__(self, geometry: Any) -> None:
        parts = shapely.get_parts(_within_globe(_checked(geometry)))
        while np.any(shapely.get_type_id(parts) >= 4):
            parts = shapely.get_parts(parts)
        dimension = shapely.get_dimensions(parts)
        surfaces = parts[dimension == 2]
        # A polygon cut along the 180th meridian or a collection may hold parts that touch or overlap.
        self.area = shapely.union_all(surfaces) if surfaces.size else None
        lines = list(parts[dimension == 1]) + ([self.area.boundary] if self.area is not None else [])
        self.borders = [shapely.union_all(lines)] if lines else []
        if np.any(dimension == 0):
            self.borders.append(shapely.MultiPoint(parts[dimension == 0]))
        self.empty = not self.borders
        for shape in (*self.borders, self.area):
            shapely.prepare(shape)

    def holds(self, lon: Floats, lat: Floats) -> Mask:
        """Whether positions in degrees lie in the region's surface or on its border."""
        if self.area is None:
            return np.zeros(len(lon), bool)
        inside: Mask = shapely.intersects_xy(self.area, lon, lat)
        return inside

    def sides(self, cells: Ints) -> tuple[Mask, Mask]:
        """Which cells lie wholly inside, and which the border touches; the others lie outside.

        A cell within the margin of the border counts as touched by it. The margin is at most 1e-9 degrees
        plus e**2 / 8 * tan(lat) * sqrt(1 + 1 / cos(lat)**2) radians for an edge of e radians: 2 mm for a
        level-16 cell at 60 degrees. Beyond 85 degrees a cell is tested by its box of longitudes and
        latitudes, half an edge wider.
        """
        inside, touched = np.zeros(cells.size, bool), np.zeros(cells.size, bool)
        for start in range(0, cells.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            touched[part] = self._touched(cells[part])
            inside[part] = ~touched[part] & self.holds(*s2.center(cells[part]))
        return inside, touched

    def _touched(self, cells: Ints) -> Mask:
        outlines, margin = _outlines(cells)
        hit = self._near(outlines, margin)
        for turn, over in (
            (360.0, outlines[..., 0].min(axis=1) - margin < -180),
            (-360.0, outlines[..., 0].max(axis=1) + margin > 180),
        ):
            rows = np.flatnonzero(over & ~hit)
            if rows.size:
                hit[rows] = self._near(outlines[rows] + np.array([turn, 0]), margin[rows])
        return hit

    def _near(self, outlines: Floats, margin: Floats) -> Mask:
        shapes = shapely.polygons(outlines)
        hit = np.zeros(len(shapes), bool)
        for border in self.borders:
            # The distance of prepared lines does not see a line inside a polygon, so ask for both.
            hit |= shapely.intersects(border, shapes)
            rest = np.flatnonzero(~hit)
            hit[rest] = shapely.dwithin(border, shapes[rest], margin[rest])
        return hit


def _outlines(cells: Ints) -> tuple[Floats, Floats]:
    """Rings in the plane (n, m, 2) and margins (n,), in degrees, that together hold each cell of one level.

    Longitudes run on without a jump around each cell's centre, so they may leave -180..180.
    """
    face, i, j, size = s2.squares(cells)
    side = int(size.max(initial=1))
    segments = max(1, side // _STRAIGHT_SIZE)
    points = ring(face, i, j, size, segments)
    edge = _LONGEST_EDGE * side / LEAF_COUNT / segments
    lon, lat = points[..., 0], points[..., 1]
    middle = s2.center(cells)[0][:, None]
    points[..., 0] = lon - 360 * np.rint((lon - middle) / 360)
    farthest = np.abs(lat).max(axis=1) + np.rad2deg(edge)
    at_pole = (np.abs(lat) == 90).any(axis=1) | ((size == LEAF_COUNT) & (face % 3 == 2))
    polar = (farthest >= _POLAR_LAT) | at_pole
    phi = np.deg2rad(np.minimum(farthest, _POLAR_LAT))
    margin = np.rad2deg(edge**2 / 8 * np.tan(phi) * np.sqrt(1 + 1 / np.cos(phi) ** 2)) + _SLACK_DEG
    if polar.any():
        points[polar] = _boxes(points[polar], np.rad2deg(edge) / 2, at_pole[polar])
        margin[polar] = _SLACK_DEG
    return np.concatenate([points, points[:, :1]], axis=1), margin


def _boxes(points: Floats, widen: float, at_pole: Mask) -> Floats:
    """Boxes around polar cells as rings of the same number of points.

    Along a great circle longitude has no turning point, so corners bound it; latitude departs from the nearer
    end of an edge by at most half its length.
    """
    west = np.where(at_pole, -180, points[..., 0].min(axis=1))
    east = np.where(at_pole, 180, points[..., 0].max(axis=1))
    north_side = points[..., 1].mean(axis=1) > 0
    low, high = points[..., 1].min(axis=1) - widen, points[..., 1].max(axis=1) + widen
    low = np.where(at_pole & ~north_side, -90, np.maximum(low, -90))
    high = np.where(at_pole & north_side, 90, np.minimum(high, 90))
    corners = np.stack([np.stack([west, east, east, west], 1), np.stack([low, low, high, high], 1)], axis=-1)
    return np.repeat(corners, points.shape[1] // 4, axis=1)


def _checked(geometry: Any) -> Any:
    if not isinstance(geometry, shapely.Geometry):
        raise BadInputError(f"A region must be a shapely geometry, not {type(geometry).__name__}.")
    flat = shapely.force_2d(geometry)
    coordinates = shapely.get_coordinates(flat)
    if not np.isfinite(coordinates).all():
        raise BadInputError("A region has a coordinate that is not a finite number.")
    if np.any(np.abs(coordinates) > [540, 90]):
        lon, lat = coordinates[np.argmax((np.abs(coordinates) > [540, 90]).any(axis=1))]
        raise BadInputError(
            f"A region has a corner at longitude {lon}, latitude {lat}, outside -540..540 and -90..90.",
            hint="Give regions in EPSG:4326, longitude first.",
        )
    if not shapely.is_valid(flat):
        raise BadInputError(
            f"A region is not valid: {shapely.is_valid_reason(flat)}.",
            hint="Repair it with shapely.make_valid.",
        )
    return flat


def _within_globe(geometry: Any) -> Any:
    """Longitudes beyond -180..180 brought back by whole turns."""
    coordinates = shapely.get_coordinates(geometry)
    if not np.any(np.abs(coordinates[:, 0]) > 180):
        return geometry
    parts = []
    for turn in (-360, 0, 360):
        window = shapely.box(turn - 180, -90, turn + 180, 90)
        clipped = [shapely.intersection(part, window) for part in shapely.get_parts(geometry)]
        parts += [
            shapely.transform(part, lambda xy, turn=turn: xy - [turn, 0])
            for part in clipped
            if not part.is_empty
        ]
    return shapely.GeometryCollection(parts)
