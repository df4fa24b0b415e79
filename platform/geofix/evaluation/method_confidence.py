"""Confidence of the method's main row on all splits, as a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from geofix.database.engine import Connection
from geofix.database.queries import models as model_queries
from geofix.database.queries.snapshots import SnapshotRow
from geofix.errors import BadInputError, UsageError
from geofix.evaluation import confidence_report as report
from geofix.evaluation.method_data import Photos
from geofix.evaluation.method_rows import Row
from geofix.localize.confidence import CoverageFit
from geofix.localize.credible import cell_km2

if TYPE_CHECKING:
    from geofix.evaluation.method import Found

RADIUS_M = 200.0
TEMPERATURE_BEFORE = 1.0  # a softmax of the plain scores


def confidence_of(
    conn: Connection, row: Row, found: Found, snapshot: SnapshotRow, elsewhere: list[str] | None
) -> dict[str, Any]:
    """ECE, NLL, coverage of credible regions and ROC of 'outside coverage'; {} without a temperature.

    Args:
        conn: Open connection.
        row: The main row.
        found: Photos, and the model whose embeddings ask.
        snapshot: Whose photos they are.
        elsewhere: Photo data sets of another place.

    Raises:
        UsageError: A data set of another place is one of the snapshot's, or is not embedded.
    """
    if row.temperature is None or row.codes is None or len(row.models) != 1:
        return {}
    model = row.models[0]
    km2 = float(cell_km2(row.codes.matrix.ids).mean())
    splits: dict[str, Any] = {}
    judged: dict[str, tuple[report.Judged, report.Judged]] = {}
    for split, part in {"val": found.plan.val, **found.photos}.items():
        known = part.known[model]
        if not known.any():
            continue
        queries = part.vectors[model][known]
        before, after = (
            report.judge(row.codes, queries, part, known, temperature, radius_m=RADIUS_M)
            for temperature in (TEMPERATURE_BEFORE, row.temperature)
        )
        judged[split] = before, after
        splits[split] = report.split_report(before, after, km2)
    asked = [judged[split] for split in found.photos if split in judged]
    if len(asked) > 1:
        before, after = (_together([pair[i] for pair in asked]) for i in (0, 1))
        splits["mix"] = report.split_report(before, after, km2)
    notes: list[str] = []
    return {
        "row": row.key,
        "radius_m": RADIUS_M,
        "temperature_before": TEMPERATURE_BEFORE,
        "temperature": row.temperature,
        "splits": splits,
        "outside": _outside(conn, row, model, found, snapshot, elsewhere, notes),
        "notes": notes,
    }


def _together(parts: list[report.Judged]) -> report.Judged:
    names = report.Judged.__dataclass_fields__
    return report.Judged(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _outside(
    conn: Connection,
    row: Row,
    model: str,
    found: Found,
    snapshot: SnapshotRow,
    elsewhere: list[str] | None,
    notes: list[str],
) -> dict[str, Any]:
    """Threshold fitted on val, and curves on photos of held-out blocks and of another place.

    That threshold is fitted with the held-out blocks taken out. What a code set is stored with, and
    `geofix localize` uses, is fitted with them: both are shown on the same photos.
    """
    assert row.codes is not None
    val, asked = found.plan.val, list(found.photos.values())
    held = np.unique(np.concatenate([part.block[part.unseen] for part in (val, *asked)]))
    known = val.known[model]
    try:
        outside = report.fit_outside(row.codes, held, val, val.vectors[model][known], known)
    except BadInputError as error:
        notes.append(f"No 'outside coverage': {error}")
        return {}
    inside_scores, outside_scores = [], []
    for part in asked:
        scores, covered = _scores(outside, part, model)
        inside_scores.append(scores[covered])
        outside_scores.append(scores[~covered])
    inside, blocks = np.concatenate(inside_scores), np.concatenate(outside_scores)
    compared = {"held-out blocks": blocks}
    if elsewhere:
        compared[f"another place ({', '.join(elsewhere)})"] = _elsewhere(
            conn, found, model, snapshot, elsewhere, outside
        )
    else:
        notes.append("No photos of another place were named: outside coverage is shown on held-out blocks.")
    fit, shipped = outside.fit, _shipped(found.plan.fits, row.codes.scale)
    curves = {
        name: report.roc(inside, scores, fit.threshold, shipped)
        for name, scores in compared.items()
        if len(scores) and len(inside)
    }
    return {
        "slope": fit.slope,
        "threshold": fit.threshold,
        "fitted_inside": fit.covered,
        "fitted_outside": fit.uncovered,
        "shipped": {
            "slope": shipped.slope,
            "threshold": shipped.threshold,
            "fitted_inside": shipped.covered,
            "fitted_outside": shipped.uncovered,
        },
        "curves": curves,
    }


def _shipped(fits: dict[str, Any], scale: float) -> CoverageFit:
    """The fit on all searched cells, as `calibrate_code_set` makes it, in units of the score."""
    fit = CoverageFit(**fits["confidence"]["coverage"])
    slope = None if fit.slope is None else fit.slope / scale
    return CoverageFit(slope, fit.threshold * scale, fit.covered, fit.uncovered)


def _scores(outside: report.Outside, part: Photos, model: str) -> tuple[Any, Any]:
    known = part.known[model]
    if not known.any():
        return np.zeros(0), np.zeros(0, bool)
    scores = report.best_scores(outside.codes, part.vectors[model][known])
    return scores, outside.codes.matrix.rows_containing(part.leaf[known]) >= 0


def _elsewhere(
    conn: Connection,
    found: Found,
    model: str,
    snapshot: SnapshotRow,
    datasets: list[str],
    outside: report.Outside,
) -> Any:
    own = sorted(set(datasets) & set(snapshot.config.get("datasets", [])))
    if own:
        raise UsageError(
            f"Data set {', '.join(own)} is one of the snapshot's own.", hint="Name photos of another place."
        )
    row = next(item for item in found.models.values() if item.name == model)
    model_queries.require_datasets(conn, datasets, "photos")
    ids, vectors = model_queries.read_dataset_embeddings(conn, row, datasets)
    if not len(ids):
        raise UsageError(
            f"Model {model} has embedded no photo of {', '.join(datasets)}.",
            hint=f"Run `geofix embed photos --model {model}` with --dataset.",
        )
    return report.best_scores(outside.codes, vectors.astype(np.float32))
