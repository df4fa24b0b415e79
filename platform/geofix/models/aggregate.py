"""Pooling a feature map into one vector."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Aggregation = Literal["gem", "avg"]


class GeM(nn.Module):
    """Generalised mean over positions: (mean x^p)^(1/p), with p learned.

    p = 1 is the average, p towards infinity the maximum. Values are clamped to `eps` first, so the pooling
    is meant for maps that are mostly positive (after a ReLU). Source: Radenovic, Tolias, Chum, *Fine-tuning
    CNN Image Retrieval with No Human Annotation*, TPAMI 2019, equation 3.
    """

    def __init__(self, p: float = 3.0, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(float(p)))
        self.eps = eps

    def forward(self, features: Tensor) -> Tensor:
        """Pool (B, C, H, W) to (B, C), in float32 whatever the input's type."""
        powered = features.float().clamp(min=self.eps).pow(self.p)
        return powered.mean(dim=(-2, -1)).pow(1.0 / self.p)


class Average(nn.Module):
    """Plain mean over positions."""

    def forward(self, features: Tensor) -> Tensor:
        """Pool (B, C, H, W) to (B, C), in float32 whatever the input's type."""
        return features.float().mean(dim=(-2, -1))


def build_aggregation(kind: Aggregation, gem_p: float) -> nn.Module:
    """The pooling layer named by a model's configuration."""
    return GeM(gem_p) if kind == "gem" else Average()
