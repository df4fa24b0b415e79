"""Forward and backward of the two encoders of configs/cpu.yaml by memory format and precision.

One thread; processor time per picture, the least of several steps, in turns.

    .venv/bin/python benchmarks/encoder_precision.py
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from geofix.training.config import load_config
from geofix.training.networks import build_networks
from geofix.training.step import cpu_has_bfloat16

CONFIG = Path(__file__).parents[1] / "configs" / "cpu.yaml"
WAYS = (
    ("channels first, float32", torch.contiguous_format, False),
    ("channels last, float32", torch.channels_last, False),
    ("channels last, bfloat16", torch.channels_last, True),
)


def step_s(network: torch.nn.Module, pictures: torch.Tensor, low: bool) -> float:
    """Processor seconds of one forward and backward pass."""
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        vectors = network(pictures)
    vectors.float().square().mean().backward()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(CONFIG)
    batch = config.batch.photos
    print(f"the processor computes in bfloat16: {cpu_has_bfloat16()}; {batch} pictures a step")
    least: dict[tuple[str, str], float] = {}
    for _ in range(args.steps):
        for way, layout, low in WAYS:
            for role, network in build_networks(config, aerial=True).items():
                network.train().to(memory_format=layout)
                pictures = torch.randn(batch, 3, *network.transform.size)
                step_s(network, pictures, low)
                took = step_s(network, pictures, low)
                least[way, role] = min(took, least.get((way, role), took))
    for (way, role), seconds in least.items():
        print(f"{way:<26}{role:<8}{1000 * seconds / batch:6.2f} ms per picture")


if __name__ == "__main__":
    main()
