"""One rank of a step on a table whose rows are spread over processes; run by test_losses_sharded.py.

python sharded_step.py RANK RANKS FOLDER: writes FOLDER/RANK.pt; ranks meet in a file of FOLDER.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import normalize

from geofix.losses import MultiSimilarity, SampledNegatives, Softmax, prototype_terms
from geofix.models.prototypes import PrototypeTable
from geofix.models.row_adam import RowAdam
from geofix.spatial import s2

LOSSES = [MultiSimilarity(1.0, 50.0, 0.0), Softmax(0.1), Softmax(0.1, soft_labels=True)]
ANCHORS, DIMENSION = 12, 16


def step(loss: Any, rank: int, ranks: int, group: Any, sampled: bool) -> dict[str, Tensor]:
    """Losses, anchors' gradients and moved rows of one rank (of one rank alone: everything)."""
    rng = np.random.default_rng(1)
    ids = np.unique(s2.cell_at(rng.uniform(8.8, 8.9, 300), rng.uniform(44.4, 44.46, 300), 15))
    lon, lat = rng.uniform(8.8, 8.93, ANCHORS), rng.uniform(44.4, 44.46, ANCHORS)
    mine = slice(rank * ANCHORS // ranks, (rank + 1) * ANCHORS // ranks)
    table = PrototypeTable(ids, DIMENSION, seed=2, shard=(rank, ranks))
    optimiser = RowAdam(table, lr=0.05, eps=1e-4)
    everyone = torch.randn(ANCHORS, DIMENSION, generator=torch.Generator().manual_seed(3))
    anchors = normalize(everyone, dim=1)[mine].clone().requires_grad_()
    # Enough draws to take every far row: then the sample is the table, and both ways must agree.
    sampler = SampledNegatives(10**6, near_m=100.0, above=10) if sampled else None
    place = table.place(lon[mine], lat[mine])
    for _ in range(2):
        anchors.grad = None
        each = prototype_terms(
            anchors, table, place, loss, optimiser=optimiser, chunk_rows=29, sampled=sampler, group=group
        )
        each.mean().backward()
    assert anchors.grad is not None
    return {"each": each.detach(), "anchors": anchors.grad, "rows": table.weight.detach()}


def main() -> None:
    rank, ranks, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    meeting = (folder / "meeting").resolve().as_uri()
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
    out = {
        f"{k}.{sampled}.{name}": value
        for k, loss in enumerate(LOSSES)
        for sampled in (False, True)
        for name, value in step(loss, rank, ranks, dist.group.WORLD, sampled).items()
    }
    torch.save(out, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
