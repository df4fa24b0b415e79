"""Metric frames on the ground: tangent planes of the WGS84 ellipsoid, squares, weights between cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geofix.errors import BadInputError, UsageError
from geofix.spatial import s2
from geofix.spatial.faces import checked_lonlat

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SEMI_MAJOR_M = 6_378_137.0
FLATTENING = 1 / 298.257223563
_E2 = FLATTENING * (2 - FLATTENING)

COARSEST_BILINEAR_LEVEL = 4
_NEWTON_STEPS = 8
# Places in `s2.neighbors` of the two edge neighbours and the corner neighbour of each quadrant of a cell.
_QUADRANTS = ((3, 0, 4), (1, 0, 5), (1, 2, 6), (3, 2, 7))


class LocalFrame:
    """East and north in metres around an origin: the tangent plane of WGS84 there, seen straight from above.

    Distances from the origin come out short by d**3 / (6 R**2) against the geodesic on the ellipsoid: at most
    0.5 mm at 5 km, 5 mm at 10 km and 7 cm at 25 km (a relative 2.6e-6). Bearings are right to 1e-6 degrees
    there. Heights are not looked at. Origins may be arrays: then every position has a frame of its own.

    Args:
        lon0: Longitude(s) of the origin in degrees.
        lat0: Latitude(s), broadcast against lon0 and against the positions.
    """

    def __init__(self, lon0: ArrayLike, lat0: ArrayLike) -> None:
        lon, lat = checked_lonlat(lon0, lat0)
        self.lon0, self.lat0 = lon[()], lat[()]
        self._sin_lon, self._cos_lon = np.sin(np.deg2rad(lon)), np.cos(np.deg2rad(lon))
        self._sin_lat, self._cos_lat = np.sin(np.deg2rad(lat)), np.cos(np.deg2rad(lat))
        self._origin = _geocentric(lon, lat)

    def to_metres(self, lon: ArrayLike, lat: ArrayLike) -> tuple[Floats, Floats]:
        """East and north of positions in degrees.

        Raises:
            BadInputError: A position lies more than a quarter of the globe away.
        """
        here = _geocentric(*checked_lonlat(lon, lat))
        dx, dy, dz = (a - b for a, b in zip(here, self._origin, strict=True))
        outward = self._cos_lon * dx + self._sin_lon * dy
        east = self._cos_lon * dy - self._sin_lon * dx
        north = self._cos_lat * dz - self._sin_lat * outward
        if np.any(self._cos_lat * outward + self._sin_lat * dz < -6.3e6):
            raise BadInputError("A position lies on the far side of the globe from its local frame.")
        return east[()], north[()]

    def to_lonlat(self, east: ArrayLike, north: ArrayLike) -> tuple[Floats, Floats]:
        """Longitude (-180..180) and latitude in degrees of east and north in metres: the exact inverse.

        Raises:
            BadInputError: Not finite, or so far out that no point of the ellipsoid lies below.
        """
        e, n = np.asarray(east, np.float64), np.asarray(north, np.float64)
        x0, y0, z0 = self._origin
        outward = -self._sin_lat * n
        x = x0 - self._sin_lon * e + self._cos_lon * outward
        y = y0 + self._cos_lon * e + self._sin_lon * outward
        z = z0 + self._cos_lat * n
        # Go down along the vertical of the origin until the ellipsoid: x^2 + y^2 + z^2 / (1 - e^2) = a^2.
        vx, vy, vz = self._cos_lat * self._cos_lon, self._cos_lat * self._sin_lon, self._sin_lat
        ratio = 1 / (1 - _E2)
        a = vx * vx + vy * vy + vz * vz * ratio
        b = x * vx + y * vy + z * vz * ratio
        c = x * x + y * y + z * z * ratio - SEMI_MAJOR_M**2
        inside = b * b - a * c
        if not np.all(inside > 0):
            raise BadInputError(
                "East and north are not finite, or lie beyond the horizon of the local frame."
            )
        up = -c / (b + np.sqrt(inside))  # the nearer root, without cancellation
        x, y, z = x + up * vx, y + up * vy, z + up * vz
        lon = np.rad2deg(np.arctan2(y, x))
        lat = np.rad2deg(np.arctan2(z, (1 - _E2) * np.hypot(x, y)))
        return lon[()], lat[()]


def _geocentric(lon: Floats, lat: Floats) -> tuple[Floats, Floats, Floats]:
    """Metres from the earth's centre of positions on the ellipsoid."""
    theta, phi = np.deg2rad(lon), np.deg2rad(lat)
    sine = np.sin(phi)
    across = SEMI_MAJOR_M / np.sqrt(1 - _E2 * sine * sine)
    flat = across * np.cos(phi)
    return flat * np.cos(theta), flat * np.sin(theta), across * (1 - _E2) * sine


def square_around(lon: ArrayLike, lat: ArrayLike, side_m: float) -> Floats:
    """Corners of a north-up square on the ground: south-west, south-east, north-east, north-west.

    Sides are exact to 1e-5 of their length up to 25 km. Near the 180th meridian, corners lie on both sides of
    it.

    Args:
        lon: Degrees of the centre(s).
        lat: As lon.
        side_m: Length of a side in metres.

    Returns:
        Degrees, shape (..., 4, 2).
    """
    if not (np.isfinite(side_m) and side_m > 0):
        raise UsageError(f"The side of a square is {side_m!r} m; it must be a positive number.")
    x, y = checked_lonlat(lon, lat)
    half = side_m / 2
    east, north = half * np.array([-1, 1, 1, -1]), half * np.array([-1, -1, 1, 1])
    return np.stack(LocalFrame(x[..., None], y[..., None]).to_lonlat(east, north), axis=-1)


def bilinear_weights(lon: ArrayLike, lat: ArrayLike, level: int) -> tuple[Ints, Floats]:
    """The four cells of a level whose centres surround each position, and their bilinear weights.

    Measured in the local frame of the position, so a field linear in metres is reproduced, and neighbours
    across the edges of the cube's faces count by where they really are. At a corner of the cube only three
    cells meet: there the weights are those of the triangle and the fourth place repeats the first cell with
    weight 0.

    Args:
        lon: Degrees, any shape.
        lat: As lon.
        level: 4 to 30; coarser cells are not near their tangent plane.

    Returns:
        Ids (..., 4), the position's own cell first, and weights (..., 4), each 0..1, summing to 1.
    """
    if not COARSEST_BILINEAR_LEVEL <= level <= s2.MAX_LEVEL:
        raise UsageError(f"Level {level!r} is not within {COARSEST_BILINEAR_LEVEL}..{s2.MAX_LEVEL}.")
    x, y = checked_lonlat(lon, lat)
    flat_x, flat_y = x.ravel(), y.ravel()
    own = s2.cell_at(flat_x, flat_y, level)
    near = np.concatenate([own[:, None], s2.neighbors(own)], axis=1)
    present = near != 0
    near = np.where(present, near, own[:, None])
    east, north = LocalFrame(flat_x[:, None], flat_y[:, None]).to_metres(*s2.center(near))
    # Past a face's edge the lines between centres bend, so try all four quadrants and take the one that fits.
    best_ids = np.zeros((own.size, 4), np.int64)
    best_weights = np.zeros((own.size, 4))
    best = np.full(own.size, np.inf)
    for places in _QUADRANTS:
        columns = [0, *(k + 1 for k in places)]
        weights = _quadrant_weights(east[:, columns], north[:, columns], present[:, columns[3]])
        excess = np.maximum(0, -weights.min(axis=1))
        better = excess < best
        best[better] = excess[better]
        best_weights[better] = weights[better]
        best_ids[better] = near[:, columns][better]
    clipped = np.clip(best_weights, 0, None)
    clipped /= clipped.sum(axis=1, keepdims=True)
    return best_ids.reshape((*x.shape, 4)), clipped.reshape((*x.shape, 4))


def _quadrant_weights(east: Floats, north: Floats, has_corner: NDArray[np.bool_]) -> Floats:
    """Weights (own, along a, along b, corner) that carry four centres, in metres, to the origin."""
    c0, ca, cb, cc = (np.stack([east[:, k], north[:, k]], axis=1) for k in range(4))
    p, q, r = ca - c0, cb - c0, np.where(has_corner[:, None], cc - ca - cb + c0, 0)
    a, b = np.zeros(len(east)), np.zeros(len(east))
    for _ in range(_NEWTON_STEPS):  # solve c0 + a p + b q + a b r = 0
        miss = c0 + a[:, None] * p + b[:, None] * q + (a * b)[:, None] * r
        da, db = p + b[:, None] * r, q + a[:, None] * r
        det = da[:, 0] * db[:, 1] - da[:, 1] * db[:, 0]
        a = a - (miss[:, 0] * db[:, 1] - miss[:, 1] * db[:, 0]) / det
        b = b - (da[:, 0] * miss[:, 1] - da[:, 1] * miss[:, 0]) / det
    square = np.stack([(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b], axis=1)
    triangle = np.stack([1 - a - b, a, b, np.zeros_like(a)], axis=1)
    return np.where(has_corner[:, None], square, triangle)
