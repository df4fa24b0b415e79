"""What the method's table is computed from, read once: photos, embeddings, prototypes, aerial vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geofix.codes.means import prototype_means
from geofix.codes.recipes import aerial_vectors, unit
from geofix.codes.thinning import thinned
from geofix.database.engine import Connection
from geofix.database.queries import models as model_queries
from geofix.database.queries import prototypes as prototype_queries
from geofix.database.queries import snapshots as snapshot_queries
from geofix.database.queries.models import ModelRow
from geofix.database.queries.snapshots import SnapshotRow
from geofix.errors import BadInputError
from geofix.evaluation.run import training_nearby
from geofix.snapshots.reader import load_snapshot
from geofix.spatial import s2

Vectors = NDArray[Any]
_CLUSTER_LEVEL = 16


@dataclass(frozen=True, eq=False)
class Cells:
    """Vectors of cells of one level.

    Attributes:
        ids: (n,) S2 ids, ascending.
        vectors: (n, D).
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]

    @property
    def level(self) -> int:
        """S2 level of the cells."""
        return int(s2.level(self.ids[:1])[0])


@dataclass(frozen=True, eq=False)
class Photos:
    """Photos of one split, by photo id.

    Attributes:
        split: Its name.
        photo_id: (n,).
        lon: (n,) degrees.
        lat: (n,).
        leaf: (n,) leaf cells.
        gps_accuracy_m: (n,), NaN where unknown.
        clusters: (n,) what a bootstrap resamples, or None where all photos share one: the block of a photo
            from a held-out block, else its sequence (of one sequence alone: its level-16 cell).
        unseen: (n,) taken in a block that holds no training photo.
        block: (n,) cell of the snapshot's block level.
        country: (n,) code, "" where unknown.
        settlement: (n,) `urban` or `rural`, or a third by density; "" until `method_settlement` fills it in.
        nearest_m: (n,) metres to the nearest training photo, NaN without any.
        training_photos: (n,) training photos in the photo's own prototype cell.
        vectors: Embeddings by model name, (n, D) float32; rows of photos that the model did not embed are 0.
        known: (n,) by model name: embedded.
    """

    split: str
    photo_id: NDArray[np.int64]
    lon: NDArray[np.float64]
    lat: NDArray[np.float64]
    leaf: NDArray[np.int64]
    gps_accuracy_m: NDArray[np.float64]
    clusters: NDArray[np.int64] | None
    unseen: NDArray[np.bool_]
    block: NDArray[np.int64]
    country: NDArray[Any]
    settlement: NDArray[Any]
    nearest_m: NDArray[np.float64]
    training_photos: NDArray[np.int64]
    vectors: dict[str, NDArray[np.float32]]
    known: dict[str, NDArray[np.bool_]]

    def __len__(self) -> int:
        return len(self.photo_id)


def read_photos(
    conn: Connection,
    snapshot: SnapshotRow,
    directory: Path,
    split: str,
    models: list[ModelRow],
    *,
    level: int,
) -> Photos:
    """Photos of a split with the embeddings of all models.

    Args:
        conn: Open connection.
        snapshot: Its row.
        directory: Its directory, which knows blocks and countries.
        split: Name of the split; it may be empty.
        models: Whose embeddings are read.
        level: Of the cells in which training photos are counted.
    """
    asked = snapshot_queries.snapshot_photos(conn, snapshot.snapshot_id, [split])
    train = snapshot_queries.snapshot_photos(conn, snapshot.snapshot_id, ["train"])
    ids, leaf = asked.photo_id.to_numpy(np.int64), asked.s2_id.to_numpy(np.int64)
    nearest, counts = (
        training_nearby(asked, train, level) if len(asked) else (np.zeros(0), np.zeros(0, np.int64))
    )
    block_level = min(int(snapshot.config.get("block_level", 13)), 30)
    block = np.asarray(s2.parent(leaf, block_level), np.int64)
    unseen = ~np.isin(block, s2.parent(train.s2_id.to_numpy(np.int64), block_level))
    sequence = asked.sequence_id.to_numpy(np.float64, na_value=np.nan)
    vectors, known = {}, {}
    for model in models:
        vectors[model.name], known[model.name] = _embeddings(conn, snapshot, split, model, ids)
    return Photos(
        split=split,
        photo_id=ids,
        lon=asked.lon.to_numpy(np.float64),
        lat=asked.lat.to_numpy(np.float64),
        leaf=leaf,
        gps_accuracy_m=asked.gps_accuracy_m.to_numpy(np.float64, na_value=np.nan),
        clusters=_clusters(ids, sequence, leaf, block, unseen),
        unseen=unseen,
        block=block,
        country=_countries(directory, split, ids),
        settlement=np.full(len(ids), "", object),
        nearest_m=nearest,
        training_photos=counts,
        vectors=vectors,
        known=known,
    )


def sampled(photos: Photos, most: int, *, seed: int = 0) -> Photos:
    """At most so many photos, drawn alike from all, so that their mix stays."""
    if len(photos) <= most:
        return photos
    rows = thinned(np.arange(len(photos)), most, seed=seed)
    taken = {
        name: getattr(photos, name)[rows]
        for name in Photos.__dataclass_fields__
        if isinstance(getattr(photos, name), np.ndarray)
    }
    vectors = {name: values[rows] for name, values in photos.vectors.items()}
    known = {name: values[rows] for name, values in photos.known.items()}
    return replace(photos, vectors=vectors, known=known, **taken)


def joined(parts: list[Photos]) -> Photos:
    """Photos of several splits as one, in their natural mix; without embeddings."""

    def whole(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    clusters: list[NDArray[np.int64]] = []
    for number, part in enumerate(parts):
        own = np.zeros(len(part), np.int64) if part.clusters is None else part.clusters
        # One sequence may be cut over two splits; it then counts as two, as it does in each table.
        clusters.append(np.unique(own, return_inverse=True)[1].astype(np.int64) * len(parts) + number)
    names = [
        name for name in Photos.__dataclass_fields__ if name not in ("split", "clusters", "vectors", "known")
    ]
    return replace(
        parts[0],
        split="mix",
        clusters=np.concatenate(clusters),
        vectors={},
        known={},
        **{name: whole(name) for name in names},
    )


def training_vectors(
    conn: Connection, snapshot: SnapshotRow, model: ModelRow
) -> tuple[pd.DataFrame, NDArray[np.float16]]:
    """Training photos that the model embedded, by photo id, and their embeddings.

    Raises:
        BadInputError: There is none.
    """
    ids, vectors = model_queries.read_split_embeddings(conn, model, snapshot.snapshot_id, ["train"])
    if not len(ids):
        raise BadInputError(
            f"Model {model.name} has embedded no training photo of this snapshot.",
            hint=f"Run `geofix embed photos --model {model.name}`.",
        )
    photos = snapshot_queries.snapshot_photos(conn, snapshot.snapshot_id, ["train"])
    return photos.set_index("photo_id").loc[ids], vectors


def prototypes_of(conn: Connection, model: ModelRow) -> Cells | None:
    """The trained prototypes of a registered model; None where it has none."""
    if prototype_queries.prototype_level(conn, model.model_id) is None:
        return None
    ids, stored = prototype_queries.read_prototypes(conn, model)
    order = np.argsort(ids, kind="stable")
    return Cells(ids[order], unit(stored[order]))


def mean_prototypes(train: pd.DataFrame, vectors: NDArray[Any], learned: Cells) -> Cells:
    """Means of training photos in place of the prototypes that a model learned: its encoders frozen."""
    return Cells(*prototype_means(vectors, train.s2_id.to_numpy(np.int64), learned.level, learned.vectors))


def aerial_of(
    conn: Connection, model: ModelRow, level: int, *, datasets: list[str] | None = None
) -> Cells | None:
    """Mean aerial vector of every cell whose tile the model embedded; None where it embedded none."""
    if not model_queries.tile_cells(conn, model.model_id, datasets=datasets):
        return None
    made = aerial_vectors(conn, model, level, datasets=datasets)
    order = np.argsort(made.ids, kind="stable")
    return Cells(made.ids[order], made.vectors[order])


def _embeddings(
    conn: Connection, snapshot: SnapshotRow, split: str, model: ModelRow, ids: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    found, read = model_queries.read_split_embeddings(conn, model, snapshot.snapshot_id, [split])
    vectors = np.zeros((len(ids), model.dimension), np.float32)
    known = np.isin(ids, found)
    vectors[known] = read[np.searchsorted(found, ids[known])].astype(np.float32)
    return vectors, known


def _clusters(
    ids: NDArray[np.int64],
    sequence: NDArray[np.float64],
    leaf: NDArray[np.int64],
    block: NDArray[np.int64],
    unseen: NDArray[np.bool_],
) -> NDArray[np.int64] | None:
    # A photo without a sequence is its own cluster. Numbers of the three kinds must not meet.
    own = np.where(np.isnan(sequence), ids.astype(np.float64), sequence)
    kind = np.where(unseen, 2, np.where(np.isnan(sequence), 1, 0))
    value = np.where(unseen, np.unique(block, return_inverse=True)[1], own)
    _, groups = np.unique(np.stack([kind, value]), axis=1, return_inverse=True)
    if len(np.unique(groups)) > 1:
        return np.asarray(groups.reshape(-1), np.int64)
    cells = np.asarray(s2.parent(leaf, _CLUSTER_LEVEL), np.int64)
    return cells if len(np.unique(cells)) > 1 else None


def _countries(directory: Path, split: str, ids: NDArray[np.int64]) -> NDArray[Any]:
    snapshot = load_snapshot(directory, verify=False)
    if "country_code" not in snapshot.columns:
        return np.full(len(ids), "", object)
    table = snapshot.read(split=split, columns=["photo_id", "country_code"]).to_pandas()
    codes = table.set_index("photo_id")["country_code"].reindex(ids).fillna("")
    return np.asarray(codes.to_numpy(object))
