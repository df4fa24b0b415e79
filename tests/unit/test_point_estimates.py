"""Point estimates: against a fine grid of positions, between modes, and as a localizer."""

from __future__ import annotations

import numpy as np
import pytest

from geofix.errors import UsageError
from geofix.localizers.ensemble import ensemble, joined, localizer_of
from geofix.localizers.point_estimates import PointEstimateLocalizer, point_estimate
from geofix.spatial import s2
from geofix.spatial.distance import great_circle_m


def around(lon, lat, level=16, rings=1):
    """A cell and its neighbours."""
    ids = s2.cell_at(np.array([lon]), np.array([lat]), level)
    for _ in range(rings):
        ids = np.unique(np.concatenate([ids, s2.neighbors(ids).ravel()]))
    return ids[ids != 0]


def masses(ids, p, lon, lat, radius_m):
    """Mass within r and expected capped distance at positions, with every cell spread over 64 parts."""
    parts = ids
    for _ in range(3):
        parts = s2.children(parts).reshape(-1)
    x, y = s2.center(parts)
    metres = great_circle_m(np.ravel(lon)[:, None], np.ravel(lat)[:, None], x, y)
    share = np.repeat(p / 64, 64)
    return (metres <= radius_m) @ share, np.minimum(metres, radius_m) @ share


@pytest.mark.parametrize("kind", ["mass", "medoid"])
@pytest.mark.parametrize("seed", range(4))
def test_no_position_of_a_grid_is_much_better(kind, seed):
    rng = np.random.default_rng(seed)
    ids = around(8.93, 44.41, rings=2)
    p = rng.dirichlet(np.full(len(ids), 0.3))
    radius = 200.0 if kind == "mass" else 500.0
    lon, lat, value = point_estimate(ids, p, kind, radius)
    x, y = s2.center(ids)
    grid = np.meshgrid(np.linspace(x.min(), x.max(), 40), np.linspace(y.min(), y.max(), 40))
    mass, cost = masses(ids, p, *grid, radius)
    own_mass, own_cost = masses(ids, p, lon, lat, radius)
    if kind == "mass":
        assert own_mass[0] > mass.max() - 0.05 and value == pytest.approx(own_mass[0], abs=0.06)
    else:
        assert own_cost[0] < cost.min() + 8.0 and value == pytest.approx(own_cost[0], abs=8.0)


def test_the_position_between_two_likely_cells_wins_for_mass():
    first = s2.cell_at(np.array([8.93]), np.array([44.41]), 16)
    # Two cells two steps apart: 200 m around either centre leaves half of the other out.
    second = s2.edge_neighbors(s2.edge_neighbors(first)[:, 1])[:, 1]
    ids, p = np.concatenate([first, second]), np.array([0.5, 0.5])
    lon, lat, value = point_estimate(ids, p, "mass", 200.0)
    x, y = s2.center(ids)
    gaps = great_circle_m(lon, lat, x, y)
    assert value > 0.9 and abs(gaps[0] - gaps[1]) < 80 and gaps.max() < 190


def test_the_medoid_stays_at_a_mode_and_never_between_distant_ones():
    near, far = around(8.93, 44.41)[:4], around(9.40, 44.41)[:3]
    ids = np.concatenate([near, far])
    p = np.array([0.14] * 4 + [0.44 / 3] * 3)
    for kind, radius in (("medoid", 1000.0), ("mass", 300.0)):
        lon, lat, _ = point_estimate(ids, p, kind, radius)
        assert great_circle_m(lon, lat, *s2.center(near[:1])).item() < 400
    heavy = np.array([0.10] * 4 + [0.2] * 3)
    lon, _, _ = point_estimate(ids, heavy, "medoid", 1000.0)
    assert lon > 9.3


def test_one_certain_cell_is_answered_with_its_middle():
    ids = around(8.93, 44.41)[:1]
    for kind in ("mass", "medoid"):
        lon, lat, _ = point_estimate(ids, np.ones(1), kind, 300.0)
        assert great_circle_m(lon, lat, *s2.center(ids)).item() < 1.0


def test_as_a_localizer_it_stands_before_the_plain_answers():
    ids = around(8.93, 44.41, rings=3)
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(len(ids), 16))
    base = localizer_of(ids, codes / np.linalg.norm(codes, axis=1, keepdims=True))
    queries = rng.normal(size=(5, 16)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    plain = base.localize(queries, 9)
    sharp = PointEstimateLocalizer(base, 1e-5, "mass", 100.0).localize(queries, 10)
    assert great_circle_m(sharp.lon[:, 0], sharp.lat[:, 0], plain.lon[:, 0], plain.lat[:, 0]).max() < 1
    for name in ("s2_id", "lon", "lat", "score"):
        assert np.array_equal(getattr(sharp, name)[:, 1:], getattr(plain, name))
    flat = PointEstimateLocalizer(base, 10.0, "mass", 200.0).localize(queries, 1)
    centre = s2.center(ids)
    assert great_circle_m(flat.lon, flat.lat, centre[0].mean(), centre[1].mean()).max() < 320
    assert flat.s2_id[0, 0] == s2.cell_at(flat.lon[0, 0], flat.lat[0, 0])
    outside = np.stack(s2.range_of(s2.cell_at(np.array([30.0]), np.array([10.0]), 10)), axis=1)
    none = PointEstimateLocalizer(base, 0.1, "medoid", 200.0).localize(queries, 3, outside)
    assert not none.answered.any()


def test_wrong_options_are_refused():
    base = localizer_of(around(8.93, 44.41), np.ones((9, 2)))
    for kind, temperature, radius in (("mean", 1.0, 100.0), ("mass", 0.0, 100.0), ("mass", 1.0, 0.0)):
        with pytest.raises(UsageError):
            PointEstimateLocalizer(base, temperature, kind, radius)


def test_an_ensemble_scores_the_weighted_sum_over_common_cells():
    rng = np.random.default_rng(3)
    ids = around(8.93, 44.41, rings=2)
    a, b = rng.normal(size=(len(ids), 6)), rng.normal(size=(len(ids), 9))
    both = ensemble((ids[:-1], a[:-1]), (ids[1:], b[1:]), 0.7)
    assert np.array_equal(both.matrix.ids, np.sort(ids[1:-1]))
    queries = rng.normal(size=(4, 6)), rng.normal(size=(4, 9))
    found = both.localize(joined(*queries), len(ids) - 2)
    want = 0.7 * queries[0] @ a[1:-1].T + queries[1] @ b[1:-1].T
    for row in range(4):
        place = np.searchsorted(ids[1:-1], found.s2_id[row])
        assert np.allclose(found.score[row], want[row][place], atol=0.05)
