"""What ranks that hold different rows of one table tell each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from geofix.errors import UsageError
from geofix.losses.base import Place


@dataclass(frozen=True)
class GatheredPlace:
    """The places of all ranks' anchors, in the order of the ranks."""

    rows: Tensor
    weights: Tensor
    ring: Tensor


@dataclass(frozen=True)
class Shards:
    """A process group whose ranks each hold a part of the rows; no group: one process holds all.

    Every rank must bring the same number of anchors.
    """

    group: Any = None

    @property
    def alone(self) -> bool:
        """Whether there is nobody to talk to."""
        return self.group is None

    @property
    def count(self) -> int:
        """Number of ranks."""
        return 1 if self.alone else dist.get_world_size(self.group)

    def own(self, length: int) -> slice:
        """The part of gathered entries that this rank brought."""
        if self.alone:
            return slice(0, length)
        each = length // self.count
        rank = dist.get_rank(self.group)
        return slice(rank * each, (rank + 1) * each)

    def gather(self, part: Tensor) -> Tensor:
        """Entries of all ranks, one after the other."""
        if self.alone:
            return part
        parts = [torch.empty_like(part) for _ in range(self.count)]
        dist.all_gather(parts, part.contiguous(), group=self.group)
        return torch.cat(parts)

    def add(self, values: Tensor) -> Tensor:
        """Sum over the ranks, in place."""
        if not self.alone:
            dist.all_reduce(values, group=self.group)
        return values

    def log_add(self, values: Tensor) -> Tensor:
        """Log of the sum over the ranks of exp; -inf where all are."""
        if self.alone:
            return values
        highest = values.clone()
        dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=self.group)
        shift = highest.masked_fill(highest == -torch.inf, 0)
        return shift + self.add((values - shift).exp()).log()

    def gather_place(self, place: Place, device: torch.device) -> Place:
        """The places of all ranks' anchors, on the CPU.

        Args:
            place: This rank's.
            device: One that the group can talk from.

        Raises:
            UsageError: The ranks bring different numbers of anchors.
        """
        if self.alone:
            return place
        sizes = self.gather(torch.tensor([len(place.rows)], device=device)).tolist()
        if len(set(sizes)) > 1:
            raise UsageError(f"The ranks bring {sizes} anchors; every rank must bring the same number.")
        rows, weights, ring = (
            self.gather(t.to(device)).cpu() for t in (place.rows, place.weights, place.ring)
        )
        return GatheredPlace(rows, weights, ring)
