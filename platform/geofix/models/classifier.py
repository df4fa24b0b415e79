"""A plain classifier: one trunk, one linear layer per partition of the earth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from geofix.errors import UsageError
from geofix.models.encoder import Encoder


class Classifier(nn.Module):
    """Images in, one row of logits per partition out.

    The layers take in the pooled features before they are normalised; the encoder's own output stays an
    embedding, so that photos can be searched by it too.
    """

    def __init__(self, encoder: Encoder, classes: Sequence[int], seed: int = 0) -> None:
        super().__init__()
        if not classes or min(classes) < 1:
            raise UsageError(f"A classifier of {list(classes)} classes cannot be.")
        self.encoder = encoder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = nn.ModuleList(linear_head(encoder.dimension, count) for count in classes)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits (B, classes) in float32 of (B, 3, H, W) images, in the order of the partitions."""
        features = self.encoder.features(images)
        return [head(features).float() for head in self.heads]


def linear_head(width: int, classes: int) -> nn.Linear:
    """A linear layer that begins with nearly equal probabilities, however many classes there are."""
    head = nn.Linear(width, classes)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return head


def product_rule(log_probabilities: Sequence[Tensor], ancestors: Tensor) -> Tensor:
    """Hierarchical scores f*: log probability of each finest class plus those of its ancestors.

    score(i) = log p_fine(i) + log p_middle(parent of i) + log p_coarse(parent of that); the softmax values
    are multiplied, not the logits (Müller-Budack et al., ECCV 2018).

    Args:
        log_probabilities: One (B, classes) per partition, coarse to fine.
        ancestors: Class in every partition of each finest class, (finest, partitions), columns as the
            partitions; `geofix.partitions.hierarchy.ancestors`.

    Returns:
        (B, finest).

    Raises:
        UsageError: Another number of partitions.
    """
    if ancestors.shape[1] != len(log_probabilities):
        raise UsageError(f"{len(log_probabilities)} partitions, ancestors in {ancestors.shape[1]}.")
    total = log_probabilities[-1][:, ancestors[:, -1]]
    for level, values in enumerate(log_probabilities[:-1]):
        total = total + values[:, ancestors[:, level]]
    return total


def log_probabilities(logits: Sequence[Tensor]) -> list[Tensor]:
    """Logarithm of each partition's softmax, in float32."""
    return [log_softmax(values.float(), dim=1) for values in logits]
