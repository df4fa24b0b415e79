"""Which device a worker of the GPU queue computes on, found without loading torch."""

from __future__ import annotations

import os
import re
from pathlib import Path

from geofix.log import get_logger

_log = get_logger(__name__)


def visible_gpus() -> int:
    """NVIDIA GPUs that this process may use: by CUDA_VISIBLE_DEVICES where set, else by device files."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return len([item for item in chosen.split(",") if item.strip() not in ("", "-1")])
    return sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in Path("/dev").glob("nvidia*"))


def gpu_devices(setting: str, gpus: int) -> list[str]:
    """The device of each worker process of the GPU queue: one process per GPU.

    Args:
        setting: GEOFIX_DEVICE: auto and cuda take all GPUs, cuda:N one, cpu none.
        gpus: How many there are.
    """
    if setting in ("auto", "cuda") and gpus:
        return [f"cuda:{number}" for number in range(gpus)]
    named = re.fullmatch(r"cuda:(\d+)", setting)
    if named and int(named[1]) < gpus:
        return [setting]
    if setting == "cpu":
        return ["cpu"]
    _log.warning("no such GPU is seen; the queue gpu runs on the CPU, slowly", device=setting, gpus=gpus)
    return ["auto"]  # where torch finds one after all, it is used
