"""Positions to make partitions from, and when two partitions are the same."""

from __future__ import annotations

import numpy as np
import shapely

from geofix.partitions.partition import Partition


def skewed(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Positions as photos have them: a few crowded places, and some anywhere, the 180th meridian included."""
    rng = np.random.default_rng(seed)
    towns = np.stack([rng.uniform(-180, 180, 12), rng.uniform(-80, 80, 12)], axis=1)
    town = rng.choice(12, n, p=rng.dirichlet(np.full(12, 0.4)))
    lon, lat = (towns[town] + rng.normal(0, 0.3, (n, 2)) * rng.exponential(1, (n, 1))).T
    far = rng.random(n) < 0.1
    lon, lat = np.where(far, rng.uniform(-180, 180, n), lon), np.where(far, rng.uniform(-90, 90, n), lat)
    return (lon + 180) % 360 - 180, np.clip(lat, -90, 90)


def same(a: Partition, b: Partition) -> bool:
    arrays = ("cells", "cell_class", "lon", "lat", "photos", "parent", "members")
    equal = all(np.array_equal(getattr(a, n), getattr(b, n)) for n in arrays)  # None equals None
    texts = ("name", "kind", "codes", "coarser", "sets")
    outlines = (a.outlines is None) == (b.outlines is None)
    if a.outlines is not None and b.outlines is not None:
        outlines = bool(shapely.equals(a.outlines, b.outlines).all())
    return equal and outlines and all(getattr(a, n) == getattr(b, n) for n in texts)
