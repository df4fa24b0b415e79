"""Metrics of localization: arrays of errors in, plain numbers out.

All shares are percent. NaN marks a photo (or a rank) without an answer. A radius finer than a photo's own
`gps_accuracy_m` says nothing about that photo, so it is left out of that radius and the eligible number is
reported.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from geofix.errors import UsageError
from geofix.evaluation.protocols import EvaluationProtocol, MissingPolicy
from geofix.spatial import s2

Floats = NDArray[np.float64]
_DEFAULT = EvaluationProtocol()


def recall_at(
    errors_m: ArrayLike,
    ks: Sequence[int] = (1, 5, 10, 100),
    radii_m: Sequence[float] = (50, 100, 200, 1000),
    *,
    protocol: EvaluationProtocol = _DEFAULT,
    gps_accuracy_m: ArrayLike | None = None,
) -> dict[str, dict[str, float | None]]:
    """Percent of photos with a candidate among the top K within each radius.

    Args:
        errors_m: Metres, shape (n, k), best candidate first; (n,) is one candidate each. A K beyond the last
            column counts the columns there are.
        ks: Candidate counts.
        radii_m: Metres.
        protocol: Comparison and policy for photos without any answer.
        gps_accuracy_m: Shape (n,), metres; NaN is unknown and counts as accurate.

    Returns:
        `{"1": {"50": percent, ...}, ...}`; None where no photo is eligible.
    """
    errors = _ranked(errors_m)
    kept = _kept(errors[:, 0], protocol.missing)
    best = np.fmin.accumulate(errors, axis=1)
    eligible = {r: kept & _accurate(gps_accuracy_m, len(errors), r) for r in radii_m}
    table: dict[str, dict[str, float | None]] = {}
    for k in ks:
        at_k = best[:, min(k, errors.shape[1]) - 1]
        table[str(k)] = {key(r): _percent(protocol.within(at_k, r)[eligible[r]]) for r in radii_m}
    return table


def accuracy_km(
    error_m: ArrayLike,
    radii_km: Sequence[float] = (1, 25, 200, 750, 2500),
    *,
    protocol: EvaluationProtocol = _DEFAULT,
    gps_accuracy_m: ArrayLike | None = None,
) -> dict[str, float | None]:
    """Percent of photos whose answer lies within each radius, `{"1": percent, ...}`.

    Args:
        error_m: Metres, shape (n,).
        radii_km: Kilometres.
        protocol: Comparison and policy for missing answers.
        gps_accuracy_m: Shape (n,), metres.
    """
    error = np.asarray(error_m, dtype=np.float64)
    kept = _kept(error, protocol.missing)
    hits = {r: protocol.within(error / 1000.0, r) for r in radii_km}
    return {
        key(r): _percent(hits[r][kept & _accurate(gps_accuracy_m, len(error), r * 1000.0)]) for r in radii_km
    }


def eligible(gps_accuracy_m: ArrayLike | None, n: int, radii_m: Sequence[float]) -> dict[str, int]:
    """How many of n photos know their own position at least as finely as each radius in metres."""
    return {key(r): int(_accurate(gps_accuracy_m, n, r).sum()) for r in radii_m}


def geoscore(
    error_m: ArrayLike, *, missing: MissingPolicy = "wrong", scale_km: float = _DEFAULT.geoscore_scale_km
) -> float | None:
    """Mean of 5000 exp(-d / scale), d in kilometres (OSV-5M, PIGEON).

    A missing answer scores 0 under "wrong" and leaves the mean under "drop".
    """
    error = np.asarray(error_m, dtype=np.float64)
    score = 5000.0 * np.exp(-error / 1000.0 / scale_km)
    score = np.nan_to_num(score, nan=0.0)[_kept(error, missing)]
    return float(score.mean()) if score.size else None


def median_m(error_m: ArrayLike) -> float | None:
    """Median error of the answered photos, metres."""
    answered = _answered(error_m)
    return float(np.median(answered)) if answered.size else None


def mean_km(error_m: ArrayLike) -> float | None:
    """Mean error of the answered photos, kilometres."""
    answered = _answered(error_m)
    return float(answered.mean() / 1000.0) if answered.size else None


def share_answered(error_m: ArrayLike) -> float | None:
    """Percent of photos that got any answer."""
    return _percent(~np.isnan(np.asarray(error_m, dtype=np.float64)))


def wilson(hits: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Wilson score interval of a share, in percent; (0, 100) where n is 0.

    Works elementwise. Source: Wilson, J. Am. Stat. Assoc. 22 (1927).

    Raises:
        UsageError: More hits than trials, or a confidence outside (0, 1).
    """
    k, trials = np.broadcast_arrays(np.asarray(hits, dtype=np.float64), np.asarray(n, dtype=np.float64))
    if not 0 < confidence < 1:
        raise UsageError(f"Confidence {confidence} must lie between 0 and 1, such as 0.95.")
    if np.any(k < 0) or np.any(k > trials):
        raise UsageError("Wilson interval: hits must lie between 0 and n.")
    z2 = float(norm.ppf(0.5 + confidence / 2)) ** 2
    safe = np.maximum(trials, 1.0)
    p = k / safe
    centre = (p + z2 / (2 * safe)) / (1 + z2 / safe)
    half = np.sqrt(z2 * (p * (1 - p) / safe + z2 / (4 * safe**2))) / (1 + z2 / safe)
    low = np.where(trials == 0, 0.0, np.maximum(centre - half, 0.0))
    high = np.where(trials == 0, 1.0, np.minimum(centre + half, 1.0))
    # At 0 or n hits one end is exact; rounding would leave it 1e-18 off.
    low, high = np.where(k == 0, 0.0, low), np.where(k == trials, 1.0, high)
    return 100.0 * low, 100.0 * high


def oracle_errors(
    lon: ArrayLike, lat: ArrayLike, level: int, *, protocol: EvaluationProtocol = _DEFAULT
) -> Floats:
    """Metres from each photo to the centre of its own cell: what a perfect classifier of that level makes."""
    x, y = np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)
    centre_lon, centre_lat = s2.center(s2.cell_at(x, y, level))
    return protocol.distance_m(x, y, centre_lon, centre_lat)


def most_photographed_cell(lon: ArrayLike, lat: ArrayLike, level: int) -> tuple[float, float]:
    """Centre (lon, lat) of the cell with most training photos; ties go to the smallest id.

    Raises:
        UsageError: No training photo.
    """
    ids = s2.cell_at(np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64), level)
    if len(ids) == 0:
        raise UsageError("The most photographed cell needs at least one training photo.")
    cells, counts = np.unique(ids, return_counts=True)
    centre_lon, centre_lat = s2.center(cells[[int(np.argmax(counts))]])
    return float(centre_lon[0]), float(centre_lat[0])


def constant_errors(
    answer: tuple[float, float], lon: ArrayLike, lat: ArrayLike, *, protocol: EvaluationProtocol = _DEFAULT
) -> Floats:
    """Metres when every photo gets the same answer (lon, lat): the trivial baseline every row must beat."""
    return protocol.distance_m(answer[0], answer[1], lon, lat)


def nearest_distance_groups(
    distance_m: ArrayLike, edges_m: Sequence[float] = (25, 100)
) -> dict[str, NDArray[np.bool_]]:
    """Masks by distance to the nearest training photo: `<25`, `25-100`, `>100` metres."""
    d = np.asarray(distance_m, dtype=np.float64)
    edges = np.asarray(edges_m, dtype=np.float64)
    # The last edge belongs to the group below it.
    place = np.digitize(d, edges) - (d == edges[-1])
    between = [f"{key(low)}-{key(high)}" for low, high in itertools.pairwise(edges_m)]
    names = [f"<{key(edges_m[0])}", *between, f">{key(edges_m[-1])}"]
    return {name: ~np.isnan(d) & (place == i) for i, name in enumerate(names)}


def summary(
    errors_m: ArrayLike,
    *,
    protocol: EvaluationProtocol = _DEFAULT,
    gps_accuracy_m: ArrayLike | None = None,
    oracle_m: ArrayLike | None = None,
    trivial_m: ArrayLike | None = None,
) -> dict[str, Any]:
    """The result document of one evaluation (see `geofix evaluate run`).

    `recall` uses all candidates; `accuracy_km`, `median_m`, `mean_km` and `geoscore` the first. `n` is what
    the policy leaves; `median_m` and `mean_km` are over answered photos, so read them beside `answered`.
    `eligible` counts photos accurate enough for each radius. `oracle` and `trivial` have the same shape as
    the whole.

    Args:
        errors_m: Metres, shape (n, k) or (n,), NaN where there is no answer.
        protocol: How to count.
        gps_accuracy_m: Shape (n,), metres.
        oracle_m: Errors of a perfect classifier on the same photos, shape (n,).
        trivial_m: Errors of the most photographed cell on the same photos, shape (n,).
    """
    errors = _ranked(errors_m)
    top = errors[:, 0]
    kept = _kept(top, protocol.missing)
    accuracy_kept = None if gps_accuracy_m is None else np.asarray(gps_accuracy_m, dtype=np.float64)[kept]
    n = int(kept.sum())
    result: dict[str, Any] = {
        "n": n,
        "recall": recall_at(
            errors, protocol.ks, protocol.radii_m, protocol=protocol, gps_accuracy_m=gps_accuracy_m
        ),
        "accuracy_km": accuracy_km(top, protocol.radii_km, protocol=protocol, gps_accuracy_m=gps_accuracy_m),
        "median_m": median_m(top),
        "mean_km": mean_km(top),
        "geoscore": geoscore(top, missing=protocol.missing, scale_km=protocol.geoscore_scale_km),
        "answered": share_answered(top),
        "candidates": int(errors.shape[1]),
        "eligible": eligible(accuracy_kept, n, protocol.radii_m),
        "protocol": protocol.as_record(),
        "oracle": {},
    }
    for name, bound in (("oracle", oracle_m), ("trivial", trivial_m)):
        if bound is not None:
            result[name] = _bound(bound, kept, protocol, gps_accuracy_m)
    return result


def _bound(
    errors: ArrayLike, kept: NDArray[np.bool_], protocol: EvaluationProtocol, gps_accuracy_m: ArrayLike | None
) -> dict[str, Any]:
    error = np.where(kept, np.asarray(errors, dtype=np.float64), np.nan)
    drop = protocol.with_missing("drop")
    return {
        "recall": recall_at(error, (1,), protocol.radii_m, protocol=drop, gps_accuracy_m=gps_accuracy_m),
        "accuracy_km": accuracy_km(error, protocol.radii_km, protocol=drop, gps_accuracy_m=gps_accuracy_m),
        "median_m": median_m(error),
        "mean_km": mean_km(error),
        "geoscore": geoscore(error, missing="drop", scale_km=protocol.geoscore_scale_km),
    }


def key(radius: float) -> str:
    """A radius as JSON key: 50.0 -> "50", 0.5 -> "0.5"."""
    return f"{radius:g}" if radius < 1e6 else str(int(radius))


def _ranked(errors_m: ArrayLike) -> Floats:
    errors = np.asarray(errors_m, dtype=np.float64)
    if errors.ndim == 1:
        errors = errors[:, None]
    if errors.ndim != 2 or errors.shape[1] == 0:
        raise UsageError(f"Errors must have shape (n,) or (n, k) with k >= 1, not {errors.shape}.")
    return errors


def _kept(top: Floats, missing: MissingPolicy) -> NDArray[np.bool_]:
    return np.ones(len(top), dtype=bool) if missing == "wrong" else ~np.isnan(top)


def _accurate(gps_accuracy_m: ArrayLike | None, n: int, radius_m: float) -> NDArray[np.bool_]:
    if gps_accuracy_m is None:
        return np.ones(n, dtype=bool)
    accuracy = np.asarray(gps_accuracy_m, dtype=np.float64)
    if accuracy.shape != (n,):
        raise UsageError(f"gps_accuracy_m has shape {accuracy.shape} but there are {n} photos.")
    return ~(accuracy > radius_m)


def _answered(error_m: ArrayLike) -> Floats:
    error = np.asarray(error_m, dtype=np.float64)
    return error[~np.isnan(error)]


def _percent(hits: NDArray[np.bool_]) -> float | None:
    return float(100.0 * hits.mean()) if hits.size else None
