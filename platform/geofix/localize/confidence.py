"""Calibrated probabilities: a temperature over all cells in scope, and whether the photo is covered at all.

Both are fitted on validation queries, stored as a dict with the code set, and used unchanged afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logsumexp

from geofix.codes.matrix import CellMatrix, Ids, Ranges
from geofix.codes.thinning import thinned
from geofix.errors import BadInputError, UsageError

_log = structlog.get_logger(module=__name__)
PHOTOS = 5000  # in a searched cell, at most, and as many elsewhere: 64 KB of memory each
_BINS = 16_384
_QUERIES = 1024  # scored together: 64 MB
_COUNTED = 16  # counted together: their counts stay in a processor's cache
_T_RANGE = (1e-4, 10.0)
_RIDGE = 1e-3  # keeps the logit finite where the two classes separate


@dataclass(frozen=True)
class CoverageFit:
    """Whether the true cell is among the searched ones, from the best score of a query.

    With covered and uncovered validation queries this is a logit. With covered ones alone nothing can be
    learned about the others, and it is the score that 5 % of the covered queries stay below.

    Attributes:
        slope: Of the logit; None for the threshold.
        threshold: Best score at which the probability is one half, or the threshold.
        covered: Validation queries whose true cell was in scope, of those that took part.
        uncovered: The others.
    """

    slope: float | None
    threshold: float
    covered: int
    uncovered: int

    def probability(self, best_score: npt.ArrayLike) -> npt.NDArray[np.float64] | None:
        """P(covered) of each best score; None where only a threshold could be fitted."""
        if self.slope is None:
            return None
        margin = np.asarray(best_score, dtype=np.float64) - self.threshold
        return np.asarray(expit(self.slope * margin), dtype=np.float64)

    def in_coverage(self, best_score: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether each best score says that the photo was taken in a searched cell."""
        above = np.asarray(best_score, dtype=np.float64) >= self.threshold
        return above if self.slope is None or self.slope >= 0 else ~above


@dataclass(frozen=True)
class ConfidenceFit:
    """One operating point of a code set.

    Attributes:
        temperature: T of softmax(score / T) over the cells in scope.
        nll: Mean negative log-likelihood of the true cell at T, nats.
        queries: Validation queries whose true cell was in scope.
        cells: Cells in scope.
        coverage: The 'outside my coverage' fit.
        photos_used: Validation photos that took part, in scope or not; None in older fits.
        photos_available: Those there were; where there are more, they were thinned out.
    """

    temperature: float
    nll: float
    queries: int
    cells: int
    coverage: CoverageFit
    photos_used: int | None = None
    photos_available: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fit as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ConfidenceFit:
        """Read what `as_dict` wrote, whether the fit of the refinement stands beside it or not."""
        try:
            own = {key: value for key, value in values.items() if key != "refinement"}
            return cls(**{**own, "coverage": CoverageFit(**values["coverage"])})
        except (TypeError, KeyError) as error:
            raise BadInputError(
                f"confidence fit {dict(values)!r} cannot be read: {error}.", hint="Fit it again on val."
            ) from error


def fit_confidence(
    matrix: CellMatrix,
    queries: npt.ArrayLike,
    true_ids: npt.ArrayLike,
    ranges: Ranges | None = None,
    *,
    most: int = PHOTOS,
) -> ConfidenceFit:
    """Fit temperature and coverage on validation queries from seen and unseen blocks in their natural mix.

    Memory: 64 KB per query that takes part and 64 MB of scores, whatever the number of cells. Where more than
    `most` queries lie in scope, or out of it, so many of either kind are drawn by a seed, and count in the
    coverage's fit as often as there were queries for each.

    Args:
        matrix: The codes that are searched.
        queries: (q, D), completed if the codes are.
        true_ids: (q,) cell or leaf id of where each photo was taken.
        ranges: Scope, closed id ranges (n, 2); None: everywhere.
        most: Queries of either kind that take part.

    Raises:
        BadInputError: No query's true cell is in scope.
    """
    vectors = np.atleast_2d(np.asarray(queries, dtype=np.float32))
    rows = matrix.rows_containing(true_ids)
    inside = np.zeros(len(rows), dtype=bool)
    for start, stop in matrix.slices(ranges):
        inside |= (rows >= start) & (rows < stop)
    if len(rows) != len(vectors) or not inside.any():
        raise BadInputError(
            f"none of {len(vectors)} validation queries ({len(rows)} true cells) lies in a searched cell.",
            hint="Fit on the validation split of the snapshot this code set was built from.",
        )
    all_in, all_out = np.flatnonzero(inside), np.flatnonzero(~inside)
    used_in, used_out = thinned(all_in, most), thinned(all_out, most)
    histogram = ScoreHistogram.of(matrix, vectors[used_in], ranges)
    true_scores = _own_scores(matrix, vectors[used_in], rows[used_in])
    temperature, nll = fit_temperature(histogram, true_scores)
    best = np.concatenate([histogram.best, _extent(matrix, vectors[used_out], ranges)[0]])
    shares = len(used_in) / len(all_in), len(used_out) / max(len(all_out), 1)
    coverage = fit_coverage(
        best,
        np.arange(len(best)) < len(used_in),
        uncovered_weight=shares[0] / shares[1] if len(used_out) else 1.0,
    )
    return ConfidenceFit(
        temperature,
        nll,
        len(used_in),
        matrix.cells_in_scope(ranges),
        coverage,
        photos_used=len(best),
        photos_available=len(vectors),
    )


@dataclass(frozen=True, eq=False)
class ScoreHistogram:
    """How often each score occurs per query, enough to evaluate the softmax's sum at any temperature.

    Attributes:
        centres: (b,) middle of each bin, width h.
        counts: (q, b) cells.
        best: (q,) exact largest score.
    """

    centres: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int32]
    best: npt.NDArray[np.float64]

    @classmethod
    def of(
        cls, matrix: CellMatrix, queries: npt.NDArray[np.float32], ranges: Ranges | None
    ) -> ScoreHistogram:
        """Count all scores in scope in one pass, after one pass for their extent."""
        best, low = _extent(matrix, queries, ranges)
        width = max(float(best.max()) - low, 1e-9) / _BINS
        counts = np.zeros((len(queries), _BINS), dtype=np.int32)
        for part in _parts(len(queries), _QUERIES):
            own = counts[part]
            for _, scores in matrix.score_blocks(queries[part], ranges):
                for some in _parts(len(own), _COUNTED):
                    bins = np.clip((scores[some] - low) / width, 0, _BINS - 1).astype(np.int64)
                    bins += _BINS * np.arange(len(bins))[:, None]
                    own[some] += np.bincount(bins.ravel(), minlength=own[some].size).reshape(-1, _BINS)
        return cls(low + (np.arange(_BINS, dtype=np.float64) + 0.5) * width, counts, best)

    @property
    def width(self) -> float:
        """Width h of a bin."""
        return float(self.centres[1] - self.centres[0])

    def log_partition(self, temperature: float) -> npt.NDArray[np.float64]:
        """Sum of exp(s_i / T), its logarithm (q,); off by at most h / 2T (h: width of a bin)."""
        out = np.empty(len(self.counts))
        for query, counts in enumerate(self.counts):
            used = np.flatnonzero(counts)
            top = self.centres[used[-1]]
            terms = np.exp((self.centres[used] - top) / temperature)
            out[query] = top / temperature + np.log(terms @ counts[used])
        return out


def _parts(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, start + size)


def _extent(
    matrix: CellMatrix, queries: npt.NDArray[np.float32], ranges: Ranges | None
) -> tuple[npt.NDArray[np.float64], float]:
    """Largest score of each query (q,), and the smallest of all."""
    best, low = np.full(len(queries), -np.inf), np.inf
    for part in _parts(len(queries), _QUERIES):
        for _, scores in matrix.score_blocks(queries[part], ranges):
            low = min(low, float(scores.min()))
            best[part] = np.maximum(best[part], scores.max(axis=1))
    return best, low


def fit_temperature(histogram: ScoreHistogram, true_scores: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The temperature of least mean negative log-likelihood, and that likelihood in nats.

    Sought in [1e-4, 10], and not below two bins of the histogram, where its error passes a quarter nat.
    """
    bounds = (np.log(max(_T_RANGE[0], 2 * histogram.width)), np.log(_T_RANGE[1]))

    def nll(log_t: float) -> float:
        t = float(np.exp(log_t))
        return float(np.mean(histogram.log_partition(t) - true_scores / t))

    found = minimize_scalar(nll, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    if min(abs(found.x - bound) for bound in bounds) < 1e-2:
        _log.warning("temperature at the end of its range", temperature=float(np.exp(found.x)))
    return float(np.exp(found.x)), float(found.fun)


def fit_coverage(
    best_scores: npt.NDArray[np.float64], covered: npt.NDArray[np.bool_], *, uncovered_weight: float = 1.0
) -> CoverageFit:
    """Logistic regression of `covered` (q,) on the best score (q,), in the natural mix of the two.

    Where fewer of one kind were drawn than of the other, `uncovered_weight` is how many times as often an
    uncovered query counts as a covered one.
    """
    n_in, n_out = int(covered.sum()), int((~covered).sum())
    if not n_in:
        raise BadInputError("no validation query is covered.", hint="Fit on the snapshot's val split.")
    if not n_out:
        return CoverageFit(None, float(np.quantile(best_scores, 0.05)), n_in, n_out)
    mean, spread = float(best_scores.mean()), float(best_scores.std()) or 1.0
    x, sign = (best_scores - mean) / spread, np.where(covered, 1.0, -1.0)
    weight = np.where(covered, 1.0, uncovered_weight)

    def loss(w: npt.NDArray[np.float64]) -> float:
        terms = np.logaddexp(0.0, -sign * (w[0] * x + w[1]))
        return float(np.average(terms, weights=weight) + _RIDGE * w[0] ** 2)

    slope, offset = (float(v) for v in minimize(loss, np.zeros(2), method="BFGS").x)
    if abs(slope) < 1e-6:  # the score says nothing: everything is called what most queries are
        slope = 1e-6
    return CoverageFit(slope / spread, mean - spread * offset / slope, n_in, n_out)


@dataclass(frozen=True, eq=False)
class Posterior:
    """Probabilities of all cells in scope for one photo; they sum to 1.

    Attributes:
        ids: (n,) cells in signed order.
        probability: (n,) float64.
        best_score: Largest score, for `CoverageFit`.
    """

    ids: Ids
    probability: npt.NDArray[np.float64]
    best_score: float

    def of(self, ids: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Probability of given cells, 0 for a cell out of scope."""
        wanted = np.asarray(ids, dtype=np.int64)
        place = np.searchsorted(self.ids, wanted).clip(max=max(len(self.ids) - 1, 0))
        if not len(self.ids):
            return np.zeros(wanted.shape)
        return np.where(self.ids[place] == wanted, self.probability[place], 0.0)


def posterior(
    matrix: CellMatrix, query: npt.ArrayLike, temperature: float, ranges: Ranges | None = None
) -> Posterior:
    """Softmax of score / T over the cells in scope, exactly.

    Args:
        matrix: The codes.
        query: (D,) one photo.
        temperature: As fitted, above 0.
        ranges: Scope, closed id ranges (n, 2).
    """
    if not temperature > 0:
        raise UsageError(f"temperature {temperature} is not above 0.", hint="Fit it on validation queries.")
    vector = np.asarray(query, dtype=np.float32).reshape(1, -1)
    blocks = [(ids, scores[0]) for ids, scores in matrix.score_blocks(vector, ranges)]
    if not blocks:
        return Posterior(np.zeros(0, dtype=np.int64), np.zeros(0), -np.inf)
    scores = np.concatenate([s for _, s in blocks]).astype(np.float64)
    logits = scores / temperature
    probability = np.exp(logits - logsumexp(logits))
    return Posterior(np.concatenate([ids for ids, _ in blocks]), probability, float(scores.max()))


def _own_scores(matrix: CellMatrix, queries: npt.NDArray[np.float32], rows: Ids) -> npt.NDArray[np.float64]:
    """Score of each query with its own row (q,)."""
    return np.array(
        [
            float(np.dot(query.astype(np.float64), matrix.row(int(row)).astype(np.float64)))
            for query, row in zip(queries, rows, strict=True)
        ]
    )
