"""Hits of a localizer, photo by photo: every figure of the method's table is a mean of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from geofix.evaluation.compare import bootstrap_interval, paired_difference
from geofix.evaluation.metrics import key
from geofix.evaluation.protocols import EvaluationProtocol

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Hits:
    """What a localizer did with each photo.

    Attributes:
        share: (n, K, R) chance of a hit among the first K candidates within each radius, 0 or 1 where nothing
            ties; NaN where the photo does not know its own position as finely as the radius.
        first_m: (n, copies) metres from each of the equally good first answers; NaN where there is none.
        errors_m: (n, k) metres of all candidates in the order they were given.
    """

    share: NDArray[np.float32]
    first_m: Floats
    errors_m: Floats

    def take(self, rows: NDArray[Any]) -> Hits:
        """Some of the photos."""
        return Hits(self.share[rows], self.first_m[rows], self.errors_m[rows])

    def slim(self) -> Hits:
        """Without the errors of all candidates but the first."""
        return Hits(self.share, self.first_m, self.errors_m[:, :1].copy())

    @staticmethod
    def joined(parts: list[Hits]) -> Hits:
        """Photos of several splits one after the other; `errors_m` keeps the first candidate alone."""
        share = np.concatenate([part.share for part in parts])
        first = np.concatenate([part.first_m for part in parts])
        return Hits(share, first, np.concatenate([part.errors_m[:, :1] for part in parts]))

    def recall(self, protocol: EvaluationProtocol) -> dict[str, dict[str, float | None]]:
        """Percent by K and radius, None where no photo is accurate enough."""
        return {
            str(k): {key(r): mean_percent(self.share[:, i, j]) for j, r in enumerate(protocol.radii_m)}
            for i, k in enumerate(protocol.ks)
        }

    @property
    def answered(self) -> float | None:
        """Percent of photos with an answer."""
        return mean_percent((~np.isnan(self.first_m[:, 0])).astype(np.float32))

    @property
    def median_m(self) -> float | None:
        """Median metres of the first answer over answered photos; over all equally good first answers."""
        known = self.first_m[~np.isnan(self.first_m)]
        return float(np.median(known)) if known.size else None


def mean_percent(share: NDArray[np.floating[Any]]) -> float | None:
    """Mean in percent of the values that are no NaN."""
    known = share[~np.isnan(share)]
    return float(100.0 * known.mean(dtype=np.float64)) if known.size else None


def count_hits(
    errors_m: Floats, protocol: EvaluationProtocol, gps_accuracy_m: Floats, *, copies: int = 1
) -> Hits:
    """Hits of ranked errors.

    Args:
        errors_m: (n, k) metres, best candidate first, NaN where there is none.
        protocol: Radii, numbers of candidates and comparison.
        gps_accuracy_m: (n,) of each photo, NaN where unknown.
        copies: So many candidates in a row are equally good, and their order says nothing.
    """
    n, width = errors_m.shape
    share = np.empty((n, len(protocol.ks), len(protocol.radii_m)), np.float32)
    for j, radius in enumerate(protocol.radii_m):
        within = protocol.within(errors_m, radius)
        for i, k in enumerate(protocol.ks):
            share[:, i, j] = expected_hits(within, min(k, width), copies)
        share[gps_accuracy_m > radius, :, j] = np.nan
    return Hits(share, errors_m[:, :copies], errors_m)


def expected_hits(within: NDArray[np.bool_], k: int, copies: int) -> Floats:
    """Chance of a hit among the first k of (n, m) candidates, m >= k, over all orders of equal ones.

    Groups of `copies` stand one after the other. Whole groups count as they are; of the group that the cut
    goes through, j of its c members are drawn, and with h hits among them none is drawn with probability
    C(c - h, j) / C(c, j).
    """
    whole = k // copies * copies
    certain: Floats = np.asarray(within[:, :whole].any(axis=1), np.float64)
    drawn = k - whole
    if not drawn:
        return certain
    group = within[:, whole : whole + copies]
    size, hits = group.shape[1], group.sum(axis=1)
    missed = np.where(
        size - hits >= drawn, np.exp(_log_choose(size - hits, drawn) - _log_choose(size, drawn)), 0.0
    )
    return np.asarray(np.maximum(certain, np.where(hits > 0, 1.0 - missed, 0.0)), np.float64)


def _log_choose(n: Any, k: int) -> Floats:
    """Logarithm of C(n, k); what it says for n < k is not used."""
    rest = np.maximum(np.asarray(n, np.float64) - k, 0.0)
    found = gammaln(np.asarray(n, np.float64) + 1) - gammaln(k + 1) - gammaln(rest + 1)
    return np.asarray(found, np.float64)


def interval(
    share: NDArray[np.floating[Any]], clusters: NDArray[np.int64] | None, *, replicates: int, seed: int
) -> tuple[float, float] | None:
    """95 % cluster bootstrap interval of a mean in percent; None where there are too few clusters."""
    known = ~np.isnan(share)
    groups = _groups(clusters, known)
    if groups is None:
        return None
    found = bootstrap_interval(100.0 * share[known], groups=groups, replicates=replicates, seed=seed)
    return found.low, found.high


def difference(
    a: NDArray[np.floating[Any]],
    b: NDArray[np.floating[Any]],
    clusters: NDArray[np.int64] | None,
    *,
    replicates: int,
    seed: int,
) -> dict[str, Any] | None:
    """Paired a - b in points with its 95 % cluster bootstrap interval; None with too few clusters."""
    known = ~np.isnan(a) & ~np.isnan(b)
    groups = _groups(clusters, known)
    if groups is None:
        return None
    found = paired_difference(
        100.0 * a[known], 100.0 * b[known], groups=groups, replicates=replicates, seed=seed
    )
    return {**found.as_record(), "clusters": found.groups}


def _groups(clusters: NDArray[np.int64] | None, known: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    if clusters is None or len(np.unique(clusters[known])) < 2:
        return None
    return clusters[known]
