"""Rows of what answering with cells or class means can reach, beside the localizers of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geofix.database.engine import Connection
from geofix.database.queries import snapshots as snapshot_queries
from geofix.database.queries.snapshots import SnapshotRow
from geofix.evaluation import metrics
from geofix.evaluation.bounds import ClassPositions, read_classes
from geofix.evaluation.method_data import Photos
from geofix.evaluation.method_hits import count_hits
from geofix.evaluation.metrics import key
from geofix.evaluation.protocols import EvaluationProtocol
from geofix.spatial.distance import unit_vectors


def bounds_of_answers(
    conn: Connection,
    partitions: Mapping[str, Path],
    photos: dict[str, Photos],
    snapshot: SnapshotRow,
    level: int,
    protocol: EvaluationProtocol,
) -> list[dict[str, Any]]:
    """What cells and class means allow, and what always the same answer reaches, one row each.

    Args:
        conn: Open connection.
        partitions: Folders by label.
        photos: By split.
        snapshot: Whose training photos were learned.
        level: S2 level of cells.
        protocol: How to count.
    """
    train = snapshot_queries.snapshot_photos(conn, snapshot.snapshot_id, ["train"])
    popular = metrics.most_photographed_cell(train.lon, train.lat, level)
    made: dict[str, dict[str, NDArray[np.float64]]] = {
        f"own cell of level {level}": {
            name: metrics.oracle_errors(part.lon, part.lat, level, protocol=protocol)
            for name, part in photos.items()
        }
    }
    seen: list[ClassPositions] = []
    for label, folder in partitions.items():
        classes = read_classes(folder)
        if any(_same(classes, other) for other in seen):
            continue
        seen.append(classes)
        tree = cKDTree(unit_vectors(classes.lon, classes.lat))
        own, near = {}, {}
        for name, part in photos.items():
            labels = classes.labels(part.lon, part.lat)
            if labels is not None:
                lon = np.where(labels >= 0, classes.lon[np.maximum(labels, 0)], np.nan)
                lat = np.where(labels >= 0, classes.lat[np.maximum(labels, 0)], np.nan)
                own[name] = protocol.distance_m(lon, lat, part.lon, part.lat)
            _, at = tree.query(unit_vectors(part.lon, part.lat))
            near[name] = protocol.distance_m(classes.lon[at], classes.lat[at], part.lon, part.lat)
        if own:
            made[f"own class of {label}"] = own
        made[f"nearest class mean of {label}"] = near
    made["always the most photographed cell"] = {
        name: metrics.constant_errors(popular, part.lon, part.lat, protocol=protocol)
        for name, part in photos.items()
    }
    return [_bound(label, errors, photos, protocol) for label, errors in made.items()]


def _bound(
    label: str,
    errors: dict[str, NDArray[np.float64]],
    photos: dict[str, Photos],
    protocol: EvaluationProtocol,
) -> dict[str, Any]:
    splits = {}
    for name, one in errors.items():
        found = count_hits(one[:, None], protocol, photos[name].gps_accuracy_m)
        splits[name] = {
            "n": len(one),
            "answered": found.answered,
            "median_m": found.median_m,
            "recall": found.recall(protocol),
            "interval": dict.fromkeys(map(key, protocol.radii_m)),
            **far_figures(one[:, None], protocol),
        }
    return {"key": label, "label": label, "role": "bound", "splits": splits}


def _same(a: ClassPositions, b: ClassPositions) -> bool:
    """Whether two partitions answer with the same places from the same cells."""
    pairs = ((a.lon, b.lon), (a.lat, b.lat), (a.cells, b.cells))
    return all((x is None and y is None) or np.array_equal(x, y) for x, y in pairs)  # type: ignore[arg-type]


def far_figures(first: NDArray[np.float64], protocol: EvaluationProtocol) -> dict[str, Any]:
    """Figures at kilometres, means over the seeds."""
    each = [metrics.accuracy_km(one, protocol.radii_km, protocol=protocol) for one in first.T]
    scores = [metrics.geoscore(one, scale_km=protocol.geoscore_scale_km) or 0.0 for one in first.T]
    return {
        "accuracy_km": {radius: float(np.mean([item[radius] or 0.0 for item in each])) for radius in each[0]},
        "mean_km": metrics.mean_km(first.ravel()),
        "geoscore": float(np.mean(scores)),
    }
