"""A code set that is asked for: what its codes are made of, settled as a plan, then range by range."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geofix.codes.complete import complete_codes
from geofix.codes.fuse import Kappa, Parts, weigh
from geofix.codes.plan import Plan, Recipe, Upsample
from geofix.codes.ranges import RANGE, Span, cut
from geofix.codes.recipes import Prototypes, Source, Tiles, TrainingPhotos, default_recipe
from geofix.codes.trained_on import require_trained_on
from geofix.codes.vectors import CellVectors
from geofix.database.engine import Connection
from geofix.database.queries import code_ranges as queries
from geofix.database.queries.code_ranges import CodeBlock
from geofix.database.queries.models import ModelRow, find_model_by_id
from geofix.errors import BadInputError, UsageError
from geofix.log import progress

_COMPLETED = 4096  # codes completed together, in float64: 50 MB at D = 512


@dataclass(frozen=True)
class Ingredients:
    """What a code set is made of. No vector is held; `cells` takes 16 bytes a cell.

    Attributes:
        conn: Open connection.
        model: Whose vectors.
        recipe: See `geofix.codes.build`.
        level: S2 level of the cells.
        snapshot_id: Whose training photos.
        region_ewkb: Only cells whose centre lies in this EWKB geometry.
        datasets: Only aerial tiles of these data sets.
        upsample: How prototypes come down to finer cells.
        newest_tile: The last tile that takes part.
    """

    conn: Connection
    model: ModelRow
    recipe: Recipe
    level: int
    snapshot_id: int | None
    region_ewkb: bytes | None
    datasets: list[str] | None
    upsample: Upsample
    newest_tile: int | None

    @classmethod
    def asked(
        cls,
        conn: Connection,
        model: ModelRow,
        *,
        recipe: Recipe | None,
        level: int,
        snapshot_id: int | None,
        region_ewkb: bytes | None,
        datasets: list[str] | None,
        upsample: Upsample,
    ) -> Ingredients:
        """What a recipe needs, as of now.

        Raises:
            UsageError: It lacks its snapshot, or is given another than the model was trained on.
        """
        chosen = recipe or default_recipe(conn, model)
        used = snapshot_id
        if chosen != "aerial":
            used = model.snapshot_id if snapshot_id is None else snapshot_id
        if chosen == "cellmean" and used is None:
            raise UsageError("Recipe cellmean needs a snapshot.", hint="Give --snapshot DIR.")
        if chosen in ("prototype", "hybrid") and snapshot_id is not None:
            require_trained_on(conn, model, snapshot_id)
        newest = queries.newest_tile(conn, model) if chosen in ("aerial", "hybrid") else None
        return cls(conn, model, chosen, level, used, region_ewkb, datasets, upsample, newest)

    @classmethod
    def planned(cls, conn: Connection, plan: Plan, region_ewkb: bytes | None) -> Ingredients:
        """Those of a plan.

        Raises:
            NotFoundError: Its model was deleted.
        """
        model = find_model_by_id(conn, plan.model_id)
        return cls(
            conn,
            model,
            plan.recipe,
            plan.level,
            plan.snapshot_id,
            region_ewkb,
            plan.datasets,
            plan.upsample,
            plan.newest_tile,
        )

    @property
    def _sources(self) -> list[Source]:
        """In a hybrid, prototypes before tiles."""
        made: list[Source] = []
        if self.recipe == "cellmean":
            assert self.snapshot_id is not None
            made.append(TrainingPhotos(self.conn, self.model, self.level, self.snapshot_id, self.region_ewkb))
        if self.recipe in ("prototype", "hybrid"):
            made.append(Prototypes(self.conn, self.model, self.level, self.upsample, self.region_ewkb))
        if self.recipe in ("aerial", "hybrid"):
            made.append(
                Tiles(self.conn, self.model, self.level, self.datasets, self.region_ewkb, self.newest_tile)
            )
        return made

    @cached_property
    def cells(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All cells (n,), ascending, and the pictures (n,) that each is made of.

        Raises:
            BadInputError: There is nothing to build from.
        """
        found = [source.cells() for source in self._sources]
        if len(found) == 1:
            return found[0]
        ids = np.union1d(found[0][0], found[1][0])
        pictures = np.zeros(len(ids), np.int64)
        for own, counts in found:
            pictures[np.searchsorted(ids, own)] += counts
        return ids, pictures

    def spans(self, size: int = RANGE) -> list[Span]:
        """The cells in ranges."""
        return cut(*self.cells, size)

    def plan(self, kappa: Kappa) -> Plan:
        """Settle what depends on all cells: of a hybrid the weights and M, by one pass over all ranges.

        Vectors of one other recipe are unit vectors, and M is 1.

        Raises:
            UsageError: See `geofix.codes.fuse.weigh`.
            BadInputError: Likewise.
        """
        ids, pictures = self.cells
        config: dict[str, Any] = {}
        if self.recipe in ("prototype", "hybrid"):
            config["upsample"] = self.upsample
        if self.recipe in ("aerial", "hybrid") and self.datasets is not None:
            config["datasets"] = self.datasets
        if self.region_ewkb is not None:
            config["bounds"] = [float(value) for value in shapely.from_wkb(self.region_ewkb).bounds]
        given: dict[str, Any] = {
            "model_id": self.model.model_id,
            "recipe": self.recipe,
            "level": self.level,
            "snapshot_id": self.snapshot_id,
            "upsample": self.upsample,
            "datasets": self.datasets,
            "newest_tile": self.newest_tile,
            "cells": len(ids),
            "pictures": int(pictures.sum()),
            "dimension": self.model.dimension + 2,
            "config": config,
        }
        if self.recipe != "hybrid" or not len(ids):
            return Plan(**given)
        found = weigh(self.conn, self.model, ids, self._all_parts, kappa, self.snapshot_id)
        config["fusion"] = found.known
        return Plan(
            **given,
            norm=found.norm,
            kappa=found.fusion.kappa,
            bias_no_prototype=found.fusion.bias_no_prototype,
            bias_no_aerial=found.fusion.bias_no_aerial,
            temperature=found.fusion.temperature if kappa == "fit" else None,
        )

    def _all_parts(self) -> Iterator[Parts]:
        # Of the same size whoever asks: sums of a matrix product may depend on what is multiplied together.
        with progress("weights", len(self.cells[0]), "cells") as advance:
            for span in self.spans():
                made, _ = self._read(span)
                assert isinstance(made, Parts)
                yield made
                advance(span.cells)

    def _read(self, span: Span) -> tuple[Parts | CellVectors, int]:
        found = [source.read(span.first, span.last) for source in self._sources]
        pictures = sum(item[1] for item in found)
        if len(found) == 1:
            return found[0][0], pictures
        return Parts.of(found[0][0], found[1][0]), pictures

    def codes(self, plan: Plan, span: Span) -> Iterator[CodeBlock]:
        """The completed codes of one range as they are stored, in order, some thousand at a time.

        They are the same bytes however the cells are cut into ranges.

        Raises:
            BadInputError: Something that they are made of has come or gone since the ranges were cut.
        """
        made, pictures = self._read(span)
        if (len(made.ids), pictures) != (span.cells, span.pictures):
            raise BadInputError(
                f"What the codes between {span.first} and {span.last} are made of changed meanwhile: "
                f"{span.cells} cells of {span.pictures} photos and tiles were there when the building began, "
                f"{len(made.ids)} of {pictures} are now.",
                hint="Let embedding and deletions end, then build the code set again.",
            )
        if isinstance(made, Parts):
            assert plan.kappa is not None
            made = made.combine(plan.kappa, plan.bias_no_prototype, plan.bias_no_aerial)
        for first in range(0, len(made.ids), _COMPLETED):
            part = slice(first, first + _COMPLETED)
            codes = complete_codes(made.vectors[part], made.bias[part], norm=plan.norm)
            flags = made.has_prototype[part], made.has_aerial[part]
            yield CodeBlock(made.ids[part], codes.astype(np.float16), *flags)
