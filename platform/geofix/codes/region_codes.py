"""What the codes of one region are after new photos or tiles, by the recipe of their code set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from geofix.codes.fuse import Parts
from geofix.codes.means import cell_means, prototype_means
from geofix.codes.recipes import CellVectors, centres_inside, unit
from geofix.codes.upsample import upsample
from geofix.database.engine import Connection
from geofix.database.queries import prototypes as prototype_queries
from geofix.database.queries import refresh as queries
from geofix.database.queries.codes import CodeSet
from geofix.database.queries.models import ModelRow
from geofix.errors import UsageError
from geofix.spatial import s2
from geofix.spatial.covering import cover

_CELL_DEG = 144.0  # a cell of level l is nowhere wider than this / 2^l degrees of latitude


@dataclass(frozen=True, eq=False)
class Refreshed:
    """The new vectors of a region, before they are completed and stored.

    Attributes:
        made: Cells whose centre lies in the region.
        mean_prototypes: (m,) prototype cells of the region without a learned prototype, which have the mean
            of their photos instead.
    """

    made: CellVectors
    mean_prototypes: NDArray[np.int64]


def codes_of_region(
    conn: Connection, code_set: CodeSet, model: ModelRow, region: bytes, datasets: list[str] | None
) -> Refreshed:
    """The cells of a region by the recipe of their code set.

    Args:
        conn: Open connection.
        code_set: Whose recipe, kappa, biases and way of upsampling.
        model: Its model.
        region: EWKB; cells whose centre lies in it.
        datasets: Only photos of these data sets beside the training photos; None takes all.

    Raises:
        UsageError: The code set does not say how it was made.
    """
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


def within_bounds(new: Refreshed, code_set: CodeSet, before: NDArray[np.int64]) -> Refreshed:
    """A set that was built for a region grows only within the degrees that region spans."""
    bounds = code_set.config.get("bounds")
    if bounds is None or not len(new.made.ids):
        return new
    lon, lat = s2.center(new.made.ids)
    keep = (lon >= bounds[0]) & (lat >= bounds[1]) & (lon <= bounds[2]) & (lat <= bounds[3])
    keep |= np.isin(new.made.ids, before)
    return Refreshed(new.made.taken(keep), new.mean_prototypes)
