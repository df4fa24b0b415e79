"""Means and medians of resampled groups.

A replicate draws as many groups as there are, with replacement. Groups that count alike, such as two
sequences of two photos with one hit each, are interchangeable: how often any of them comes is drawn at once,
by the multinomial distribution, which is what drawing them one by one comes to. A median asks more of the
groups with a value near it, and only these are drawn one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Of one array of replicates: 2 MB of 8 bytes each, which a processor keeps near. A longer one takes more.
_CHUNK_ENTRIES = 1 << 18
# Values weighed to each side of the middle: so many standard deviations of where a replicate has its own.
_REACH, _LEAST = 6.0, 64
# Drawing how often a kind comes takes as long as drawing so many groups.
_PER_KIND = 8


@dataclass(frozen=True)
class Kinds:
    """Groups that are drawn by their kind, and groups that are drawn one by one.

    Attributes:
        kind: Kind of each group, shape (groups,); -1: drawn one by one.
        single: The latter, ascending, shape (s,).
        sizes: Groups of each kind, shape (k,).
    """

    kind: NDArray[np.intp]
    single: NDArray[np.intp]
    sizes: NDArray[np.intp]

    @classmethod
    def of(cls, columns: Sequence[Floats], apart: NDArray[np.bool_]) -> Kinds:
        """Groups of the same values in all columns are a kind, but for those apart.

        Where that saves nothing, all are apart.
        """
        alike = np.flatnonzero(~apart)
        code = np.zeros(len(alike), np.intp)
        for column in columns:
            inverse = np.unique(column[alike], return_inverse=True)[1]
            code = np.unique(code * (len(alike) + 1) + inverse, return_inverse=True)[1]
        sizes = np.bincount(code)
        kind = np.full(len(apart), -1, np.intp)
        if len(sizes) * _PER_KIND <= len(alike):
            kind[alike] = code
        else:
            sizes = sizes[:0]
        return cls(kind, np.flatnonzero(kind < 0), sizes)

    @cached_property
    def members(self) -> list[NDArray[np.intp]]:
        """The groups of each kind."""
        order = np.argsort(self.kind, kind="stable")[len(self.single) :]
        return np.split(order, np.cumsum(self.sizes)[:-1]) if len(self.sizes) else []


@dataclass(frozen=True)
class Drawn:
    """Some replicates.

    Attributes:
        kinds: What they were drawn from.
        first: Number of the first.
        of_kind: How often each kind was drawn, shape (replicates, k).
        times: How often each of the single groups was drawn, shape (replicates, s).
        seed: Of all replicates.
    """

    kinds: Kinds
    first: int
    of_kind: NDArray[np.int64]
    times: NDArray[np.int64]
    seed: int

    def sums(self, columns: Sequence[Floats]) -> Floats:
        """Sum of every column over the drawn groups, shape (replicates, columns); exact for whole numbers."""
        table = np.stack(columns, axis=1)
        kept = self.kinds.kind >= 0
        values = np.zeros((len(self.kinds.sizes), len(columns)))
        values[self.kinds.kind[kept]] = table[kept]
        found: Floats = self.of_kind @ values + self.times @ table[self.kinds.single]
        return found

    def every(self, row: int) -> NDArray[np.int64]:
        """How often one replicate drew each group, shape (groups,)."""
        found = np.zeros(len(self.kinds.kind), np.int64)
        found[self.kinds.single] = self.times[row]
        rng = np.random.default_rng([self.seed, self.first + row])
        for groups, drawn in zip(self.kinds.members, self.of_kind[row], strict=True):
            found[groups] = np.bincount(rng.integers(0, len(groups), drawn), minlength=len(groups))
        return found


def draws(kinds: Kinds, replicates: int, seed: int) -> Iterator[Drawn]:
    """Replicates, some at a time."""
    rng = np.random.default_rng(seed)
    n, s = len(kinds.kind), len(kinds.single)
    shares = np.append(kinds.sizes, s) / n
    rows = max(1, _CHUNK_ENTRIES // max(s, len(kinds.sizes)))
    for first in range(0, replicates, rows):
        some = min(rows, replicates - first)
        drawn = rng.multinomial(n, shares, size=some)
        picked = rng.integers(0, max(s, 1), size=drawn[:, -1].sum(), dtype=np.uint32)
        picked = picked + np.repeat(np.arange(some) * s, drawn[:, -1])
        times = np.bincount(picked, minlength=some * s).reshape(some, s)
        yield Drawn(kinds, first, drawn[:, :-1], times, seed)


def mean_replicates(
    columns: tuple[Floats, ...], codes: NDArray[np.intp] | None, n_groups: int, replicates: int, seed: int
) -> Floats:
    """Means of resampled groups, shape (replicates, columns): sums and sizes per group suffice.

    Args:
        columns: Values, each of shape (n,).
        codes: Group of each value, shape (n,); None: each is its own.
        n_groups: How many there are.
        replicates: How many to draw.
        seed: Same seed, same replicates.
    """
    sums: list[Floats]
    if codes is None:
        sums, sizes = list(columns), np.ones(n_groups)
    else:
        sums = [np.bincount(codes, c, n_groups).astype(np.float64) for c in columns]
        sizes = np.bincount(codes, minlength=n_groups).astype(np.float64)
    kinds = Kinds.of([sizes, *sums], np.zeros(n_groups, dtype=bool))
    found = np.concatenate([drawn.sums([sizes, *sums]) for drawn in draws(kinds, replicates, seed)])
    means: Floats = found[:, 1:] / found[:, :1]
    return means


def median_replicates(
    columns: tuple[Floats, ...], codes: NDArray[np.intp] | None, n_groups: int, replicates: int, seed: int
) -> Floats:
    """Weighted lower medians of resampled groups, shape (replicates, columns).

    Each column is sorted once. The middle of a replicate lies near that of all values, so only the values
    around it are weighed one by one; what lies below them is summed with the photos, by group. Arguments as
    in `mean_replicates`.
    """
    group = np.arange(n_groups, dtype=np.intp) if codes is None else codes
    sizes = np.bincount(group, minlength=n_groups).astype(np.float64)
    windows = [_Window.of(column, group, sizes) for column in columns]
    counts = [sizes, *(window.below for window in windows)]
    near = np.zeros(n_groups, dtype=bool)
    for window in windows:
        near[window.group] = True
    kinds = Kinds.of(counts, near)
    width = max(1, _CHUNK_ENTRIES // max(len(window.values) for window in windows))
    parts = []
    for drawn in draws(kinds, replicates, seed):
        sums = drawn.sums(counts)
        half = (sums[:, 0] + 1) // 2
        # A replicate of few groups is short, but many of its values may be looked at.
        for rows in (slice(at, at + width) for at in range(0, len(sums), width)):
            found = [
                window.middle(drawn, rows, half[rows], below[rows])
                for window, below in zip(windows, sums.T[1:], strict=True)
            ]
            parts.append(np.stack(found, axis=1))
    return np.concatenate(parts)


@dataclass(frozen=True)
class _Window:
    """The values of a column in which the middles of nearly all replicates lie.

    Attributes:
        values: Ascending, shape (w,).
        group: Their groups, shape (w,).
        below: Values of each group before these, shape (groups,).
        column: All values ascending, shape (n,), and
        groups: their groups, for a middle that lies elsewhere.
    """

    values: Floats
    group: NDArray[np.intp]
    below: Floats
    column: Floats
    groups: NDArray[np.intp]

    @classmethod
    def of(cls, column: Floats, group: NDArray[np.intp], sizes: Floats) -> _Window:
        """Around the middle of a column."""
        order = np.argsort(column, kind="stable")
        ordered, groups = column[order], group[order]
        middle = len(column) // 2
        lower = np.bincount(groups[:middle], minlength=len(sizes))
        reach = int(_REACH * np.sqrt(np.square(lower - sizes / 2).sum())) + _LEAST
        low, high = max(middle - reach, 0), middle + reach
        below = np.bincount(groups[:low], minlength=len(sizes)).astype(np.float64)
        return cls(ordered[low:high], groups[low:high], below, ordered, groups)

    def middle(self, drawn: Drawn, rows: slice, half: Floats, below: Floats) -> Floats:
        """The weighted lower median of some replicates.

        Args:
            drawn: The replicates.
            rows: Which of them.
            half: The weight that is to be reached by each.
            below: Weight of what lies before the window.
        """
        place_of = np.searchsorted(drawn.kinds.single, self.group)
        reached: NDArray[Any] = np.cumsum(np.take(drawn.times[rows], place_of, axis=1), axis=1)
        place = (reached < (half - below)[:, None]).sum(axis=1)
        found: Floats = self.values[np.minimum(place, len(self.values) - 1)]
        for row in np.flatnonzero((below >= half) | (place == len(self.values))):
            weights = np.cumsum(drawn.every(rows.start + row)[self.groups])
            found[row] = self.column[np.searchsorted(weights, half[row])]
        return found
