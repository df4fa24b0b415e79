"""One process or several under torchrun: who leads, who holds which rows, what they agree on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from geofix.errors import UsageError

# The leader validates and writes while the others wait.
PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class Team:
    """The processes of a run.

    Encoders are copied to every rank and their gradients averaged (DistributedDataParallel); the rows of the
    prototype table are dealt out, each rank holding a contiguous part. The batch of the configuration is that
    of all ranks together. Ground against aerial is compared within each rank's part of the batch.

    Attributes:
        rank: Number of this process, 0 leads.
        size: Number of processes.
        group: Process group; None: there is one process.
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    @property
    def leads(self) -> bool:
        """Whether this process writes the model and speaks."""
        return self.rank == 0

    def part(self, batch: int) -> slice:
        """This rank's places of a batch.

        Raises:
            UsageError: The batch cannot be dealt out evenly.
        """
        if batch % self.size:
            raise UsageError(
                f"A batch of {batch} photos cannot be dealt out to {self.size} processes.",
                hint="Make batch.photos a multiple of the number of processes.",
            )
        return slice(self.rank, None, self.size)

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with averaged gradients."""
        if self.group is None or not any(p.requires_grad for p in network.parameters()):
            return network
        return DistributedDataParallel(network, process_group=self.group)

    def share_buffers(self, network: nn.Module) -> None:
        """Give all processes the leader's running statistics, as the next averaged pass would."""
        if self.group is not None:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0, group=self.group)

    def highest(self, number: int) -> int:
        """The largest number that any process brings; all learn it at the same step."""
        if self.group is None:
            return number
        found = torch.tensor(number, device=_device(self.group))
        dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self.group)
        return int(found.item())

    def newest(self, numbers: Sequence[int]) -> int | None:
        """The largest number that all processes bring, of two each at most; None: they share none."""
        if self.group is None:
            return max(numbers, default=None)
        own = torch.full((2,), -1, dtype=torch.int64, device=_device(self.group))
        own[: len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
        brought = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(brought, own, group=self.group)
        shared = set.intersection(*(set(item.tolist()) for item in brought)) - {-1}
        return max(shared, default=None)

    def rows(self, part: Tensor, total: int) -> Tensor:
        """All rows of a table, on the CPU, from the parts that the ranks hold."""
        if self.group is None:
            return part.detach().cpu()
        longest = -(-total // self.size)
        padded = torch.zeros(longest, part.shape[1], dtype=part.dtype, device=part.device)
        padded[: len(part)] = part.detach()
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded, group=self.group)
        lengths = [total * (r + 1) // self.size - total * r // self.size for r in range(self.size)]
        return torch.cat([item[:n].cpu() for item, n in zip(parts, lengths, strict=True)])

    def wait(self) -> None:
        """Go on when all are here."""
        if self.group is not None:
            dist.barrier(group=self.group)


@contextmanager
def crew() -> Iterator[Team]:
    """The team that torchrun started, or a team of one; ended on leaving.

    Raises:
        UsageError: torchrun's variables are incomplete.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team()
        return
    if not {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise UsageError(
            "WORLD_SIZE is set, but RANK, MASTER_ADDR or MASTER_PORT is not.", hint="Use torchrun."
        )
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield Team(dist.get_rank(), size, dist.group.WORLD)
    finally:
        dist.destroy_process_group()


def own_device(device: torch.device, team: Team) -> torch.device:
    """The device of this process: on a machine with several GPUs each rank has one."""
    if team.size > 1 and device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _device(group: Any) -> torch.device:
    nccl = dist.get_backend(group) == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
