"""Build a code set: vectors per cell, completed to one norm, in one new partition, all or nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import shapely

from geofix.codes.complete import complete_codes, completion_norm
from geofix.codes.fuse import Kappa, Parts, hybrid_vectors
from geofix.codes.recipes import (
    CellVectors,
    Recipe,
    aerial_vectors,
    cellmean_vectors,
    default_recipe,
    prototype_vectors,
)
from geofix.codes.upsample import Upsample
from geofix.database.engine import Connection
from geofix.database.queries import codes as code_queries
from geofix.database.queries.models import ModelRow
from geofix.errors import BadInputError, UsageError
from geofix.log import get_logger

__all__ = [
    "CellVectors",
    "Recipe",
    "aerial_vectors",
    "build_code_set",
    "cellmean_vectors",
    "default_recipe",
    "publish",
]

BLOCK_LEVEL = 9

_log = get_logger(__name__)


def build_code_set(
    conn: Connection,
    *,
    name: str,
    model: ModelRow,
    recipe: Recipe | None = None,
    level: int,
    snapshot_id: int | None = None,
    region_ewkb: bytes | None = None,
    datasets: list[str] | None = None,
    upsample: Upsample = "bilinear",
    kappa: Kappa = "fit",
) -> dict[str, Any]:
    """Build and publish one code set; the caller commits.

    Args:
        conn: Open connection of the writer or owner.
        name: Name of the code set, new.
        model: Model whose embeddings are used.
        recipe: `cellmean` (mean of a cell's training photos), `aerial` (its tiles alone), `prototype`
            (learned, of the cells with training photos) or `hybrid` (both, weighed against each other);
            None: see `default_recipe`.
        level: S2 level of the cells.
        snapshot_id: Training photos for `cellmean`, validation photos for `hybrid`; None: the model's own.
        region_ewkb: Only cells whose centre lies in this EWKB geometry.
        datasets: Only aerial tiles of these data sets; None takes all.
        upsample: How prototypes come down to finer cells.
        kappa: Weight of the prototype in a hybrid: `fit`, or a number.

    Returns:
        recipe, cells, with_prototype, with_aerial, bytes, kappa.

    Raises:
        UsageError: The recipe lacks what it needs, or the name is taken.
        BadInputError: There is nothing to build from.
    """
    chosen = recipe or default_recipe(conn, model)
    frozen = model.snapshot_id if snapshot_id is None else snapshot_id
    if chosen == "cellmean":
        if frozen is None:
            raise UsageError("Recipe cellmean needs a snapshot.", hint="Give --snapshot DIR.")
        made = cellmean_vectors(conn, model, frozen, level)
        made = made if region_ewkb is None else made.inside(region_ewkb)
    elif chosen == "aerial":
        made = aerial_vectors(conn, model, level, region_ewkb=region_ewkb, datasets=datasets)
        frozen = snapshot_id
    else:
        _check_snapshot(model, snapshot_id)
        made = prototype_vectors(conn, model, level, how=upsample)
        made = made if region_ewkb is None else made.inside(region_ewkb)
        if chosen == "hybrid":
            tiles = aerial_vectors(conn, model, level, region_ewkb=region_ewkb, datasets=datasets)
            known = {**made.config, **tiles.config}
            made = hybrid_vectors(conn, model, Parts.of(made, tiles), kappa, frozen)
            made = replace(made, config={**known, **made.config})
    if region_ewkb is not None:
        made = replace(made, config={**made.config, "bounds": _bounds(region_ewkb)})
    return publish(conn, name, model, chosen, level, made, snapshot_id=frozen)


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
    norm = completion_norm(made.vectors, made.bias) if made.norm is None else made.norm
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
            "config": made.config,
        },
    )
    code_queries.fill_leaf(
        conn, code_set_id, dimension, made.ids, completed, made.has_prototype, made.has_aerial
    )
    counts = code_queries.publish(conn, code_set_id, min(BLOCK_LEVEL, level))
    _log.info("code set ready", name=name, recipe=recipe, **counts)
    return {"recipe": recipe, **counts, "kappa": made.kappa}


def _check_snapshot(model: ModelRow, snapshot_id: int | None) -> None:
    """Refuse another snapshot than the model learned from: its validation photos may be what was trained on.

    Raises:
        UsageError: Names both.
    """
    if snapshot_id is None or model.snapshot_id in (None, snapshot_id):
        return
    raise UsageError(
        f"Model {model.name} was trained on snapshot {model.snapshot_id}, not on snapshot {snapshot_id}.",
        hint="Give the snapshot directory that it was trained on, or none.",
    )


def _bounds(region_ewkb: bytes) -> list[float]:
    """West, south, east, north of a region: a refresh adds no cell beyond."""
    return [float(value) for value in shapely.from_wkb(region_ewkb).bounds]
