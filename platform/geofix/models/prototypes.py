"""The table of prototypes: one learned vector per S2 cell, and where positions lie among its rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from geofix.errors import BadInputError, UsageError
from geofix.spatial import s2
from geofix.spatial.frames import COARSEST_BILINEAR_LEVEL, bilinear_weights

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

RING = 16  # the four cells around a position and all that touch one of them: 4 x 4, or 12 at a cube's corner
_INIT_ROWS = 1 << 12  # rows drawn from one seed, so that a shard starts as its part of the whole table does


@dataclass(frozen=True)
class Place:
    """Where positions lie among the rows of a table.

    Attributes:
        rows: (B, 4) int64, the cells whose centres surround each position, -1 where one has no prototype.
        weights: (B, 4) float32, bilinear, summing to 1 over the cells there are; all 0 where there is none.
        ring: (B, 16) int64, padded with -1: those cells and every cell that touches one, which are no
            negatives of an anchor here.
    """

    rows: Tensor
    weights: Tensor
    ring: Tensor

    @property
    def has_positive(self) -> Tensor:
        """(B,) bool: at least one of the four cells has a prototype."""
        return self.weights.sum(dim=1) > 0


class PrototypeTable(nn.Module):
    """One vector per cell, normalised when read. Rows are numbered in the order of the sorted ids.

    Args:
        ids: (N,) cells of one level, ascending as signed integers, each once.
        dimension: Length D of a vector.
        seed: Of the random directions that rows start with.
        shard: (which, of how many): hold only one contiguous part of the rows. `ids`, `rows_of` and `place`
            are those of the whole table all the same.

    Raises:
        BadInputError: The ids are empty, unsorted, repeated, or of several levels.
    """

    weight: nn.Parameter

    def __init__(self, ids: Ints, dimension: int, *, seed: int = 0, shard: tuple[int, int] = (0, 1)) -> None:
        super().__init__()
        self.ids, self.level = _checked(ids)
        which, count = shard
        if not 0 <= which < count <= len(self.ids) or dimension < 1:
            raise UsageError(
                f"A table of {len(self.ids)} cells x {dimension} has no shard {which} of {count}."
            )
        self.first_row = len(self.ids) * which // count
        self.stop_row = len(self.ids) * (which + 1) // count
        self.weight = nn.Parameter(_directions(self.first_row, self.stop_row, dimension, seed))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.weight.shape[1])

    def unit(self, rows: Tensor | Ints | None = None) -> Tensor:
        """Unit vectors of some rows (held here), or of all that are."""
        if rows is None:
            return normalize(self.weight, dim=1)
        index = torch.as_tensor(rows, device=self.weight.device) - self.first_row
        if len(index) and not bool(((index >= 0) & (index < len(self.weight))).all()):
            raise UsageError(f"Rows outside {self.first_row}..{self.stop_row - 1} are not held here.")
        return normalize(self.weight[index], dim=1)

    def rows_of(self, cells: ArrayLike) -> Ints:
        """Row of each cell, -1 where it has no prototype; any shape."""
        wanted = np.asarray(cells, np.int64)
        at = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        return np.where(self.ids[at] == wanted, at, np.int64(-1))

    @torch.no_grad()
    def set_rows(self, rows: ArrayLike, vectors: Tensor) -> None:
        """Point some rows along vectors, such as the means of their photos' embeddings.

        Rows get length 1, so that all start with the same effective step size. Rows of other shards are
        skipped.

        Raises:
            BadInputError: A vector is zero or not finite.
        """
        index = torch.as_tensor(np.asarray(rows, np.int64), device=self.weight.device) - self.first_row
        values = vectors.to(self.weight)
        length = values.norm(dim=1, keepdim=True)
        if not bool((torch.isfinite(length) & (length > 0)).all()):
            bad = int((~(torch.isfinite(length) & (length > 0))).nonzero()[0, 0])
            raise BadInputError(f"The vector for row {int(index[bad]) + self.first_row} has no direction.")
        here = (index >= 0) & (index < len(self.weight))
        self.weight[index[here]] = (values / length)[here]

    def place(self, lon: ArrayLike, lat: ArrayLike, *, interpolate: bool = True) -> Place:
        """The interpolation set of positions, its weights, and what is no negative there.

        Args:
            lon: (B,) degrees.
            lat: (B,) degrees.
            interpolate: False: all weight on the cell that holds the position; the ring stays the same.

        Returns:
            Tensors on the CPU.
        """
        cells, weights = bilinear_weights(np.ravel(lon), np.ravel(lat), self.level)
        if not interpolate:
            weights = np.broadcast_to(np.array([1.0, 0, 0, 0]), weights.shape)
        rows = self.rows_of(cells)
        kept = np.where((rows >= 0) & (weights > 0), weights, 0.0)
        total = kept.sum(axis=1, keepdims=True)
        kept = np.divide(kept, total, out=np.zeros_like(kept), where=total > 0)
        return Place(
            torch.from_numpy(rows),
            torch.from_numpy(kept.astype(np.float32)),
            torch.from_numpy(self._ring(cells)),
        )

    def _ring(self, cells: Ints) -> Ints:
        """(B, 16) rows of cells (B, 4) and of all their neighbours, each once, -1 behind them."""
        near = np.concatenate([cells[..., None], s2.neighbors(cells)], axis=2).reshape(len(cells), -1)
        rows = -np.sort(-self.rows_of(near), axis=1)
        rows[:, 1:][rows[:, 1:] == rows[:, :-1]] = -1
        return np.ascontiguousarray(-np.sort(-rows, axis=1)[:, :RING])


def _checked(ids: Ints) -> tuple[Ints, int]:
    cells = np.ascontiguousarray(ids, np.int64)
    if cells.ndim != 1 or not len(cells):
        raise BadInputError("A table of prototypes needs at least one cell.", hint="Are there any photos?")
    if np.any(cells[1:] <= cells[:-1]):
        raise BadInputError("The cells of a table of prototypes are not ascending, each once.")
    levels = s2.level(cells)
    if levels.min() != levels.max() or levels[0] < COARSEST_BILINEAR_LEVEL:
        raise BadInputError(
            f"The cells of a table of prototypes are of levels {levels.min()} to {levels.max()}.",
            hint=f"Use cells of one level, {COARSEST_BILINEAR_LEVEL} or finer.",
        )
    return cells, int(levels[0])


def _directions(first: int, stop: int, dimension: int, seed: int) -> Tensor:
    """Rows first..stop of the table of random unit vectors that a seed stands for."""
    out = torch.empty(stop - first, dimension)
    for block in range(first // _INIT_ROWS, -(-stop // _INIT_ROWS)):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + block) % (1 << 63))
        rows = normalize(torch.randn(_INIT_ROWS, dimension, generator=generator), dim=1)
        low, high = max(first, block * _INIT_ROWS), min(stop, (block + 1) * _INIT_ROWS)
        out[low - first : high - first] = rows[low - block * _INIT_ROWS : high - block * _INIT_ROWS]
    return out
