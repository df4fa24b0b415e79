"""The conditional logit: what it recovers, that blocks change nothing, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from geofix.errors import BadInputError, UsageError
from geofix.models import scores
from geofix.models.hybrid import (
    fit_fusion,
    fit_grid,
    fit_logistic,
    fit_ratio,
    fit_source,
    negative_log_likelihood,
    true_features,
)
from geofix.models.scores import ScoreArrays, VectorScores

THETA = np.array([24.0, 12.0, 3.0, -2.0])


def simulated(queries=3000, cells=120, *, theta=THETA, missing=0.3, seed=0):
    """Similarities of which the true cells were drawn by the model itself."""
    rng = np.random.default_rng(seed)
    has_p, has_a = rng.random(cells) > missing, rng.random(cells) > missing
    has_a |= ~has_p
    s_p, s_a = rng.normal(0, 0.15, (2, queries, cells))
    logits = theta[0] * s_p * has_p + theta[1] * s_a * has_a + theta[2] * ~has_p + theta[3] * ~has_a
    true = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)  # a draw from the softmax
    return s_p, s_a, has_p, has_a, true


def vectors(cells=900, queries=60, dimension=8, seed=1):
    rng = np.random.default_rng(seed)
    p, a = rng.normal(size=(2, cells, dimension)).astype(np.float32)
    p, a = (item / np.linalg.norm(item, axis=1, keepdims=True) for item in (p, a))
    has_p, has_a = np.arange(cells) % 3 > 0, np.arange(cells) % 5 > 0
    p[~has_p], a[~has_a] = 0, 0
    true = rng.integers(0, cells, queries)
    asked = p[true] + a[true] + rng.normal(0, 0.5, (queries, dimension))
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    return asked.astype(np.float32), p, a, has_p, has_a, true


def test_the_numbers_that_made_the_data_are_found_again():
    fusion = fit_fusion(*simulated())
    assert fusion.kappa == pytest.approx(2.0, rel=0.1)
    assert fusion.temperature == pytest.approx(1 / 12, rel=0.1)
    assert fusion.bias_no_prototype == pytest.approx(3 / 12, abs=0.05)
    assert fusion.bias_no_aerial == pytest.approx(-2 / 12, abs=0.05)
    assert fusion.queries == 3000 and fusion.recipe == "logit"


def test_no_other_numbers_are_likelier():
    source = ScoreArrays.of(*simulated(queries=800))
    found = fit_source(source)
    best = np.array([found.kappa, 1, found.bias_no_prototype, found.bias_no_aerial]) / found.temperature
    target = true_features(source)
    value, slope = negative_log_likelihood(source, best, target)
    assert value == pytest.approx(found.nll, abs=1e-9) and np.abs(slope).max() < 1e-3
    for place in range(4):
        for step in (-0.5, 0.5):
            moved = best + step * (np.arange(4) == place)
            assert negative_log_likelihood(source, moved, target)[0] > value


def test_the_gradient_is_that_of_the_value():
    source = ScoreArrays.of(*simulated(queries=50))
    target, at = true_features(source), np.array([8.0, 5.0, 1.0, -1.0])
    _, slope = negative_log_likelihood(source, at, target)
    for place in range(4):
        step = 1e-5 * (np.arange(4) == place)
        up, down = (negative_log_likelihood(source, at + sign * step, target)[0] for sign in (1, -1))
        assert slope[place] == pytest.approx((up - down) / 2e-5, abs=1e-7)


def test_the_value_is_a_softmax_over_all_cells():
    s_p, s_a, has_p, has_a, true = simulated(queries=40)
    source = ScoreArrays.of(s_p, s_a, has_p, has_a, true)
    fusion = fit_source(source)
    logits = fusion.scores(s_p, s_a, has_p, has_a) / fusion.temperature
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert fusion.nll == pytest.approx(-np.log(chances[np.arange(40), true]).mean(), abs=1e-9)


@pytest.mark.parametrize("kept", [True, False])
def test_blocks_and_vectors_change_nothing(monkeypatch, kept):
    asked, p, a, has_p, has_a, true = vectors()
    whole = fit_fusion(asked @ p.T, asked @ a.T, has_p, has_a, true)
    monkeypatch.setattr(scores, "_BLOCK", 60 * 77)
    if not kept:
        monkeypatch.setattr(scores, "_KEPT", 0)
    source = VectorScores(asked, p, a, has_p, has_a, true)
    blocks = list(source.blocks())
    assert len(blocks) == 12 and blocks[-1][0] + blocks[-1][1].shape[1] == 900
    parts = fit_source(source)
    assert len(source._kept) == (12 if kept else 0)
    for name in ("kappa", "temperature", "bias_no_prototype", "bias_no_aerial", "nll"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=2e-3, abs=1e-3)


def test_what_stands_where_a_part_is_missing_does_not_matter():
    s_p, s_a, has_p, has_a, true = simulated(queries=200)
    other = fit_fusion(np.where(has_p, s_p, np.nan), np.where(has_a, s_a, 7), has_p, has_a, true)
    assert other == fit_fusion(s_p, s_a, has_p, has_a, true)


def test_a_bias_exists_only_where_a_part_is_missing():
    whole = fit_fusion(*simulated(queries=300, missing=-1.0))
    assert (whole.bias_no_prototype, whole.bias_no_aerial) == (0, 0)
    s_p, s_a, has_p, _, true = simulated(queries=300)
    one = fit_fusion(s_p, s_a, has_p, np.ones(len(has_p), bool), true)
    assert one.bias_no_prototype != 0 and one.bias_no_aerial == 0
    none = fit_fusion(*simulated(queries=300), bias=False)
    assert (none.bias_no_prototype, none.bias_no_aerial) == (0, 0)


def test_a_bias_stays_finite_when_no_query_lies_where_it_is_for():
    s_p, s_a, has_p, has_a, true = simulated(queries=2000)
    kept = has_p[true] & has_a[true]
    fusion = fit_fusion(s_p[kept], s_a[kept], has_p, has_a, true[kept])
    assert -40 < fusion.bias_no_prototype / fusion.temperature < -3


def test_a_part_that_misleads_gets_no_weight():
    s_p, s_a, has_p, has_a, true = simulated(queries=500, missing=-1.0)
    assert fit_fusion(-s_p, s_a, has_p, has_a, true).kappa == 0
    useless = fit_fusion(s_p, -s_a, has_p, has_a, true)
    assert useless.temperature == pytest.approx(5) and 50 < useless.kappa < 200


def test_a_given_kappa_is_kept_and_its_temperature_fitted():
    data = simulated(queries=1500)
    fixed, free = fit_fusion(*data, kappa=2.0), fit_fusion(*data)
    assert fixed.kappa == 2.0 and fixed.temperature == pytest.approx(free.temperature, rel=0.1)
    alone = fit_fusion(*data, kappa=0.0)
    assert alone.kappa == 0 and alone.nll > fixed.nll >= free.nll - 1e-6


def test_the_other_recipes_are_never_likelier():
    source = ScoreArrays.of(*simulated(queries=1500))
    found = fit_source(source)
    grid = fit_grid(source)
    assert [item.kappa for item in grid] == [0, 0.25, 0.5, 1, 2, 4]
    with_bias = fit_grid(source, bias=True)
    assert min(with_bias, key=lambda item: item.nll).kappa == 2  # what made the data
    for other in (fit_logistic(source, negatives=20), *grid):
        assert other.nll > found.nll and other.bias_no_prototype == 0
    # Negatives picked by s_P + s_A pull its kappa from the 2 that made the data towards 1.
    assert 1 < fit_logistic(source, negatives=20).kappa < 2.5


def test_the_ratio_balances_mean_similarities_of_true_cells():
    asked, p, a, has_p, has_a, true = vectors()
    source = VectorScores(asked, p, a, has_p, has_a, true)
    both = has_p[true] & has_a[true]
    mean_p = np.einsum("qd,qd->q", asked, p[true])[both].mean()
    mean_a = np.einsum("qd,qd->q", asked, a[true])[both].mean()
    assert fit_ratio(source).kappa == pytest.approx(mean_a / mean_p, rel=1e-5)
    never = VectorScores(asked, 0 * p, a, np.zeros(900, bool), has_a | True, true)
    with pytest.raises(BadInputError, match="ratio of mean positive similarities"):
        fit_ratio(never)


def test_the_hardest_cells_are_those_of_the_largest_sum(monkeypatch):
    from geofix.models.hybrid import _hardest

    asked, p, a, has_p, has_a, true = vectors(cells=200, queries=7)
    monkeypatch.setattr(scores, "_BLOCK", 7 * 33)
    found = _hardest(VectorScores(asked, p, a, has_p, has_a, true), 10)
    total = (asked @ p.T + asked @ a.T).astype(np.float64)
    total[np.arange(7), true] = -np.inf
    assert np.allclose(np.sort(found.sum(axis=2)), np.sort(total)[:, -10:], atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"true_index": np.zeros(3, int)}, "do not belong together"),
        ({"has_aerial": np.ones(5, bool)}, "do not belong together"),
        ({"true_index": np.full(40, 120)}, "true cell 120 is none of 120 cells"),
        ({"s_prototype": np.full((40, 120), np.nan)}, "not finite"),
    ],
)
def test_input_that_does_not_fit_is_refused(change, message):
    names = ("s_prototype", "s_aerial", "has_prototype", "has_aerial", "true_index")
    given = dict(zip(names, simulated(queries=40), strict=True))
    with pytest.raises(BadInputError, match=message):
        fit_fusion(**{**given, **change})


def test_no_query_and_a_negative_kappa_are_refused():
    s_p, s_a, has_p, has_a, true = simulated(queries=4)
    with pytest.raises(BadInputError, match="no validation query"):
        fit_fusion(s_p[:0], s_a[:0], has_p, has_a, true[:0])
    with pytest.raises(UsageError, match="kappa is -1"):
        fit_fusion(s_p, s_a, has_p, has_a, true, kappa=-1.0)
