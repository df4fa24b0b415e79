"""What the prototype terms add to a training step: time against the bare encoders, or memory of a big table.

Time: forward + backward of two encoders alone, and the same with ground-prototype and aerial-prototype terms
over the whole table (places, both passes and the rows' optimiser included), in turns; medians.

    .venv/bin/python benchmarks/prototype_step.py
    .venv/bin/python benchmarks/prototype_step.py --memory --prototypes 1000000 --dimension 512 --batch 128
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from geofix.losses import MultiSimilarity, SampledNegatives, prototype_terms
from geofix.models.config import EncoderConfig
from geofix.models.encoder import build_encoder
from geofix.models.prototypes import PrototypeTable
from geofix.models.row_adam import RowAdam
from geofix.spatial import s2

Ints = NDArray[np.int64]
GIB = 2**30


def country(count: int, level: int = 15) -> Ints:
    """So many neighbouring cells around (10 E, 49 N): the densest table there can be."""
    side = int(np.ceil(np.sqrt(count))) + 8
    step_lat = 0.9 * 254 / 111_200
    lon, lat = np.meshgrid(
        10 + np.arange(-side // 2, side // 2) * step_lat / np.cos(np.deg2rad(49)),
        49 + np.arange(-side // 2, side // 2) * step_lat,
    )
    cells = np.unique(s2.cell_at(lon.ravel(), lat.ravel(), level))
    while len(cells) < count:
        near = s2.neighbors(cells).ravel()
        cells = np.unique(np.concatenate([cells, near[near != 0]]))
    return cells[:count]


class Step:
    """One batch against one table."""

    def __init__(self, options: argparse.Namespace, device: torch.device) -> None:
        self.device, self.spread = device, options.spread
        self.table = PrototypeTable(country(options.prototypes), options.dimension).to(device)
        if options.spread:  # trained vectors fill few of their dimensions
            generator = torch.Generator().manual_seed(1)
            basis = torch.randn(options.spread, options.dimension, generator=generator).to(device)
            with torch.no_grad():
                self.table.weight.copy_(normalize(self.table.weight[:, : options.spread] @ basis, dim=1))
        self.optimiser = RowAdam(self.table, lr=1e-3)
        self.sampled = SampledNegatives(options.sampled, above=0) if options.sampled else None
        self.count, self.rng = 2 * options.batch, np.random.default_rng(0)

    def prototypes(self, anchors: Tensor) -> Tensor:
        """Mean of both terms; its backward pass moves the rows."""
        rows = self.rng.integers(0, len(self.table), self.count)
        place = self.table.place(*s2.center(self.table.ids[rows]))
        if self.spread:  # each near its own row
            noise = torch.randn(anchors.shape, device=self.device) / anchors.shape[1] ** 0.5
            anchors = normalize(self.table.unit(rows).detach() + 0.7 * noise + 0.1 * anchors, dim=1)
        return prototype_terms(
            anchors,
            self.table,
            place,
            MultiSimilarity(),
            optimiser=self.optimiser,
            sampled=self.sampled,
        ).mean()


def seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure_time(options: argparse.Namespace, device: torch.device) -> None:
    config = EncoderConfig(trunk=options.trunk, image_size=options.size, dimension=options.dimension)
    ground, aerial = (build_encoder(config).to(device).train() for _ in range(2))
    step = Step(options, device)
    photos, tiles = torch.randn(2, options.batch, 3, options.size, options.size, device=device)
    direction = torch.randn(options.dimension, device=device)

    def anchors() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return torch.cat([ground(photos), aerial(tiles)])

    def bare() -> None:
        (anchors().float() @ direction).mean().backward()

    def full() -> None:
        step.prototypes(anchors().float()).backward()

    times: dict[str, list[float]] = {"bare": [], "full": []}
    spent: dict[str, list[float]] = {"bare": [], "full": []}
    for turn in range(options.steps + 1):
        for name, work in (("bare", bare), ("full", full)):
            before = time.process_time()
            took = seconds(work, device)
            if turn:  # the first one warms up
                times[name].append(took)
                spent[name].append(time.process_time() - before)
    low, high = (statistics.median(times[name]) for name in ("bare", "full"))
    cpu = {name: statistics.median(values) for name, values in spent.items()}
    ratios = [b / a for a, b in zip(times["bare"], times["full"], strict=True)]
    print(f"bare forward + backward of two encoders: {low * 1e3:.0f} ms")
    print(
        f"processor time: {cpu['bare']:.2f} s and {cpu['full']:.2f} s, ratio {cpu['full'] / cpu['bare']:.3f}"
    )
    print(f"with {options.prototypes:,} prototypes:         {high * 1e3:.0f} ms")
    print(
        f"ratio of medians {high / low:.3f}, median of {len(ratios)} ratios {statistics.median(ratios):.3f}"
    )


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure_memory(options: argparse.Namespace, device: torch.device) -> None:
    """Peak beyond the table itself: second moments, ids' lookups, anchors, logits, chunks."""
    step = Step(options, device)
    generator = torch.Generator().manual_seed(1)
    anchors = torch.randn(2 * options.batch, options.dimension, generator=generator).to(device)
    leaf = normalize(anchors, dim=1).requires_grad_()
    table = step.table.weight.numel() * 4
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = table
    else:
        state = step.optimiser.second_moment.nbytes + step.optimiser.count.nbytes
        before = resident() - state
    took = seconds(lambda: step.prototypes(leaf).backward(), device)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"table {len(step.table):,} x {options.dimension}: {table / GIB:.2f} GiB, {2 * options.batch} anchors"
    )
    print(f"peak beyond it during one step: {(peak - before) / GIB:.2f} GiB; the step took {took:.1f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--prototypes", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64, help="photos, and as many tiles")
    parser.add_argument("--trunk", default="mobilenetv2_100")
    parser.add_argument("--size", type=int, default=96, help="pixels of both inputs")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--sampled", type=int, default=0, help="far negatives drawn; 0: the whole table")
    parser.add_argument(
        "--spread", type=int, default=0, help="as when trained: vectors fill this many dimensions; 0: random"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", action="store_true", help="memory of one step instead of time")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    (measure_memory if options.memory else measure_time)(options, device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
