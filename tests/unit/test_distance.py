from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyproj
import pytest

from geofix.errors import BadInputError
from geofix.spatial.distance import (
    EARTH_RADIUS_M,
    bearing_deg,
    destination,
    great_circle_m,
    mean_position,
    unit_vectors,
    wrap_lon,
)

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
SPHERE = pyproj.Geod(a=EARTH_RADIUS_M, b=EARTH_RADIUS_M)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    rng = np.random.default_rng(11)
    lon1, lat1 = rng.uniform(-180, 180, 3000), rng.uniform(-89.9, 89.9, 3000)
    far = rng.uniform(-180, 180, 1500), rng.uniform(-89.9, 89.9, 1500)
    step = rng.normal(size=(2, 1500)) * 1e-3
    lon2 = np.concatenate([far[0], wrap_lon(lon1[1500:] + step[0])])
    lat2 = np.concatenate([far[1], np.clip(lat1[1500:] + step[1], -90, 90)])
    return lon1, lat1, lon2, lat2


def test_distance_and_bearing_equal_proj_on_the_sphere(pairs: Pairs) -> None:
    azimuth, _, metres = SPHERE.inv(*pairs)
    ours = great_circle_m(*pairs)
    assert np.allclose(ours, metres, rtol=1e-9, atol=1e-5)
    off = (bearing_deg(*pairs) - azimuth + 180) % 360 - 180
    assert np.abs(np.deg2rad(off) * np.minimum(ours, 1e6)).max() < 1e-3  # metres sideways


def test_distance_near_zero_and_at_antipodes() -> None:
    assert great_circle_m(10, 50, 10, 50) == 0
    assert great_circle_m(0, 0, 1e-7, 0) == pytest.approx(EARTH_RADIUS_M * np.deg2rad(1e-7), rel=1e-9)
    lon, lat = np.random.default_rng(0).uniform(-90, 90, (2, 500))
    antipodes = great_circle_m(lon, lat, lon + np.where(lon > 0, -180, 180), -lat)
    assert np.abs(antipodes - np.pi * EARTH_RADIUS_M).max() < 0.3
    assert great_circle_m(179.9, 0, -179.9, 0) == pytest.approx(EARTH_RADIUS_M * np.deg2rad(0.2))
    assert great_circle_m(0, 0, 90, 0, radius_m=1.0) == pytest.approx(np.pi / 2)


def test_compass_bearings() -> None:
    assert bearing_deg(0, 0, [0, 1, 0, -1], [1, 0, -1, 0]).tolist() == [0, 90, 180, 270]
    assert bearing_deg(5, 5, 5, 5) == 0
    assert bearing_deg(179.5, 0, -179.5, 0) == 90


def test_destination_inverts_distance_and_bearing(pairs: Pairs) -> None:
    lon1, lat1, lon2, lat2 = pairs
    x, y = destination(lon1, lat1, bearing_deg(*pairs), great_circle_m(*pairs))
    assert great_circle_m(x, y, lon2, lat2).max() < 0.01
    assert np.abs(x).max() <= 180
    assert destination(179.9, 0, 90, EARTH_RADIUS_M * np.deg2rad(0.2))[0] == pytest.approx(-179.9)
    assert destination(0, 0, 0, EARTH_RADIUS_M * np.pi / 2)[1] == pytest.approx(90)


def test_mean_position_across_the_meridian_and_with_weights() -> None:
    lon, lat = mean_position([179, -179], [10, 10])
    assert abs(lon) == pytest.approx(180) and lat > 10
    lon, lat = mean_position([0, 90], [0, 0], [3, 1])
    assert lon == pytest.approx(np.rad2deg(np.arctan2(1, 3))) and lat == pytest.approx(0)
    rows_lon, rows_lat = mean_position(np.array([[0, 2], [10, 10]]), np.array([[0, 0], [5, 7]]))
    assert np.allclose(rows_lon, [1, 10]) and np.allclose(rows_lat, [0, 6])
    assert np.allclose(mean_position(12.5, -3.5), (12.5, -3.5))


def test_unit_vectors() -> None:
    assert np.allclose(unit_vectors([0, 90, 0], [0, 0, 90]), np.eye(3), atol=1e-15)
    assert unit_vectors(0, 0).shape == (3,)


@pytest.mark.parametrize(
    "call",
    [
        lambda: great_circle_m(np.nan, 0, 0, 0),
        lambda: great_circle_m(0, 0, 0, 90.1),
        lambda: bearing_deg(0, 0, 181, 0),
        lambda: destination(0, 0, np.nan, 1),
        lambda: destination(0, 0, 0, np.inf),
        lambda: mean_position([0, 180], [0, 0]),
        lambda: mean_position([0, 1], [0, 0], [0, 0]),
        lambda: mean_position([0, 1], [0, 0], [-1, 2]),
        lambda: mean_position([], []),
        lambda: mean_position([1, 2], [1, 2, 3]),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(BadInputError):
        call()
