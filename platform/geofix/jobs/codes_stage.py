"""Building codes as a job: many cells are split into ranges of S2 ids, which any number of workers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field, model_validator

from geofix.codes.plan import Plan
from geofix.database.queries.codes import find_code_set, require_free
from geofix.jobs.specs import AbsolutePath, Chunks, Level, Specification, Structured, Work, register

if TYPE_CHECKING:
    from geofix.codes.ingredients import Ingredients


@register
class Codes(Specification):
    """Build one code set, all or nothing, and with `calibrate` fit its probabilities too.

    Above `chunk` cells it becomes a container. What depends on all cells is settled before it is cut: `plan`.
    Each chunk makes the codes of its range, `span`; one more, which has none, makes a code set of them when
    all are there. `into` is the job whose codes they are.
    """

    kind: Literal["codes"] = "codes"
    model: str
    code_set: str
    recipe: Literal["cellmean", "aerial", "prototype", "hybrid"] | None = None
    level: Level = 16
    snapshot: AbsolutePath | None = None
    region: str | None = None
    upsample: Literal["copy", "bilinear"] = "bilinear"
    kappa: Literal["fit"] | Annotated[float, Field(ge=0)] = "fit"
    calibrate: bool = False
    chunk: int = Field(32_768, ge=0, le=1_000_000, description="Cells per chunk; 0 does all in one job.")
    span: Structured[tuple[int, int, int, int] | None] = None
    plan: Structured[Plan | None] = None
    into: UUID | None = None

    @model_validator(mode="after")
    def _has_its_snapshot(self) -> Self:
        if self.snapshot is None and (self.recipe == "cellmean" or self.calibrate):
            need = "calibrate" if self.calibrate else f"recipe {self.recipe}"
            raise ValueError(f"snapshot is missing, which {need} needs")
        if (self.plan is None) != (self.into is None) or (self.span is not None and self.plan is None):
            raise ValueError("plan, span and into are those of a chunk, and given together")
        return self

    def chunks(self, work: Work) -> Chunks | None:
        """Ranges of about `chunk` cells, and what follows them."""
        from geofix.codes import parts

        if self.plan is not None or not self.chunk:
            return None
        asked = self._asked(work)
        spans = asked.spans(self.chunk)
        if len(spans) < 2:
            return None
        require_free(work.conn, self.code_set)
        whole = self.model_copy(update={"plan": asked.plan(self.kappa), "into": work.job_id})
        parts.begin(work.conn, work.job_id)
        made: list[tuple[Specification, int]] = [
            (whole.model_copy(update={"span": tuple(span)}), span.cells) for span in spans
        ]
        return Chunks(made, "cells", last=whole)

    def join(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """The result of the last chunk, which published them."""
        return {**results[-1], "chunks": len(results)}

    def run(self, work: Work) -> dict[str, Any]:
        """All of it, a range, or the end, in one transaction, which ends with the job."""
        from geofix.codes import parts
        from geofix.codes.ranges import Span

        if self.plan is not None and self.into is not None:
            if self.span is not None:
                region = self._region(work)
                return {"cells": parts.make(work.conn, self.into, self.plan, Span(*self.span), region)}
            result = parts.complete(work.conn, self.into, self.plan, self.code_set)
            return self._calibrated(work, result, self.plan.snapshot_id)
        return self._at_once(work)

    def _at_once(self, work: Work) -> dict[str, Any]:
        from geofix.codes.build import build_code_set
        from geofix.database.queries.models import find_model

        snapshot_id = self._snapshot(work)
        result = build_code_set(
            work.conn,
            name=self.code_set,
            model=find_model(work.conn, self.model),
            recipe=self.recipe,
            level=self.level,
            snapshot_id=snapshot_id,
            region_ewkb=self._region(work),
            upsample=self.upsample,
            kappa=self.kappa,
        )
        return self._calibrated(work, result, snapshot_id)

    def _calibrated(self, work: Work, result: dict[str, Any], snapshot_id: int | None) -> dict[str, Any]:
        from geofix.localize.calibrate import calibrate_code_set

        if self.calibrate and snapshot_id is not None:
            found = calibrate_code_set(work.conn, find_code_set(work.conn, self.code_set), snapshot_id)
            result["calibration"] = found
        return {"code_set": self.code_set, **result}

    def _asked(self, work: Work) -> Ingredients:
        from geofix.codes.ingredients import Ingredients
        from geofix.database.queries.models import find_model

        return Ingredients.asked(
            work.conn,
            find_model(work.conn, self.model),
            recipe=self.recipe,
            level=self.level,
            snapshot_id=self._snapshot(work),
            region_ewkb=self._region(work),
            datasets=None,
            upsample=self.upsample,
        )

    def _snapshot(self, work: Work) -> int | None:
        from geofix.snapshots.build import stored_snapshot

        return None if self.snapshot is None else stored_snapshot(work.conn, self.snapshot).snapshot_id

    def _region(self, work: Work) -> bytes | None:
        from geofix.ingest.region_text import region_ewkb

        return None if self.region is None else region_ewkb(work.conn, self.region)
