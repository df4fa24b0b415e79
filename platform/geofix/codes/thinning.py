"""At most so many of many photos: what a fit needs no more of, and could not hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def thinned(rows: NDArray[np.int64], most: int, *, seed: int = 0) -> NDArray[np.int64]:
    """At most so many of the rows (n,), in their order; drawn alike from all, so that their mix stays.

    The same rows and seed give the same draw.
    """
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
