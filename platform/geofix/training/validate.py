"""After every epoch: the search that the model is trained for, on photos of the split `val`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geofix.log import get_logger
from geofix.models.hybrid import fit_fusion
from geofix.models.prototypes import PrototypeTable
from geofix.snapshots.reader import Snapshot
from geofix.spatial import s2
from geofix.spatial.distance import great_circle_m
from geofix.training.config import TrainingConfig
from geofix.training.pictures import Pictures, embed_pictures, photo_pictures, tile_pictures
from geofix.training.places import AerialIndex, TrainingPhotos
from geofix.training.state import State

_log = get_logger(__name__)
RADII_M = (50, 100, 200)
MAIN = "200"
_PAIRS = 50_000_000  # of query and prototype: 200 MB of similarities


@dataclass
class Validation:
    """What is searched after every epoch, chosen once.

    Attributes:
        photos: Queries.
        queries: Their pictures.
        tiles: Gallery of aerial tiles, in order of their cells; None without imagery.
        tile_cells: (t,) cell of every tile.
    """

    photos: TrainingPhotos
    queries: Pictures
    tiles: Pictures | None
    tile_cells: NDArray[np.int64]


def prepare_validation(
    config: TrainingConfig, snapshot: Snapshot, index: AerialIndex | None, state: State, *, threads: int
) -> Validation | None:
    """Choose queries and gallery; None, with a warning, where the snapshot has no photo to validate on."""
    if not snapshot.counts.get("val"):
        _log.warning("no photo of split val: the last epoch is kept, and nothing is validated")
        return None
    photos = TrainingPhotos.from_snapshot(snapshot, ["val"])
    rng = np.random.default_rng([config.seed, 0x76616C])
    limit = config.validation.photos
    if len(photos) > limit:
        photos = photos.take(np.sort(rng.permutation(len(photos))[:limit]))
    queries = photo_pictures(photos, state.networks["ground"].transform, threads=threads, keep=True)
    if index is None or "aerial" not in state.networks:
        return Validation(photos, queries, None, np.zeros(0, np.int64))
    level = int(index.level.max())
    cells = np.unique(index.s2_id[index.level == level])
    if len(cells) > config.validation.tiles:
        needed = np.isin(cells, s2.parent(photos.s2_id, level))
        chance = np.where(needed, -1.0, rng.random(len(cells)))
        cells = np.sort(cells[np.argsort(chance, kind="stable")[: config.validation.tiles]])
    rows = np.flatnonzero((index.level == level) & np.isin(index.s2_id, cells))
    tiles = tile_pictures(index, rows, state.networks["aerial"].transform, threads=threads, keep=True)
    return Validation(photos, queries, tiles, index.s2_id[rows])


def validate(state: State, chosen: Validation, prototypes: NDArray[np.float32] | None) -> dict[str, float]:
    """Percent of queries answered within 50, 100 and 200 m, by prototypes, by tiles, and by both.

    Prototypes answer with the centres of their cells, tiles and the sum with those of the tiles' cells. The
    sum's weights are fitted on the same queries (four numbers), so it is a figure to compare epochs by, not
    one to report.

    Args:
        state: Networks and table.
        chosen: What to search.
        prototypes: (N, D) unit rows of the whole table; None before it has its first values.

    Returns:
        Keys such as `prototype_only.200`, `aerial_only.200`, `cellcode.200`, and `main`.
    """
    state.eval()
    numbers, queries = embed_pictures(state.networks["ground"], chosen.queries)
    if not len(numbers):
        _log.warning("no photo of split val can be read", first=chosen.photos.uri[0])
        return {}
    photos = chosen.photos.take(numbers)
    found: dict[str, float] = {}
    table = state.table
    if table is not None and prototypes is not None:
        found |= _recall("prototype_only", photos, table.ids[_nearest(queries, prototypes)])
    ids, vectors = _gallery(state, chosen)
    if len(ids):
        seen = queries @ vectors.T
        found |= _recall("aerial_only", photos, ids[seen.argmax(axis=1)])
        if table is not None and prototypes is not None:
            found |= _both(photos, queries, prototypes, table, ids, seen)
    for name in ("cellcode", "prototype_only", "aerial_only"):
        if f"{name}.{MAIN}" in found:
            return found | {"main": found[f"{name}.{MAIN}"]}
    return found


def _nearest(queries: NDArray[np.float32], prototypes: NDArray[np.float32]) -> NDArray[np.int64]:
    """Row of the most similar prototype of each query, with no more similarities at a time than needed."""
    step = max(1, _PAIRS // len(prototypes))
    parts = [
        (queries[first : first + step] @ prototypes.T).argmax(axis=1)
        for first in range(0, len(queries), step)
    ]
    return np.concatenate(parts).astype(np.int64)


def _gallery(state: State, chosen: Validation) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Cells, ascending, and the mean of their tiles' embeddings over sources and dates; maybe none."""
    none = np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
    if chosen.tiles is None:
        return none
    numbers, vectors = embed_pictures(state.networks["aerial"], chosen.tiles)
    if not len(numbers):
        _log.warning("no tile around the photos of split val can be read or shows anything")
        return none
    ids, place = np.unique(chosen.tile_cells[numbers], return_inverse=True)
    sums = np.zeros((len(ids), vectors.shape[1]), np.float32)
    np.add.at(sums, place, vectors)
    return ids, sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def _both(
    photos: TrainingPhotos,
    queries: NDArray[np.float32],
    prototypes: NDArray[np.float32],
    table: PrototypeTable,
    ids: NDArray[np.int64],
    seen: NDArray[np.float32],
) -> dict[str, float]:
    """Prototypes copied to the tiles' cells, plus the tiles, weighed by the fit."""
    if int(s2.level(ids[:1])[0]) < table.level:
        return {}  # codes at the tiles' level cannot take up finer prototypes
    rows = table.rows_of(s2.parent(ids, table.level))
    known = rows >= 0
    similar = np.zeros_like(seen)
    similar[:, known] = queries @ prototypes[rows[known]].T
    own = s2.parent(photos.s2_id, int(s2.level(ids[:1])[0]))
    at = np.minimum(np.searchsorted(ids, own), len(ids) - 1)
    true = np.where(ids[at] == own, at, -1)
    inside = true >= 0
    if not inside.any():
        return {}
    fit = fit_fusion(similar[inside], seen[inside], known, np.ones(len(ids), bool), true[inside])
    score = fit.kappa * similar + seen + np.where(known, 0.0, fit.bias_no_prototype).astype(np.float32)
    return {**_recall("cellcode", photos, ids[score.argmax(axis=1)]), "kappa": float(fit.kappa)}


def _recall(name: str, photos: TrainingPhotos, answers: NDArray[np.int64]) -> dict[str, float]:
    if not len(answers):
        return {}
    lon, lat = s2.center(answers)
    error = great_circle_m(photos.lon, photos.lat, lon, lat)
    return {f"{name}.{radius}": float(100.0 * (error <= radius).mean()) for radius in RADII_M}
