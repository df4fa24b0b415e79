"""Is A better than B? Paired bootstrap over photos, sequences or blocks, on the same photos.

Photos of one sequence succeed and fail together, so photos are no independent draws: pass their sequence
(seen photos) or block (unseen photos) as `groups`, and whole groups are resampled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from geofix.errors import UsageError
from geofix.evaluation.metrics import key
from geofix.evaluation.protocols import EvaluationProtocol

Floats = NDArray[np.float64]
Statistic = Literal["mean", "median"]
# Of one array of replicates: 1 MB of 4 bytes each, which a processor keeps near. A longer one takes more.
_CHUNK_ENTRIES = 1 << 18
# Values weighed to each side of the middle: so many standard deviations of where a replicate has its own.
_REACH, _LEAST = 6.0, 64


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
    draw = _mean_replicates if statistic == "mean" else _median_replicates
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
    draw = _mean_replicates if statistic == "mean" else _median_replicates
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


def _draws(n: int, replicates: int, seed: int) -> Iterator[NDArray[np.uint32]]:
    """Indices of shape (some replicates, n), the same ones however they are cut into chunks."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK_ENTRIES // max(n, 1))
    for start in range(0, replicates, rows):
        yield rng.integers(0, n, size=(min(rows, replicates - start), n), dtype=np.uint32)


def _mean_replicates(
    columns: tuple[Floats, ...], codes: NDArray[np.intp] | None, n_groups: int, replicates: int, seed: int
) -> Floats:
    """Means of resampled groups, shape (replicates, columns): sums and sizes per group suffice."""
    sums: list[Floats]
    if codes is None:
        sums, sizes = list(columns), np.ones(n_groups)
    else:
        sums = [np.bincount(codes, c, n_groups).astype(np.float64) for c in columns]
        sizes = np.bincount(codes, minlength=n_groups).astype(np.float64)
    parts = []
    packed = _packed([sizes, *sums])
    for picked in _draws(n_groups, replicates, seed):
        if packed is None:
            total = np.take(sizes, picked).sum(axis=1)
            parts.append(np.stack([np.take(s, picked).sum(axis=1) / total for s in sums], axis=1))
        else:
            drawn = packed.sums(picked)
            parts.append(drawn[:, 1:] / drawn[:, :1])
    return np.concatenate(parts)


@dataclass(frozen=True)
class _Packed:
    """Columns of whole numbers in one integer a group, so that a replicate looks each group up once.

    Attributes:
        values: The integers, shape (groups,).
        units: What each column counts in; a column is a multiple of its unit.
        bits: Room of each column: the sum over as many groups as there are fits.
    """

    values: NDArray[np.int64]
    units: list[int]
    bits: int

    def sums(self, picked: NDArray[np.uint32]) -> Floats:
        """Sum of every column over the picked groups, shape (replicates, columns); exact."""
        total = np.take(self.values, picked).sum(axis=1)
        mask = (1 << self.bits) - 1
        columns = [(total >> (self.bits * i) & mask) * unit for i, unit in enumerate(self.units)]
        return np.stack(columns, axis=1).astype(np.float64)


def _packed(columns: list[Floats]) -> _Packed | None:
    """Columns of one value a group, packed; None where they are no whole numbers or too large together."""
    whole = [np.rint(column) for column in columns]
    if any((w != c).any() or w.min() < 0 or w.max() >= 1 << 53 for w, c in zip(whole, columns, strict=True)):
        return None
    counts = [column.astype(np.int64) for column in whole]
    units = [max(int(np.gcd.reduce(count)), 1) for count in counts]
    parts = [count // unit for count, unit in zip(counts, units, strict=True)]
    bits = max(int(part.max()) * len(part) for part in parts).bit_length()
    if bits * len(parts) > 62:
        return None
    values = sum((part << (bits * i) for i, part in enumerate(parts)), np.zeros(len(parts[0]), np.int64))
    return _Packed(values, units, bits)


def _median_replicates(
    columns: tuple[Floats, ...], codes: NDArray[np.intp] | None, n_groups: int, replicates: int, seed: int
) -> Floats:
    """Weighted lower medians of resampled groups, shape (replicates, columns).

    Each column is sorted once. The middle of a replicate lies near that of all values, so only the values
    around it are weighed one by one; what lies below them is summed with the photos, by group.
    """
    group = np.arange(n_groups, dtype=np.intp) if codes is None else codes
    sizes = np.bincount(group, minlength=n_groups).astype(np.float64)
    windows = [_Window.of(column, group, sizes) for column in columns]
    counts = [sizes, *(window.below for window in windows)]
    packed = _packed(counts)
    kind = np.min_scalar_type(n_groups)
    rows = max(1, _CHUNK_ENTRIES // max(len(window.values) for window in windows))
    parts = []
    for picked in _draws(n_groups, replicates, seed):
        if packed is None:
            sums = np.stack([np.take(count, picked).sum(axis=1) for count in counts], axis=1)
        else:
            sums = packed.sums(picked)
        half = (sums[:, 0] + 1) // 2
        times = np.empty(picked.shape, kind)
        for i, one in enumerate(picked):
            times[i] = np.bincount(one, minlength=n_groups)
        # A replicate of few groups is short, but many of its values may be looked at.
        for some in (slice(at, at + rows) for at in range(0, len(picked), rows)):
            found = [
                window.middle(times[some], half[some], below[some])
                for window, below in zip(windows, sums.T[1:], strict=True)
            ]
            parts.append(np.stack(found, axis=1))
    return np.concatenate(parts)


@dataclass(frozen=True)
class _Window:
    """The values of a column in which the middles of nearly all replicates lie.

    Attributes:
        values: Ascending, shape (w,).
        group: Their groups, shape (w,).
        below: Values of each group before these, shape (groups,).
        column: All values ascending, shape (n,), and
        groups: their groups, for a middle that lies elsewhere.
    """

    values: Floats
    group: NDArray[np.intp]
    below: Floats
    column: Floats
    groups: NDArray[np.intp]

    @classmethod
    def of(cls, column: Floats, group: NDArray[np.intp], sizes: Floats) -> _Window:
        """Around the middle of a column."""
        order = np.argsort(column, kind="stable")
        ordered, groups = column[order], group[order]
        middle = len(column) // 2
        lower = np.bincount(groups[:middle], minlength=len(sizes))
        reach = int(_REACH * np.sqrt(np.square(lower - sizes / 2).sum())) + _LEAST
        low, high = max(middle - reach, 0), middle + reach
        below = np.bincount(groups[:low], minlength=len(sizes)).astype(np.float64)
        return cls(ordered[low:high], groups[low:high], below, ordered, groups)

    def middle(self, times: NDArray[Any], half: Floats, below: Floats) -> Floats:
        """The weighted lower median of every replicate.

        Args:
            times: How often a replicate drew each group, shape (replicates, groups).
            half: The weight that is to be reached, shape (replicates,).
            below: Weight of what lies before the window, shape (replicates,).
        """
        reached = below[:, None] + np.cumsum(np.take(times, self.group, axis=1), axis=1, dtype=np.int64)
        place = (reached < half[:, None]).sum(axis=1)
        found: Floats = self.values[np.minimum(place, len(self.values) - 1)]
        for row in np.flatnonzero((below >= half) | (place == len(self.values))):
            weights = np.cumsum(times[row][self.groups], dtype=np.int64)
            found[row] = self.column[np.searchsorted(weights, half[row])]
        return found


def _mean(values: Floats) -> float:
    return float(values.mean())


def _lower_median(values: Floats) -> float:
    return float(np.sort(values)[(len(values) - 1) // 2])


def _quantiles(samples: Floats, confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise UsageError(f"Confidence {confidence} must lie between 0 and 1, such as 0.95.")
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
