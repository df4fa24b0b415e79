"""Inner products with float16 codes on a CPU, at the speed of its memory, not of NumPy's conversion.

NumPy turns float16 into float32 one number at a time, 1.8 ns each: nine tenths of a search. Two ways
round it:

- As integers: a half's bits, widened to 32 and moved up by 13, are those of the float32 of 2^-112 times its
  value, once the copies of the sign are masked out; that holds for subnormals and zeros too. The factor goes
  into the query. Products are those of float32, and torch is not needed.
- By torch, where it is loaded: its product of float16 rows with one float16 query, summed in float32 and
  rounded to float16 at the end. Too coarse to rank by, but the error has a bound (2^-11 of the score), so it
  says which few rows can be among the best.
"""

from __future__ import annotations

import sys
import warnings
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

WIDE_BYTES = 1_048_576  # of codes widened at a time for a few queries: they stay in the second-level cache
_MANY = 8  # queries from which a whole block is: threads of the product meet once per block, not 16 times
_SCALE = np.float32(2.0**112)
_LARGEST = 2.0**15  # of a query's components; 2^112 times more would not fit a float32
_MASK = np.array(0x8FFFE000, np.uint32).view(np.int32)[()]
_FEWEST = 4096  # rows; below, one product in float32 is as fast


class Widened:
    """Products of some queries with blocks of codes; the buffer is used again from block to block.

    Args:
        queries: (q, D) float32.
        codes: (n, D) float16 or float32; float32 is taken as it is.
        rows: The longest block.
    """

    def __init__(self, queries: Scores, codes: npt.NDArray[Any], rows: int) -> None:
        largest = float(np.abs(queries).max(initial=0.0))
        self._shift = codes.dtype == np.float16 and largest < _LARGEST and codes.flags.c_contiguous
        self._queries = queries * _SCALE if self._shift else queries
        few = self._shift and len(queries) < _MANY
        step = max(1, WIDE_BYTES // (4 * codes.shape[1])) if few else rows
        self._step = min(step, rows)
        self._codes = np.asarray(codes)  # a plain array: slices of a memory map are slow to make
        self._buffer = np.empty((self._step if self._shift else 0, codes.shape[1]), np.int32)

    def scores(self, start: int, stop: int, asked: slice = slice(None)) -> Scores:
        """Inner products (q, stop - start) of some queries with the rows [start, stop), in float32."""
        queries = self._queries[asked]
        found = np.empty((len(queries), stop - start), np.float32)
        for first in range(start, stop, self._step):
            block = self._widen(first, min(first + self._step, stop))
            part = found[:, first - start : first - start + len(block)]
            np.matmul(queries, block.T, out=part)
        return found

    def _widen(self, start: int, stop: int) -> Scores:
        block = self._codes[start:stop]
        if not self._shift:
            return block.astype(np.float32, copy=False)
        wide = self._buffer[: len(block)]
        np.copyto(wide, block.view(np.int16))
        np.left_shift(wide, 13, out=wide)
        np.bitwise_and(wide, _MASK, out=wide)
        return wide.view(np.float32)


def may_be_best(codes: npt.NDArray[Any], slices: list[tuple[int, int]], query: Scores, k: int) -> Rows | None:
    """Rows that hold the k best of some slices for one query (D,), and few others; None where it cannot tell.

    It can where torch is loaded, the codes are a float16 array, and the query is one of float16 (as every
    stored embedding is). Sums in float32 err by at most D 2^-24 |query| |code|, which the cut allows for
    codes of length up to 2; completed codes have length 1.
    """
    torch = sys.modules.get("torch")
    scope = sum(stop - start for start, stop in slices)
    if torch is None or codes.dtype != np.float16 or scope < max(_FEWEST, 8 * k):
        return None
    half = query.astype(np.float16)
    if not (codes.flags.c_contiguous and np.array_equal(half, query)):
        return None
    _told_of_read_only()
    whole, asked = torch.from_numpy(np.asarray(codes)), torch.from_numpy(half)
    found = torch.empty(scope, dtype=torch.float16)
    done = 0
    for start, stop in slices:
        torch.mv(whole[start:stop], asked, out=found[done : done + stop - start])
        done += stop - start
    group = min(256, scope // (4 * k))
    # k groups hold a row of this score or more, so the k-th best is no worse.
    least = float(found[: scope - scope % group].view(-1, group).amax(1).float().topk(k).values[-1])
    error = 2.0**-10 * abs(least) * 1.01 + codes.shape[1] * 2.0**-23 * float(np.linalg.norm(query))
    cut = np.nextafter(np.float16(least - error), np.float16(-np.inf))
    near = torch.nonzero(found >= float(cut)).numpy()[:, 0]
    if not np.isfinite(least) or len(near) > 4096 + 64 * k:
        return None
    return _rows_at(near, slices)


def _rows_at(places: Rows, slices: list[tuple[int, int]]) -> Rows:
    """Rows of places in slices laid end to end."""
    bounds = np.array(slices, dtype=np.int64)
    before = np.concatenate([[0], np.cumsum(bounds[:, 1] - bounds[:, 0])])
    piece = np.searchsorted(before, places, side="right") - 1
    rows: Rows = places - before[piece] + bounds[piece, 0]
    return rows


@cache
def _told_of_read_only() -> None:
    """Let torch give its warning of arrays that it must not write to, once per process, where nobody sees it.

    Memory maps are such arrays; the product above writes to none.
    """
    held = np.zeros(1, np.float16)
    held.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.modules["torch"].from_numpy(held)
