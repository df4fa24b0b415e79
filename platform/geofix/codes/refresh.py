"""New codes for the cells of one region after new photos or tiles, without training."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geofix.codes.complete import complete_codes, completion_norm
from geofix.codes.fuse import Parts
from geofix.codes.index import build_index, recall_with_photos
from geofix.codes.means import cell_means, prototype_means
from geofix.codes.recipes import CellVectors, centres_inside, unit
from geofix.codes.upsample import upsample
from geofix.database.engine import Connection
from geofix.database.queries import codes as code_queries
from geofix.database.queries import models as model_queries
from geofix.database.queries import prototypes as prototype_queries
from geofix.database.queries import refresh as queries
from geofix.database.queries.codes import CodeSet
from geofix.database.queries.models import ModelRow
from geofix.errors import BadInputError, UsageError
from geofix.log import get_logger
from geofix.spatial import s2
from geofix.spatial.covering import cover

_CELL_DEG = 144.0  # a cell of level l is nowhere wider than this / 2^l degrees of latitude

_log = get_logger(__name__)


@dataclass(frozen=True, eq=False)
class Refreshed:
    """The new codes of a region, before they are stored.

    Attributes:
        made: Cells whose centre lies in the region.
        mean_prototypes: (m,) prototype cells of the region without a learned prototype, which have the mean
            of their photos instead.
    """

    made: CellVectors
    mean_prototypes: NDArray[np.int64]


def refresh_region(
    conn: Connection,
    name: str,
    region_ewkb: bytes,
    *,
    datasets: list[str] | None = None,
    memory_bytes: int = 512 << 20,
) -> dict[str, Any]:
    """Make the codes of a region again and publish them; commits.

    Everything else is kept: kappa, biases, temperature and scale M of the code set, and the codes
    elsewhere, which the server copies. Until the commit every other session searches the old set,
    afterwards the new one under the same name; a partition is never changed in place, so an HNSW index
    keeps no dead rows. Where there was an index, it is built again with its parameters and its recall
    measured. Photos and tiles must have been embedded.

    Learned prototypes stay as they are. A cell without one gets the mean of its photos' embeddings instead;
    such cells are listed in the code set's `config.mean_prototypes`. Photos of any snapshot's val and test
    splits never take part.

    Args:
        conn: Open connection of the owner.
        name: A ready code set of any recipe.
        region_ewkb: Cells whose centre lies in it are made again.
        datasets: Only photos of these data sets beside the training photos; None takes all.
        memory_bytes: What building the index may use.

    Returns:
        code_set, cells, in_region, added, removed, changed, mean_prototypes, bytes, and index and recall if
        any.

    Raises:
        NotFoundError: There is no ready code set of this name.
        UsageError: A new code is longer than the set's scale M: only a rebuild can hold it.
        BadInputError: Nothing lies in the region, neither before nor after.
        SpaceError: The index would not fit into the memory given.
    """
    code_set = code_queries.find_ready(conn, name)
    queries.lock_code_set(conn, code_set)
    model = model_queries.find_model_by_id(conn, code_set.model_id)
    held = queries.cells_of(conn, code_set)
    before = held[centres_inside(held, region_ewkb)]
    new = _within_bounds(_new_codes(conn, code_set, model, region_ewkb, datasets), code_set, before)
    if not len(before) and not len(new.made.ids):
        raise BadInputError(
            f"Neither code set {name} nor what model {model.name} has embedded lies in this region.",
            hint="Ingest and embed photos or tiles of the region first.",
        )
    if len(before) == len(held) and not len(new.made.ids):
        raise BadInputError(f"Code set {name} would be empty.", hint="Drop it with `geofix codes drop`.")
    codes = _completed(code_set, new.made)
    counts = _differences(conn, code_set, before, new.made.ids, codes)
    config = _config(code_set, region_ewkb, before, new, counts)
    temporary = f"{name} (in the making)"
    made_id = queries.write_successor(
        conn,
        code_set,
        temporary,
        config,
        before,
        new.made.ids,
        codes,
        new.made.has_prototype,
        new.made.has_aerial,
    )
    made = code_queries.find_code_set(conn, temporary)
    result: dict[str, Any] = {"code_set": name, "cells": made.cells, "in_region": len(new.made.ids), **counts}
    result |= {"mean_prototypes": len(new.mean_prototypes), "bytes": made.bytes}
    result |= _indexed(conn, code_set, made, memory_bytes)
    code_queries.replace_code_set(conn, made_id, name)
    conn.commit()
    code_queries.drop_replaced(conn, name)
    _log.info("code set refreshed", name=name, **counts)
    return result


def _new_codes(
    conn: Connection, code_set: CodeSet, model: ModelRow, region: bytes, datasets: list[str] | None
) -> Refreshed:
    """The cells of the region by the code set's recipe."""
    none: NDArray[np.int64] = np.zeros(0, np.int64)
    if code_set.recipe == "cellmean":
        leaves, vectors = _photos(conn, code_set, model, region, code_set.level, datasets)
        ids, vectors_of, _ = cell_means(vectors, leaves, code_set.level)
        return Refreshed(CellVectors.of_photos(ids, vectors_of).inside(region), none)
    if code_set.recipe == "aerial":
        return Refreshed(_tiles(conn, code_set, model, region), none)
    prototypes, means = _prototypes(conn, code_set, model, region, datasets)
    if code_set.recipe == "prototype":
        return Refreshed(prototypes, means)
    if code_set.recipe != "hybrid":
        raise UsageError(
            f"Code set {code_set.name} was built by recipe {code_set.recipe}, which cannot be refreshed.",
            hint="Build it again.",
        )
    fusion = code_set.config.get("fusion")
    if fusion is None or code_set.kappa is None:
        raise UsageError(
            f"Code set {code_set.name} does not say how its parts were weighed.", hint="Build it again."
        )
    parts = Parts.of(prototypes, _tiles(conn, code_set, model, region))
    made = parts.combine(code_set.kappa, fusion["bias_no_prototype"], fusion["bias_no_aerial"])
    return Refreshed(made, means)


def _prototypes(
    conn: Connection, code_set: CodeSet, model: ModelRow, region: bytes, datasets: list[str] | None
) -> tuple[CellVectors, NDArray[np.int64]]:
    """Learned prototypes of the region, means of photos where there are none, at the level of the codes."""
    learned, _ = prototype_queries.prototype_cells(conn, model)
    level = int(s2.level(learned[0])) if len(learned) else code_set.level
    west, south, east, north = _box(region, level)
    lon, lat = s2.center(learned) if len(learned) else (np.zeros(0), np.zeros(0))
    near = learned[(lon >= west) & (lon <= east) & (lat >= south) & (lat <= north)]
    ids, vectors = prototype_queries.read_prototypes(conn, model, near)
    leaves, embeddings = _photos(conn, code_set, model, region, level, datasets)
    some = vectors if len(vectors) else prototype_queries.read_prototypes(conn, model, learned[:8])[1]
    cells, means = prototype_means(embeddings, leaves, level, some)
    fresh = ~np.isin(cells, learned)
    every = np.concatenate([ids, cells[fresh]])
    order = np.argsort(every)
    both = np.concatenate([unit(vectors), means[fresh]])[order]
    how = code_set.config.get("upsample", "copy")
    made = CellVectors.of_photos(*upsample(every[order], both, code_set.level, how)).inside(region)
    used = np.unique(s2.parent(made.ids, level)) if len(made.ids) else made.ids
    return made, np.intersect1d(used, cells[fresh])


def _photos(
    conn: Connection,
    code_set: CodeSet,
    model: ModelRow,
    region: bytes,
    level: int,
    datasets: list[str] | None,
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    snapshot_id = code_set.snapshot_id if code_set.snapshot_id is not None else model.snapshot_id
    return queries.photos_in_box(conn, model, _box(region, level), snapshot_id=snapshot_id, datasets=datasets)


def _tiles(conn: Connection, code_set: CodeSet, model: ModelRow, region: bytes) -> CellVectors:
    ranges = cover(shapely.from_wkb(region))
    cells, vectors = queries.tiles_in_ranges(
        conn, model, code_set.level, ranges, code_set.config.get("datasets")
    )
    inside = centres_inside(cells, region)
    ids, means, _ = cell_means(vectors[inside], cells[inside], code_set.level)
    return CellVectors.of_tiles(ids, means)


def _box(region: bytes, level: int) -> queries.Box:
    """Degrees around a region, wider by two cells of a level: all that can take part in its codes."""
    west, south, east, north = shapely.from_wkb(region).bounds
    margin = 2 * _CELL_DEG / 2**level
    across = margin / max(0.01, float(np.cos(np.radians(min(89.0, max(abs(south), abs(north)) + margin)))))
    return (
        max(-180.0, west - across),
        max(-90.0, south - margin),
        min(180.0, east + across),
        min(90.0, north + margin),
    )


def _within_bounds(new: Refreshed, code_set: CodeSet, before: NDArray[np.int64]) -> Refreshed:
    """A set that was built for a region grows only within the degrees that region spans."""
    bounds = code_set.config.get("bounds")
    if bounds is None or not len(new.made.ids):
        return new
    lon, lat = s2.center(new.made.ids)
    keep = (lon >= bounds[0]) & (lat >= bounds[1]) & (lon <= bounds[2]) & (lat <= bounds[3])
    keep |= np.isin(new.made.ids, before)
    return Refreshed(new.made.taken(keep), new.mean_prototypes)


def _completed(code_set: CodeSet, made: CellVectors) -> NDArray[np.float32]:
    """Codes completed by the set's own scale.

    Raises:
        UsageError: One does not fit.
    """
    if not len(made.ids):
        return np.zeros((0, code_set.dimension), np.float32)
    longest = completion_norm(made.vectors, made.bias)
    if longest > code_set.scale * (1 + 1e-6):
        raise UsageError(
            f"A new code has length {longest:.4f}; code set {code_set.name} was completed to "
            f"{code_set.scale:.4f}.",
            hint="Build the code set again under a new name: `geofix codes build`.",
        )
    return complete_codes(made.vectors, made.bias, norm=max(longest, code_set.scale))


def _differences(
    conn: Connection,
    code_set: CodeSet,
    before: NDArray[np.int64],
    ids: NDArray[np.int64],
    codes: NDArray[np.float32],
) -> dict[str, int]:
    """Cells that are new, gone, or have another code than before (by more than rounding to fp16)."""
    held, old = queries.codes_of(conn, code_set, before)
    common = np.intersect1d(held, ids)
    order = np.argsort(ids)
    now = codes[order][np.searchsorted(ids[order], common)]
    then = old[np.searchsorted(held, common)].astype(np.float32)
    changed = int((np.abs(now - then).max(axis=1) > 1e-3).sum()) if len(common) else 0
    return {"added": len(ids) - len(common), "removed": len(held) - len(common), "changed": changed}


def _config(
    code_set: CodeSet, region: bytes, before: NDArray[np.int64], new: Refreshed, counts: dict[str, int]
) -> dict[str, Any]:
    """The configuration with this refresh noted and the list of mean prototypes brought up to date."""
    marked = set(code_set.config.get("mean_prototypes", []))
    touched = np.concatenate([before, new.made.ids])
    level = int(s2.level(new.mean_prototypes[0])) if len(new.mean_prototypes) else None
    if marked:
        level = int(s2.level(s2.from_token(min(marked))))
    if level is not None and len(touched):
        marked -= set(s2.token(np.unique(s2.parent(touched, level))).tolist())
    marked |= set(s2.token(new.mean_prototypes).tolist())
    note = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "bounds": [float(value) for value in shapely.from_wkb(region).bounds],
        **counts,
    }
    config = {**code_set.config, "refreshed": [*code_set.config.get("refreshed", []), note]}
    if marked or "mean_prototypes" in config:
        config["mean_prototypes"] = sorted(marked)
    return config


def _indexed(conn: Connection, old: CodeSet, made: CodeSet, memory_bytes: int) -> dict[str, Any]:
    """Build the index that the old set had, and measure its recall."""
    if "m" not in old.index_parameters:
        return {}
    built = build_index(
        conn,
        made,
        m=int(old.index_parameters["m"]),
        ef_construction=int(old.index_parameters["ef_construction"]),
        memory_bytes=memory_bytes,
    )
    measured = recall_with_photos(conn, code_queries.find_code_set(conn, made.name))
    return {
        "index": {**built, "code_set": old.name},
        "recall": None if measured is None else measured.recall,
    }
