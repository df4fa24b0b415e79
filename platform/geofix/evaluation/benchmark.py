"""Localizers compared on the same photos, from what their evaluations stored: figures, intervals, bounds."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geofix.database.engine import Connection
from geofix.database.queries import codes as code_queries
from geofix.database.queries import evaluations as queries
from geofix.database.queries import models as model_queries
from geofix.database.queries.snapshots import SnapshotRow
from geofix.evaluation.benchmark_bounds import bounds_of_answers, far_figures
from geofix.evaluation.method_data import Photos, read_photos
from geofix.evaluation.method_hits import Hits, count_hits, difference
from geofix.evaluation.method_table import Counting, harmonic_mean, split_figures
from geofix.evaluation.metrics import key
from geofix.evaluation.protocols import EvaluationProtocol
from geofix.localizers.trained import TRAINED
from geofix.snapshots.build import stored_snapshot

_LAYERS = tuple(
    f"classifier.{part}" for part in ("heads.", "scene_heads.", "weights.", "centres", "prekappa")
)
"""Tensors that speak of classes: layers, and the components of a mixture."""
_PLACE_BYTES = 24  # id, longitude, latitude


@dataclass(frozen=True)
class Trained:
    """What one training of one seed cost; None where it was not told."""

    model: str
    seed: int
    epochs: int | None = None
    steps: int | None = None
    photos: int | None = None
    seconds: float | None = None
    unreadable: int = 0


@dataclass(frozen=True)
class Entry:
    """One row: a localizer of a training, over all its seeds.

    Attributes:
        key: TRAINING/LOCALIZER.
        label: For people.
        localizer: Its name.
        evaluations: Names by split, one per seed.
        models: One per seed.
        code_sets: One per seed; none for localizers that search no codes.
        trained: What the trainings cost.
    """

    key: str
    label: str
    localizer: str
    evaluations: dict[str, list[str]]
    models: list[str]
    code_sets: list[str] = field(default_factory=list)
    trained: list[Trained] = field(default_factory=list)


def compare_localizers(
    conn: Connection,
    snapshot_dir: Path,
    entries: Sequence[Entry],
    *,
    splits: Sequence[str],
    level: int,
    threshold_m: float = 200.0,
    rules: EvaluationProtocol | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that the comparison says; nothing is asked anew.

    Several seeds are one row: a photo counts with the share of the seeds that hit it, and intervals are over
    clusters of photos (sequences, or held-out blocks), not over seeds.

    Args:
        conn: Open connection.
        snapshot_dir: Whose photos were asked.
        entries: In the order of the table.
        splits: Those without photos are left out.
        level: S2 level of cells.
        threshold_m: Radius of overview, chart and differences; one of the protocol's or another.
        rules: How the evaluations were counted, and bounds are; None: geofix's own protocol.
        replicates: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        NotFoundError: An evaluation or the snapshot does not exist.
    """
    row = stored_snapshot(conn, snapshot_dir)
    protocol = _protocol(rules or EvaluationProtocol(), threshold_m)
    counting = Counting(protocol, threshold_m, replicates, seed)
    photos = {name: read_photos(conn, row, snapshot_dir, name, [], level=level) for name in splits}
    photos = {name: part for name, part in photos.items() if len(part)}
    hits, rows = {}, []
    for entry in entries:
        found = {name: _hits(conn, entry, part, protocol) for name, part in photos.items()}
        hits[entry.key] = {name: pair[0] for name, pair in found.items()}
        rows.append(_row(conn, entry, photos, found, row, counting))
    best = _best(rows, threshold_m)
    return {
        "snapshot": row.sha256,
        "splits": list(photos),
        "photos": {name: len(part) for name, part in photos.items()},
        "training_photos": row.counts.get("train", 0),
        "level": level,
        "threshold_m": threshold_m,
        "protocol": {"name": protocol.name, "distance": protocol.distance, "comparison": protocol.comparison},
        "replicates": replicates,
        "rows": rows,
        "bounds": bounds_of_answers(conn, _partitions(conn, entries), photos, row, level, protocol),
        "best": best,
        "differences": {
            name: {
                entry.key: difference(
                    hits[best][name].share[:, 0, counting.column],
                    hits[entry.key][name].share[:, 0, counting.column],
                    part.clusters,
                    replicates=replicates,
                    seed=seed,
                )
                for entry in entries
                if entry.key != best
            }
            for name, part in photos.items()
        },
        "trainings": [asdict(item) for item in {t.model: t for e in entries for t in e.trained}.values()],
    }


def _protocol(rules: EvaluationProtocol, threshold_m: float) -> EvaluationProtocol:
    return replace(rules, radii_m=tuple(sorted({*rules.radii_m, float(threshold_m)})))


def _hits(
    conn: Connection, entry: Entry, photos: Photos, protocol: EvaluationProtocol
) -> tuple[Hits, NDArray[np.float64]]:
    """Hits averaged over the seeds, and first errors (n, seeds) in metres."""
    found = []
    for name in entry.evaluations[photos.split]:
        ids, errors = queries.read_errors(conn, queries.find_evaluation(conn, name)["evaluation_id"])
        table = np.full((len(photos), errors.shape[1]), np.nan)
        _, at, own = np.intersect1d(photos.photo_id, ids, assume_unique=True, return_indices=True)
        table[at] = errors[own]
        found.append(count_hits(table, protocol, photos.gps_accuracy_m))
    first = np.concatenate([item.first_m for item in found], axis=1)
    share = np.asarray(np.stack([item.share for item in found]).mean(axis=0, dtype=np.float64), np.float32)
    return Hits(share, first, first), first


def _row(
    conn: Connection,
    entry: Entry,
    photos: dict[str, Photos],
    found: dict[str, tuple[Hits, NDArray[np.float64]]],
    snapshot: SnapshotRow,
    counting: Counting,
) -> dict[str, Any]:
    splits = {}
    for name, part in photos.items():
        share, first = found[name]
        splits[name] = {**split_figures(share, part, counting), **far_figures(first, counting.protocol)}
    stored = queries.find_evaluation(conn, next(iter(entry.evaluations.values()))[0])
    places, encoder = _bytes(conn, entry, snapshot)
    return {
        "key": entry.key,
        "label": entry.label,
        "localizer": entry.localizer,
        "role": "localizer",
        "models": entry.models,
        "evaluations": entry.evaluations,
        "crops": stored["config"].get("protocol", {}).get("crops", "single"),
        "bytes": places,
        "encoder_bytes": encoder,
        "splits": splits,
        "harmonic_mean": harmonic_mean(
            [item["recall"]["1"][key(counting.threshold_m)] for item in splits.values()]
        ),
    }


def _best(rows: list[dict[str, Any]], threshold_m: float) -> str:
    """Key of the row with the most hits at the threshold, over the splits together."""

    def total(row: dict[str, Any]) -> float:
        parts = row["splits"].values()
        return float(sum((item["recall"]["1"][key(threshold_m)] or 0.0) * item["n"] for item in parts))

    return str(max(rows, key=total)["key"])


def _bytes(conn: Connection, entry: Entry, snapshot: SnapshotRow) -> tuple[int | None, int | None]:
    """What the first seed stores of the area, and its encoder, in bytes."""
    model = model_queries.find_model(conn, entry.models[0])
    heads, encoder = weight_bytes(Path(model.directory_uri) / "weights.safetensors")
    if entry.code_sets:
        return code_queries.find_code_set(conn, entry.code_sets[0]).bytes, encoder
    if entry.localizer in TRAINED:
        made = model.metrics.get("classifier", {}).get("partitions", [])
        return heads + (made[-1]["classes"] * _PLACE_BYTES if made else 0), encoder
    if entry.localizer == "most_photographed":
        return _PLACE_BYTES, None
    count, _ = model_queries.split_stamp(conn, model.model_id, snapshot.snapshot_id, "train")
    return count * (2 * model.dimension + _PLACE_BYTES), encoder


def weight_bytes(path: Path) -> tuple[int, int]:
    """Bytes of a model's layers for classes and of all else, from the header of a safetensors file."""
    if not path.is_file():
        return 0, 0
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    sizes = {name: int(item["data_offsets"][1] - item["data_offsets"][0]) for name, item in header.items()}
    heads = sum(size for name, size in sizes.items() if name.startswith(_LAYERS))
    return heads, sum(sizes.values()) - heads


def _partitions(conn: Connection, entries: Sequence[Entry]) -> dict[str, Path]:
    """Folders of the partitions that the classifiers answer with, each once, by `TRAINING (N classes)`."""
    found: dict[str, tuple[str, Path]] = {}
    for entry in entries:
        model = model_queries.find_model(conn, entry.models[0])
        described = model.metrics.get("classifier", {}).get("partitions", [])
        if entry.localizer not in TRAINED or not described:
            continue
        last = described[-1]
        label = f"{entry.key.partition('/')[0]} ({last['classes']:,} classes)"
        found.setdefault(last["sha256"], (label, Path(model.directory_uri) / "partitions" / last["name"]))
    return {label: folder for label, folder in found.values() if folder.is_dir()}
