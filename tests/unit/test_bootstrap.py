"""Replicates of the bootstrap against a plain loop over what was drawn, and what is drawn against theory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from geofix.evaluation import bootstrap
from geofix.evaluation.bootstrap import Kinds, draws, mean_replicates, median_replicates

ALL_BY_KIND, ALL_SINGLE = 0, 1_000_000


@pytest.fixture(params=[ALL_BY_KIND, bootstrap._PER_KIND, ALL_SINGLE])
def per_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(bootstrap, "_PER_KIND", request.param)
    return int(request.param)


def replicates(draw, columns, codes, n, count, seed, monkeypatch):
    """What a function says of each replicate, and how often each replicate drew each group."""
    seen = []

    def noted(*args):
        for drawn in draws(*args):
            seen.extend(drawn.every(row) for row in range(len(drawn.times)))
            yield drawn

    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "draws", noted)
        found = draw(columns, codes, n, count, seed)
    assert len(seen) == len(found) == count
    return found, np.array(seen)


@pytest.mark.usefixtures("per_kind")
@pytest.mark.parametrize("draw", [mean_replicates, median_replicates])
def test_cluster_replicates_equal_a_plain_loop(draw, monkeypatch) -> None:
    rng = np.random.default_rng(4)
    values, groups = rng.normal(size=31), rng.integers(0, 7, 31)
    codes = np.unique(groups, return_inverse=True)[1]
    n = int(codes.max()) + 1
    found, times = replicates(draw, (values,), codes, n, 25, 5, monkeypatch)
    assert (times.sum(axis=1) == n).all() and len(np.unique(times, axis=0)) > 20
    for drawn, value in zip(times, found[:, 0], strict=True):
        sample = np.repeat(values, drawn[codes])
        expected = sample.mean() if draw is mean_replicates else np.sort(sample)[(len(sample) - 1) // 2]
        assert value == pytest.approx(expected)


@pytest.mark.usefixtures("per_kind")
@pytest.mark.parametrize("grouped", [True, False])
def test_replicates_of_whole_numbers_equal_a_plain_loop_exactly(grouped: bool, monkeypatch) -> None:
    rng = np.random.default_rng(6)
    hits = tuple(100.0 * (rng.random(90) < share) for share in (0.2, 0.7, 0.0))
    codes = rng.permutation(np.arange(90) % 13) if grouped else None
    n = 13 if grouped else 90
    found, times = replicates(mean_replicates, hits, codes, n, 40, 3, monkeypatch)
    groups = np.arange(90) if codes is None else codes
    for drawn, row in zip(times, found, strict=True):
        photos = np.repeat(np.arange(90), drawn[groups])
        assert list(row) == [column[photos].sum() / len(photos) for column in hits]


@pytest.mark.usefixtures("per_kind")
def test_medians_of_few_large_groups_take_little_memory(monkeypatch) -> None:
    rng = np.random.default_rng(8)
    n, k, count = 40_000, 200, 400
    values, codes = rng.exponential(100, n).round(1), rng.permutation(np.arange(n) % k)
    tracemalloc.start()
    found = median_replicates((values,), codes, k, count, 2)[:, 0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6, f"{peak / 1e6:.0f} MB"
    again, times = replicates(median_replicates, (values,), codes, k, count, 2, monkeypatch)
    assert (again[:, 0] == found).all()
    for i in (0, 51, 52, 53, 104, 399):  # not all replicates are looked at together
        sample = np.sort(np.repeat(values, times[i][codes]))
        assert found[i] == sample[(len(sample) - 1) // 2]


@pytest.mark.usefixtures("per_kind")
@pytest.mark.parametrize("n", [1, 2, 255, 256, 257, 700])
@pytest.mark.parametrize("near", [(6.0, 64), (1.0, 1), (0.0, 1)])
def test_medians_of_replicates_are_found_wherever_they_lie(
    n: int, near: tuple[float, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "_REACH", near[0])
    monkeypatch.setattr(bootstrap, "_LEAST", near[1])
    rng = np.random.default_rng(n)
    values = tuple(rng.exponential(100, n).round(0) for _ in "ab")  # with ties
    codes = np.unique(rng.integers(0, max(n // 3, 1), n), return_inverse=True)[1]
    k = int(codes.max()) + 1
    found, times = replicates(median_replicates, values, codes, k, 30, 1, monkeypatch)
    for drawn, row in zip(times, found, strict=True):
        for column, value in zip(values, row, strict=True):
            sample = np.sort(np.repeat(column, drawn[codes]))
            assert value == sample[(len(sample) - 1) // 2]


def test_groups_are_drawn_as_one_by_one() -> None:
    """Either way: n draws, each group as often as another, two of them as seldom together as they should."""
    n, count = 40, 40_000
    column = np.repeat([0.0, 1.0, 2.0], [30, 7, 3])
    apart = np.arange(n) % 10 == 0
    mixed, single = Kinds.of([column], apart), Kinds.of([column], np.ones(n, dtype=bool))
    assert list(mixed.sizes) == [27, 6, 3] and len(mixed.single) == 4 and len(single.single) == n
    theory = np.eye(n) - 1 / n
    for kinds in (mixed, single):
        times = np.concatenate(
            [[drawn.every(row) for row in range(len(drawn.times))] for drawn in draws(kinds, count, 1)]
        )
        assert (times.sum(axis=1) == n).all()
        assert np.abs(times.mean(axis=0) - 1).max() < 5 / np.sqrt(count)
        assert np.abs(np.cov(times.T) - theory).max() < 0.05
        shares = np.bincount(times[:, 0], minlength=4)[:4] / count
        binomial = [(1 - 1 / n) ** (n - x) / n**x * c for x, c in enumerate((1, n, n * (n - 1) / 2, 9880))]
        np.testing.assert_allclose(shares, binomial, atol=0.012)


def test_kinds_are_groups_of_equal_columns() -> None:
    rng = np.random.default_rng(3)
    columns = [rng.integers(0, 3, 500).astype(float), rng.random(500).round(0), np.ones(500)]
    apart = rng.random(500) < 0.1
    kinds = Kinds.of(columns, apart)
    assert len(kinds.sizes) == 6 and list(kinds.single) == list(np.flatnonzero(apart))
    for kind, groups in enumerate(kinds.members):
        assert len(groups) == kinds.sizes[kind] and (kinds.kind[groups] == kind).all()
        assert all(len(np.unique(column[groups])) == 1 for column in columns)
    table = np.stack(columns, axis=1)
    for drawn in draws(kinds, 5, 9):
        for row, sums in enumerate(drawn.sums(columns)):
            assert list(sums) == list(drawn.every(row) @ table)
    assert not len(Kinds.of([rng.random(500)], apart).sizes)


def test_intervals_by_kind_and_one_by_one_agree(monkeypatch) -> None:
    rng = np.random.default_rng(2)
    n = 3000
    codes = np.unique(rng.integers(0, 1500, n), return_inverse=True)[1]
    k = int(codes.max()) + 1
    values = (rng.exponential(100, n), rng.exponential(150, n))
    hits = tuple(100.0 * (column < 80) for column in values)
    for draw, columns in ((mean_replicates, hits), (median_replicates, values)):
        by_kind = np.diff(draw(columns, codes, k, 8000, 1)).std()
        monkeypatch.setattr(bootstrap, "_PER_KIND", ALL_SINGLE)
        one_by_one = np.diff(draw(columns, codes, k, 8000, 2)).std()
        monkeypatch.undo()
        assert by_kind == pytest.approx(one_by_one, rel=0.05)
