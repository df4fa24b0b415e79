"""The multi-similarity loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from geofix.errors import UsageError
from geofix.losses.base import log_sum


@dataclass(frozen=True)
class MultiSimilarity:
    """Pull of the positives and push of the negatives, each a soft maximum (Wang et al., CVPR 2019, eq. 14).

    log(1 + sum_P exp(-alpha (s - lam))) / alpha + log(1 + sum_N exp(beta (s - lam))) / beta

    Without the paper's mining: at beta = 50 the second term is a soft maximum that mines by itself.

    Attributes:
        alpha: Sharpness of the pull.
        beta: Sharpness of the push.
        lam: Cosine below which a positive, and above which a negative, costs.
    """

    alpha: float = 1.0
    beta: float = 50.0
    lam: float = 0.0
    soft_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (self.alpha > 0 and self.beta > 0 and -1 <= self.lam <= 1):
            raise UsageError(
                f"Multi-similarity constants {self} are out of range.",
                hint="alpha and beta must be positive, lam must be a cosine.",
            )

    @property
    def scale(self) -> float:
        """Factor of the similarities inside the sum over the negatives."""
        return self.beta

    def combine(self, log_sum: Tensor, positive: Tensor) -> Tensor:
        """See `PairLoss.combine`."""
        pull = softplus(-self.alpha * (positive - self.lam)) / self.alpha
        return pull + softplus(log_sum - self.beta * self.lam) / self.beta

    def __call__(self, similarity: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """See `PairLoss`."""
        above = similarity - self.lam
        pull = softplus(log_sum(-self.alpha * above, positive)) / self.alpha
        push = softplus(log_sum(self.beta * above, negative)) / self.beta
        return torch.where(positive.any(dim=1), pull + push, 0.0)
