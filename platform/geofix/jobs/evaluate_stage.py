"""Evaluation as a job: many photos are split into ranges of S2 ids, which any number of workers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from geofix.evaluation.protocol_options import AskedOptions, refuse_own_author
from geofix.jobs.specs import AbsolutePath, Chunks, Level, Specification, Structured, Work, register

if TYPE_CHECKING:
    from geofix.evaluation.service import Prepared

_OWN = {"kind", "chunk", "span", "into", "replace"}  # what `evaluation.service.prepare` does not take


def _known_localizer(name: str) -> str:
    from geofix.localizers.code_set import NAMES
    from geofix.localizers.fit import FITTED

    known = sorted({*FITTED, *NAMES.values()})
    if name not in known:
        raise ValueError(f"must be one of {', '.join(known)}")
    return name


def _known_crops(name: str) -> str:
    from geofix.localizers.crops import POLICIES

    if name not in POLICIES:
        raise ValueError(f"must be one of {', '.join(POLICIES)}")
    return name


LocalizerName = Annotated[str, AfterValidator(_known_localizer)]
CropsName = Annotated[str, AfterValidator(_known_crops)]


@register
class Evaluate(AskedOptions, Specification):
    """Let a localizer answer every photo of a split, store the answers, measure them.

    Above `chunk` photos it becomes a container: an evaluation in the making, chunks that answer a range of S2
    ids each, and one that measures when all have. The ranges are cut before the first of them is answered, so
    what is stored does not depend on how many workers there are. `into` is the evaluation of a chunk and
    `span` its range; the chunk that measures has none.
    """

    kind: Literal["evaluate"] = "evaluate"
    localizer: LocalizerName
    snapshot: AbsolutePath
    split: Literal["train", "val", "test_seen", "test_unseen"] = "test_seen"
    name: str | None = None
    model: str | None = None
    code_set: str | None = None
    level: Level = 16
    within: str | None = None
    k: int = Field(100, ge=1, le=1000)
    crops: CropsName | None = None
    replace: bool = False
    chunk: int = Field(2048, ge=0, le=1_000_000, description="Photos per chunk; 0 does all in one job.")
    span: Structured[tuple[int, int] | None] = None
    into: int | None = None

    @model_validator(mode="after")
    def _has_embeddings(self) -> Self:
        if self.model is None and self.code_set is None:
            raise ValueError("model or code_set is missing: whose embeddings?")
        if self.into is None and self.span is not None:
            raise ValueError("into is missing: whose range is span?")
        if self.exclude_author:
            refuse_own_author([self.localizer])
        return self

    def chunks(self, work: Work) -> Chunks | None:
        """Ranges of S2 ids with about `chunk` photos each, and what follows them."""
        from geofix.evaluation import parts

        if self.into is not None or not self.chunk:
            return None
        found = self._prepared(work)
        spans = parts.spans(work.conn, found, self.chunk)
        if len(spans) < 2:
            return None
        into = parts.begin(work.conn, found, str(work.job_id), replace=self.replace)
        # By its name from now on: how names are made may change between versions.
        whole = self.model_copy(update={"into": into, "name": found.request.name})
        answers: list[tuple[Specification, int]] = [
            (whole.model_copy(update={"span": (first, last)}), count) for first, last, count in spans
        ]
        return Chunks(answers, "photos", last=whole)

    def join(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """The metrics, which the last chunk has."""
        return {**results[-1], "chunks": len(results)}

    def run(self, work: Work) -> dict[str, Any]:
        """All of it, a range, or the measuring, in one transaction, which ends with the job."""
        from geofix.evaluation import parts
        from geofix.evaluation.run import run_evaluation

        if self.into is not None and self.span is None:
            assert self.name is not None
            return parts.complete(work.conn, self.into, self.name, replace=self.replace)
        found = self._prepared(work)
        if self.into is not None and self.span is not None:
            return {"asked": parts.answer(work.conn, self.into, found, self.span)}
        return run_evaluation(work.conn, found.request, found.model, found.snapshot, replace=self.replace)

    def _prepared(self, work: Work) -> Prepared:
        from geofix.evaluation.service import prepare
        from geofix.jobs.models import warm_localizer

        return prepare(work.conn, **self.model_dump(exclude=_OWN), fit=warm_localizer)
