"""Whether the classes of a classifier fit into memory, asked before anything is allocated."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from geofix.errors import UsageError

GIB = float(1 << 30)


def check_classes(
    classes: int,
    width: int,
    batch: int,
    *,
    kind: str,
    moments: int,
    device: torch.device,
    limit_gb: float | None,
) -> float:
    """Refuse more classes than memory holds; returns the gibibytes that they need.

    Counted: the layer, its gradient and the optimiser's moments in float32; per photo of a batch four values
    of a class for softmax (logits, log-softmax, their gradients), and for a mixture eight more in float64.
    The trunk is not counted.

    Args:
        classes: Of all partitions together.
        width: Length of the features.
        batch: Photos per step.
        kind: softmax or mvmf.
        moments: Values that the optimiser keeps per weight.
        device: Where to train.
        limit_gb: Gibibytes that may be used; None: what is free.

    Raises:
        UsageError: They do not fit.
    """
    layer = 4.0 * (2 + moments) * classes * (width + 1)
    per_photo = 16.0 + (64.0 if kind == "mvmf" else 0.0)
    needed = (layer + per_photo * batch * classes) / GIB
    free = limit_gb if limit_gb is not None else free_memory(device) / GIB
    if needed > free:
        raise UsageError(
            f"{classes:,} classes of {width} features and {batch} photos per step need {needed:.2f} GiB of "
            f"memory; {free:.2f} are free.",
            hint="Raise partitions.tau_max (fewer classes), or lower batch.photos or dimension.",
        )
    return needed


def free_memory(device: torch.device) -> float:
    """Bytes that a run on a device may still take."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * float(line.split()[1])
    except OSError:
        pass
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
