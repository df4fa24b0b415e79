"""Minus the log likelihood of photos' positions under a mixture of densities."""

from __future__ import annotations

import torch
from torch import Tensor


def mixture_nll(log_weights: Tensor, log_densities: Tensor) -> Tensor:
    """Mean of -log sum_i w_i f_i over the photos, by log-sum-exp in float64.

    Args:
        log_weights: (B, n) logarithms of the weights.
        log_densities: (B, n) logarithms of the components' densities at the photos' positions.
    """
    return -torch.logsumexp(log_weights.double() + log_densities.double(), dim=1).mean()
