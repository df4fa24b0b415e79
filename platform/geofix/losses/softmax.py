"""Cross-entropy of a softmax over similarities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from geofix.errors import UsageError
from geofix.losses.base import log_sum


@dataclass(frozen=True)
class Softmax:
    """Minus the log probability of a positive among itself and all negatives (InfoNCE).

    With several positives, the mean over them, each against the negatives alone.

    Against a table of prototypes there is a second way, soft labels: -sum_j w_j log softmax(s / T)_j over all
    rows, where w are the bilinear weights of the four cells around the anchor. Neighbours are then told
    apart, too, and no photo is ever to lie at one prototype for certain (decision 0021).

    Attributes:
        temperature: Divides the cosines.
        soft_labels: Of a table's rows, the weights of the cells around are labels.
    """

    temperature: float = 0.05
    soft_labels: bool = False

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UsageError(f"The temperature of the softmax is {self.temperature}; it must be positive.")

    @property
    def scale(self) -> float:
        """Factor of the similarities inside the sum over the negatives."""
        return 1 / self.temperature

    def combine(self, log_sum: Tensor, positive: Tensor) -> Tensor:
        """See `PairLoss.combine`."""
        if self.soft_labels:
            return log_sum - positive / self.temperature
        return softplus(log_sum - positive / self.temperature)

    def __call__(self, similarity: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """See `PairLoss`."""
        logits = similarity / self.temperature
        each = softplus(log_sum(logits, negative)[:, None] - logits)
        total = torch.where(positive, each, 0.0).sum(dim=1)
        return total / positive.sum(dim=1).clamp(min=1)
