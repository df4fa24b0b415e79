"""Inner products with float16 codes on a CPU, at the speed of its memory, not of NumPy's conversion.

NumPy turns float16 into float32 one number at a time, 1.8 ns each: nine tenths of a search. Two ways
round it, both summing in float32:

- Few queries of float16, as every stored embedding is: the kernels of numkong, where it is installed,
  convert in registers and write nothing but scores. They come with the extra that brings torch, without
  which no photo becomes a query.
- Otherwise as integers: a half's bits, widened to 32 and moved up by 13, are those of the float32 of 2^-112
  times its value, once the copies of the sign are masked out; that holds for subnormals and zeros too. The
  factor goes into the query. The widened block is then a matter for the product of float32.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32]
Codes = npt.NDArray[Any]

WIDE_BYTES = 1_048_576  # of codes widened at a time for a few queries: they stay in the second-level cache
_HALF_BYTES = 524_288  # of codes that several queries meet one after the other: half of that cache
_MANY = 8  # queries from which a whole block is: threads of the product meet once per block, not 16 times
_SCALE = np.float32(2.0**112)
_LARGEST = 2.0**15  # of a query's components; 2^112 times more would not fit a float32
_MASK = np.array(0x8FFFE000, np.uint32).view(np.int32)[()]


class Products(Protocol):
    """Inner products of some queries with ranges of rows."""

    def scores(self, start: int, stop: int, asked: slice = ...) -> Scores:
        """Inner products (q, stop - start) of some queries with the rows [start, stop), in float32."""


def products(queries: Scores, codes: Codes, rows: int) -> Products:
    """The fastest way for these queries.

    Args:
        queries: (q, D) float32.
        codes: (n, D) float16 or float32.
        rows: The longest block that scores are asked of.
    """
    if len(queries) < _MANY and codes.dtype == np.float16 and codes.flags.c_contiguous and codes.shape[1]:
        kernels = summing_kernels()
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is told apart
            halves = queries.astype(np.float16, order="C")
        if kernels is not None and np.array_equal(halves, queries):
            return Direct(kernels, halves, codes)
    return Widened(queries, codes, rows)


class Direct:
    """Products of few float16 queries with float16 codes, row by row, by numkong.

    Args:
        kernels: The module, see `summing_kernels`.
        queries: (q, D) float16.
        codes: (n, D) float16, contiguous; may be a memory map.
    """

    def __init__(self, kernels: Any, queries: npt.NDArray[np.float16], codes: Codes) -> None:
        self._dot = kernels.dot
        self._queries = queries
        self._codes = np.asarray(codes)  # a plain array: slices of a memory map are slow to make
        self._step = max(1, _HALF_BYTES // (2 * codes.shape[1]))

    def scores(self, start: int, stop: int, asked: slice = slice(None)) -> Scores:
        """Inner products (q, stop - start) of some queries with the rows [start, stop), in float32."""
        queries = self._queries[asked]
        found = np.empty((len(queries), stop - start), np.float32)
        step = self._step if len(queries) > 1 else max(1, stop - start)
        for first in range(start, stop, step):
            block = self._codes[first : min(first + step, stop)]
            for query, row in zip(queries, found[:, first - start : first - start + len(block)], strict=True):
                self._dot(block, query, out=row)
        return found


@cache
def summing_kernels() -> Any:
    """The module numkong, or None where it is not installed or sums more coarsely than float32 on this CPU.

    It has other kernels for other processors. Sums of D products in float32 err by at most
    D 2^-24 |query| |code|; this asks for that, by vectors of length 1.
    """
    try:
        import numkong
    except ImportError:
        return None
    made = np.random.default_rng(0).standard_normal((65, 256))
    halves = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16)
    found = np.empty(64, np.float32)
    numkong.dot(halves[1:], halves[0], out=found)
    error = np.abs(found - halves[1:].astype(np.float64) @ halves[0].astype(np.float64)).max()
    return numkong if error <= 256 * 2.0**-24 else None


class Widened:
    """Products of some queries with blocks of codes; the buffer is used again from block to block.

    Args:
        queries: (q, D) float32.
        codes: (n, D) float16 or float32; float32 is taken as it is.
        rows: The longest block.
    """

    def __init__(self, queries: Scores, codes: Codes, rows: int) -> None:
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
