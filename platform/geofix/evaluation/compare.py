"""Is A better than B? Paired bootstrap over photos, sequences or blocks, on the same photos.

Photos of one sequence succeed and fail together, so photos are no independent draws: pass their sequence
(seen photos) or block (unseen photos) as `groups`, and whole groups are resampled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from geofix.errors import UsageError
from geofix.evaluation.bootstrap import mean_replicates, median_replicates
from geofix.evaluation.metrics import key
from geofix.evaluation.protocols import EvaluationProtocol

Floats = NDArray[np.float64]
Statistic = Literal["mean", "median"]


@dataclass(frozen=True)
class Interval:
    """A value with its bootstrap interval, in the unit of the input."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A minus B on the same photos."""

    a: float
    b: float
    difference: float
    low: float
    high: float
    n: int
    groups: int
    replicates: int
    confidence: float

    def as_record(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    statistic: Statistic = "mean",
    replicates: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Percentile bootstrap interval of statistic(a) - statistic(b).

    Args:
        a: One value per photo, shape (n,): hits as 0/1, errors in metres, scores. No NaN.
        b: The same photos in the same order.
        groups: Sequence or block of each photo, shape (n,); None resamples photos.
        statistic: Mean or median.
        replicates: Number of resamples.
        confidence: Coverage of the interval.
        seed: Same seed, same interval.

    Raises:
        UsageError: Different lengths, no photos, NaN values, fewer than two groups.
    """
    x, y = _paired(a, b)
    codes, n_groups = _codes(groups, len(x))
    point: Callable[[Floats], float] = _mean if statistic == "mean" else _lower_median
    draw = mean_replicates if statistic == "mean" else median_replicates
    samples = draw((x, y), codes, n_groups, replicates, seed)
    low, high = _quantiles(samples[:, 0] - samples[:, 1], confidence)
    at_a, at_b = point(x), point(y)
    return Difference(at_a, at_b, at_a - at_b, low, high, len(x), n_groups, replicates, confidence)


def bootstrap_interval(
    values: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    statistic: Statistic = "mean",
    replicates: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile (cluster) bootstrap interval of one statistic; arguments as in `paired_difference`."""
    result, _ = _paired(values, values)
    codes, n_groups = _codes(groups, len(result))
    draw = mean_replicates if statistic == "mean" else median_replicates
    low, high = _quantiles(draw((result,), codes, n_groups, replicates, seed)[:, 0], confidence)
    return Interval(_mean(result) if statistic == "mean" else _lower_median(result), low, high)


def compare_errors(
    errors_a_m: ArrayLike,
    errors_b_m: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    radii_m: tuple[float, ...] | None = None,
    protocol: EvaluationProtocol | None = None,
    protocol_b: EvaluationProtocol | None = None,
    replicates: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    median: bool = True,
) -> dict[str, Any]:
    """Compare two localizers on the same photos at every radius and in median error.

    Args:
        errors_a_m: Error of the first answer in metres, shape (n,), NaN where there is none.
        errors_b_m: The same photos in the same order.
        groups: Sequence or block of each photo.
        radii_m: Metres; None takes the protocol's recall radii.
        protocol: Comparison and missing policy. "drop" leaves out photos without an answer.
        protocol_b: Those of the second, where it counts by others; the radii are the first's.
        replicates: Number of resamples.
        confidence: Coverage of the intervals.
        seed: Same seed, same intervals.
        median: Compare the median error too, which no radius changes.

    Returns:
        `{"n", "groups", "recall": {"50": {"a", "b", "difference", "low", "high", "only_a", "only_b", "p"}},
        "median_m": {...} or None, "protocol": {...}}`; shares in percent. `p` is the exact McNemar test,
        which ignores groups. `protocol_b` is there where it differs.
    """
    rules = protocol or EvaluationProtocol()
    rules_b = protocol_b or rules
    a, b = np.asarray(errors_a_m, dtype=np.float64), np.asarray(errors_b_m, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise UsageError(
            f"Two localizers must be compared on the same photos; got {a.shape} and {b.shape} errors."
        )
    labels = None if groups is None else np.asarray(groups)
    kept = counting(rules, a) & counting(rules_b, b)
    a, b = a[kept], b[kept]
    labels = None if labels is None else labels[kept]
    options: dict[str, Any] = {"replicates": replicates, "confidence": confidence, "seed": seed}
    recall = {}
    for radius in radii_m or rules.radii_m:
        hit_a, hit_b = rules.within(a, radius), rules_b.within(b, radius)
        found = paired_difference(100.0 * hit_a, 100.0 * hit_b, groups=labels, **options)
        recall[key(radius)] = {**_short(found), **mcnemar(hit_a, hit_b)}
    middle = median_difference(a, b, groups=labels, **options) if median else None
    n_groups = len(a) if labels is None else len(np.unique(labels))
    return {
        "n": len(a),
        "groups": n_groups,
        "recall": recall,
        "median_m": middle,
        "protocol": rules.as_record(),
        **({} if rules_b == rules else {"protocol_b": rules_b.as_record()}),
    }


def counting(protocol: EvaluationProtocol, errors_m: Floats) -> NDArray[np.bool_]:
    """Which photos a protocol counts: those without an answer, NaN, unless it drops them."""
    counted: NDArray[np.bool_] = ~np.isnan(errors_m) | (protocol.missing == "wrong")
    return counted


def median_difference(
    errors_a_m: Floats, errors_b_m: Floats, *, groups: NDArray[Any] | None = None, **options: Any
) -> dict[str, float] | None:
    """Difference of the median errors of the photos that both answered; None without any, or with one group.

    Args:
        errors_a_m: As in `compare_errors`.
        errors_b_m: The same photos in the same order.
        groups: Sequence or block of each photo.
        options: Of `paired_difference`: replicates, confidence, seed.
    """
    answered = ~(np.isnan(errors_a_m) | np.isnan(errors_b_m))
    kept = None if groups is None else groups[answered]
    if not answered.any() or (kept is not None and len(np.unique(kept)) < 2):
        return None
    a, b = errors_a_m[answered], errors_b_m[answered]
    found = paired_difference(a, b, groups=kept, statistic="median", **options)
    return {**_short(found), "n": found.n}


def mcnemar(hits_a: ArrayLike, hits_b: ArrayLike) -> dict[str, float | int]:
    """Photos only A or only B hits, and the exact two-sided probability of so uneven a split by chance."""
    a, b = np.asarray(hits_a, dtype=bool), np.asarray(hits_b, dtype=bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return {"only_a": only_a, "only_b": only_b, "p": p}


def _short(d: Difference) -> dict[str, float]:
    return {"a": d.a, "b": d.b, "difference": d.difference, "low": d.low, "high": d.high}


def _paired(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise UsageError(f"Paired values must have the same length; got {x.shape} and {y.shape}.")
    if x.size == 0:
        raise UsageError("There is no photo to compare.")
    if np.isnan(x).any() or np.isnan(y).any():
        raise UsageError("Paired values hold NaN.", hint="Count missing answers as wrong or drop them first.")
    return x, y


def _codes(groups: ArrayLike | None, n: int) -> tuple[NDArray[np.intp] | None, int]:
    if groups is None:
        return None, n
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise UsageError(f"groups has shape {labels.shape} but there are {n} photos.")
    unique, codes = np.unique(labels, return_inverse=True)
    if len(unique) < 2:
        raise UsageError(
            "A cluster bootstrap needs at least two groups; all photos share one.",
            hint="Group by something finer (blocks instead of one sequence), or pass no groups.",
        )
    return codes.astype(np.intp), len(unique)


def _mean(values: Floats) -> float:
    return float(values.mean())


def _lower_median(values: Floats) -> float:
    return float(np.sort(values)[(len(values) - 1) // 2])


def _quantiles(samples: Floats, confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise UsageError(f"Confidence {confidence} must lie between 0 and 1, such as 0.95.")
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
