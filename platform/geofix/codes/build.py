"""Build a code set: vectors per cell, completed to one norm, in one new partition, all or nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geofix.codes.complete import complete_codes, completion_norm
from geofix.codes.means import cell_means
from geofix.database.engine import Connection
from geofix.database.queries import codes as code_queries
from geofix.database.queries import models as model_queries
from geofix.database.queries import snapshots as snapshot_queries
from geofix.database.queries.models import ModelRow
from geofix.errors import BadInputError, UsageError
from geofix.log import get_logger
from geofix.spatial import s2

Recipe = Literal["cellmean", "aerial"]
BLOCK_LEVEL = 9

_log = get_logger(__name__)


@dataclass(frozen=True)
class CellVectors:
    """What a recipe makes: one vector per cell before completion.

    Attributes:
        ids: (n,) S2 ids of one level, unique.
        vectors: (n, D) codes of any norm.
        bias: (n,) added to a cell's score.
        has_prototype: (n,) the cell's photos take part.
        has_aerial: (n,) the cell's aerial tile takes part.
        calibration: How kappa, bias and temperature were found.
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    bias: NDArray[np.float32]
    has_prototype: NDArray[np.bool_]
    has_aerial: NDArray[np.bool_]
    kappa: float | None = None
    temperature: float | None = None
    calibration: dict[str, Any] = field(default_factory=dict)


def build_code_set(
    conn: Connection,
    *,
    name: str,
    model: ModelRow,
    recipe: Recipe,
    level: int,
    snapshot_id: int | None = None,
    region_ewkb: bytes | None = None,
    datasets: list[str] | None = None,
) -> dict[str, Any]:
    """Build and publish one code set; the caller commits.

    Args:
        conn: Open connection of the writer or owner.
        name: Name of the code set, new.
        model: Model whose embeddings are used.
        recipe: `cellmean` (mean of a cell's training photos) or `aerial` (its tiles alone).
        level: S2 level of the cells.
        snapshot_id: Training photos for `cellmean`.
        region_ewkb: Only cells whose centre lies in this EWKB geometry.
        datasets: Only aerial tiles of these data sets; None takes all.

    Returns:
        cells, with_prototype, with_aerial, bytes, kappa.

    Raises:
        UsageError: The recipe lacks what it needs, or the name is taken.
        BadInputError: There is nothing to build from.
    """
    if recipe == "cellmean":
        if snapshot_id is None:
            raise UsageError("Recipe cellmean needs a snapshot.", hint="Give --snapshot DIR.")
        made = cellmean_vectors(conn, model, snapshot_id, level)
    else:
        made = aerial_vectors(conn, model, level, region_ewkb=region_ewkb, datasets=datasets)
    if region_ewkb is not None and recipe == "cellmean":
        made = _inside(made, region_ewkb)
    return publish(conn, name, model, recipe, level, made, snapshot_id=snapshot_id)


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
    n = len(ids)
    return CellVectors(ids, means, np.zeros(n, np.float32), np.ones(n, bool), np.zeros(n, bool))


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
    n = len(ids)
    return CellVectors(ids, means, np.zeros(n, np.float32), np.zeros(n, bool), np.ones(n, bool))


def publish(
    conn: Connection,
    name: str,
    model: ModelRow,
    recipe: str,
    level: int,
    made: CellVectors,
    *,
    snapshot_id: int | None,
) -> dict[str, Any]:
    """Complete the codes, fill a new leaf, count its blocks and mark it ready; the caller commits."""
    if not len(made.ids):
        raise BadInputError(f"Code set {name} would be empty.", hint="Check the region and the snapshot.")
    norm = completion_norm(made.vectors, made.bias)
    completed = complete_codes(made.vectors, made.bias, norm=norm)
    dimension = completed.shape[1]
    code_set_id = code_queries.insert_code_set(
        conn,
        {
            "name": name,
            "model_id": model.model_id,
            "snapshot_id": snapshot_id,
            "recipe": recipe,
            "level": level,
            "dimension": dimension,
            "scale": norm,
            "kappa": made.kappa,
            "temperature": made.temperature,
            "block_level": min(BLOCK_LEVEL, level),
            "calibration": made.calibration,
            "config": {},
        },
    )
    code_queries.fill_leaf(
        conn, code_set_id, dimension, made.ids, completed, made.has_prototype, made.has_aerial
    )
    counts = code_queries.publish(conn, code_set_id, min(BLOCK_LEVEL, level))
    _log.info("code set ready", name=name, **counts)
    return {**counts, "kappa": made.kappa}


def _inside(made: CellVectors, region_ewkb: bytes) -> CellVectors:
    """Keep the cells whose centre lies in the region."""
    import shapely

    region = shapely.from_wkb(region_ewkb)
    shapely.prepare(region)
    lon, lat = s2.center(made.ids)
    keep = shapely.covers(region, shapely.points(lon, lat))
    return CellVectors(
        made.ids[keep],
        made.vectors[keep],
        made.bias[keep],
        made.has_prototype[keep],
        made.has_aerial[keep],
        made.kappa,
        made.temperature,
        made.calibration,
    )
