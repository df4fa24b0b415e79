"""Exact search over codes held in S2 order: a region is a few slices of one matrix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geofix.codes.halves import Direct, Products, products
from geofix.codes.matrixfiles import Chunk, open_files, write_files
from geofix.codes.topk import TopK, pack_keys_torch
from geofix.errors import BadInputError, UsageError
from geofix.spatial.s2 import range_of

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Ranges = npt.NDArray[np.int64]

_BLOCK_BYTES = 32_000_000  # of one float32 block of codes
_BLOCK_ROWS = 16_384  # scores of one block of 128 queries stay near 8 MB
_LONGER = 8  # times as long a block may be of which nothing but scores of a few queries is written
_QUERIES = 128  # at a time
_MARGIN = 16  # rows beyond k that are scored again in float64


def row_slices(ids: Ids, ranges: Ranges | None) -> list[tuple[int, int]]:
    """Slices [start, stop) of sorted ids within closed ranges (n, 2), overlaps merged; all rows for None."""
    if ranges is None:
        return [(0, len(ids))] if len(ids) else []
    bounds = np.asarray(ranges, dtype=np.int64).reshape(-1, 2)
    starts = np.searchsorted(ids, bounds[:, 0], side="left")
    stops = np.searchsorted(ids, bounds[:, 1], side="right")
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(zip(starts.tolist(), stops.tolist(), strict=True)):
        if start >= stop:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


@dataclass(frozen=True, eq=False)
class CellMatrix:
    """Codes of cells (or of photos), sorted by signed S2 id.

    Memory of a search does not grow with the number of rows; on disk the matrix is memory-mapped and may be
    larger than memory.

    Attributes:
        ids: (n,) int64 S2 ids in ascending order; photos may share one.
        codes: (n, D) float16 or float32: an array, a memory map, or a torch tensor on any device.
    """

    ids: Ids
    codes: Any

    @classmethod
    def from_rows(cls, ids: npt.ArrayLike, codes: npt.ArrayLike, *, unique: bool = True) -> CellMatrix:
        """Sort rows by id, stably, and check them.

        Args:
            ids: (n,) signed S2 ids in any order.
            codes: (n, D) floats; stored as float16.
            unique: Refuse a repeated id.

        Raises:
            BadInputError: Shapes differ, a code is not finite in float16, or an id is repeated.
        """
        keys, rows = np.asarray(ids, dtype=np.int64), np.asarray(codes)
        if keys.ndim != 1 or rows.ndim != 2 or len(keys) != len(rows):
            raise BadInputError(
                f"ids of shape {keys.shape} and codes of shape {rows.shape} do not belong together.",
                hint="Give (n,) and (n, D).",
            )
        order = np.argsort(keys, kind="stable")
        with np.errstate(over="ignore"):  # an overflow becomes inf, which is refused below
            keys, rows = keys[order], rows.astype(np.float16)[order]
        if unique and (repeated := np.flatnonzero(keys[1:] == keys[:-1])).size:
            raise BadInputError(f"cell {keys[repeated[0]]} occurs twice.", hint="Give each cell one code.")
        if not np.isfinite(rows).all():
            raise BadInputError(
                "a code is not finite in float16.", hint="Normalise codes before storing them."
            )
        return cls(keys, rows)

    @staticmethod
    def write(directory: Path, chunks: Iterable[Chunk]) -> int:
        """Stream chunks of (ids, codes), sorted by id, to `directory`; returns the number of rows."""
        return write_files(directory, chunks)

    @classmethod
    def open(cls, directory: Path) -> CellMatrix:
        """Memory-map what `write` left."""
        return cls(*open_files(directory))

    def to(self, device: str) -> CellMatrix:
        """A copy whose codes are a torch tensor on a device such as 'cuda'."""
        import torch

        return CellMatrix(self.ids, torch.from_numpy(np.array(self.codes)).to(device))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dimension(self) -> int:
        """D, the length of a code."""
        return int(self.codes.shape[1])

    def row(self, row: int) -> Scores:
        """One code (D,) as float32."""
        code: Scores = self._float_block(row, row + 1)[0]
        return code

    def slices(self, ranges: Ranges | None) -> list[tuple[int, int]]:
        """Row slices of closed id ranges, see `row_slices`."""
        return row_slices(self.ids, ranges)

    def rows_containing(self, ids: npt.ArrayLike) -> Ids:
        """The row whose cell contains each given cell or leaf (q,), or -1; rows are disjoint cells."""
        wanted = np.atleast_1d(np.asarray(ids, dtype=np.int64))
        found = np.full(wanted.shape, -1, dtype=np.int64)
        if not len(self):
            return found
        # A cell's id lies in the middle of its range, so the cell around a leaf is the row before or after.
        after = np.searchsorted(self.ids, wanted)
        for rows in (after.clip(max=len(self) - 1), (after - 1).clip(min=0)):
            low, high = range_of(self.ids[rows])
            inside = (low <= wanted) & (wanted <= high)
            found[inside] = rows[inside]
        return found

    def cells_in_scope(self, ranges: Ranges | None = None) -> int:
        """Number of rows within the ranges."""
        return sum(stop - start for start, stop in self.slices(ranges))

    def search(self, queries: npt.ArrayLike, k: int, ranges: Ranges | None = None) -> tuple[Ids, Scores]:
        """The k best cells of each query: ids and scores, both (q, min(k, cells in scope)).

        See `search_rows` for order and precision.
        """
        rows, scores = self.search_rows(queries, k, ranges)
        return self.ids[rows], scores

    def search_rows(self, queries: npt.ArrayLike, k: int, ranges: Ranges | None = None) -> tuple[Ids, Scores]:
        """The k best rows of each query by inner product, best first, equal scores by ascending id.

        Every row in scope is scored in float32; the best k + 16 are scored again in float64 and ordered by
        that score rounded to float32, so equal codes tie exactly. Only where float32 rounding (about 1e-7 for
        unit vectors) separates the last place from more than 16 rows can the last place differ.

        Args:
            queries: (q, D) floats.
            k: Rows wanted; fewer are returned when fewer are in scope.
            ranges: Closed ranges (n, 2) of signed S2 ids; None searches everywhere.

        Returns:
            Row indices and float32 scores, both (q, min(k, rows in scope)).

        Raises:
            UsageError: k is below 1.
            BadInputError: The queries have another dimension or are not finite.
        """
        if k < 1:
            raise UsageError(f"k is {k}.", hint="Ask for at least one cell.")
        vectors = self._queries(queries)
        slices = self.slices(ranges)
        scope = sum(stop - start for start, stop in slices)
        kept = min(k + _MARGIN, scope)
        if not kept or not len(vectors):
            shape = (len(vectors), min(k, scope))
            return np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
        wanted = min(k, scope)
        return self._ranked(vectors, self._candidates(vectors, slices, kept), wanted)

    def _ranked(self, vectors: Scores, rows: Ids, k: int) -> tuple[Ids, Scores]:
        """The k best of each query's own rows (q, c) by float64, equal scores by ascending row."""
        scores = self._rescore(vectors, rows)
        order = np.lexsort((rows, -scores), axis=1)[:, :k]
        return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)

    def _candidates(self, vectors: Scores, slices: list[tuple[int, int]], k: int) -> Ids:
        """Rows (q, k) of the highest scores in float32."""
        best = TopK(len(vectors), k)
        if not isinstance(self.codes, np.ndarray):
            for start, stop in self._blocks(slices):
                for first, keys in self._keys(vectors, start, stop, k):
                    best.add(keys, first)
            return best.rows()
        scored = products(vectors, self.codes, _BLOCK_ROWS)
        for start, stop in self._blocks(slices, scored):
            for first in range(0, len(vectors), _QUERIES):
                best.add_scores(scored.scores(start, stop, slice(first, first + _QUERIES)), start, first)
        return best.rows()

    def score_blocks(
        self, queries: npt.ArrayLike, ranges: Ranges | None = None
    ) -> Iterator[tuple[Ids, Scores]]:
        """All scores in scope, block by block in id order: ids (b,) and float32 scores (q, b)."""
        vectors = self._queries(queries)
        scored = products(vectors, self.codes, _BLOCK_ROWS) if isinstance(self.codes, np.ndarray) else None
        for start, stop in self._blocks(self.slices(ranges)):
            if scored is None:
                yield self.ids[start:stop], vectors @ self._float_block(start, stop).T
            else:
                yield self.ids[start:stop], scored.scores(start, stop)

    def _queries(self, queries: npt.ArrayLike) -> Scores:
        vectors = np.atleast_2d(np.asarray(queries, dtype=np.float32))
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise BadInputError(
                f"queries of shape {vectors.shape} do not fit codes of dimension {self.dimension}.",
                hint="Embed the photo with the model of this code set, completed if the codes are.",
            )
        if not np.isfinite(vectors).all():
            raise BadInputError("a query is not finite.", hint="Check the encoder that made it.")
        return vectors

    def _block_rows(self) -> int:
        return max(1, _BLOCK_BYTES // (4 * self.dimension))

    def _blocks(
        self, slices: list[tuple[int, int]], scored: Products | None = None
    ) -> Iterator[tuple[int, int]]:
        """Parts of the slices; the first is short, since every row of it is better than none so far."""
        if not isinstance(self.codes, np.ndarray):
            step = most = 1_048_576
        else:
            step = min(self._block_rows(), _BLOCK_ROWS)
            most = step * _LONGER if isinstance(scored, Direct) else step
        done = 0
        for start, stop in slices:
            while start < stop:
                end = min(start + max(step, min(most, done)), stop)
                yield start, end
                done += end - start
                start = end

    def _keys(
        self, vectors: Scores, start: int, stop: int, k: int
    ) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Keys of a block of codes on a device, best k of each query."""
        block: Any = self.codes[start:stop].float()
        for first in range(0, len(vectors), _QUERIES):
            part = block.new_tensor(vectors[first : first + _QUERIES])
            yield first, pack_keys_torch(part @ block.T, start, k)

    def _float_block(self, start: int, stop: int) -> Scores:
        block = self.codes[start:stop]
        if isinstance(block, np.ndarray):
            return block.astype(np.float32)
        return np.asarray(block.float().cpu().numpy(), dtype=np.float32)

    def _gather(self, rows: Ids) -> npt.NDArray[np.float64]:
        if isinstance(self.codes, np.ndarray):
            return self.codes[rows].astype(np.float64)
        import torch

        found = self.codes[torch.from_numpy(rows).to(self.codes.device)]
        return np.asarray(found.double().cpu().numpy(), dtype=np.float64)

    def _rescore(self, vectors: Scores, rows: Ids) -> Scores:
        """Float64 inner products of each query with its own rows (q, k), rounded to float32."""
        scores = np.empty(rows.shape, dtype=np.float32)
        step = max(1, _BLOCK_BYTES // (8 * self.dimension * rows.shape[1]))
        for first in range(0, len(rows), step):
            part = slice(first, first + step)
            codes = self._gather(rows[part])
            scores[part] = np.einsum("qkd,qd->qk", codes, vectors[part].astype(np.float64))
        return scores
