"""What losses share: their interface, what they need of a table of prototypes, and masked sums."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[Any]  # int64


class PairLoss(Protocol):
    """A loss of an anchor that sees its negatives only through log sum exp(scale * similarity)."""

    @property
    def scale(self) -> float:
        """Factor of the similarities inside the sum over the negatives."""
        ...

    @property
    def soft_labels(self) -> bool:
        """Of a table: the sum goes over all rows, and the positive is sum_j w_j s_j over the cells around."""
        ...

    def combine(self, log_sum: Tensor, positive: Tensor) -> Tensor:
        """Loss of anchors with one positive each.

        Args:
            log_sum: (A,) log sum over the negatives (all rows, with soft labels) of exp(scale * similarity);
                -inf: there are none.
            positive: (A,) similarity of the positive.
        """
        ...

    def __call__(self, similarity: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Loss per row of a matrix of similarities; 0 where a row has no positive.

        Args:
            similarity: (A, K) cosines.
            positive: (A, K) bool.
            negative: (A, K) bool; what is neither is ignored.
        """
        ...


class Place(Protocol):
    """Where anchors lie among the rows of a table; `geofix.models.prototypes.Place` is one."""

    @property
    def rows(self) -> Tensor:
        """(A, 4) int64 rows of the interpolation set, -1 where a cell has no prototype."""
        ...

    @property
    def weights(self) -> Tensor:
        """(A, 4) weights summing to 1, or all 0."""
        ...

    @property
    def ring(self) -> Tensor:
        """(A, R) int64 rows that are no negatives, padded with -1; R is the same for all batches."""
        ...


class Table(Protocol):
    """Rows by sorted cell; `geofix.models.prototypes.PrototypeTable` is one."""

    @property
    def ids(self) -> Ints:
        """(N,) cells of all rows, ascending."""
        ...

    @property
    def level(self) -> int:
        """S2 level of the cells."""
        ...

    @property
    def first_row(self) -> int:
        """Which row of the whole table the first row of `weight` is."""
        ...

    @property
    def weight(self) -> Tensor:
        """(rows held here, D), not normalised."""
        ...


class RowOptimiser(Protocol):
    """Moves rows as soon as their gradient is known; `geofix.models.row_adam.RowAdam` is one."""

    def update(self, rows: slice | Tensor, gradient: Tensor) -> None:
        """Take one step with the gradient of some rows of `weight`."""
        ...


def log_sum(logits: Tensor, mask: Tensor) -> Tensor:
    """Log of the sum of exp over the masked entries of each row; very low, not -inf, where there are none.

    A finite value keeps the gradient of an empty row 0 instead of NaN.
    """
    return torch.logsumexp(logits.masked_fill(~mask, torch.finfo(logits.dtype).min / 2), dim=1)
