from __future__ import annotations

import numpy as np
import pyproj
import pytest

from geofix.errors import BadInputError, UsageError
from geofix.spatial import s2
from geofix.spatial.frames import LocalFrame, bilinear_weights, square_around

EARTH = pyproj.Geod(ellps="WGS84")
VERTEX_LAT = float(np.rad2deg(np.arctan(np.sqrt(0.5))))


def origins(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    lon, lat = rng.uniform(-180, 180, n), rng.uniform(-89.9, 89.9, n)
    lon[:3], lat[:3] = (180, 0, 10), (0, 89.99, -89.99)
    return lon, lat


@pytest.mark.parametrize(("distance_m", "bound_m"), [(5e3, 0.6e-3), (10e3, 5e-3), (25e3, 0.07)])
def test_frame_keeps_its_stated_error(distance_m: float, bound_m: float) -> None:
    lon, lat = origins(2000, 1)
    azimuth = np.random.default_rng(2).uniform(0, 360, lon.size)
    x, y, _ = EARTH.fwd(lon, lat, azimuth, np.full(lon.size, distance_m))
    frame = LocalFrame(lon, lat)
    east, north = frame.to_metres(x, y)
    wanted = distance_m * np.sin(np.deg2rad(azimuth)), distance_m * np.cos(np.deg2rad(azimuth))
    error = np.hypot(east - wanted[0], north - wanted[1])
    assert error.max() < bound_m
    assert error.max() > bound_m / 3  # the bound is not an empty one
    back_lon, back_lat = frame.to_lonlat(east, north)
    assert EARTH.inv(back_lon, back_lat, x, y)[2].max() < 1e-6


def test_one_origin_for_many_positions_and_scalars() -> None:
    frame = LocalFrame(24.94, 60.17)
    east, north = frame.to_metres([24.94, 24.95], [60.17, 60.17])
    assert east[0] == 0 and north[0] == 0
    assert east[1] == pytest.approx(EARTH.inv(24.94, 60.17, 24.95, 60.17)[2], abs=1e-3)
    lon, lat = frame.to_lonlat(0.0, 1000.0)
    assert np.ndim(lon) == 0 and lon == pytest.approx(24.94)
    assert EARTH.inv(24.94, 60.17, lon, lat)[2] == pytest.approx(1000, abs=1e-4)


def test_frame_refuses_what_it_cannot_see() -> None:
    with pytest.raises(BadInputError):
        LocalFrame(0, 91)
    with pytest.raises(BadInputError, match="far side"):
        LocalFrame(0, 0).to_metres(170, 0)
    with pytest.raises(BadInputError, match="horizon"):
        LocalFrame(0, 0).to_lonlat(7e6, 0)
    with pytest.raises(BadInputError):
        LocalFrame(0, 0).to_lonlat(np.nan, 0)


def test_squares_have_their_sides() -> None:
    lon, lat = origins(200, 3)
    for side, tolerance in ((154.0, 1e-6), (25_000.0, 1e-5)):
        corners = square_around(lon, lat, side)
        assert corners.shape == (200, 4, 2)
        for k in range(4):
            a, b = corners[:, k], corners[:, (k + 1) % 4]
            metres = EARTH.inv(a[:, 0], a[:, 1], b[:, 0], b[:, 1])[2]
            assert np.abs(metres / side - 1).max() < tolerance
    one = square_around(9.0, 45.0, 154)
    assert one[0, 0] < 9 < one[1, 0] and one[0, 1] < 45 < one[2, 1]
    for side in (0, -1, np.nan):
        with pytest.raises(UsageError):
            square_around(9, 45, side)


def places(level: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random positions, and many near face edges, a corner of the cube, the poles and the 180th meridian."""
    rng = np.random.default_rng(seed)
    cell = 60 / 2**level  # degrees, about one edge

    def near(n: int) -> np.ndarray:
        return rng.normal(0, cell, n)

    lon = [rng.uniform(-180, 180, 500), rng.uniform(8, 10, 500), 45 + near(500), 45 + near(500)]
    lat = [rng.uniform(-90, 90, 500), np.empty(0), rng.uniform(-35, 35, 500), VERTEX_LAT + near(500)]
    lat[1] = np.rad2deg(np.arctan(np.cos(np.deg2rad(lon[1])))) + near(500)
    lon += [rng.uniform(-180, 180, 300), (near(300) + 360) % 360 - 180]
    lat += [90 - np.abs(near(300)), rng.uniform(-80, 80, 300)]
    return np.concatenate(lon), np.concatenate(lat)


@pytest.mark.parametrize("level", [6, 13, 15, 16, 22])
def test_bilinear_weights_reproduce_the_position(level: int) -> None:
    lon, lat = places(level, level)
    ids, weights = bilinear_weights(lon, lat, level)
    assert ids.shape == weights.shape == (lon.size, 4)
    assert (s2.level(ids) == level).all()
    assert np.array_equal(ids[:, 0], s2.cell_at(lon, lat, level))
    assert weights.min() >= 0 and np.allclose(weights.sum(axis=1), 1)
    east, north = LocalFrame(lon[:, None], lat[:, None]).to_metres(*s2.center(ids))
    edge = 1e7 / 2**level
    assert np.hypot((weights * east).sum(axis=1), (weights * north).sum(axis=1)).max() < 1e-9 * edge + 1e-8
    # The four are neighbours of each other: none lies two cells away.
    assert np.hypot(east, north).max() < 2 * 1.45 * edge


def test_bilinear_weights_use_both_faces_between_genoa_and_milan() -> None:
    lon = np.linspace(8, 10, 400)
    lat = np.rad2deg(np.arctan(np.cos(np.deg2rad(lon)))) + 1e-5
    ids, weights = bilinear_weights(lon, lat, 15)
    faces = (ids >> 61) & 7
    assert set(np.unique(faces).tolist()) == {0, 2}
    across = np.where(faces != faces[:, :1], weights, 0).sum(axis=1)
    assert across.min() > 0.4  # on the edge, half of the weight comes from beyond it


def test_bilinear_weights_are_continuous_and_one_at_a_centre() -> None:
    level = 15
    cell = s2.cell_at(9.0, 45.0, level)
    ids, weights = bilinear_weights(*s2.center(cell), level)
    assert ids[0] == cell and weights[0] == pytest.approx(1, abs=1e-6)
    # Walk over several cells and one face edge in 2 m steps: no weight jumps.
    step_lat = np.linspace(44.60, 44.64, 2200)
    ids, weights = bilinear_weights(9.1, step_lat, level)
    assert {int(f) for f in np.unique((ids >> 61) & 7)} == {0, 2}
    for k in range(1, step_lat.size):
        before, after = (
            dict(zip(ids[k - 1], weights[k - 1], strict=True)),
            dict(zip(ids[k], weights[k], strict=True)),
        )
        assert all(abs(before.get(c, 0) - after.get(c, 0)) < 0.03 for c in {*before, *after})


def test_bilinear_weights_refuse_coarse_levels() -> None:
    for level in (3, 31):
        with pytest.raises(UsageError):
            bilinear_weights(0, 0, level)
    ids, weights = bilinear_weights(np.empty(0), np.empty(0), 10)
    assert ids.shape == weights.shape == (0, 4)
