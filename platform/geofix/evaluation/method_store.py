"""One row of the method's table on one split as an ordinary evaluation in the database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geofix import __version__
from geofix.database.engine import Connection
from geofix.database.queries import evaluations as queries
from geofix.database.queries.snapshots import SnapshotRow
from geofix.evaluation.method_data import Photos
from geofix.evaluation.method_hits import Hits
from geofix.evaluation.method_rows import Row
from geofix.evaluation.metrics import constant_errors, oracle_errors, summary
from geofix.evaluation.protocols import EvaluationProtocol
from geofix.evaluation.run import by_training_distance
from geofix.localizers.base import Candidates

_BATCH = 512


@dataclass(frozen=True)
class Store:
    """Where evaluations go and what they share.

    Attributes:
        conn: Open connection of the writer or owner; the caller commits.
        snapshot: Whose photos are asked.
        model_ids: Of the models, by name.
        name: First part of every evaluation's name.
        protocol: How they are counted.
        kept: Candidates stored per photo; the metrics count all that were computed.
        popular: Centre of the most photographed cell, the trivial answer; None without training photos.
        replace: Replace evaluations of the same names.
    """

    conn: Connection
    snapshot: SnapshotRow
    model_ids: dict[str, int]
    name: str
    protocol: EvaluationProtocol
    kept: int
    popular: tuple[float, float] | None
    replace: bool

    def put(self, row: Row, photos: Photos, found: Candidates, hits: Hits) -> str:
        """Store answers and metrics; returns the evaluation's name.

        The recall of equally good answers is its expected value; the stored answers stand in the order of the
        curve.

        Raises:
            UsageError: The name is taken and `replace` is off.
        """
        name = f"{self.name}-{row.key}-{photos.split}"
        evaluation_id = queries.insert_evaluation(
            self.conn,
            {
                "name": name,
                "localizer": row.localizer,
                "model_id": self.model_ids[row.models[0]] if row.models else None,
                "code_set_id": None,
                "snapshot_id": self.snapshot.snapshot_id,
                "split": photos.split,
                "level": row.level,
                "search_method": "exact",
                "region": None,
                "radius_km": self.protocol.radius_km,
                "comparison": self.protocol.comparison,
                "missing_policy": self.protocol.missing,
                "n": len(photos),
                "config": {
                    "method": self.name,
                    "row": row.key,
                    "label": row.label,
                    "models": list(row.models),
                    "k": int(found.s2_id.shape[1]),
                    "stored": self.kept,
                    "equal_answers": row.copies,
                    "protocol": self.protocol.as_record(),
                },
                "software_version": __version__,
            },
            replace=self.replace,
        )
        queries.store_photos(
            self.conn, evaluation_id, photos.photo_id, photos.nearest_m, photos.training_photos
        )
        queries.store_predictions(self.conn, self._rows(evaluation_id, row, photos, found, hits))
        queries.set_metrics(self.conn, evaluation_id, self._metrics(row, photos, hits))
        return name

    def _rows(
        self, evaluation_id: int, row: Row, photos: Photos, found: Candidates, hits: Hits
    ) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(photos), _BATCH):
            part, kept = slice(start, start + _BATCH), slice(0, self.kept)
            yield from queries.prediction_rows(
                evaluation_id,
                photos.photo_id[part],
                found.s2_id[part, kept],
                found.lon[part, kept],
                found.lat[part, kept],
                found.score[part, kept],
                self._chances(row, photos, found, part),
                hits.errors_m[part, kept],
            )

    def _chances(
        self, row: Row, photos: Photos, found: Candidates, part: slice
    ) -> NDArray[np.float64] | None:
        """Probability of each stored candidate among all cells (q, kept)."""
        if row.temperature is None or row.codes is None or len(row.models) != 1:
            return None
        total = row.codes.log_partition(photos.vectors[row.models[0]][part], row.temperature)
        score = found.score[part, : self.kept]
        return np.exp(score / row.temperature - total[:, None])

    def _metrics(self, row: Row, photos: Photos, hits: Hits) -> dict[str, Any]:
        trivial = None
        if self.popular is not None:
            trivial = constant_errors(self.popular, photos.lon, photos.lat, protocol=self.protocol)
        metrics = summary(
            hits.errors_m,
            protocol=self.protocol,
            gps_accuracy_m=photos.gps_accuracy_m,
            oracle_m=oracle_errors(photos.lon, photos.lat, row.level, protocol=self.protocol),
            trivial_m=trivial,
        )
        truth = {"gps_accuracy_m": photos.gps_accuracy_m, "nearest_training_m": photos.nearest_m}
        metrics["by_training_distance"] = by_training_distance(hits.errors_m[:, 0], truth, self.protocol)
        if row.copies > 1:
            metrics["recall"], metrics["median_m"] = hits.recall(self.protocol), hits.median_m
        return metrics
