"""What a recipe makes of a model's embeddings: one vector per cell, for any range of cells or for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geofix.codes.means import cell_means
from geofix.codes.plan import Recipe, Upsample
from geofix.codes.ranges import RANGE, covering, covering_between, cut
from geofix.codes.upsample import brought_down, descendants
from geofix.codes.vectors import CellVectors, centres_inside, unit
from geofix.database.engine import Connection
from geofix.database.queries import code_ranges as queries
from geofix.database.queries import models as model_queries
from geofix.database.queries import prototypes as prototype_queries
from geofix.database.queries.models import ModelRow
from geofix.errors import BadInputError, UsageError
from geofix.spatial import s2
from geofix.spatial.covering import in_ranges

__all__ = [
    "CellVectors",
    "Prototypes",
    "Recipe",
    "Source",
    "Tiles",
    "TrainingPhotos",
    "aerial_vectors",
    "cellmean_vectors",
    "centres_inside",
    "default_recipe",
    "prototype_vectors",
    "unit",
]

Ints = NDArray[np.int64]


class Source(Protocol):
    """Unit vectors of cells, from one kind of thing that a model has embedded or learned."""

    def cells(self) -> tuple[Ints, Ints]:
        """Cells (n,), ascending, and how many pictures (n,) each is made of.

        Raises:
            BadInputError: The model has nothing of this kind.
        """
        ...

    def read(self, first: int, last: int) -> tuple[CellVectors, int]:
        """Cells of a closed range, ascending, and the pictures read; vectors are the same in any range."""
        ...


@dataclass(frozen=True)
class TrainingPhotos:
    """Mean embedding of each cell's training photos."""

    conn: Connection
    model: ModelRow
    level: int
    snapshot_id: int
    region_ewkb: bytes | None = None

    def cells(self) -> tuple[Ints, Ints]:
        """See `Source.cells`."""
        ids, counts = self._cells(covering(self.region_ewkb, self.level))
        if not len(ids) and (self.region_ewkb is None or not len(self._cells(None)[0])):
            raise BadInputError(
                f"Model {self.model.name} has embedded no training photo of this snapshot.",
                hint=f"Run `geofix embed photos --model {self.model.name}`.",
            )
        keep = _inside(ids, self.region_ewkb)
        return ids[keep], counts[keep]

    def _cells(self, ranges: Ints | None) -> tuple[Ints, Ints]:
        return queries.training_cells(self.conn, self.model, self.snapshot_id, self.level, ranges)

    def read(self, first: int, last: int) -> tuple[CellVectors, int]:
        """See `Source.read`."""
        ranges = covering_between(self.region_ewkb, self.level, first, last)
        leaves, vectors = queries.training_photos(self.conn, self.model, self.snapshot_id, ranges)
        return _means(leaves, vectors, self.level, self.region_ewkb, CellVectors.of_photos)


@dataclass(frozen=True)
class Tiles:
    """Mean of each cell's aerial embeddings over sources and dates.

    `newest` is the last tile that takes part; None: all.
    """

    conn: Connection
    model: ModelRow
    level: int
    datasets: list[str] | None = None
    region_ewkb: bytes | None = None
    newest: int | None = None

    def cells(self) -> tuple[Ints, Ints]:
        """See `Source.cells`."""
        ranges = covering(self.region_ewkb, self.level)
        ids, counts = queries.tile_cells(
            self.conn, self.model, self.level, ranges, self.datasets, self.newest
        )
        keep = _inside(ids, self.region_ewkb)
        if not keep.any():
            raise self._nothing_here()
        return ids[keep], counts[keep]

    def read(self, first: int, last: int) -> tuple[CellVectors, int]:
        """See `Source.read`."""
        ranges = covering_between(self.region_ewkb, self.level, first, last)
        cells, vectors = queries.tiles_within(
            self.conn, self.model, self.level, ranges, self.datasets, self.newest
        )
        return _means(cells, vectors, self.level, self.region_ewkb, CellVectors.of_tiles)

    def _nothing_here(self) -> BadInputError | UsageError:
        tiles = model_queries.tile_cells(
            self.conn, self.model.model_id, region_ewkb=self.region_ewkb, datasets=self.datasets
        )
        levels = sorted({tile[2] for tile in tiles})
        if not levels:
            return BadInputError(
                f"Model {self.model.name} has embedded no aerial tile here.",
                hint=f"Run `geofix ingest aerial` and `geofix embed aerial --model {self.model.name}`.",
            )
        known = ", ".join(map(str, levels))
        return UsageError(
            f"Aerial tiles stand at level {known}, not at the level {self.level} asked for.",
            hint=f"Give --level {levels[-1]}.",
        )


@dataclass(frozen=True)
class Prototypes:
    """Prototypes of a trained model, brought to the level of the codes; they consist of no pictures."""

    conn: Connection
    model: ModelRow
    level: int
    how: Upsample = "bilinear"
    region_ewkb: bytes | None = None

    def cells(self) -> tuple[Ints, Ints]:
        """See `Source.cells`."""
        learned, _ = prototype_queries.prototype_cells(self.conn, self.model)
        if not len(learned):
            raise BadInputError(
                f"Model {self.model.name} has no prototypes.",
                hint="Register a model that was trained with them, or use recipe aerial or cellmean.",
            )
        ranges = covering(self.region_ewkb, int(s2.level(learned[0])))
        ids = descendants(learned if ranges is None else learned[in_ranges(learned, ranges)], self.level)
        ids = ids[_inside(ids, self.region_ewkb)]
        return ids, np.zeros(len(ids), np.int64)

    def read(self, first: int, last: int) -> tuple[CellVectors, int]:
        """See `Source.read`; also read are the prototypes around the range, which interpolation needs."""
        own = prototype_queries.prototype_level(self.conn, self.model.model_id)
        assert own is not None
        ends = np.array([first, last], np.int64)
        low, high = (ends if own == self.level else s2.parent(ends, own)).tolist()
        ranges = covering_between(self.region_ewkb, own, low, high)
        ids, stored = queries.prototypes_within(self.conn, self.model, ranges)
        cells = descendants(ids, self.level)
        cells = cells[(cells >= first) & (cells <= last)]
        cells = cells[_inside(cells, self.region_ewkb)]
        if self.how == "bilinear" and own < self.level and len(cells):
            around = s2.neighbors(np.unique(s2.parent(cells, own)))
            around = np.setdiff1d(around[around != 0], ids)
            near, more = prototype_queries.read_prototypes(self.conn, self.model, around)
            order = np.argsort(np.concatenate([ids, near]))
            ids, stored = np.concatenate([ids, near])[order], np.concatenate([stored, more])[order]
        return CellVectors.of_photos(cells, brought_down(ids, unit(stored), cells, self.how)), 0


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
    """Mean embedding of each cell's training photos, normalised: all cells at once."""
    return _all(TrainingPhotos(conn, model, level, snapshot_id))


def aerial_vectors(
    conn: Connection,
    model: ModelRow,
    level: int,
    *,
    region_ewkb: bytes | None = None,
    datasets: list[str] | None = None,
) -> CellVectors:
    """Mean of each cell's aerial embeddings over sources and dates, normalised: all cells at once."""
    made = _all(Tiles(conn, model, level, datasets, region_ewkb))
    return replace(made, config={} if datasets is None else {"datasets": datasets})


def prototype_vectors(
    conn: Connection, model: ModelRow, level: int, *, how: Upsample = "bilinear"
) -> CellVectors:
    """Prototypes of a trained model, brought to the level of the codes: all cells at once."""
    return replace(_all(Prototypes(conn, model, level, how)), config={"upsample": how})


def _all(source: Source) -> CellVectors:
    parts = [source.read(span.first, span.last)[0] for span in cut(*source.cells(), RANGE)]
    return CellVectors(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.vectors for part in parts]),
        np.concatenate([part.bias for part in parts]),
        np.concatenate([part.has_prototype for part in parts]),
        np.concatenate([part.has_aerial for part in parts]),
    )


def _means(
    leaves: Ints, vectors: NDArray[np.float16], level: int, region_ewkb: bytes | None, made_of: Any
) -> tuple[CellVectors, int]:
    if region_ewkb is not None:  # not averaged is what lies around it
        cells, own = np.unique(s2.parent(leaves, level), return_inverse=True)
        keep = _inside(cells, region_ewkb)[own]
        leaves, vectors = leaves[keep], vectors[keep]
    ids, means, counts = cell_means(vectors, leaves, level)
    made: CellVectors = made_of(ids, means)
    return made, int(counts.sum())


def _inside(ids: Ints, region_ewkb: bytes | None) -> NDArray[np.bool_]:
    return np.ones(len(ids), bool) if region_ewkb is None else centres_inside(ids, region_ewkb)
