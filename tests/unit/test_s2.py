"""NumPy's S2 cells equal the official library's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import s2geometry
import shapely
from numpy.typing import NDArray

from geofix.errors import BadInputError, UsageError
from geofix.spatial import hilbert, s2

POINTS = 20_000
LEVELS = range(31)
VERTEX_LAT = float(np.rad2deg(np.arctan(np.sqrt(0.5))))  # corners of the cube


def signed(values: list[int]) -> NDArray[np.int64]:
    return np.array(values, np.uint64).astype(np.int64)


def official(cell: int) -> s2geometry.S2CellId:
    return s2geometry.S2CellId(int(cell) & (2**64 - 1))


def leaves_at(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> list[s2geometry.S2CellId]:
    from_degrees = s2geometry.S2LatLng.FromDegrees
    return [s2geometry.S2CellId(from_degrees(y, x)) for x, y in zip(lon.tolist(), lat.tolist(), strict=True)]


def awkward_places() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Poles, both sides of the 180th meridian, edges and corners of the cube, and all of them nudged."""
    lats = np.concatenate([np.linspace(-90, 90, 37), [VERTEX_LAT, -VERTEX_LAT, 1e-12, -1e-12]])
    lons = np.concatenate([np.arange(-180, 181, 45), [1e-12, -1e-12, 179.9999999999, -179.9999999999]])
    lon, lat = (grid.ravel() for grid in np.meshgrid(lons, lats))
    # Points on the edges between faces 0/2 and 1/2: there tan(lat) = cos of the longitude within the face.
    edge_lon = np.linspace(-45, 135, 181)
    edge_lat = np.rad2deg(np.arctan(np.cos(np.deg2rad((edge_lon + 45) % 90 - 45))))
    lon, lat = np.concatenate([lon, edge_lon, edge_lon]), np.concatenate([lat, edge_lat, -edge_lat])
    nudged = [(lon, lat)]
    for dx, dy in ((1e-9, 0), (0, 1e-9), (-1e-7, 1e-7)):
        nudged.append((np.clip(lon + dx, -180, 180), np.clip(lat + dy, -90, 90)))
    return np.concatenate([a for a, _ in nudged]), np.concatenate([b for _, b in nudged])


@dataclass(frozen=True)
class Sample:
    lon: NDArray[np.float64]
    lat: NDArray[np.float64]
    leaves: list[s2geometry.S2CellId]


@pytest.fixture(scope="module")
def sample() -> Sample:
    rng = np.random.default_rng(20240501)
    lon = rng.uniform(-180, 180, POINTS)
    lat = np.rad2deg(np.arcsin(rng.uniform(-1, 1, POINTS)))
    edge_lon, edge_lat = awkward_places()
    lon, lat = np.concatenate([lon, edge_lon]), np.concatenate([lat, edge_lat])
    return Sample(lon, lat, leaves_at(lon, lat))


@pytest.fixture(scope="module")
def some_cells() -> NDArray[np.int64]:
    """About 60 cells of each level, many of them beside an edge, a corner or a pole."""
    rng = np.random.default_rng(7)
    edge_lon, edge_lat = awkward_places()
    pick = rng.choice(edge_lon.size, 40, replace=False)
    lon = np.concatenate([edge_lon[pick], [45.0, 0.0, 180.0], rng.uniform(-180, 180, 20)])
    lat = np.concatenate([edge_lat[pick], [VERTEX_LAT, 90.0, 0.0], rng.uniform(-90, 90, 20)])
    return np.unique(np.concatenate([s2.cell_at(lon, lat, level) for level in LEVELS]))


@pytest.mark.parametrize("level", LEVELS)
def test_ids_parents_tokens_ranges_and_centres_are_official(sample: Sample, level: int) -> None:
    truth = [leaf.parent(level) for leaf in sample.leaves]
    ids = signed([cell.id() for cell in truth])
    assert np.array_equal(s2.cell_at(sample.lon, sample.lat, level), ids)
    assert np.array_equal(s2.parent(signed([leaf.id() for leaf in sample.leaves]), level), ids)
    assert np.array_equal(s2.level(ids), np.full(ids.size, level))
    tokens = s2.token(ids)
    assert tokens.tolist() == [cell.ToToken() for cell in truth]
    assert np.array_equal(s2.from_token(tokens), ids)
    low, high = s2.range_of(ids)
    assert np.array_equal(low, signed([cell.range_min().id() for cell in truth]))
    assert np.array_equal(high, signed([cell.range_max().id() for cell in truth]))
    lon, lat = s2.center(ids)
    middles = [cell.ToLatLng() for cell in truth]
    assert np.abs(lat - [m.lat().degrees() for m in middles]).max() < 1e-9
    turn = (lon - [m.lng().degrees() for m in middles] + 180) % 360 - 180
    assert np.abs(turn * np.cos(np.deg2rad(lat))).max() < 1e-9


def test_neighbours_are_official(some_cells: NDArray[np.int64]) -> None:
    around, beside = s2.neighbors(some_cells), s2.edge_neighbors(some_cells)
    for cell, eight, four in zip(some_cells, around, beside, strict=True):
        truth = official(cell)
        found = eight[eight != 0].tolist()
        expected = {n.id() for n in truth.GetAllNeighbors(truth.level())} - {truth.id()}
        assert sorted(found) == sorted(signed(list(expected)).tolist())
        assert four.tolist() == signed([n.id() for n in truth.GetEdgeNeighbors()]).tolist()
        assert np.array_equal(eight[:4], four)


def test_neighbours_across_the_face_edge_of_europe_are_near() -> None:
    """Genoa lies on face 0 and Milan on face 2; cells on both sides of the edge know each other."""
    assert (s2.cell_at([8.93, 9.19], [44.41, 45.46]) >> 61).tolist() == [0, 2]
    lon = np.linspace(7, 11, 50)
    lat = np.rad2deg(np.arctan(np.cos(np.deg2rad(lon)))) - 1e-6
    cells = np.unique(s2.cell_at(lon, lat, 13))
    around = s2.neighbors(cells)
    assert set(np.unique(around[around != 0] >> 61).tolist()) == {0, 2}
    back = s2.neighbors(around.ravel()).reshape(cells.size, -1)
    assert all(cell in row for cell, row in zip(cells, back, strict=True))


def test_children_and_ranges_nest(some_cells: NDArray[np.int64]) -> None:
    inner = some_cells[s2.level(some_cells) < 30]
    four = s2.children(inner)
    assert four.shape == (inner.size, 4)
    for cell, kids in zip(inner[::7], four[::7], strict=True):
        assert kids.tolist() == signed([official(cell).child(k).id() for k in range(4)]).tolist()
    low, high = s2.range_of(inner)
    child_low, child_high = s2.range_of(four)
    assert np.array_equal(child_low[:, 0], low) and np.array_equal(child_high[:, 3], high)
    assert np.array_equal(s2.parent(four, s2.level(inner)[:, None]), np.repeat(inner[:, None], 4, axis=1))


def test_corners_are_official(some_cells: NDArray[np.int64]) -> None:
    for cell, four in zip(some_cells[::5], s2.corners(some_cells[::5]), strict=True):
        truth = s2geometry.S2Cell(official(cell))
        for k in range(4):
            corner = s2geometry.S2LatLng(truth.GetVertex(k))
            ours = s2geometry.S2LatLng.FromDegrees(*four[k, ::-1].tolist())
            assert ours.GetDistance(corner).degrees() < 1e-9


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_polygons_tile_the_whole_plane(level: int) -> None:
    cells = (np.arange(6, dtype=np.int64) << 61) + (np.int64(1) << 60)
    for _ in range(level):
        cells = s2.children(cells).ravel()
    shapes = s2.polygon(cells)
    assert shapely.is_valid(shapes).all()
    assert np.isclose(shapely.area(shapes).sum(), 360 * 180, rtol=1e-12)
    west, south, east, north = shapely.total_bounds(shapes)
    assert (west, south, east, north) == (-180, -90, 180, 90)
    # Points away from borders lie in the polygon of their own cell.
    rng = np.random.default_rng(level)
    lon, lat = rng.uniform(-180, 180, 2000), rng.uniform(-89, 89, 2000)
    own = np.searchsorted(cells[np.argsort(cells)], s2.cell_at(lon, lat, level))
    assert shapely.intersects_xy(shapes[np.argsort(cells)][own], lon, lat).mean() > 0.999


def test_polygons_at_the_180th_meridian_and_the_poles() -> None:
    pacific = s2.polygon(s2.cell_at(179.99, -17.0, 0))  # of all cells, only faces reach over the meridian
    assert pacific.geom_type == "MultiPolygon" and len(pacific.geoms) == 2 and pacific.is_valid
    assert pacific.bounds[0] == -180 and pacific.bounds[2] == 180
    for level in (1, 6, 20, 30):
        east, west = s2.polygon(s2.cell_at([179.999999999, -179.999999999], -17.0, level))
        assert east.is_valid and east.bounds[2] == 180 and east.bounds[0] > 100
        assert west.is_valid and west.bounds[0] == -180 and west.bounds[2] < -100
    for lat in (90.0, -90.0):
        for lon in (10.0, 100.0, -100.0, -10.0):
            cap = s2.polygon(s2.cell_at(lon, np.sign(lat) * 89.9999, 12))
            edge = shapely.get_coordinates(cap)
            at_pole = edge[edge[:, 1] == lat]
            assert cap.is_valid and np.isclose(np.ptp(at_pole[:, 0]), 90)
            assert shapely.intersects_xy(cap, lon, np.sign(lat) * 89.99999)


def test_shapes_and_scalars() -> None:
    one = s2.cell_at(8.93, 44.41, 16)
    assert np.ndim(one) == 0 and s2.level(one) == 16 and s2.token(one) == s2.token([one])[0]
    assert s2.parent(one, 16) == one and s2.children(one).shape == (4,) and s2.neighbors(one).shape == (8,)
    assert s2.corners(one).shape == (4, 2) and s2.polygon(one).geom_type == "Polygon"
    assert s2.cell_at(np.zeros((2, 3)), 1.0).shape == (2, 3)
    assert s2.cell_at([], []).size == 0 and s2.token(s2.cell_at([], [])).size == 0
    assert s2.neighbors(np.empty(0, np.int64)).shape == (0, 8) and len(s2.polygon(np.empty(0, np.int64))) == 0


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch, sample: Sample) -> None:
    whole = s2.cell_at(sample.lon[:1000], sample.lat[:1000], 17)
    tokens, around, middle = s2.token(whole), s2.neighbors(whole), s2.center(whole)
    monkeypatch.setattr(s2, "_CHUNK", 77)
    assert np.array_equal(s2.cell_at(sample.lon[:1000], sample.lat[:1000], 17), whole)
    assert np.array_equal(s2.token(whole), tokens) and np.array_equal(s2.from_token(tokens), whole)
    assert np.array_equal(s2.neighbors(whole), around) and np.array_equal(s2.center(whole), middle)


def test_unsigned_ids_and_validity() -> None:
    cell = s2.cell_at(-170.0, -60.0, 12)
    assert cell < 0 and s2.parent(np.uint64(int(cell) & (2**64 - 1)), 5) == s2.parent(cell, 5)
    candidates = np.array([cell, 0, 2, -(2**63), 6 << 60, 1], np.int64)
    assert s2.is_valid(candidates).tolist() == [official(c).is_valid() for c in candidates]
    assert s2.is_valid(np.int64(-1 << 61 | 1)) == official(-1 << 61 | 1).is_valid()


def test_curve_tables_invert_each_other() -> None:
    rng = np.random.default_rng(3)
    face, i, j = rng.integers(0, 6, 5000), *rng.integers(0, 1 << 30, (2, 5000))
    for ours, given in zip(hilbert.decode(hilbert.encode(face, i, j)), (face, i, j), strict=True):
        assert np.array_equal(ours, given)


@pytest.mark.parametrize(
    ("lon", "lat", "named"),
    [(180.5, 0, "180.5"), (0, 91, "91"), (np.nan, 0, "nan"), (0, -np.inf, "-inf"), ("east", 0, "east")],
)
def test_bad_coordinates_are_named(lon: Any, lat: Any, named: str) -> None:
    with pytest.raises(BadInputError, match=named):
        s2.cell_at(lon, lat)
    if not isinstance(lon, str):
        with pytest.raises(BadInputError, match="position 2"):
            s2.cell_at([0, 0, lon], [0, 0, lat])


def test_bad_cells_levels_and_tokens_are_named() -> None:
    cell = s2.cell_at(2.0, 48.0, 10)
    with pytest.raises(BadInputError, match="not the id"):
        s2.level(np.array([cell, 0]))
    with pytest.raises(BadInputError, match="64-bit integers"):
        s2.level(np.array([1.5]))
    for level in (-1, 31, 2.5):
        with pytest.raises(UsageError, match="Level"):
            s2.cell_at(2.0, 48.0, level)  # type: ignore[arg-type]
    for level in (-1, 31, 11):
        with pytest.raises(UsageError):
            s2.parent(cell, level)
    with pytest.raises(UsageError, match="leaf"):
        s2.children(s2.cell_at(2.0, 48.0))
    for token in ("", "xyz", "47e66", "47e40000000000000", "é", "0", "e4"):
        with pytest.raises(BadInputError, match="token"):
            s2.from_token(["47e4", token])
    assert s2.from_token("47E4") == s2.from_token("47e4")
