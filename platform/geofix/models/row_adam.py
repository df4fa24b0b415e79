"""The optimiser of a table of prototypes: moves rows one part at a time, and keeps two numbers per row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from geofix.errors import BadInputError, UsageError


class RowAdam:
    """Adam without first moment and with one second moment per row, of the rows that get a gradient.

    A row's step is lr * g / (sqrt(v) + eps), where v is the running mean of the mean square of its gradient,
    bias-corrected by the number of steps *this row* has taken: a row first met late moves like one met first.
    No weight decay. State: a float and an int32 per row.

    Args:
        table: Whose `weight` is moved; put it on its device first.
        lr: Step size; of the same meaning as in Adam, and free to be set before every step.
        beta2: Memory of the second moment.
        eps: Added to its root; gradients far below it hardly move a row.
    """

    def __init__(
        self, table: nn.Module, lr: float = 3e-3, *, beta2: float = 0.999, eps: float = 1e-8
    ) -> None:
        if not (lr >= 0 and 0 <= beta2 < 1 and eps > 0):
            raise UsageError(f"RowAdam cannot work with lr {lr}, beta2 {beta2}, eps {eps}.")
        weight = table.weight
        assert isinstance(weight, nn.Parameter)
        self.weight = weight
        self.lr, self.beta2, self.eps = lr, beta2, eps
        self.second_moment = torch.zeros(len(weight), dtype=weight.dtype, device=weight.device)
        self.count = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)

    @torch.no_grad()
    def update(self, rows: slice | Tensor, gradient: Tensor) -> None:
        """Take one step with the gradient of some rows.

        Args:
            rows: Of the weight held here: a slice, or (C,) int64, each once.
            gradient: (C, D); overwritten. A row of zeros is left as it is.
        """
        mean_square = torch.linalg.vecdot(gradient, gradient) / gradient.shape[1]
        touched = mean_square > 0
        old = self.second_moment[rows]
        moment = torch.where(touched, torch.lerp(mean_square, old, self.beta2), old)
        count = self.count[rows] + touched.int()
        # Untouched rows divide 0 by eps.
        corrected = moment / (1 - torch.pow(self.beta2, count.clamp(min=1).to(moment.dtype)))
        gradient.mul_((self.lr / (corrected.sqrt() + self.eps))[:, None])
        self.second_moment[rows] = moment
        self.count[rows] = count
        if isinstance(rows, slice):
            self.weight[rows].sub_(gradient)
        else:
            self.weight.index_add_(0, rows, gradient, alpha=-1)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the constants."""
        return {"second_moment": self.second_moment, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state where it was left.

        Raises:
            BadInputError: It belongs to a table of another size.
        """
        for name in ("second_moment", "count"):
            own, other = getattr(self, name), state.get(name)
            if not isinstance(other, Tensor) or other.shape != own.shape:
                found = tuple(other.shape) if isinstance(other, Tensor) else other
                raise BadInputError(
                    f"The optimiser's {name} is {found}; the table has {len(own)} rows.",
                    hint="The checkpoint belongs to another set of prototypes.",
                )
            own.copy_(other)
