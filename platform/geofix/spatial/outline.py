"""Outlines of cells in degrees: corners, densified rings, and the 180th meridian and the poles made plain.

Cells come as (face, i, j, size): the lowest leaf coordinates and the side in leaves, flat int64 arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geofix.spatial.faces import face_st_to_lonlat
from geofix.spatial.hilbert import LEAF_COUNT, MAX_LEVEL

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

STRAIGHT_FROM_LEVEL = 10
"""From this level on an edge (at most 11 km) is drawn as one straight line."""


def ring(face: Ints, i: Ints, j: Ints, size: Ints, segments: int) -> Floats:
    """Boundary points, counter-clockwise from the lowest corner, each edge cut into equal segments.

    Returns:
        (n, 4 * segments, 2) longitudes -180..180 and latitudes in degrees, the first point not repeated.
    """
    along = np.arange(segments) / segments
    zero, one = np.zeros(segments), np.ones(segments)
    a = np.concatenate([along, one, 1 - along, zero])
    b = np.concatenate([zero, along, one, 1 - along])
    s = (i[:, None] + a * size[:, None]) / LEAF_COUNT
    t = (j[:, None] + b * size[:, None]) / LEAF_COUNT
    lon, lat = face_st_to_lonlat(np.broadcast_to(face[:, None], s.shape), s, t)
    return np.stack([lon, lat], axis=-1)


def segments_at(level: int) -> int:
    """Segments per edge that keep points at most 11 km apart."""
    return 1 << max(0, STRAIGHT_FROM_LEVEL - level)


def polygons(face: Ints, i: Ints, j: Ints, size: Ints) -> NDArray[Any]:
    """One (Multi)Polygon per cell, within -180..180 and -90..90 degrees."""
    out = np.empty(face.size, object)
    for side in np.unique(size):
        segments = segments_at(MAX_LEVEL + 1 - int(side).bit_length())
        chunk = max(1, (1 << 20) // segments)
        of_side = np.flatnonzero(size == side)
        for start in range(0, of_side.size, chunk):
            rows = of_side[start : start + chunk]
            out[rows] = _polygons_of_one_size(face[rows], i[rows], j[rows], size[rows], segments)
    return out


def _polygons_of_one_size(face: Ints, i: Ints, j: Ints, size: Ints, segments: int) -> NDArray[Any]:
    rings = ring(face, i, j, size, segments)
    lon, lat = rings[..., 0], rings[..., 1]
    special = (
        (np.ptp(lon, axis=1) >= 180) | (np.abs(lat) == 90).any(axis=1) | (np.abs(lon) == 180).any(axis=1)
    )
    out = np.empty(face.size, object)
    if not special.all():
        plain = rings[~special]
        out[~special] = shapely.polygons(np.concatenate([plain, plain[:, :1]], axis=1))
    for row in np.flatnonzero(special):
        out[row] = _wrapped(unrolled(rings[row]))
    return out


def unrolled(points: Floats) -> Floats:
    """A closed ring whose longitudes run on without a jump, with the poles it touches or holds drawn in.

    Args:
        points: (n, 2) degrees, counter-clockwise as seen from outside the globe, at most one at a pole.

    Returns:
        (m, 2) degrees, closed; longitudes may leave -180..180.
    """
    if abs(points[0, 1]) == 90:
        points = np.roll(points, -1, axis=0)
    out: list[tuple[float, float]] = []
    pole = None
    for lon, lat in points.tolist():
        if abs(lat) == 90:
            pole = lat
            out.append((out[-1][0], lat))
            continue
        if out:
            lon += 360 * round((out[-1][0] - lon) / 360)
        if pole is not None:
            out.append((lon, pole))
            pole = None
        out.append((lon, lat))
    first = points[0, 0] + 360 * round((out[-1][0] - points[0, 0]) / 360)
    if pole is not None:  # the ring ended at the pole
        out.append((first, pole))
    elif first != out[0][0]:  # it went once round: the pole lies inside
        pole = 90.0 if points[0, 1] > 0 else -90.0
        out += [(first, float(points[0, 1])), (first, pole), (out[0][0], pole)]
    out.append(out[0])
    return np.array(out)


def _wrapped(closed: Floats) -> Any:
    """The polygon of an unrolled ring, cut at the 180th meridian and brought back within -180..180."""
    whole = shapely.Polygon(closed)
    parts = []
    for turn in range(
        int(np.floor((closed[:, 0].min() + 180) / 360)), int(np.ceil((closed[:, 0].max() + 180) / 360))
    ):
        window = shapely.box(360.0 * turn - 180, -90, 360.0 * turn + 180, 90)
        inside = shapely.get_parts(shapely.intersection(whole, window))
        parts += [
            shapely.transform(part, lambda xy, turn=turn: xy - [360.0 * turn, 0])
            for part in inside
            if part.area > 1e-9 * whole.area
        ]
    return parts[0] if len(parts) == 1 else shapely.union_all(parts)
