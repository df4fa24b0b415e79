"""Batches of photos: checked on all cores, then stored in one transaction each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from geofix.database.engine import Connection
from geofix.database.queries import photo_stage as stage
from geofix.database.queries import photos as queries
from geofix.ingest.checks import Refusal
from geofix.ingest.formats.base import printable
from geofix.ingest.pool import FileChecker, Outcome
from geofix.ingest.rows import Candidate, Values, combine, stage_rows

MAX_DETAIL_CHARS = 1_000
T = TypeVar("T")


@dataclass(slots=True)
class IngestResult:
    """What one run did.

    Attributes:
        loaded: Photos that are new.
        updated: Photos whose file or metadata changed.
        unchanged: Photos that were there already.
        rejected: Files and rows that were not loaded.
        rejects: Where their reasons are.
        reasons: Reason -> number of rejects.
        time_assumed_utc: Photos, of those loaded or updated or unchanged, whose time names no zone.
        regions: Level -> photos given a region in this run, inside and nearest.
    """

    loaded: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    rejects: str = "geofix.reject"
    reasons: dict[str, int] = field(default_factory=dict)
    time_assumed_utc: int = 0
    regions: dict[str, queries.RegionCounts] = field(default_factory=dict)


@dataclass(slots=True)
class _Batch:
    candidates: list[Candidate]
    known: dict[str, queries.Known]
    to_check: list[int]
    outcomes: Callable[[], list[Outcome]]


class Loader:
    """Checks one batch of files while the one before is being stored.

    Args:
        conn: Committed after every batch.
        dataset_id: Where the photos go.
        checker: Decodes the files.
        advance: Called with the number of photos handled.
    """

    def __init__(
        self, conn: Connection, dataset_id: int, checker: FileChecker, advance: Callable[[int], None]
    ) -> None:
        self._conn = conn
        self._dataset_id = dataset_id
        self._checker = checker
        self._advance = advance
        self._next_ord = 0
        self.result = IngestResult()
        stage.begin_stage(conn)
        conn.commit()

    def run(self, candidates: Iterable[Candidate], batch_size: int) -> None:
        """Load everything of one source."""
        waiting: _Batch | None = None
        for batch in batches(candidates, batch_size):
            begun = self._begin(batch)
            if waiting is not None:
                self._store(waiting)
            waiting = begun
        if waiting is not None:
            self._store(waiting)

    def _begin(self, candidates: list[Candidate]) -> _Batch:
        usable = [i for i, c in enumerate(candidates) if c.refusal is None]
        known = queries.known_photos(self._conn, self._dataset_id, [candidates[i].key for i in usable])
        self._conn.commit()
        to_check = [i for i in usable if _changed(candidates[i], known.get(candidates[i].key))]
        paths = [candidates[i].path or "" for i in to_check]
        return _Batch(candidates, known, to_check, self._checker.submit(paths))

    def _store(self, batch: _Batch) -> None:
        outcomes: dict[int, Outcome] = dict(zip(batch.to_check, batch.outcomes(), strict=True))
        rejects: list[tuple[str, Refusal]] = []
        values: list[Values] = []
        labels: list[str] = []
        for i, candidate in enumerate(batch.candidates):
            made = _value(candidate, outcomes.get(i), batch.known.get(candidate.key))
            if isinstance(made, Refusal):
                rejects.append((candidate.key, made))
            else:
                values.append(made)
                labels.append(candidate.label)
        with self._conn.transaction():
            counts = self._merge(values, labels, rejects, batch.known)
        self._count(rejects, counts)
        self._advance(len(batch.candidates))

    def _merge(
        self,
        values: list[Values],
        labels: list[str],
        rejects: list[tuple[str, Refusal]],
        known: Mapping[str, queries.Known],
    ) -> tuple[int, int, int]:
        """Stage and merge one batch inside an open transaction: inserted, updated, staged."""
        conn, first = self._conn, self._next_ord
        self._next_ord += len(values)
        staged = stage.stage(conn, stage_rows(values, first))
        for key, ordinal in stage.take_repeated(conn):
            refusal = Refusal("duplicate_row", f"{key} was named before; the first row counts")
            rejects.append((labels[ordinal - first] or key, refusal))
            staged -= 1
        if any(value.sha256 for value in values):
            twins = self._twins(known)
            rejects.extend(twins)
            staged -= len(twins)
        self.result.time_assumed_utc += stage.count_assuming_utc(conn)
        inserted, updated = stage.merge(conn, self._dataset_id)
        stage.replace_rejects(
            conn,
            self._dataset_id,
            [(key, refusal.reason, printable(refusal.detail)[:MAX_DETAIL_CHARS]) for key, refusal in rejects],
        )
        return inserted, updated, staged

    def _twins(self, known: Mapping[str, queries.Known]) -> list[tuple[str, Refusal]]:
        """Refuse copies; a copy whose original is gone is the original under a new name."""
        staged, loaded = stage.take_twins(self._conn, self._dataset_id)
        rejects = [
            (key, Refusal("duplicate_file", f"has the same bytes as {other}")) for key, other in staged
        ]
        refused = []
        for twin in loaded:
            gone = twin.other_uri is not None and not os.path.lexists(twin.other_uri)
            if gone and twin.source_key not in known:
                stage.rename(self._conn, twin.other_id, twin.source_key)
            else:
                refused.append(twin)
        stage.unstage(self._conn, [twin.source_key for twin in refused])
        return rejects + [
            (t.source_key, Refusal("duplicate_file", f"has the same bytes as {t.other_key}")) for t in refused
        ]

    def _count(self, rejects: list[tuple[str, Refusal]], counts: tuple[int, int, int]) -> None:
        inserted, updated, staged = counts
        self.result.loaded += inserted
        self.result.updated += updated
        self.result.unchanged += staged - inserted - updated
        self.result.rejected += len(rejects)
        for reason, count in Counter(refusal.reason for _, refusal in rejects).items():
            self.result.reasons[reason] = self.result.reasons.get(reason, 0) + count


def _value(candidate: Candidate, outcome: Outcome | None, known: queries.Known | None) -> Values | Refusal:
    if candidate.refusal is not None:
        return candidate.refusal
    if isinstance(outcome, Refusal):
        return outcome
    return combine(candidate, outcome, known)


def _changed(candidate: Candidate, known: queries.Known | None) -> bool:
    """Whether the file must be read; the same size and modification time as stored mean the same bytes."""
    if candidate.path is None:
        return False
    if known is None or known.sha256 is None:
        return True
    try:
        status = os.stat(candidate.path)  # noqa: PTH116 - the path is a string that may not be UTF-8
    except OSError:
        return True
    return (status.st_size, status.st_mtime_ns) != (known.file_bytes, known.file_mtime_ns)


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
