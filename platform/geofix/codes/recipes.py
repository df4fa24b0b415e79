"""What a recipe makes of a model's embeddings: one vector per cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from geofix.codes.means import cell_means
from geofix.codes.upsample import Upsample, upsample
from geofix.database.engine import Connection
from geofix.database.queries import models as model_queries
from geofix.database.queries import prototypes as prototype_queries
from geofix.database.queries import snapshots as snapshot_queries
from geofix.database.queries.models import ModelRow
from geofix.errors import BadInputError, UsageError
from geofix.spatial import s2

Recipe = Literal["cellmean", "aerial", "prototype", "hybrid"]


@dataclass(frozen=True)
class CellVectors:
    """What a recipe makes: one vector per cell before completion.

    Attributes:
        ids: (n,) S2 ids of one level, unique.
        vectors: (n, D) codes of any norm.
        bias: (n,) added to a cell's score.
        has_prototype: (n,) the cell's photos take part.
        has_aerial: (n,) the cell's aerial tile takes part.
        kappa: Weight of the prototype, of a hybrid.
        temperature: T in units of the score, where it was fitted.
        calibration: A stored confidence fit.
        norm: M to complete to, when it is larger than these codes need.
        config: Kept with the code set: what a refresh needs to make such codes again.
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    bias: NDArray[np.float32]
    has_prototype: NDArray[np.bool_]
    has_aerial: NDArray[np.bool_]
    kappa: float | None = None
    temperature: float | None = None
    calibration: dict[str, Any] = field(default_factory=dict)
    norm: float | None = None
    config: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_photos(cls, ids: NDArray[np.int64], vectors: NDArray[np.float32], **more: Any) -> CellVectors:
        """Cells whose vectors come from photos alone."""
        n = len(ids)
        return cls(ids, vectors, np.zeros(n, np.float32), np.ones(n, bool), np.zeros(n, bool), **more)

    @classmethod
    def of_tiles(cls, ids: NDArray[np.int64], vectors: NDArray[np.float32], **more: Any) -> CellVectors:
        """Cells whose vectors come from aerial tiles alone."""
        n = len(ids)
        return cls(ids, vectors, np.zeros(n, np.float32), np.zeros(n, bool), np.ones(n, bool), **more)

    def inside(self, region_ewkb: bytes) -> CellVectors:
        """The cells whose centre lies in an EWKB region."""
        return self.taken(centres_inside(self.ids, region_ewkb))

    def taken(self, keep: NDArray[np.bool_]) -> CellVectors:
        """Some of the cells."""
        parts = ("ids", "vectors", "bias", "has_prototype", "has_aerial")
        return replace(self, **{name: getattr(self, name)[keep] for name in parts})


def centres_inside(ids: NDArray[np.int64], region_ewkb: bytes) -> NDArray[np.bool_]:
    """Whether the centre of each cell (n,) lies in a region or on its border."""
    region = shapely.from_wkb(region_ewkb)
    shapely.prepare(region)
    lon, lat = s2.center(ids)
    return np.asarray(shapely.intersects_xy(region, lon, lat), dtype=bool)


def default_recipe(conn: Connection, model: ModelRow) -> Recipe:
    """What a model can do best: `hybrid`, `prototype` or `aerial` of a trained one, else `cellmean`."""
    terms = model.metrics.get("terms") or []
    trained = {str(name).lower() for name in terms if not isinstance(terms, Mapping) or terms[name]}
    prototypes = prototype_queries.prototype_level(conn, model.model_id) is not None
    aerial = bool(trained & {"ground_aerial", "aerial_prototype"}) or "aerial" in model.config
    if prototypes:
        return "hybrid" if aerial else "prototype"
    return "aerial" if trained and aerial else "cellmean"


def cellmean_vectors(conn: Connection, model: ModelRow, snapshot_id: int, level: int) -> CellVectors:
    """Mean embedding of each cell's training photos, normalised."""
    photo_ids, vectors = model_queries.read_split_embeddings(conn, model, snapshot_id, ["train"])
    if not len(photo_ids):
        raise BadInputError(
            f"Model {model.name} has embedded no training photo of this snapshot.",
            hint=f"Run `geofix embed photos --model {model.name}`.",
        )
    photos = snapshot_queries.snapshot_photos(conn, snapshot_id, ["train"])
    leaf_ids = photos.set_index("photo_id").loc[photo_ids, "s2_id"].to_numpy(np.int64)
    ids, means, _ = cell_means(vectors, leaf_ids, level)
    return CellVectors.of_photos(ids, means)


def aerial_vectors(
    conn: Connection,
    model: ModelRow,
    level: int,
    *,
    region_ewkb: bytes | None = None,
    datasets: list[str] | None = None,
) -> CellVectors:
    """Mean of each cell's aerial embeddings over sources and dates, normalised."""
    tiles = model_queries.tile_cells(conn, model.model_id, region_ewkb=region_ewkb, datasets=datasets)
    if not tiles:
        raise BadInputError(
            f"Model {model.name} has embedded no aerial tile here.",
            hint=f"Run `geofix ingest aerial` and `geofix embed aerial --model {model.name}`.",
        )
    cells = [tile for tile in tiles if tile[2] == level]
    if not cells:
        levels = sorted({tile[2] for tile in tiles})
        raise UsageError(
            f"Aerial tiles stand at level {', '.join(map(str, levels))}, not at the level {level} asked for.",
            hint=f"Give --level {levels[-1]}.",
        )
    tile_ids, vectors = model_queries.read_tile_embeddings(conn, model)
    s2_of = {tile: s2_id for tile, s2_id, _ in cells}
    keep = np.isin(tile_ids, np.fromiter(s2_of, np.int64))
    tile_s2 = np.array([s2_of[int(tile)] for tile in tile_ids[keep]], np.int64)
    ids, means, _ = cell_means(vectors[keep], tile_s2, level)
    return CellVectors.of_tiles(ids, means, config={} if datasets is None else {"datasets": datasets})


def prototype_vectors(
    conn: Connection, model: ModelRow, level: int, *, how: Upsample = "bilinear"
) -> CellVectors:
    """Prototypes of a trained model, brought to the level of the codes."""
    ids, stored = prototype_queries.read_prototypes(conn, model)
    if not len(ids):
        raise BadInputError(
            f"Model {model.name} has no prototypes.",
            hint="Register a model that was trained with them, or use recipe aerial or cellmean.",
        )
    cells, vectors = upsample(ids, unit(stored), level, how)
    return CellVectors.of_photos(cells, vectors, config={"upsample": how})


def unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Rows of fp16 unit vectors (n, D), whose length rounding left at 1 +- 5e-4, as float32 of length 1."""
    full = vectors.astype(np.float32)
    full /= np.linalg.norm(full, axis=1, keepdims=True)
    return full
