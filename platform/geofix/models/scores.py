"""Similarities of queries with every cell's two codes, block by block, from arrays or from vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from geofix.errors import BadInputError

Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Scores = npt.NDArray[Any]
ScoreBlock = tuple[int, Scores, Scores]

_BLOCK = 4_000_000  # pairs of query and cell at a time: 16 MB per float32 array, of which about six exist
_KEPT = (
    50_000_000  # pairs up to which similarities are kept between passes (400 MB) instead of computed again
)


class ScoreSource(Protocol):
    """Similarities of q queries with n cells; zero where a cell lacks a part."""

    @property
    def has_prototype(self) -> Flags:
        """(n,)."""
        ...

    @property
    def has_aerial(self) -> Flags:
        """(n,)."""
        ...

    @property
    def true_index(self) -> Ints:
        """(q,) column of each query's true cell."""
        ...

    def blocks(self) -> Iterator[ScoreBlock]:
        """First column and similarities (q, b) with prototypes and with aerial codes, over all columns."""
        ...

    def true_scores(self) -> tuple[Scores, Scores]:
        """Similarities (q,) with the two codes of the true cell."""
        ...


@dataclass(frozen=True, eq=False)
class ScoreArrays:
    """Similarities held in memory."""

    prototype: Scores
    aerial: Scores
    has_prototype: Flags
    has_aerial: Flags
    true_index: Ints

    @classmethod
    def of(
        cls,
        s_prototype: npt.ArrayLike,
        s_aerial: npt.ArrayLike,
        has_prototype: npt.ArrayLike,
        has_aerial: npt.ArrayLike,
        true_index: npt.ArrayLike,
    ) -> ScoreArrays:
        """Check shapes; see `geofix.models.hybrid.fit_fusion`.

        Raises:
            BadInputError: Shapes do not belong together, a true cell does not exist, or a similarity is not
                finite.
        """
        prototype, aerial = np.atleast_2d(np.asarray(s_prototype)), np.atleast_2d(np.asarray(s_aerial))
        flags = np.asarray(has_prototype, bool), np.asarray(has_aerial, bool)
        true = np.asarray(true_index, np.int64)
        shape = (len(true), len(flags[0]))
        if not prototype.shape == aerial.shape == shape or flags[1].shape != flags[0].shape:
            raise BadInputError(
                f"similarities {prototype.shape} and {aerial.shape}, flags {flags[0].shape} and "
                f"{flags[1].shape} and {len(true)} true cells do not belong together.",
                hint="Give (q, n) twice, (n,) twice and (q,).",
            )
        _check_true(true, shape[1])
        if not (np.isfinite(prototype[:, flags[0]]).all() and np.isfinite(aerial[:, flags[1]]).all()):
            raise BadInputError("a similarity is not finite.", hint="Check the encoder that made it.")
        kind = np.result_type(prototype, aerial, np.float32)
        return cls(prototype.astype(kind), aerial.astype(kind), *flags, true)

    def blocks(self) -> Iterator[ScoreBlock]:
        """See `ScoreSource.blocks`."""
        for part in _parts(*self.prototype.shape):
            yield (
                part.start,
                np.where(self.has_prototype[part], self.prototype[:, part], self.prototype.dtype.type(0)),
                np.where(self.has_aerial[part], self.aerial[:, part], self.aerial.dtype.type(0)),
            )

    def true_scores(self) -> tuple[Scores, Scores]:
        """See `ScoreSource.true_scores`."""
        rows = np.arange(len(self.true_index))
        return (
            np.where(self.has_prototype[self.true_index], self.prototype[rows, self.true_index], 0),
            np.where(self.has_aerial[self.true_index], self.aerial[rows, self.true_index], 0),
        )


@dataclass(frozen=True, eq=False)
class VectorScores:
    """Similarities computed from unit vectors when they are asked for; kept while they are few.

    Attributes:
        queries: (q, D) float32.
        prototype: (n, D) float32, zero rows where there is none.
        aerial: (n, D) likewise.
    """

    queries: npt.NDArray[np.float32]
    prototype: npt.NDArray[np.float32]
    aerial: npt.NDArray[np.float32]
    has_prototype: Flags
    has_aerial: Flags
    true_index: Ints
    _kept: list[ScoreBlock] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        """Refuse true cells that are not there."""
        _check_true(self.true_index, len(self.prototype))

    def blocks(self) -> Iterator[ScoreBlock]:
        """See `ScoreSource.blocks`."""
        if self._kept:
            yield from self._kept
            return
        keep = len(self.queries) * len(self.prototype) <= _KEPT
        for part in _parts(len(self.queries), len(self.prototype)):
            block = (part.start, self.queries @ self.prototype[part].T, self.queries @ self.aerial[part].T)
            if keep:
                self._kept.append(block)
            yield block

    def true_scores(self) -> tuple[Scores, Scores]:
        """See `ScoreSource.true_scores`."""
        own = self.prototype[self.true_index], self.aerial[self.true_index]
        return np.einsum("qd,qd->q", self.queries, own[0]), np.einsum("qd,qd->q", self.queries, own[1])


def _parts(queries: int, cells: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, queries))
    for start in range(0, cells, step):
        yield slice(start, min(start + step, cells))


def _check_true(true: Ints, cells: int) -> None:
    wrong = np.flatnonzero((true < 0) | (true >= cells))
    if len(wrong):
        raise BadInputError(
            f"query {wrong[0]}: its true cell {true[wrong[0]]} is none of {cells} cells.",
            hint="Leave out queries whose cell has no code.",
        )
