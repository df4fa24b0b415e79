"""How much a cell's prototype and its aerial code weigh: one conditional logit over all cells.

    logit_i = w_P s_P(i) + w_A s_A(i) + b_noP [cell i has no prototype] + b_noA [cell i has no tile]
    kappa = w_P / w_A        temperature T = 1 / w_A        biases b / w_A, in units of the score

Validation queries from seen and unseen blocks in their natural mix choose among all cells, so one operating
point serves every split. Source of the model: McFadden, *Conditional Logit Analysis of Qualitative Choice
Behavior*, 1974. The negative log-likelihood is convex in the four numbers and is minimised exactly, block
by block of cells; there is no sampling of cells.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from geofix.errors import BadInputError, UsageError
from geofix.models.scores import ScoreArrays, ScoreSource

Floats = npt.NDArray[np.float64]

GRID = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
_UNIT = np.diag(
    [10.0, 10.0, 1.0, 1.0]
)  # weights are near 10 to 50, biases near 0 to 10: one scale for the search
# Of w_A in that scale, so w_A >= 0.2 and T <= 5: kappa stays finite where the aerial part says nothing, and
# a part of so little weight moves no probability by more than a factor of e^0.4.
_LEAST_WEIGHT = 0.02


@dataclass(frozen=True)
class Fusion:
    """One operating point of a hybrid.

    The score of a cell is kappa s_P + s_A + bias, its probability softmax(score / temperature).

    Attributes:
        kappa: Weight of the prototype.
        temperature: T in units of the score.
        bias_no_prototype: Added to the score of a cell without prototype; 0 where every cell has one.
        bias_no_aerial: Likewise without a tile.
        nll: Mean negative log-likelihood of the true cell, nats.
        queries: Validation queries that were used.
        recipe: How kappa was found.
    """

    kappa: float
    temperature: float
    bias_no_prototype: float
    bias_no_aerial: float
    nll: float
    queries: int = 0
    recipe: str = "logit"

    def as_dict(self) -> dict[str, Any]:
        """The fit as plain JSON types."""
        return asdict(self)

    def bias(self, has_prototype: npt.NDArray[np.bool_], has_aerial: npt.NDArray[np.bool_]) -> Floats:
        """Bias of each cell (n,)."""
        without = self.bias_no_prototype * ~has_prototype + self.bias_no_aerial * ~has_aerial
        return np.asarray(without, dtype=np.float64)

    def scores(
        self,
        s_prototype: npt.ArrayLike,
        s_aerial: npt.ArrayLike,
        has_prototype: npt.NDArray[np.bool_],
        has_aerial: npt.NDArray[np.bool_],
    ) -> Floats:
        """Scores (q, n) of similarities (q, n), whatever these hold where a part is missing."""
        prototype, aerial = np.asarray(s_prototype, np.float64), np.asarray(s_aerial, np.float64)
        parts = self.kappa * np.where(has_prototype, prototype, 0) + np.where(has_aerial, aerial, 0)
        return np.asarray(parts + self.bias(has_prototype, has_aerial), dtype=np.float64)


def fit_fusion(
    s_prototype: npt.ArrayLike,
    s_aerial: npt.ArrayLike,
    has_prototype: npt.ArrayLike,
    has_aerial: npt.ArrayLike,
    true_index: npt.ArrayLike,
    *,
    kappa: float | None = None,
    bias: bool = True,
    ridge: float = 1e-5,
) -> Fusion:
    """Fit on similarities held in memory; see `fit_source`.

    Args:
        s_prototype: (q, n) similarity of each query with each cell's prototype; ignored where there is none.
        s_aerial: (q, n) likewise with the aerial code.
        has_prototype: (n,) flags.
        has_aerial: (n,) flags.
        true_index: (q,) column of the true cell.
        kappa: As in `fit_source`.
        bias: As in `fit_source`.
        ridge: As in `fit_source`.
    """
    source = ScoreArrays.of(s_prototype, s_aerial, has_prototype, has_aerial, true_index)
    return fit_source(source, kappa=kappa, bias=bias, ridge=ridge)


def fit_source(
    source: ScoreSource,
    *,
    kappa: float | None = None,
    bias: bool = True,
    ridge: float = 1e-5,
    name: str = "logit",
) -> Fusion:
    """Minimise the mean negative log-likelihood of the true cells over all cells of a source.

    L-BFGS with the exact gradient and bounds w_P >= 0 and w_A >= 0.2, in the original numbers, where the
    problem is convex. A bias is fitted only where cells without that part exist, and is 0 otherwise. The
    ridge (half its value times the squared numbers, weights divided by 10) moves the likelihood by about
    1e-4 nats and keeps a bias finite when no query lies in the cells it is for.

    Args:
        source: Similarities of queries with all cells, in blocks.
        kappa: Keep this ratio and fit the temperature and biases alone.
        bias: False keeps both biases at 0.
        ridge: Strength of the ridge.
        name: Kept as the recipe.

    Raises:
        BadInputError: There is no query.
        UsageError: kappa is negative.
    """
    if not len(source.true_index):
        raise BadInputError("no validation query lies in a cell.", hint="Fit on the snapshot's val photos.")
    if kappa is not None and not 0 <= kappa < np.inf:
        raise UsageError(f"kappa is {kappa}.", hint="Give a number of at least 0, or fit.")
    basis = _basis(source, kappa, bias)
    weights = 2 if kappa is None else 1
    target = true_features(source)

    def objective(x: Floats) -> tuple[float, Floats]:
        value, gradient = negative_log_likelihood(source, basis @ x, target)
        return value + 0.5 * ridge * float(x @ x), basis.T @ gradient + ridge * x

    start = np.zeros(basis.shape[1])
    start[:weights] = 1.0
    bounds = [(0.0, None)] * (weights - 1) + [(_LEAST_WEIGHT, None)] + [(None, None)] * (len(start) - weights)
    found = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 200, "ftol": 1e-7, "gtol": 1e-5},  # float32 sums are good to about 1e-7
    )
    w_p, w_a, b_p, b_a = (float(value) for value in basis @ found.x)
    nll = float(found.fun) - 0.5 * ridge * float(found.x @ found.x)
    fixed = w_p / w_a if kappa is None else float(kappa)
    return Fusion(fixed, 1 / w_a, b_p / w_a, b_a / w_a, nll, len(source.true_index), name)


def _basis(source: ScoreSource, kappa: float | None, bias: bool) -> Floats:
    """Columns that carry the free numbers to (w_P, w_A, b_noP, b_noA)."""
    columns = [_UNIT[:, 0], _UNIT[:, 1]] if kappa is None else [kappa * _UNIT[:, 0] + _UNIT[:, 1]]
    if bias and not source.has_prototype.all():
        columns.append(_UNIT[:, 2])
    if bias and not source.has_aerial.all():
        columns.append(_UNIT[:, 3])
    return np.stack(columns, axis=1)


def true_features(source: ScoreSource) -> Floats:
    """(s_P, s_A, has no prototype, has no tile) of each query's own cell, (q, 4)."""
    prototype, aerial = source.true_scores()
    true = source.true_index
    columns = [prototype, aerial, ~source.has_prototype[true], ~source.has_aerial[true]]
    return np.stack([np.asarray(column, np.float64) for column in columns], axis=1)


def negative_log_likelihood(source: ScoreSource, theta: Floats, target: Floats) -> tuple[float, Floats]:
    """Mean over the queries, and its gradient (4,), by one pass over the cells with a running maximum.

    Args:
        source: Similarities in blocks.
        theta: (w_P, w_A, b_noP, b_noA).
        target: (q, 4) of `true_features`.
    """
    no_p, no_a = ~source.has_prototype, ~source.has_aerial
    top = np.full(len(target), -np.inf)
    sums = np.zeros((len(target), 5))  # of exp, and of exp times each of the four features
    for start, prototype, aerial in source.blocks():
        stop = start + prototype.shape[1]
        without = np.stack([no_p[start:stop], no_a[start:stop]], axis=1).astype(prototype.dtype)
        kind = prototype.dtype.type
        logits = kind(theta[0]) * prototype + kind(theta[1]) * aerial
        logits += (without @ theta[2:]).astype(prototype.dtype)
        higher = np.maximum(top, logits.max(axis=1))
        sums *= np.exp(top - higher)[:, None]
        top = higher
        logits -= top[:, None].astype(prototype.dtype)
        terms = np.exp(logits, out=logits)
        sums[:, 0] += terms.sum(axis=1, dtype=np.float64)
        sums[:, 1] += np.einsum("qb,qb->q", terms, prototype)
        sums[:, 2] += np.einsum("qb,qb->q", terms, aerial)
        sums[:, 3:] += terms @ without
    value = float(np.mean(np.log(sums[:, 0]) + top - target @ theta))
    gradient = (sums[:, 1:] / sums[:, :1] - target).mean(axis=0)
    return value, np.asarray(gradient, dtype=np.float64)


def fit_ratio(source: ScoreSource, *, bias: bool = False) -> Fusion:
    """Ablation: kappa = mean s_A / mean s_P of true cells that have both parts.

    Raises:
        BadInputError: No query's cell has both parts, or the mean similarity with prototypes is not above 0.
    """
    both = source.has_prototype[source.true_index] & source.has_aerial[source.true_index]
    prototype, aerial = (np.asarray(part, np.float64)[both] for part in source.true_scores())
    if not both.any() or prototype.mean() <= 0:
        raise BadInputError(
            "the ratio of mean positive similarities does not exist: no validation query's cell has both "
            "parts, or prototypes are not similar to their own photos.",
            hint="Use the conditional logit.",
        )
    kappa = max(0.0, float(aerial.mean() / prototype.mean()))
    return fit_source(source, kappa=kappa, bias=bias, name="ratio")


def fit_logistic(source: ScoreSource, *, negatives: int = 100, bias: bool = False) -> Fusion:
    """Ablation: logistic regression of 'is the true cell' on s_P and s_A, one against the hardest others.

    The negatives are each query's `negatives` other cells of highest s_P + s_A (kappa = 1). kappa is the
    ratio of the two slopes; the temperature is then fitted over all cells.
    """
    hard = _hardest(source, negatives)
    prototype, aerial = source.true_scores()
    features = np.concatenate([np.stack([prototype, aerial], axis=1), hard.reshape(-1, 2)]).astype(np.float64)
    label = np.concatenate([np.ones(len(prototype)), -np.ones(hard.shape[0] * hard.shape[1])])
    kept = np.isfinite(features).all(axis=1)
    design, label = np.column_stack([features[kept], np.ones(int(kept.sum()))]), label[kept]

    def loss(w: Floats) -> tuple[float, Floats]:
        margin = label * (design @ w)
        pull = -label / (1 + np.exp(np.minimum(margin, 500)))
        ridge = np.array([1e-6, 1e-6, 0.0])
        return (
            float(np.logaddexp(0, -margin).mean() + 0.5 * ridge @ w**2),
            design.T @ pull / len(label) + ridge * w,
        )

    w_p, w_a, _ = minimize(loss, np.zeros(3), jac=True, method="L-BFGS-B").x
    kappa = max(float(w_p), 0.0) / max(float(w_a), 1e-2)
    return fit_source(source, kappa=kappa, bias=bias, name="logistic")


def fit_grid(source: ScoreSource, values: tuple[float, ...] = GRID, *, bias: bool = False) -> list[Fusion]:
    """Ablation: each kappa of a grid with its temperature; the least `nll` is the grid's choice."""
    return [fit_source(source, kappa=value, bias=bias, name=f"kappa {value:g}") for value in values]


def _hardest(source: ScoreSource, count: int) -> Floats:
    """(s_P, s_A) of each query's `count` best other cells by s_P + s_A, (q, count, 2); NaN: none left."""
    queries = np.arange(len(source.true_index))
    best = np.full((len(queries), count, 2), np.nan)
    held = np.full((len(queries), count), -np.inf)
    for start, prototype, aerial in source.blocks():
        total = prototype.astype(np.float64) + aerial
        own = source.true_index - start
        here = (own >= 0) & (own < total.shape[1])
        total[queries[here], own[here]] = -np.inf
        every = np.concatenate([held, total], axis=1)
        keep = np.argpartition(-every, count - 1, axis=1)[:, :count]
        pairs = np.concatenate([best, np.stack([prototype, aerial], axis=2)], axis=1)
        best = np.take_along_axis(pairs, keep[:, :, None], axis=1)
        held = np.take_along_axis(every, keep, axis=1)
    best[~np.isfinite(held)] = np.nan
    return best
