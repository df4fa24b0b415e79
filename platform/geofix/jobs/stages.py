"""Jobs from snapshot to answer. What they call is imported when they run: submitting needs no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from geofix.database.queries.codes import CodeSet, find_code_set
from geofix.errors import NotFoundError
from geofix.jobs.specs import AbsolutePath, Level, Several, Specification, Work, register
from geofix.localize.kinds import Position


@register
class Snapshot(Specification):
    """Freeze a training set: photos, their split, and the imagery around them."""

    kind: Literal["snapshot"] = "snapshot"
    datasets: Several[str] = Field(min_length=1)
    out: AbsolutePath
    mode: Literal["blocks", "track"] = "blocks"
    block_level: Level = 13
    cell_level: Level = 15
    buffer_m: float = Field(200.0, ge=0)
    test: float = Field(0.15, ge=0, lt=1)
    val: float = Field(0.1, ge=0, lt=1)
    seed: int = 0
    train_share: float = Field(1.0, gt=0, le=1)
    aerial: Several[str] | None = None
    overwrite: bool = False

    def run(self, work: Work) -> dict[str, Any]:
        """Split, write, register. A directory that a killed attempt left, unregistered, is replaced."""
        from geofix.snapshots.build import build_snapshot

        options = self.model_dump(exclude={"kind", "datasets", "out", "overwrite"})
        overwrite = self.overwrite or (work.attempt > 1 and self._is_left_behind(work))
        return build_snapshot(work.conn, list(self.datasets), self.out, overwrite=overwrite, **options)

    def _is_left_behind(self, work: Work) -> bool:
        from geofix.snapshots.build import stored_snapshot

        if not self.out.exists():
            return False
        try:
            stored_snapshot(work.conn, self.out)
        except NotFoundError:
            return True
        return False


@register
class Index(Specification):
    """Build the HNSW index of a code set and measure its recall."""

    kind: Literal["index"] = "index"
    code_set: str
    m: int = Field(16, ge=2, le=100)
    ef_construction: int = Field(64, ge=4, le=1000)
    memory_mb: int = Field(512, ge=64)
    parallel: int = Field(1, ge=0)
    queries: int = Field(100, ge=0)

    def run(self, work: Work) -> dict[str, Any]:
        """Build, commit, measure."""
        from geofix.codes.index import build_index

        result = build_index(
            work.conn,
            find_code_set(work.conn, self.code_set),
            m=self.m,
            ef_construction=self.ef_construction,
            memory_bytes=self.memory_mb << 20,
            parallel=self.parallel,
        )
        work.conn.commit()
        if self.queries:
            result |= _recall(work, find_code_set(work.conn, self.code_set), self.queries, 10)
        return result


@register
class RecallCheck(Specification):
    """Compare HNSW with exact search on stored photos; one more point of the time series."""

    kind: Literal["recall_check"] = "recall_check"
    code_set: str
    queries: int = Field(100, ge=1)
    k: int = Field(10, ge=1, le=1000)

    def run(self, work: Work) -> dict[str, Any]:
        """Measure and store."""
        return _recall(work, find_code_set(work.conn, self.code_set), self.queries, self.k)


@register
class Localize(Specification):
    """Answer photos as `geofix localize` does."""

    queue = "interactive"

    kind: Literal["localize"] = "localize"
    photos: Several[AbsolutePath] = Field(min_length=1)
    code_set: str
    within: str | None = None
    k: int = Field(10, ge=1, le=1000)
    position: Position = "centre"

    def run(self, work: Work) -> dict[str, Any]:
        """Answer all photos; one that cannot be read gets an error in place of an answer."""
        from geofix.jobs.models import warm_searcher
        from geofix.localize.service import localize_photos

        with warm_searcher(work.conn, self.code_set) as searcher:
            answers = localize_photos(
                work.conn,
                self.photos,
                self.code_set,
                within=self.within,
                k=self.k,
                position=self.position,
                searcher=searcher,
            )
        return {"answers": answers}


def _recall(work: Work, code_set: CodeSet, queries: int, k: int) -> dict[str, Any]:
    from geofix.codes.index import recall_with_photos

    measured = recall_with_photos(work.conn, code_set, limit=queries, k=k)
    return {
        "recall": None if measured is None else measured.recall,
        "recall_queries": 0 if measured is None else measured.queries,
    }
