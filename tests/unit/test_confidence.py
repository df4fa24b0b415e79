"""Probabilities: the fitted temperature is the true one, credible sets hold their mass, areas are right."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

from geofix.codes.matrix import CellMatrix
from geofix.errors import BadInputError, UsageError
from geofix.localize import confidence
from geofix.localize.confidence import ConfidenceFit, fit_confidence, fit_coverage, posterior
from geofix.localize.credible import cell_km2, credible_regions, outline
from geofix.spatial import s2


@pytest.fixture(scope="module")
def cells() -> CellMatrix:
    rng = np.random.default_rng(0)
    ids = np.unique(s2.cell_at(8.9 + rng.uniform(-0.1, 0.1, 900), 44.4 + rng.uniform(-0.1, 0.1, 900), 15))
    codes = rng.normal(size=(len(ids), 32))
    return CellMatrix.from_rows(ids, codes / np.linalg.norm(codes, axis=1, keepdims=True))


def drawn(cells: CellMatrix, temperature: float, n: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    """Queries whose true cells are drawn from softmax(score / T): T is then the best temperature."""
    rng = np.random.default_rng(1)
    queries = rng.normal(size=(n, 32))
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    scores = queries @ cells.codes.astype(np.float32).T
    chances = softmax(scores / temperature, axis=1)
    rows = (chances.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return queries, cells.ids[rows]


@pytest.mark.parametrize("temperature", [0.03, 0.1, 0.3])
def test_temperature_is_recovered(cells: CellMatrix, temperature: float) -> None:
    queries, truth = drawn(cells, temperature)
    fit = fit_confidence(cells, queries, truth)
    assert fit.temperature == pytest.approx(temperature, rel=0.08)
    assert (fit.queries, fit.cells) == (1500, len(cells))
    scores = queries.astype(np.float64) @ cells.codes.astype(np.float64).T
    own = scores[np.arange(1500), cells.rows_containing(truth)]

    def nll(log_t: float) -> float:
        return float(np.mean(logsumexp(scores / np.exp(log_t), axis=1) - own / np.exp(log_t)))

    exact = minimize_scalar(nll, bounds=(-8, 2), method="bounded")
    assert fit.temperature == pytest.approx(np.exp(exact.x), rel=1e-3)
    assert fit.nll == pytest.approx(exact.fun, abs=1e-4)
    assert fit.nll < np.log(len(cells))


def test_many_queries_are_scored_in_parts(cells: CellMatrix, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, one block of scores is that of a part of them."""
    queries, truth = drawn(cells, 0.1, 200)
    truth[::5] = s2.cell_at(-70.0, 10.0, 15)
    whole = fit_confidence(cells, queries, truth)
    asked = []
    plain = CellMatrix.score_blocks

    def watched(self: CellMatrix, vectors: np.ndarray, ranges: object = None) -> object:
        asked.append(len(vectors))
        return plain(self, vectors, ranges)

    monkeypatch.setattr(CellMatrix, "score_blocks", watched)
    monkeypatch.setattr(confidence, "_QUERIES", 64)
    monkeypatch.setattr(confidence, "_COUNTED", 7)
    parts = fit_confidence(cells, queries, truth)
    assert max(asked) == 64 and parts.queries == whole.queries == 160
    assert parts.temperature == pytest.approx(whole.temperature, rel=1e-3)
    assert parts.coverage.threshold == pytest.approx(whole.coverage.threshold, rel=1e-4)


def test_histograms_count_every_score_once(cells: CellMatrix) -> None:
    queries, _ = drawn(cells, 0.1, 50)
    found = confidence.ScoreHistogram.of(cells, queries, None)
    scores = queries @ cells.codes.astype(np.float32).T
    assert (found.counts.sum(axis=1) == len(cells)).all()
    np.testing.assert_allclose(found.best, scores.max(axis=1), rtol=1e-5)
    for row, counts in zip(scores, found.counts, strict=True):
        place = np.repeat(found.centres, counts)
        np.testing.assert_allclose(place, np.sort(row), atol=found.width)


def test_fit_within_a_region_counts_only_its_cells(cells: CellMatrix) -> None:
    queries, truth = drawn(cells, 0.1, 400)
    low, high = s2.range_of(s2.parent(cells.ids[:1], 11))
    ranges = np.stack([low, high], axis=1)
    fit = fit_confidence(cells, queries, truth, ranges)
    inside = (truth >= low) & (truth <= high)
    assert fit.queries == inside.sum() and fit.cells == cells.cells_in_scope(ranges) < len(cells)
    assert (fit.coverage.covered, fit.coverage.uncovered) == (inside.sum(), (~inside).sum())


def test_truth_may_be_a_leaf_and_may_be_missing(cells: CellMatrix) -> None:
    queries, truth = drawn(cells, 0.1, 300)
    leaves = s2.range_of(truth)[0]
    assert fit_confidence(cells, queries, leaves) == fit_confidence(cells, queries, truth)
    with pytest.raises(BadInputError, match="none of 300"):
        fit_confidence(cells, queries, np.full(300, s2.cell_at(-70.0, 10.0, 15)))


def test_fit_is_stored_as_json(cells: CellMatrix) -> None:
    fit = fit_confidence(cells, *drawn(cells, 0.1, 200))
    assert ConfidenceFit.from_dict(json.loads(json.dumps(fit.as_dict()))) == fit
    with pytest.raises(BadInputError, match="Fit it again"):
        ConfidenceFit.from_dict({"temperature": 1.0})


def test_coverage_logit() -> None:
    rng = np.random.default_rng(2)
    best = np.concatenate([rng.normal(0.8, 0.05, 300), rng.normal(0.6, 0.05, 300)])
    covered = np.arange(600) < 300
    fit = fit_coverage(best, covered)
    assert fit.threshold == pytest.approx(0.7, abs=0.02)
    chance = fit.probability(np.array([0.5, fit.threshold, 0.9]))
    assert chance is not None and chance[0] < 0.05 and chance[1] == pytest.approx(0.5) and chance[2] > 0.95
    assert np.mean(fit.in_coverage(best) == covered) > 0.95
    np.testing.assert_array_equal(fit.in_coverage(best), fit.probability(best) >= 0.5)
    turned = fit_coverage(-best, covered)
    assert np.mean(turned.in_coverage(-best) == covered) > 0.95


def test_few_photos_inside_a_small_region_all_take_part(cells: CellMatrix) -> None:
    """A set of one region: one query in forty lies in it, and none of those is left out for the others."""
    queries, truth = drawn(cells, 0.1, 4000)
    inside = np.arange(4000) % 40 == 0
    truth[~inside] = s2.cell_at(-70.0, 10.0, 15)
    queries[~inside] = np.roll(queries[~inside], 7, axis=1)
    some = fit_confidence(cells, queries, truth, most=150)
    whole = fit_confidence(cells, queries, truth)
    assert (some.queries, some.photos_used, some.photos_available) == (100, 250, 4000)
    assert (some.coverage.covered, some.coverage.uncovered) == (100, 150)
    assert some.temperature == pytest.approx(whole.temperature, rel=1e-3)


def test_coverage_of_a_draw_says_what_all_would() -> None:
    """Few of many uncovered queries, each counted as often as there were: the same, but for chance."""
    rng = np.random.default_rng(3)
    best = np.concatenate([rng.normal(0.8, 0.1, 2000), rng.normal(0.6, 0.1, 100_000)])
    covered = np.arange(len(best)) < 2000
    part = np.arange(len(best)) < 12_000
    whole, asked = fit_coverage(best, covered), np.linspace(0.5, 1.1, 7)
    same = fit_coverage(best[part], covered[part], uncovered_weight=10.0)
    np.testing.assert_allclose(same.probability(asked), whole.probability(asked), atol=0.06)
    skewed = fit_coverage(best[part], covered[part])
    assert np.abs(skewed.probability(asked) - whole.probability(asked)).max() > 0.3


def test_coverage_where_the_score_says_nothing() -> None:
    fit = fit_coverage(np.full(10, 0.5), np.arange(10) < 8)
    assert fit.in_coverage(0.5) and fit.probability(0.5) == pytest.approx(0.8, abs=0.01)


def test_coverage_without_uncovered_queries_is_a_threshold() -> None:
    best = np.linspace(0, 1, 101)
    fit = fit_coverage(best, np.ones(101, dtype=bool))
    assert fit.slope is None and fit.probability(best) is None
    assert fit.in_coverage(best).sum() == 96


def test_posterior_is_a_softmax(cells: CellMatrix) -> None:
    queries, _ = drawn(cells, 0.1, 3)
    low, high = s2.range_of(s2.parent(cells.ids[:1], 10))
    for ranges in (None, np.stack([low, high], axis=1)):
        found = posterior(cells, queries[0], 0.05, ranges)
        keep = np.isin(cells.ids, found.ids)
        expected = softmax((queries[0] @ cells.codes.astype(np.float32).T)[keep] / 0.05)
        np.testing.assert_allclose(found.probability, expected, rtol=1e-4)
        assert found.probability.sum() == pytest.approx(1.0)
        assert len(found.ids) == cells.cells_in_scope(ranges)
        assert found.best_score == pytest.approx(cells.search(queries[:1], 1, ranges)[1][0, 0])
    assert found.of([found.ids[3], 5]).tolist() == [found.probability[3], 0.0]
    nothing = posterior(cells, queries[0], 0.05, np.array([[8, 9]]))
    assert len(nothing.ids) == 0 and nothing.of([8]).tolist() == [0.0]
    assert credible_regions(nothing)[0].polygon().is_empty
    with pytest.raises(UsageError):
        posterior(cells, queries[0], 0.0)


def test_credible_regions_hold_their_mass(cells: CellMatrix) -> None:
    queries, truth = drawn(cells, 0.05, 600)
    hits = np.zeros(2)
    for query, cell in zip(queries, truth, strict=True):
        found = posterior(cells, query, 0.05)
        half, most = credible_regions(found)
        for region in (half, most):
            assert region.reached >= region.mass
            assert found.of(region.ids).sum() - found.of(region.ids[-1:])[0] < region.mass  # and no cell more
            assert (np.diff(found.of(region.ids)) <= 0).all()
        assert set(half.ids) <= set(most.ids) and half.km2 <= most.km2
        hits += [cell in half.ids, cell in most.ids]
    assert 0.48 <= hits[0] / 600 <= 0.70  # at least the mass, as whole cells overshoot
    assert hits[1] / 600 == pytest.approx(0.9, abs=0.04)
    with pytest.raises(UsageError):
        credible_regions(found, [1.5])
    assert len(credible_regions(found, [1.0])[0].ids) == len(cells)


@pytest.mark.parametrize(("level", "tolerance"), [(0, 0.03), (4, 2e-3), (8, 1e-4), (16, 1e-6), (30, 1e-5)])
def test_areas_equal_s2(level: int, tolerance: float) -> None:
    official = pytest.importorskip("s2geometry")
    rng = np.random.default_rng(3)
    ids = s2.cell_at(rng.uniform(-180, 180, 50), rng.uniform(-90, 90, 50), level)
    cells = [official.S2Cell(official.S2CellId(int(i) & (2**64 - 1))) for i in ids]
    method = "approx_area" if hasattr(cells[0], "approx_area") else "ApproxArea"
    areas = np.array([getattr(c, method)() for c in cells]) * 6371.0**2
    np.testing.assert_allclose(cell_km2(ids), areas, rtol=tolerance)


def test_outline_encloses_exactly_its_cells(cells: CellMatrix) -> None:
    ids = cells.ids[:80]
    shape = outline(ids)
    assert shape.is_valid
    assert shape.area == pytest.approx(sum(p.area for p in s2.polygon(ids)), rel=1e-9)
    lon, lat = s2.center(cells.ids)
    np.testing.assert_array_equal(shapely.contains_xy(shape, lon, lat), np.isin(cells.ids, ids))


def test_outline_of_many_cells_is_drawn_by_parents(cells: CellMatrix) -> None:
    shape = outline(cells.ids, max_cells=50)
    lon, lat = s2.center(cells.ids)
    assert shapely.contains_xy(shape, lon, lat).all()
    assert shape.area >= outline(cells.ids).area


def test_outline_of_mixed_levels_and_the_180th_meridian(cells: CellMatrix) -> None:
    coarse = s2.parent(cells.ids[0], 12)
    outside = cells.ids[s2.parent(cells.ids, 12) != coarse][-1]
    shape = outline(np.array([coarse, outside]))
    assert shape.area == pytest.approx(s2.polygon(coarse).area + s2.polygon(outside).area)
    over = np.unique(s2.cell_at(np.array([179.9, -179.9, 180.0]), np.array([-17.0, -17.0, -17.0]), 6))
    shape = outline(over)
    assert shape.is_valid and shape.bounds[0] >= -180 and shape.bounds[2] <= 180
