"""Judge a localizer: phase one stores predictions, phase two computes metrics from the rows alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geofix import __version__
from geofix.database.engine import Connection
from geofix.database.queries import evaluations as queries
from geofix.database.queries import models as model_queries
from geofix.database.queries import snapshots as snapshot_queries
from geofix.database.queries.models import ModelRow
from geofix.database.queries.photo_files import photo_uris
from geofix.database.queries.snapshots import SnapshotRow
from geofix.errors import BadInputError
from geofix.evaluation.metrics import (
    constant_errors,
    most_photographed_cell,
    nearest_distance_groups,
    oracle_errors,
    recall_at,
    summary,
)
from geofix.evaluation.protocols import EvaluationProtocol
from geofix.evaluation.same_author import SearchesPhotos
from geofix.localizers.base import Candidates, Localizer, PhotoLocalizer
from geofix.localizers.code_set import CodeSetLocalizer
from geofix.log import get_logger, progress
from geofix.spatial import s2
from geofix.spatial.distance import unit_vectors

_log = get_logger(__name__)
BATCH = 512  # photos asked together; in S2 order, so that a chunk's batches are those of the whole


@dataclass(frozen=True)
class Request:
    """What is to be judged.

    Attributes:
        name: Name of the evaluation.
        localizer: A fitted localizer.
        split: Split of the snapshot whose photos are asked.
        level: S2 level whose cell centres are the best possible answer (the oracle row).
        code_set_id: Where the codes came from, if from a code set.
        ranges: (n, 2) leaf-id ranges that answers must lie in.
        region_ewkb: The same as a geometry, for the record.
        k: Candidates kept per photo.
        temperature: Of the softmax over the scores of all cells in scope, for a code set; None stores no
            probabilities.
        exclude: Photo id to the group of training photos that it may not find, for localizers that search
            them; None: it may find all.
    """

    name: str
    localizer: Localizer | PhotoLocalizer
    split: str
    level: int
    code_set_id: int | None = None
    ranges: NDArray[np.int64] | None = None
    region_ewkb: bytes | None = None
    k: int = 100
    temperature: float | None = None
    config: dict[str, Any] = field(default_factory=dict)
    protocol: EvaluationProtocol = field(default_factory=EvaluationProtocol)
    exclude: dict[int, int] | None = None


def run_evaluation(
    conn: Connection, request: Request, model: ModelRow, snapshot: SnapshotRow, *, replace: bool = False
) -> dict[str, Any]:
    """Predict, store, measure; the caller commits.

    Photos of the split that the model has not embedded count as unanswered.

    Returns:
        The result document of `geofix evaluate run`.

    Raises:
        BadInputError: The split is empty.
        UsageError: The name is taken and `replace` is off.
    """
    evaluation_id = register_evaluation(conn, request, model, snapshot, replace=replace)
    predict(conn, evaluation_id, request, model, snapshot)
    result = measure(conn, request.name)
    queries.let_go_of_replaced_codes(conn, evaluation_id)
    return result


def register_evaluation(
    conn: Connection, request: Request, model: ModelRow, snapshot: SnapshotRow, *, replace: bool = False
) -> int:
    """Store the row of an evaluation and every photo that it asks; returns its id.

    Raises:
        BadInputError: The split is empty.
        UsageError: The name is taken and `replace` is off.
    """
    asked = snapshot_queries.snapshot_photos(conn, snapshot.snapshot_id, [request.split])
    if asked.empty:
        raise BadInputError(
            f"Split {request.split} of snapshot {snapshot.sha256[:12]} holds no photo.",
            hint=f"It has: {', '.join(f'{key} {n}' for key, n in snapshot.counts.items())}.",
        )
    train = snapshot_queries.snapshot_photos(conn, snapshot.snapshot_id, ["train"])
    evaluation_id = _insert(conn, request, model, snapshot, len(asked), replace=replace)
    queries.store_photos(
        conn, evaluation_id, asked.photo_id.to_numpy(), *training_nearby(asked, train, request.level)
    )
    return evaluation_id


def measure(conn: Connection, name: str) -> dict[str, Any]:
    """Phase two: compute and store the metrics of an evaluation from its rows alone."""
    row = queries.find_evaluation(conn, name)
    protocol = EvaluationProtocol.from_record(row["config"]["protocol"])
    _, errors = queries.read_errors(conn, row["evaluation_id"])
    truth = queries.read_truth(conn, row["evaluation_id"])
    trivial = None
    if row["snapshot_id"] is not None:
        train = snapshot_queries.snapshot_photos(conn, row["snapshot_id"], ["train"])
        if len(train):
            popular = most_photographed_cell(train.lon, train.lat, row["level"])
            trivial = constant_errors(popular, truth["lon"], truth["lat"], protocol=protocol)
    metrics = summary(
        errors,
        protocol=protocol,
        gps_accuracy_m=truth["gps_accuracy_m"],
        oracle_m=oracle_errors(truth["lon"], truth["lat"], row["level"], protocol=protocol),
        trivial_m=trivial,
    )
    metrics["by_training_distance"] = by_training_distance(errors[:, 0], truth, protocol)
    metrics = queries.set_metrics(conn, row["evaluation_id"], metrics)
    return {"evaluation": name, "localizer": row["localizer"], "split": row["split"], **metrics}


def _insert(
    conn: Connection, request: Request, model: ModelRow, snapshot: SnapshotRow, n: int, *, replace: bool
) -> int:
    protocol = request.protocol
    return queries.insert_evaluation(
        conn,
        {
            "name": request.name,
            "localizer": request.localizer.name,
            "model_id": model.model_id,
            "code_set_id": request.code_set_id,
            "snapshot_id": snapshot.snapshot_id,
            "split": request.split,
            "level": request.level,
            "search_method": "exact",
            "region": request.region_ewkb,
            "radius_km": protocol.radius_km,
            "comparison": protocol.comparison,
            "missing_policy": protocol.missing,
            "n": n,
            "config": {**request.config, "k": request.k, "protocol": protocol.as_record()},
            "software_version": __version__,
        },
        replace=replace,
    )


def predict(
    conn: Connection,
    evaluation_id: int,
    request: Request,
    model: ModelRow,
    snapshot: SnapshotRow,
    *,
    span: tuple[int, int] | None = None,
) -> int:
    """Ask the localizer batch by batch, in S2 order, and stream its answers into the database.

    Args:
        conn: Open connection.
        evaluation_id: Where the answers belong.
        request: What is judged.
        model: Whose embeddings are asked, where the localizer does not look at the photos themselves.
        snapshot: Whose split is asked.
        span: Only photos in this closed range of leaf ids.

    Returns:
        Number of photos asked; those without an embedding are not.
    """
    splits = [request.split]
    asked = snapshot_queries.snapshot_photos(conn, snapshot.snapshot_id, splits, span=span)
    photo_ids, inputs = _inputs(conn, request, model, snapshot, asked, span)
    truth = asked.set_index("photo_id").loc[photo_ids]
    order = np.lexsort((photo_ids, truth.s2_id.to_numpy(np.int64)))
    photo_ids, inputs, truth = photo_ids[order], inputs[order], truth.iloc[order]
    if len(photo_ids) < len(asked):
        _log.warning("photos without embedding count as unanswered", missing=len(asked) - len(photo_ids))
    with progress(f"{request.localizer.name} on {request.split}", len(photo_ids), "photos") as advance:
        for start in range(0, len(photo_ids), BATCH):
            part = slice(start, start + BATCH)
            found = _ask(request, photo_ids[part], inputs[part])
            here = truth.iloc[part]
            error_m = request.protocol.distance_m(
                here.lon.to_numpy()[:, None], here.lat.to_numpy()[:, None], found.lon, found.lat
            )
            rows = queries.prediction_rows(
                evaluation_id,
                photo_ids[part],
                found.s2_id,
                found.lon,
                found.lat,
                found.score,
                _probability(request, inputs[part], found),
                error_m,
            )
            queries.store_predictions(conn, rows)
            advance(len(here))
    return len(photo_ids)


def _inputs(
    conn: Connection,
    request: Request,
    model: ModelRow,
    snapshot: SnapshotRow,
    asked: pd.DataFrame,
    span: tuple[int, int] | None,
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Photo ids and what the localizer looks at: embeddings (n, D) in fp16, or places of the pixels (n,)."""
    if isinstance(request.localizer, PhotoLocalizer):
        ids = asked.photo_id.to_numpy(np.int64)
        return ids, np.array(photo_uris(conn, ids), dtype=object)
    return model_queries.read_split_embeddings(conn, model, snapshot.snapshot_id, [request.split], span=span)


def _ask(request: Request, photo_ids: NDArray[np.int64], inputs: NDArray[Any]) -> Candidates:
    if isinstance(request.localizer, PhotoLocalizer):
        return request.localizer.localize_photos(inputs.tolist(), request.k, request.ranges)
    embeddings = inputs.astype(np.float32)
    if request.exclude is None:
        return request.localizer.localize(embeddings, request.k, request.ranges)
    groups = np.array([request.exclude[int(photo)] for photo in photo_ids], dtype=np.int64)
    search = cast(SearchesPhotos, request.localizer)
    return search.localize(embeddings, request.k, request.ranges, exclude=groups)


def _probability(
    request: Request, embeddings: NDArray[np.float16], found: Candidates
) -> NDArray[np.float64] | None:
    """Probability of each candidate (q, k) among all cells in scope, as `geofix localize` says it."""
    if request.temperature is None or not isinstance(request.localizer, CodeSetLocalizer):
        return None
    total = request.localizer.log_partition(embeddings, request.temperature, request.ranges)
    chances = np.zeros(found.score.shape)
    rows, columns = np.nonzero(found.answered)
    chances[rows, columns] = np.exp(found.score[rows, columns] / request.temperature - total[rows])
    return chances


def training_nearby(
    asked: pd.DataFrame, train: pd.DataFrame, level: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Metres to the nearest training photo, and training photos in the photo's own cell; (n,) each."""
    if train.empty:
        return np.full(len(asked), np.nan), np.zeros(len(asked), np.int64)
    tree = cKDTree(unit_vectors(train.lon.to_numpy(), train.lat.to_numpy()))
    chord, _ = tree.query(unit_vectors(asked.lon.to_numpy(), asked.lat.to_numpy()))
    metres = 2 * np.arcsin(np.minimum(chord / 2, 1.0)) * 6_371_000.0
    cells, counts = np.unique(s2.parent(train.s2_id.to_numpy(np.int64), level), return_counts=True)
    own = s2.parent(asked.s2_id.to_numpy(np.int64), level)
    place = np.minimum(np.searchsorted(cells, own), len(cells) - 1)
    return metres, np.where(cells[place] == own, counts[place], 0)


def by_training_distance(
    top_m: NDArray[np.float64], truth: dict[str, NDArray[Any]], protocol: EvaluationProtocol
) -> dict[str, Any]:
    """N and R@1 within each radius, by distance to the nearest training photo; counted as the whole is."""
    kept = np.ones(len(top_m), bool) if protocol.missing == "wrong" else ~np.isnan(top_m)
    accuracy = truth["gps_accuracy_m"]
    groups = {
        name: mask & kept for name, mask in nearest_distance_groups(truth["nearest_training_m"]).items()
    }
    return {
        name: {
            "n": int(mask.sum()),
            "recall": recall_at(
                top_m[mask], (1,), protocol.radii_m, protocol=protocol, gps_accuracy_m=accuracy[mask]
            )["1"]
            if mask.any()
            else None,
        }
        for name, mask in groups.items()
    }
