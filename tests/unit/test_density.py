"""[L]kNN in both modes: the acceptance rules, a plain blurred grid as reference, and its scaling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import correlate1d

from geofix.errors import UsageError
from geofix.localizers.degreegrid import DEGREE_M, grid_maximum
from geofix.localizers.density import (
    MODES,
    SIGMA_M,
    SNAP_M,
    DensityLocalizer,
    area_scale,
    density_modes,
    inverse_power_weights,
    sphere_maximum,
)
from geofix.localizers.knn import KnnLocalizer

PEAKS = [("sphere", sphere_maximum), ("compat", grid_maximum)]
QUERY = np.array([[1.0, 0.0]])


def at_cosines(cosines: np.ndarray) -> np.ndarray:
    """Unit vectors in the plane with given cosines to QUERY."""
    return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)


def localizer(
    mode: str, lon: list[float], lat: list[float], cosines: list[float], **options: float
) -> DensityLocalizer:
    knn = KnnLocalizer.fit(at_cosines(np.array(cosines)), lon, lat)
    return DensityLocalizer(knn, mode=mode, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["sphere", "compat"])
@pytest.mark.parametrize(
    ("lon", "lat"),
    [(8.93, 44.41), (-180.0, -90.0), (180.0, 90.0), (0.0, 0.0), (-179.99, 64.2), (-0.05, -33.3)],
)
def test_one_neighbour_gives_that_neighbour(mode: str, lon: float, lat: float) -> None:
    for scale in (1.0, 1e-3, 1e-5):
        options = {"sigma_m": SIGMA_M * scale, "snap_m": SNAP_M * scale}
        found = localizer(mode, [lon], [lat], [0.4], **options).localize(QUERY, 3)
        assert (found.lon[0, 0], found.lat[0, 0]) == (lon, lat)
        assert not found.answered[0, 1:].any()
        assert 0.9 < found.score[0, 0] <= 1.0 + 1e-12


@pytest.mark.parametrize("mode", ["sphere", "compat"])
def test_heavier_of_two_clusters_wins(mode: str) -> None:
    """The single most similar photo is alone; seven a little less similar ones agree on Paris."""
    lon = [13.4, 2.3, 2.31, 2.32, 2.33, 2.34, 2.35, 2.36]
    lat = [52.5] + [48.85] * 7
    many = localizer(mode, lon, lat, [0.80, *np.linspace(0.79, 0.78, 7)], m=4.0).localize(QUERY, 2)
    assert many.lon[0, 0] == 2.3  # the most similar of the cluster, within the snap radius
    assert many.lon[0, 1] == 13.4 and many.score[0, 0] > many.score[0, 1] > 0
    strong = localizer(mode, lon, lat, [0.99, *np.linspace(0.79, 0.78, 7)], m=4.0).localize(QUERY, 1)
    assert strong.lon[0, 0] == 13.4


def test_clusters_over_the_180th_meridian_merge_on_the_sphere() -> None:
    """Two votes on each side of the meridian in Fiji against three in Greece."""
    lon = np.array([23.7, 23.71, 23.72, 179.9, 179.95, -179.9, -179.95])
    lat = np.array([38.0, 38.0, 38.0, -17.0, -17.0, -17.0, -17.0])
    weights = np.full(7, 1 / 7)
    east, north, value = sphere_maximum(lon, lat, weights, SIGMA_M)
    assert abs(east) > 179 and north == -17 and value == pytest.approx(4 / 7, abs=0.01)
    east, north, value = grid_maximum(lon, lat, weights, SIGMA_M)
    assert abs(east - 23.7) < 0.2 and value == pytest.approx(3 / 7, abs=0.01)


def test_sphere_does_not_narrow_towards_the_pole() -> None:
    """At 80 degrees north, 8 degrees of longitude are 154 km: one cluster on the sphere, two on the grid."""
    lon, lat = np.array([10.0, 18.0, 60.0, 60.1]), np.array([80.0, 80.0, 0.0, 0.0])
    weights = np.array([0.27, 0.27, 0.23, 0.23])
    assert sphere_maximum(lon, lat, weights, SIGMA_M)[1] == 80.0
    assert abs(grid_maximum(lon, lat, weights, SIGMA_M)[1]) < 0.2


def blurred_grid(lon: np.ndarray, lat: np.ndarray, weights: np.ndarray, sigma: int = 4) -> np.ndarray:
    """The published first stage, word for word: 180 x 360 cells, blur of 4 cells cut at 8, zeros outside."""
    grid = np.zeros((180, 360))
    row, column = np.ceil(lat).astype(int) + 90, np.ceil(lon).astype(int) + 180
    np.add.at(grid, (row - 1, column - 1), weights)
    kernel = np.exp(-0.5 * (np.arange(-2 * sigma, 2 * sigma + 1) / sigma) ** 2)
    for axis in (0, 1):
        grid = correlate1d(grid, kernel, axis=axis, mode="constant")
    return grid


@pytest.mark.parametrize(("sigma", "points"), [(4, 100), (4, 3), (40, 100), (40, 3)])
def test_a_stage_equals_a_blurred_grid(sigma: int, points: int) -> None:
    """The first stage's kernel of 4 cells and the second's of 40, both on cells of a degree."""
    from geofix.localizers.degreegrid import _stage

    rng = np.random.default_rng(3)
    for _ in range(20):
        lon, lat = rng.uniform(-179.9, 180, points), rng.uniform(-89.9, 90, points)
        weights = rng.random(points)
        grid = blurred_grid(lon, lat, weights, sigma)
        row, column = np.unravel_index(grid.argmax(), grid.shape)
        east, north, value = _stage(lon, lat, weights, float(sigma), sigma, np.ones(points, dtype=bool))
        assert (east, north) == (column + 0.5 - 180, row + 0.5 - 90)
        assert value == pytest.approx(grid.max())


def test_second_stage_is_finer_and_stays_near() -> None:
    lon, lat = np.array([10.12, 10.14, 40.0]), np.array([50.27, 50.29, -10.0])
    east, north, _ = grid_maximum(lon, lat, np.array([0.3, 0.3, 0.4]), SIGMA_M)
    assert abs(east - 10.13) <= 0.1 and abs(north - 50.28) <= 0.1


@pytest.mark.parametrize(("name", "peak"), PEAKS)
def test_scaled_to_a_town(name: str, peak) -> None:
    """With the published numbers a town is one mode and the nearest photo wins; scaled, the cluster does."""
    lon = np.array([8.90, 8.95, 8.9501, 8.9502, 8.9503])
    lat = np.array([44.40, 44.42, 44.42, 44.42, 44.42])
    weights = np.array([0.3, 0.2, 0.2, 0.15, 0.15])
    wide = density_modes(lon, lat, weights, peak, SIGMA_M, SNAP_M, 5)
    assert len(wide) == 1 and wide[0, 0] == 8.90
    sigma, snap = area_scale(lon, lat)
    extent = 0.0503 * DEGREE_M * np.cos(np.radians(44.41))
    assert sigma == pytest.approx(extent / 90, rel=1e-6) and snap / sigma == pytest.approx(SNAP_M / SIGMA_M)
    scaled = density_modes(lon, lat, weights, peak, sigma, snap, 5)
    assert scaled[0, 0] >= 8.95 and scaled[0, 2] > 0.6
    everywhere = np.arange(-180.0, 180.0)
    assert area_scale(everywhere, np.linspace(-60.0, 60.0, 360)) == (
        pytest.approx(SIGMA_M * 359 / 360),
        pytest.approx(SNAP_M * 359 / 360),
    )


def test_weights() -> None:
    d = np.array([0.5, 0.6, 1.2])
    np.testing.assert_allclose(inverse_power_weights(d, 10.0), d**-10.0 / (d**-10.0).sum())
    np.testing.assert_allclose(inverse_power_weights(np.array([0.0, 1.0]), 200.0), [1.0, 0.0], atol=1e-12)
    assert inverse_power_weights(np.zeros(0), 10.0).size == 0


def test_own_photo_is_passed_over() -> None:
    made = localizer("sphere", [10.0, 20.0], [0.0, 0.0], [1.0, 0.5])
    assert made.localize(QUERY, 1).lon[0, 0] == 10
    assert made.localize(QUERY, 1, exclude=np.array([0])).lon[0, 0] == 20
    assert made.scaled().sigma_m == pytest.approx(10 * DEGREE_M / 90)


def moved(lon: np.ndarray, by: float) -> np.ndarray:
    return (lon + by + 180.0) % 360.0 - 180.0


def test_an_area_over_the_180th_meridian_has_the_scale_it_would_have_elsewhere() -> None:
    """Two photos in Fiji, 4.3 km apart, and a town of them."""
    rng = np.random.default_rng(6)
    pair = np.array([179.98, -179.98]), np.array([-17.0, -17.0])
    town = moved(rng.normal(0, 0.02, 200), 180.0), rng.normal(-17.0, 0.01, 200)
    assert town[0].min() < -179.9 and town[0].max() > 179.9
    for lon, lat in (pair, town):
        sigma, snap = area_scale(lon, lat)
        for by in (-3.0, 3.0, 180.0):
            assert area_scale(moved(lon, by), lat) == (pytest.approx(sigma), pytest.approx(snap))
    sigma, snap = area_scale(*pair)
    assert sigma == pytest.approx(0.04 * DEGREE_M * np.cos(np.radians(17.0)) / 90, rel=1e-6)
    assert snap == pytest.approx(sigma * SNAP_M / SIGMA_M) and snap < 11
    assert area_scale(np.array([180.0, -180.0]), np.array([5.0, 5.0])) == (
        1.0,
        pytest.approx(0.2248, abs=1e-4),
    )


@pytest.mark.parametrize(("mode", "lon"), [("sphere", -179.9999), ("compat", 179.97)])
def test_in_fiji_a_cluster_wins_over_the_nearest_photo(mode: str, lon: float) -> None:
    """The nearest photo is alone; two lie on each side of the meridian, three together a little west of it.

    On the sphere the four are one cluster; the grid cuts them in two, of which neither outweighs the three.
    """
    lons = [179.90, -179.9999, 179.9999, -179.9998, 179.9998, 179.97, 179.9701, 179.9702]
    cosines = [0.9, 0.892, 0.89, 0.89, 0.89, 0.891, 0.89, 0.89]
    made = localizer(mode, lons, [-17.0] * 8, cosines, m=1.0).scaled()
    assert made.sigma_m < 200
    assert made.localize(QUERY, 1).lon[0, 0] == lon


def test_both_modes_have_a_name() -> None:
    for name, mode in MODES.items():
        assert localizer(mode, [8.93], [44.41], [0.4]).name == name
    assert list(MODES) == ["knn_density", "knn_density_compat"]
    with pytest.raises(UsageError, match="'grid' is unknown"):
        localizer("grid", [8.93], [44.41], [0.4])
