"""Cross-entropy of photos against the classes of one or several partitions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from geofix.errors import UsageError

OUTSIDE = -1
"""Label of a photo that lies in no class of a partition."""


def class_terms(logits: Sequence[Tensor], labels: Tensor) -> list[Tensor]:
    """Mean cross-entropy of each partition over the photos that lie in one of its classes.

    A photo outside every class of a partition takes no part in this partition's mean; where all are outside,
    the term is 0.

    Args:
        logits: One (B, classes) per partition.
        labels: (B, partitions) int64, `OUTSIDE` for none.

    Raises:
        UsageError: Another number of partitions, or a label beyond the classes.
    """
    if labels.ndim != 2 or labels.shape[1] != len(logits):
        raise UsageError(f"{len(logits)} partitions, labels of shape {tuple(labels.shape)}.")
    terms = []
    for values, own in zip(logits, labels.T, strict=True):
        if int(own.max()) >= values.shape[1] or int(own.min()) < OUTSIDE:
            raise UsageError(
                f"Label {int(own.max())} of {values.shape[1]} classes: labels are of another partition."
            )
        total = cross_entropy(values, own, ignore_index=OUTSIDE, reduction="sum")
        terms.append(total / (own != OUTSIDE).sum().clamp(min=1))
    return terms


def weighted_sum(terms: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The loss of all partitions together."""
    return torch.stack([weight * term for term, weight in zip(terms, weights, strict=True)]).sum()
