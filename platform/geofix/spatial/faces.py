"""Between longitude and latitude and positions on the six faces of S2's cube.

A face position is (s, t) in 0..1, which S2's quadratic transform makes nearly proportional to area. The
arithmetic repeats the order of operations of the official library, so that ids agree to the last bit.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geofix.errors import BadInputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_TIE = 4 * np.finfo(np.float64).eps


def checked_lonlat(lon: ArrayLike, lat: ArrayLike) -> tuple[Floats, Floats]:
    """Coordinates as broadcast float64 arrays, in degrees.

    Raises:
        BadInputError: Not numbers, NaN, or outside -180..180 and -90..90.
    """
    try:
        x, y = np.broadcast_arrays(np.asarray(lon, np.float64), np.asarray(lat, np.float64))
    except (TypeError, ValueError) as error:
        raise BadInputError(f"Coordinates cannot be read as numbers of matching shape: {error}.") from error
    for name, values, limit in (("Longitude", x, 180.0), ("Latitude", y, 90.0)):
        good = np.abs(values) <= limit
        if not good.all():
            where = int(np.argmin(good.ravel()))
            raise BadInputError(
                f"{name} {float(values.ravel()[where])} at position {where} is not within "
                f"{-limit:g}..{limit:g} degrees.",
                hint="Check the column order (longitude first) and drop records without a position.",
            )
    return x, y


def lonlat_to_xyz(lon: Floats, lat: Floats) -> tuple[Floats, Floats, Floats]:
    """Unit vectors of positions in degrees."""
    theta, phi = np.deg2rad(lon), np.deg2rad(lat)
    cosine = np.cos(phi)
    return np.cos(theta) * cosine, np.sin(theta) * cosine, np.sin(phi)


def _mend_ties(lon: Floats, lat: Floats, x: Floats, y: Floats, z: Floats) -> None:
    """Recompute positions on the cube's edges with the C library's sine and cosine, in place.

    There the last bit decides the face, and NumPy's vector units may round it differently.
    """
    ax, ay, az = np.abs(x), np.abs(y), np.abs(z)
    tied = (np.abs(ax - ay) < _TIE) | (np.abs(ay - az) < _TIE) | (np.abs(az - ax) < _TIE)
    for k in np.flatnonzero(tied):
        theta, phi = float(np.deg2rad(lon[k])), float(np.deg2rad(lat[k]))
        cosine = math.cos(phi)
        x[k], y[k], z[k] = math.cos(theta) * cosine, math.sin(theta) * cosine, math.sin(phi)


def lonlat_to_face_st(lon: Floats, lat: Floats) -> tuple[Ints, Floats, Floats]:
    """Face and (s, t) of positions in degrees; flat arrays."""
    x, y, z = lonlat_to_xyz(lon, lat)
    _mend_ties(lon, lat, x, y, z)
    ax, ay, az = np.abs(x), np.abs(y), np.abs(z)
    on_x = (ax > ay) & (ax > az)
    on_y = ~(ax > ay) & (ay > az)
    major = np.where(on_x, x, np.where(on_y, y, z))
    p = np.where(on_x, y, -x) / major
    q = np.where(on_x | on_y, z, -y) / major
    far = major < 0
    face = np.where(on_x, 0, np.where(on_y, 1, 2)) + 3 * far
    return face, _uv_to_st(np.where(far, q, p)), _uv_to_st(np.where(far, p, q))


def _uv_to_st(u: Floats) -> Floats:
    root = 0.5 * np.sqrt(1 + 3 * np.abs(u))
    out: Floats = np.where(u >= 0, root, 1 - root)
    return out


def _st_to_uv(s: Floats) -> Floats:
    rest = 1 - s
    return np.where(s >= 0.5, (1 / 3) * (4 * s * s - 1), (1 / 3) * (1 - 4 * rest * rest))


def face_st_to_lonlat(face: Ints, s: Floats, t: Floats) -> tuple[Floats, Floats]:
    """Longitude and latitude in degrees of face positions; at a pole the longitude is 0."""
    u, v = _st_to_uv(s), _st_to_uv(t)
    one = np.ones_like(u)
    x = np.choose(face, [one, -u, -u, -one, v, v])
    y = np.choose(face, [u, one, -v, -v, -one, u])
    z = np.choose(face, [v, v, one, -u, -u, -one])
    radius = np.hypot(x, y)
    lon = np.rad2deg(np.arctan2(y, x))
    lat = np.rad2deg(np.arctan2(z, radius))
    return np.where(radius == 0, 0.0, lon), lat
