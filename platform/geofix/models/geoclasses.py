"""CPlaNet's answer: layers for several sets of classes vote for the regions of their intersection."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from geofix.partitions.partition import Partition
from geofix.partitions.vote import vote_scores


def region_votes(log_probabilities: Sequence[Tensor], regions: Partition, *, normalise: bool) -> Tensor:
    """Votes (B, regions) in float64, on the CPU; see `geofix.partitions.vote.vote_scores`.

    Args:
        log_probabilities: One (B, classes) per set, in the order of the sets.
        regions: The intersection of the sets.
        normalise: Divide by the size of a class.
    """
    given = [values.detach().double().exp().cpu().numpy() for values in log_probabilities]
    return torch.from_numpy(vote_scores(given, regions, normalise=normalise))
