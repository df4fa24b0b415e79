"""Build a code set: vectors per cell, completed to one norm, in one new partition, all or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from geofix.codes.complete import complete_codes, completion_norm
from geofix.codes.fuse import Kappa
from geofix.codes.ingredients import Ingredients
from geofix.codes.plan import Plan
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
from geofix.database.queries import code_ranges as queries
from geofix.database.queries import codes as code_queries
from geofix.database.queries.code_ranges import CodeBlock
from geofix.database.queries.models import ModelRow
from geofix.errors import BadInputError
from geofix.log import get_logger, progress

__all__ = [
    "CellVectors",
    "Recipe",
    "aerial_vectors",
    "build_code_set",
    "cellmean_vectors",
    "default_recipe",
    "finish",
    "prototype_vectors",
    "publish",
    "register",
]

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
    """Build and publish one code set, range by range of its cells; the caller commits.

    The vectors of one range are in memory at a time, 16 bytes for each cell, and where kappa is fitted its
    similarities with validation photos (`geofix.codes.fuse.Similarities`).

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
    asked = Ingredients.asked(
        conn,
        model,
        recipe=recipe,
        level=level,
        snapshot_id=snapshot_id,
        region_ewkb=region_ewkb,
        datasets=datasets,
        upsample=upsample,
    )
    plan = asked.plan(kappa)
    code_set_id = register(conn, name, plan)
    queries.fill_leaf(conn, code_set_id, plan.dimension, _codes(asked, plan))
    return finish(conn, name, code_set_id, plan)


def _codes(asked: Ingredients, plan: Plan) -> Iterator[CodeBlock]:
    with progress("codes", plan.cells, "cells") as advance:
        for span in asked.spans():
            yield from asked.codes(plan, span)
            advance(span.cells)


def register(conn: Connection, name: str, plan: Plan, calibration: dict[str, Any] | None = None) -> int:
    """Insert the row of a code set, which is not searched yet; returns its key.

    Raises:
        UsageError: The name is taken.
        BadInputError: It has no cell.
    """
    if not plan.cells:
        raise BadInputError(f"Code set {name} would be empty.", hint="Check the region and the snapshot.")
    return code_queries.insert_code_set(
        conn,
        {
            "name": name,
            "model_id": plan.model_id,
            "snapshot_id": plan.snapshot_id,
            "recipe": plan.recipe,
            "level": plan.level,
            "dimension": plan.dimension,
            "scale": plan.norm,
            "kappa": plan.kappa,
            "temperature": plan.temperature,
            "block_level": code_queries.block_level(plan.level),
            "calibration": calibration or {},
            "config": plan.config,
        },
    )


def finish(conn: Connection, name: str, code_set_id: int, plan: Plan) -> dict[str, Any]:
    """Attach a filled leaf, count its blocks, mark the set ready; the caller commits."""
    counts = code_queries.publish(conn, code_set_id, code_queries.block_level(plan.level))
    _log.info("code set ready", name=name, recipe=plan.recipe, **counts)
    return {"recipe": plan.recipe, **counts, "kappa": plan.kappa}


def publish(
    conn: Connection,
    name: str,
    model: ModelRow,
    recipe: Recipe,
    level: int,
    made: CellVectors,
    *,
    snapshot_id: int | None,
) -> dict[str, Any]:
    """Store vectors that are in memory already as a code set; the caller commits."""
    norm = completion_norm(made.vectors, made.bias) if made.norm is None else made.norm
    plan = Plan(
        model.model_id,
        recipe,
        level,
        snapshot_id,
        upsample="bilinear",
        datasets=None,
        newest_tile=None,
        cells=len(made.ids),
        pictures=0,
        dimension=made.vectors.shape[1] + 2,
        norm=norm,
        kappa=made.kappa,
        temperature=made.temperature,
        config=made.config,
    )
    code_set_id = register(conn, name, plan, made.calibration)
    sorted_by_id = made.taken(np.argsort(made.ids, kind="stable"))  # type: ignore[arg-type]
    codes = complete_codes(sorted_by_id.vectors, sorted_by_id.bias, norm=norm)
    block = CodeBlock(sorted_by_id.ids, codes, sorted_by_id.has_prototype, sorted_by_id.has_aerial)
    queries.fill_leaf(conn, code_set_id, plan.dimension, [block])
    return finish(conn, name, code_set_id, plan)
