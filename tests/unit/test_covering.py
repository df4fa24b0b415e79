"""Coverings never miss a point of the planar region."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import affinity

from geofix.errors import BadInputError, UsageError
from geofix.spatial import s2
from geofix.spatial.covering import (
    cells_in,
    cells_touching,
    cover,
    in_ranges,
    iter_cells_in,
    merge,
)

FEW = settings(max_examples=25, deadline=None)


def points_in(shape: Any, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random positions in a shape and on its border, longitudes still running on."""
    rng = np.random.default_rng(seed)
    west, south, east, north = shape.bounds
    lon, lat = rng.uniform(west, east, n), rng.uniform(south, north, n)
    inside = shapely.intersects_xy(shape, lon, lat)
    border = shapely.get_coordinates(
        shapely.line_interpolate_point(shape.boundary, rng.uniform(0, shape.boundary.length, n // 4))
    )
    return np.concatenate([lon[inside], border[:, 0]]), np.concatenate([lat[inside], border[:, 1]])


def wrapped(lon: np.ndarray) -> np.ndarray:
    return np.where(np.abs(lon) > 180, (lon + 180) % 360 - 180, lon)


def assert_covered(shape: Any, ranges: np.ndarray, n: int = 2000) -> None:
    lon, lat = points_in(shape, n)
    assert lon.size
    assert in_ranges(s2.cell_at(wrapped(lon), lat), ranges).all()


@st.composite
def blobs(
    draw: st.DrawFn, lon: tuple[float, float] = (-179, 179), lat: tuple[float, float] = (-85, 85)
) -> Any:
    """Star-shaped polygons from 10 m to 40 degrees across, half of them with a hole."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    size = 10 ** draw(st.floats(-4, 1.3))
    x, y = draw(st.floats(*lon)), draw(st.floats(*lat))
    angles = np.sort(rng.uniform(0, 2 * np.pi, draw(st.integers(5, 40))))
    radii = size * rng.uniform(0.3, 1, angles.size)
    shell = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    shape = shapely.make_valid(shapely.Polygon(shell))
    if draw(st.booleans()):
        shape = shape.difference(shapely.Point(0, 0).buffer(0.2 * size))
    return affinity.translate(shape, x, y).intersection(shapely.box(-540, -90, 540, 90))


@FEW
@given(shape=blobs(), max_ranges=st.sampled_from([1, 4, 16, 64, 300]), max_level=st.sampled_from([8, 16, 24]))
def test_no_point_is_missed(shape: Any, max_ranges: int, max_level: int) -> None:
    ranges = cover(shape, max_ranges=max_ranges, max_level=max_level)
    assert 0 < len(ranges) <= max_ranges
    assert (ranges[:, 0] <= ranges[:, 1]).all() and (ranges[1:, 0] > ranges[:-1, 1]).all()
    if shape.area > 0:
        assert_covered(shape, ranges)


@FEW
@given(shape=blobs(lon=(170, 190)))
def test_no_point_is_missed_over_the_180th_meridian(shape: Any) -> None:
    running_on = cover(shape)
    assert_covered(shape, running_on)
    turned = affinity.translate(shape, -360, 0)
    assert_covered(turned, cover(turned))


@FEW
@given(shape=blobs(lat=(75, 90)), south=st.booleans())
def test_no_point_is_missed_at_a_pole(shape: Any, south: bool) -> None:
    if south:
        shape = affinity.scale(shape, 1, -1, origin=(0, 0))
    if shape.area > 0:
        assert_covered(shape, cover(shape))


@FEW
@given(shape=blobs(), level=st.integers(6, 14))
def test_interior_cells_hold_no_point_outside(shape: Any, level: int) -> None:
    ranges = cover(shape, max_ranges=200, max_level=level, interior=True)
    if not len(ranges):
        return
    rng = np.random.default_rng(0)
    row = rng.integers(0, len(ranges), 500)
    leaf = ranges[row, 0] + 2 * rng.integers(0, (ranges[row, 1] - ranges[row, 0]) // 2 + 1)
    lon, lat = s2.center(leaf)
    near = [shapely.intersects_xy(shape, lon + turn, lat) for turn in (-360, 0, 360)]
    assert np.any(near, axis=0).all()


def test_caps_at_both_poles_and_the_whole_globe() -> None:
    for low, high in ((80, 90), (-90, -80)):
        cap = shapely.box(-180, low, 180, high)
        ranges = cover(cap, max_ranges=64)
        assert_covered(cap, ranges)
        assert not in_ranges(s2.cell_at([0, 90, 20], [0, 0, 60 if low < 0 else -60]), ranges).any()
    globe = cover(shapely.box(-180, -90, 180, 90), max_ranges=6)
    lon, lat = np.random.default_rng(0).uniform(-1, 1, (2, 1000))
    assert in_ranges(s2.cell_at(180 * lon, 90 * lat), globe).all()


def test_long_planar_edges_are_not_geodesics() -> None:
    """At 60 N a parallel of 80 degrees runs up to 10 degrees south of the great circle."""
    strip = shapely.box(-40, 60, 40, 60.5)
    ranges = cover(strip, max_ranges=400, max_level=12)
    assert_covered(strip, ranges)
    assert not in_ranges(s2.cell_at(0.0, 66.0), ranges)
    assert not in_ranges(s2.cell_at(0.0, 59.0), ranges)


def test_points_lines_and_collections() -> None:
    spots = shapely.MultiPoint([(9.19, 45.46), (-180, 10), (180, -10), (0, 90)])
    coordinates = shapely.get_coordinates(spots)
    ranges = cover(spots, max_level=20)
    assert in_ranges(s2.cell_at(*coordinates.T), ranges).all()
    assert in_ranges(s2.cell_at(9.2, 45.47), ranges).sum() == 0
    road = shapely.LineString([(8.93, 44.41), (9.19, 45.46), (9.19, 45.7)])
    along = shapely.get_coordinates(shapely.line_interpolate_point(road, np.linspace(0, road.length, 500)))
    for shape in (road, shapely.GeometryCollection([road, shapely.box(1, 1, 2, 2), shapely.Point(3, 3)])):
        ranges = cover(shape, max_ranges=100)
        assert in_ranges(s2.cell_at(*along.T), ranges).all()
    assert in_ranges(s2.cell_at([1.5, 3], [1.5, 3]), ranges).all()
    assert len(cover(road, interior=True)) == 0 and cells_in(road, 12).size == 0
    assert cells_touching(road, 12).size > 50
    for empty in (shapely.Polygon(), shapely.GeometryCollection(), shapely.MultiPoint()):
        assert cover(empty).shape == (0, 2) and cells_in(empty, 10).size == 0


def test_more_ranges_fit_closer() -> None:
    shape = shapely.Point(10, 50).buffer(3).difference(shapely.Point(10, 50).buffer(2))
    lengths = []
    for max_ranges in (4, 16, 64, 256):
        ranges = cover(shape, max_ranges=max_ranges)
        lengths.append(float((ranges[:, 1] - ranges[:, 0]).astype(float).sum()))
    assert lengths == sorted(lengths, reverse=True) and lengths[-1] < 0.7 * lengths[0]


@pytest.mark.parametrize("level", [7, 9, 11])
@pytest.mark.parametrize(
    "shape",
    [
        shapely.Point(9, 45).buffer(2).difference(shapely.Point(9, 45).buffer(1)),
        shapely.MultiPolygon([shapely.box(178, -19, 180, -16), shapely.box(-180, -19, -178, -16)]),
        shapely.box(-30, 84, 60, 90),
    ],
    ids=["ring over two faces", "cut at 180", "at the pole"],
)
def test_cells_in_are_those_whose_centre_is_inside(shape: Any, level: int) -> None:
    found = cells_in(shape, level)
    assert found.size and (np.diff(found) > 0).all() and (s2.level(found) == level).all()
    # Against brute force: all cells below generous coarse ones.
    coarse = np.unique(s2.parent(found, 5))
    coarse = np.unique(np.concatenate([coarse, s2.neighbors(coarse).ravel()]))
    around = merge(coarse[coarse != 0])
    lsb = 1 << 2 * (30 - level)
    every = np.concatenate([np.arange(lo + lsb - 1, hi, 2 * lsb) for lo, hi in around])
    expected = np.sort(every[shapely.intersects_xy(shape, *s2.center(every))])
    assert np.array_equal(found, expected)
    touching = cells_touching(shape, level)
    assert (np.diff(touching) > 0).all() and np.isin(found, touching).all()
    lon, lat = points_in(shape, 3000)
    assert np.isin(s2.cell_at(lon, lat, level), touching).all()


def test_streamed_cells_come_sorted_and_in_pieces() -> None:
    shape = shapely.Point(9, 45).buffer(0.6)
    pieces = list(iter_cells_in(shape, 16))
    assert len(pieces) > 3 and max(p.size for p in pieces) <= 262_144
    assert np.array_equal(np.concatenate(pieces), cells_in(shape, 16))
    assert (np.diff(np.concatenate(pieces)) > 0).all()


def test_merge_and_in_ranges() -> None:
    parent = s2.cell_at(9.0, 45.0, 10)
    kids = s2.children(parent)
    low, high = s2.range_of(parent)
    assert merge(kids[::-1]).tolist() == [[low, high]]
    two = merge(kids[[0, 2]])
    assert two.shape == (2, 2)
    assert in_ranges(kids, two).tolist() == [True, False, True, False]
    assert in_ranges(parent, two) == (two[0, 0] <= parent <= two[0, 1] or two[1, 0] <= parent <= two[1, 1])
    assert merge([]).shape == (0, 2) and not in_ranges(kids, merge([])).any()


@pytest.mark.parametrize(
    ("shape", "named"),
    [
        (shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)]), "Self-intersection"),
        (shapely.box(0, 80, 1, 95), "95"),
        (shapely.Point(600, 0), "600"),
        (shapely.LineString([(0, 0), (np.inf, 1)]), "finite"),
        ("POINT (0 0)", "str"),
    ],
)
def test_bad_regions_are_refused(shape: Any, named: str) -> None:
    with pytest.raises(BadInputError, match=named):
        cover(shape)


def test_bad_options_are_refused() -> None:
    with pytest.raises(UsageError):
        cover(shapely.Point(0, 0), max_ranges=0)
    with pytest.raises(UsageError):
        cells_in(shapely.Point(0, 0), 31)
