"""The bootstrap against theory and against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from geofix.errors import UsageError
from geofix.evaluation.compare import bootstrap_interval, compare_errors, mcnemar, paired_difference
from geofix.evaluation.protocols import EvaluationProtocol


def test_interval_of_a_mean_has_the_normal_width() -> None:
    values = np.random.default_rng(1).normal(10, 3, 2000)
    found = bootstrap_interval(values, replicates=4000)
    assert found.value == pytest.approx(values.mean())
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * values.std() / np.sqrt(2000), rel=0.08)


def test_pairing_removes_what_both_share() -> None:
    rng = np.random.default_rng(2)
    difficulty = rng.normal(0, 100, 1000)
    a, b = difficulty + rng.normal(1, 1, 1000), difficulty + rng.normal(0, 1, 1000)
    found = paired_difference(a, b)
    assert found.low < 1 < found.high + 0.1 and found.high - found.low < 0.2
    alone = bootstrap_interval(a)
    assert alone.high - alone.low > 10 * (found.high - found.low)


def test_clusters_widen_the_interval_as_theory_says() -> None:
    rng = np.random.default_rng(3)
    of_group = rng.normal(0, 1, 200)
    groups = np.repeat(np.arange(200), 10)
    values = of_group[groups]
    naive = bootstrap_interval(values)
    clustered = bootstrap_interval(values, groups=groups)
    ratio = (clustered.high - clustered.low) / (naive.high - naive.low)
    assert ratio == pytest.approx(np.sqrt(10), rel=0.15)


def test_same_seed_same_interval_and_other_seed_another() -> None:
    values = np.random.default_rng(5).normal(size=300)
    a, b, c = (bootstrap_interval(values, seed=s) for s in (1, 1, 2))
    assert a == b and a != c


def test_compare_errors_reports_every_radius() -> None:
    rng = np.random.default_rng(6)
    b = rng.exponential(150, 800)
    a = b * 0.5
    a[:10] = np.nan
    result = compare_errors(a, b, groups=np.arange(800) // 8, replicates=500)
    assert result["n"] == 800 and result["groups"] == 100
    row = result["recall"]["100"]
    assert row["low"] > 0 and row["low"] < row["difference"] < row["high"]
    assert row["only_a"] > row["only_b"] and row["p"] < 1e-6
    assert row["difference"] == pytest.approx(100 * (row["only_a"] - row["only_b"]) / 800)
    assert result["median_m"]["difference"] < 0 and result["median_m"]["n"] == 790
    dropped = compare_errors(a, b, protocol=EvaluationProtocol(missing="drop"), replicates=50)
    assert dropped["n"] == 790


def test_equal_localizers_show_no_difference() -> None:
    error = np.random.default_rng(7).exponential(150, 100)
    row = compare_errors(error, error, replicates=100)["recall"]["200"]
    assert row["difference"] == row["low"] == row["high"] == 0 and row["p"] == 1


def test_mcnemar_is_exact() -> None:
    found = mcnemar([1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0])
    assert found == {"only_a": 5, "only_b": 0, "p": pytest.approx(2 / 32)}


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        ([1.0], [1.0, 2.0], {}, "length"),
        ([], [], {}, "no photo"),
        ([np.nan, 1.0], [1.0, 1.0], {}, "NaN"),
        ([1.0, 2.0], [1.0, 2.0], {"groups": ["x", "x"]}, "two groups"),
        ([1.0, 2.0], [1.0, 2.0], {"groups": ["x"]}, "shape"),
        ([1.0, 2.0], [1.0, 2.0], {"confidence": 1.0}, "Confidence"),
    ],
)
def test_unusable_input_is_refused(a: list[float], b: list[float], options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        paired_difference(a, b, **options)


def test_two_localizers_may_count_by_rules_of_their_own() -> None:
    a, b = np.array([100.0, np.nan, 50.0, 300.0]), np.array([100.0, 20.0, np.nan, np.nan])
    strict, plain = EvaluationProtocol(comparison="<", missing="drop"), EvaluationProtocol()
    found = compare_errors(a, b, radii_m=(100.0,), protocol=strict, protocol_b=plain, replicates=20)
    row = found["recall"]["100"]
    assert found["n"] == 3 and (row["only_a"], row["only_b"]) == (1, 1)
    assert (found["protocol"]["comparison"], found["protocol_b"]["comparison"]) == ("<", "<=")
    other = compare_errors(a, b, radii_m=(100.0,), protocol=plain, protocol_b=strict, replicates=20)
    assert other["n"] == 2 and other["recall"]["100"]["only_a"] == 1
    both = compare_errors(a, b, radii_m=(100.0,), protocol=strict, replicates=20)
    assert both["n"] == 1 and "protocol_b" not in both
