"""Embedding as a job: much of it is split into ranges of S2 ids, which any number of workers share."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from geofix.jobs.specs import Chunks, Several, Specification, Structured, Work, register

LISTED = 100  # failures named in a result


@register
class Embed(Specification):
    """Embed what a model has not embedded yet; commits as it goes, so a second attempt continues.

    Above `chunk` pictures it becomes a container of chunks, cut by S2 id before the first of them runs: which
    pictures share a forward pass, and so every byte of the vectors, does not depend on how many workers there
    are, nor on which of them dies. `span` is such a range; a chunk has one.
    """

    queue = "gpu"
    resumable = True

    kind: Literal["embed"] = "embed"
    what: Literal["photos", "aerial"]
    model: str
    datasets: Several[str] | None = None
    batch_size: int = Field(32, ge=1, le=4096)
    chunk: int = Field(2048, ge=0, le=1_000_000, description="Pictures per chunk; 0 does all in one job.")
    span: Structured[tuple[int, int] | None] = None

    def chunks(self, work: Work) -> Chunks | None:
        """Ranges of S2 ids with about `chunk` pictures each."""
        from geofix.database.queries.embed_chunks import spans_to_embed
        from geofix.database.queries.models import find_model, require_datasets

        if self.span is not None or not self.chunk:
            return None
        model = find_model(work.conn, self.model)
        if self.datasets is not None:
            require_datasets(work.conn, self.datasets, self.what)
        # Whole batches: a chunk's end is then no other than a batch's end in one long run.
        size = -(-self.chunk // self.batch_size) * self.batch_size
        spans = spans_to_embed(work.conn, model.model_id, self.what, self.datasets, size)
        if len(spans) < 2:
            return None
        parts: list[tuple[Specification, int]] = [
            (self.model_copy(update={"span": (first, last)}), count) for first, last, count in spans
        ]
        return Chunks(parts, "photos" if self.what == "photos" else "tiles")

    def join(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """Sums; the speed is that of all chunks' vectors over all chunks' time, one worker's in the mean."""
        embedded = sum(item["embedded"] for item in results)
        seconds = sum(item["embedded"] / item["per_second"] for item in results if item["per_second"])
        return {
            "embedded": embedded,
            "skipped": sum(item["skipped"] for item in results),
            "failed": sum(item["failed"] for item in results),
            "per_second": round(embedded / seconds, 1) if seconds else 0.0,
            "failures": [failure for item in results for failure in item["failures"]][:LISTED],
            "chunks": len(results),
        }

    def run(self, work: Work) -> dict[str, Any]:
        """Embed and store, batch by batch."""
        from dataclasses import asdict

        from geofix.codes.embed_store import embed_all
        from geofix.database.queries.models import find_model
        from geofix.jobs.models import warm_encoder

        model = find_model(work.conn, self.model)
        with warm_encoder(model, "ground" if self.what == "photos" else "aerial") as encoder:
            result = embed_all(
                work.conn,
                model,
                self.what,
                datasets=self.datasets,
                batch_size=self.batch_size,
                encoder=encoder,
                span=self.span,
            )
        return asdict(result)
