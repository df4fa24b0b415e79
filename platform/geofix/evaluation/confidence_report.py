"""How far the probabilities of cell codes can be believed, and whether 'outside my coverage' is noticed.

The event of a calibration error is 'the truth lies within r metres of the answer', and the confidence the
probability mass within r metres of the answer: summed over cells by their centres. A credible region is
right when it contains the true cell; since whole cells are taken until the mass is reached, it covers a
little more often than its mass says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import logsumexp
from scipy.stats import rankdata

from geofix.codes.complete import complete_query
from geofix.codes.matrix import CellMatrix
from geofix.errors import BadInputError
from geofix.evaluation.method_data import Photos
from geofix.localize.confidence import CoverageFit, fit_coverage
from geofix.localizers.code_set import CodeSetLocalizer
from geofix.spatial import s2
from geofix.spatial.distance import EARTH_RADIUS_M, great_circle_m, unit_vectors

Floats = NDArray[np.float64]
MASSES = (0.5, 0.9)
_BINS = 15
_SCORES = 4_000_000  # of one batch of queries times all cells
_POINTS = 200  # kept of a ROC curve


@dataclass(frozen=True, eq=False)
class Judged:
    """Probabilities of one split, photo by photo.

    Attributes:
        hit: (n,) the truth lies within r of the answer.
        confidence: (n,) mass within r of the answer.
        nll: (n,) -log p of the true cell, NaN where no searched cell holds the photo.
        before_true: (n,) mass of the cells ranked before the true one, 1 where it is not searched.
        cells: (n, 2) cells of the credible regions.
    """

    hit: NDArray[np.bool_]
    confidence: Floats
    nll: Floats
    before_true: Floats
    cells: NDArray[np.int64]


def judge(
    codes: CodeSetLocalizer,
    queries: NDArray[np.float32],
    photos: Photos,
    known: NDArray[np.bool_],
    temperature: float,
    *,
    radius_m: float = 200.0,
) -> Judged:
    """Exact posteriors over all cells.

    Args:
        codes: What is searched.
        queries: (m, D) embeddings of the known photos.
        photos: All photos of the split.
        known: (n,) which of them are embedded, m in number.
        temperature: T in units of the score.
        radius_m: r.
    """
    rows = np.flatnonzero(known)
    true_row = codes.matrix.rows_containing(photos.leaf[rows])
    lon, lat = s2.center(codes.matrix.ids)
    centres = unit_vectors(lon, lat)
    tree = cKDTree(centres)
    chord = 2 * np.sin(radius_m / EARTH_RADIUS_M / 2) + 1e-12
    halves = complete_query(queries.astype(np.float16).astype(np.float32))
    step = max(1, _SCORES // max(1, len(codes.matrix)))
    parts = []
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        blocks = [scores for _, scores in codes.matrix.score_blocks(halves[part])]
        logits = np.concatenate(blocks, axis=1).astype(np.float64) * (codes.scale / temperature)
        log_p = logits - logsumexp(logits, axis=1, keepdims=True)
        answer = log_p.argmax(axis=1)
        error = great_circle_m(photos.lon[rows[part]], photos.lat[rows[part]], lon[answer], lat[answer])
        near = tree.query_ball_point(centres[answer], chord)
        parts.append(_judged(np.exp(log_p), log_p, true_row[part], near, error <= radius_m))
    if not parts:
        raise BadInputError(f"No photo of split {photos.split} is embedded.")
    return Judged(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in Judged.__dataclass_fields__)
    )


def _judged(
    p: Floats, log_p: Floats, true_row: NDArray[np.int64], near: Any, hit: NDArray[np.bool_]
) -> Judged:
    queries = np.arange(len(p))
    inside = true_row >= 0
    own = np.where(inside, true_row, 0)
    own_p = p[queries, own]
    # Ranked before: more probable, or as probable with a smaller id, as credible regions take them.
    earlier = (p > own_p[:, None]) | ((p == own_p[:, None]) & (np.arange(p.shape[1]) < own[:, None]))
    before = np.where(inside, (p * earlier).sum(axis=1), 1.0)
    cells = np.array([cells_to_reach(row) for row in p], np.int64).reshape(-1, len(MASSES))
    confidence = np.array([p[i, list(rows)].sum() for i, rows in enumerate(near)])
    nll = np.where(inside, -log_p[queries, own], np.nan)
    return Judged(hit, np.minimum(confidence, 1.0), nll, before, cells)


def cells_to_reach(p: Floats) -> list[int]:
    """How many of the most probable cells (n,) hold each mass."""
    likely = p[p > 1e-7]
    if likely.sum() < MASSES[-1]:  # a flat distribution: every cell counts
        likely = p
    total = np.cumsum(-np.sort(-likely))
    return [min(int(np.searchsorted(total, mass - 1e-12)) + 1, len(likely)) for mass in MASSES]


def calibration_error(confidence: Floats, hit: NDArray[np.bool_]) -> tuple[float, list[dict[str, float]]]:
    """Expected calibration error in percent over 15 equal bins, and the bins that hold photos."""
    place = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    bins = []
    total = 0.0
    for i in range(_BINS):
        mask = place == i
        if mask.any():
            mean, share = float(confidence[mask].mean()), float(hit[mask].mean())
            total += float(mask.mean()) * abs(mean - share)
            bins.append({"confidence": mean, "hits": share, "n": int(mask.sum())})
    return 100.0 * total, bins


def split_report(before: Judged, after: Judged, km2: float) -> dict[str, Any]:
    """ECE and NLL at two temperatures, and how often credible regions hold the true cell.

    Args:
        before: Uncalibrated.
        after: Calibrated.
        km2: Mean area of a searched cell.
    """
    found: dict[str, Any] = {"n": len(after.hit), "in_a_searched_cell": int((~np.isnan(after.nll)).sum())}
    for name, judged in (("before", before), ("after", after)):
        ece, bins = calibration_error(judged.confidence, judged.hit)
        known = judged.nll[~np.isnan(judged.nll)]
        found[name] = {
            "ece": ece,
            "nll": float(known.mean()) if known.size else None,
            "confidence": 100.0 * float(judged.confidence.mean()),
            "bins": bins,
        }
    found["credible"] = {
        f"{100 * mass:.0f}": {
            "coverage": 100.0 * float((after.before_true < mass - 1e-12).mean()),
            "coverage_exact": 100.0 * float(_needed(after, mass).mean()),
            "median_cells": float(np.median(after.cells[:, i])),
            "median_km2": float(np.median(after.cells[:, i])) * km2,
        }
        for i, mass in enumerate(MASSES)
    }
    return found


def _needed(judged: Judged, mass: float) -> Floats:
    """Part of the true cell that a region of exactly this mass takes (n,): 1 inside, 0 outside."""
    own = np.where(np.isnan(judged.nll), np.inf, np.maximum(np.exp(-judged.nll), 1e-300))
    return np.clip((mass - judged.before_true) / own, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Outside:
    """Codes without the held-out blocks, so that their photos lie outside, and the fit on val.

    Attributes:
        codes: What is left.
        fit: Logit of 'covered' on the best score, in units of the score.
    """

    codes: CodeSetLocalizer
    fit: CoverageFit


def fit_outside(
    codes: CodeSetLocalizer,
    held: NDArray[np.int64],
    val: Photos,
    queries: NDArray[np.float32],
    known: NDArray[np.bool_],
) -> Outside:
    """Take the held-out blocks (b,) out of the codes and fit on val whether a photo is still covered.

    Raises:
        BadInputError: No cell or no covered val photo is left.
    """
    keep = np.ones(len(codes.matrix), bool)
    for level in np.unique(s2.level(held)) if len(held) else ():
        blocks = held[s2.level(held) == level]
        keep &= ~np.isin(s2.parent(codes.matrix.ids, int(level)), blocks)
    if not keep.any():
        raise BadInputError("Every searched cell lies in a held-out block: there is no coverage to leave.")
    left = CodeSetLocalizer(
        CellMatrix(codes.matrix.ids[keep], codes.matrix.codes[keep]), codes.scale, codes.name
    )
    covered = left.matrix.rows_containing(val.leaf[known]) >= 0
    return Outside(left, fit_coverage(best_scores(left, queries), covered))


def best_scores(codes: CodeSetLocalizer, queries: NDArray[np.float32]) -> Floats:
    """Score of each query's best cell (q,)."""
    return codes.localize(queries, 1).score[:, 0]


def roc(
    inside: Floats, outside: Floats, threshold: float, shipped: CoverageFit | None = None
) -> dict[str, Any]:
    """How well the best score tells photos inside the coverage (n,) from photos outside it (m,).

    Args:
        inside: Best scores (n,).
        outside: Best scores (m,).
        threshold: Fitted for this very comparison.
        shipped: The fit that a code set is stored with, in units of these scores.

    Returns:
        `auc` (chance that an inside photo scores higher, ties half), `true_positive` and `false_positive` in
        percent along the curve, both shares at the fitted threshold and by the shipped fit (`at_shipped`),
        and the numbers of photos.
    """
    scores = np.concatenate([inside, outside])
    ranks = rankdata(scores)
    n, m = len(inside), len(outside)
    auc = (ranks[:n].sum() - n * (n + 1) / 2) / (n * m)
    cuts = np.unique(scores)[::-1]
    if len(cuts) > _POINTS:
        cuts = cuts[np.linspace(0, len(cuts) - 1, _POINTS).round().astype(int)]
    ordered_in, ordered_out = np.sort(inside), np.sort(outside)

    def above(ordered: Floats, cut: Any) -> Any:
        return 100.0 * (1.0 - np.searchsorted(ordered, cut, side="left") / len(ordered))

    found = {
        "auc": float(auc),
        "inside": n,
        "outside": m,
        "false_positive": [0.0, *above(ordered_out, cuts).tolist()],
        "true_positive": [0.0, *above(ordered_in, cuts).tolist()],
        "at_threshold": {
            "threshold": threshold,
            "true_positive": float(above(ordered_in, threshold)),
            "false_positive": float(above(ordered_out, threshold)),
        },
    }
    if shipped is not None:
        found["at_shipped"] = {
            "threshold": shipped.threshold,
            "true_positive": 100.0 * float(shipped.in_coverage(inside).mean()),
            "false_positive": 100.0 * float(shipped.in_coverage(outside).mean()),
        }
    return found
