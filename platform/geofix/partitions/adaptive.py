"""Adaptive S2 cells: small where photos are many (PlaNet; also ISNs, TransLocator, SwC and GeoDecoder)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from geofix.errors import BadInputError, UsageError
from geofix.log import progress
from geofix.partitions.classes import of_cells, photo_leaves
from geofix.partitions.hierarchy import nest
from geofix.partitions.partition import Floats, Ints, Partition, Position
from geofix.spatial import s2

# Of the published partitions (tables that TransLocator ships): one least number of photos, three largest.
TAU_MIN = 50
TAU_MAX = {"coarse": 5000, "middle": 2000, "fine": 1000}


def adaptive_cells(leaves: ArrayLike, *, tau_min: int, tau_max: int, max_level: int = s2.MAX_LEVEL) -> Ints:
    """The adaptive cells of photos, in ascending order.

    Starts from the six faces; while a cell holds more than `tau_max` photos and is coarser than `max_level`,
    its four children take its place. Cells with `tau_min` photos or fewer are dropped at the end (strictly
    more is needed: the smallest published cell of tau_min 50 has 51).

    Args:
        leaves: Leaf ids of the photos, shape (n,).
        tau_min: Photos a cell must exceed.
        tau_max: Photos above which a cell is split.
        max_level: Cells of this level are never split, however full.

    Raises:
        UsageError: tau_min is negative or not below tau_max; max_level is out of range.
        BadInputError: No photo, or no cell is left.
    """
    check_limits(tau_min, tau_max, max_level)
    ordered = np.sort(np.asarray(leaves, np.int64))
    if not ordered.size:
        raise BadInputError("A partition needs photos, and there are none.")
    active, done = np.unique(s2.parent(ordered, 0)), []
    largest = 0
    for level in range(max_level + 1):
        first, last = s2.range_of(active)
        photos = np.searchsorted(ordered, last, "right") - np.searchsorted(ordered, first, "left")
        full = (photos > tau_max) if level < max_level else np.zeros(len(active), bool)
        largest = max(largest, int(photos[~full].max(initial=0)))
        done.append(active[~full & (photos > tau_min)])
        if not full.any():
            break
        # Children without photos (at most three per split) are dropped by the count of the next round.
        active = s2.children(active[full]).ravel()
    cells = np.sort(np.concatenate(done))
    if not cells.size:
        raise BadInputError(
            f"No cell has more than tau_min = {tau_min} photos; the fullest has {largest} of {ordered.size}.",
            hint="Give a lower tau_min.",
        )
    return cells


def adaptive_partition(
    name: str,
    lon: ArrayLike,
    lat: ArrayLike,
    *,
    tau_min: int = TAU_MIN,
    tau_max: int,
    max_level: int = s2.MAX_LEVEL,
    position: Position = "sphere",
) -> Partition:
    """One adaptive partition of training photos; parameters and errors as `adaptive_cells`.

    Args:
        name: Name of the partition.
        lon: Degrees, shape (n,).
        lat: Degrees, shape (n,).
        tau_min: Photos a cell must exceed.
        tau_max: Photos above which a cell is split.
        max_level: Finest level.
        position: How a class's position is averaged (`class_means`).
    """
    photos = photo_leaves(lon, lat)
    return _partition(name, photos, tau_min, tau_max, max_level, position)


def _partition(
    name: str, photos: tuple[Floats, Floats, Ints], tau_min: int, tau_max: int, max_level: int, how: Position
) -> Partition:
    x, y, leaves = photos
    cells = adaptive_cells(leaves, tau_min=tau_min, tau_max=tau_max, max_level=max_level)
    parameters = {"tau_min": tau_min, "tau_max": tau_max, "max_level": max_level}
    return of_cells(name, "adaptive", cells, x, y, leaves, parameters=parameters, position=how)


def nested_partitions(
    name: str,
    lon: ArrayLike,
    lat: ArrayLike,
    *,
    tau_min: int = TAU_MIN,
    tau_max: Sequence[int] = tuple(TAU_MAX.values()),
    max_level: int = s2.MAX_LEVEL,
    position: Position = "sphere",
) -> tuple[Partition, ...]:
    """Adaptive partitions of one quadtree, coarse to fine, each with its parents in the one before.

    One tau_min for all: a cell of a finer partition then lies in exactly one kept cell of each coarser one.

    Args:
        name: Names are NAME-coarse, NAME-middle, NAME-fine; NAME-<tau_max> where there are not three; NAME
            where there is one.
        lon: Degrees, shape (n,).
        lat: Degrees, shape (n,).
        tau_min: Photos a cell must exceed.
        tau_max: One per partition, descending.
        max_level: Finest level.
        position: How a class's position is averaged.

    Raises:
        UsageError: tau_max is not descending.
    """
    limits = list(tau_max)
    if not limits or any(a <= b for a, b in pairwise(limits)):
        raise UsageError(f"tau_max {limits} is not descending.", hint="Coarse first: 5000, 2000, 1000.")
    for limit in limits:
        check_limits(tau_min, limit, max_level)
    suffixes = list(TAU_MAX) if len(limits) == len(TAU_MAX) else [str(limit) for limit in limits]
    names = [name] if len(limits) == 1 else [f"{name}-{suffix}" for suffix in suffixes]
    photos = photo_leaves(lon, lat)
    made: list[Partition] = []
    with progress("partitions", total=len(limits), unit="partitions") as advance:
        for one, limit in zip(names, limits, strict=True):
            made.append(_partition(one, photos, tau_min, limit, max_level, position))
            advance()
    return nest(made)


def check_limits(tau_min: int, tau_max: int, max_level: int) -> None:
    """Refuse limits that cannot be.

    Raises:
        UsageError: tau_min is negative or not below tau_max; max_level is not 0..30.
    """
    if isinstance(max_level, bool) or not 0 <= max_level <= s2.MAX_LEVEL:
        raise UsageError(f"Level {max_level} is not 0..{s2.MAX_LEVEL}.")
    if tau_min < 0 or tau_min >= tau_max:
        raise UsageError(
            f"tau_min {tau_min} is not below tau_max {tau_max} (and at least 0).",
            hint="Cells are split above tau_max and dropped at tau_min or below.",
        )
