"""Which photos form the batches of an epoch: balanced over cells, half of each from one neighbourhood."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geofix.errors import BadInputError, UsageError
from geofix.spatial import s2
from geofix.spatial.distance import EARTH_RADIUS_M, unit_vectors
from geofix.training.places import TrainingPhotos

Ints = NDArray[np.int64]
CELL_LEVEL = 15
_AT_ONCE = 256
"""Neighbourhoods looked up together; each holds at most some five thousand cells of level 15."""


def plan_epoch(
    photos: TrainingPhotos,
    *,
    batch: int,
    seed: int,
    epoch: int,
    neighbourhood: float = 0.5,
    neighbourhood_km: tuple[float, float] = (2.0, 10.0),
    balance: float = 0.5,
    cell_level: int = CELL_LEVEL,
) -> Ints:
    """Rows of the photos in every batch of an epoch; the same arguments give the same plan.

    A cell is drawn in proportion to count^(1 - balance), and a photo of it at random: 0 takes photos as they
    lie, 1 gives every cell the same share. A cell's photos are used up before one comes again. The
    neighbourhood of a batch lies around a photo drawn in the same way; where it holds too few photos, photos
    drawn at random fill the batch.

    Args:
        photos: What to draw from.
        batch: Photos per batch.
        seed: Of the training.
        epoch: Number of the epoch.
        neighbourhood: Share of a batch taken from one neighbourhood.
        neighbourhood_km: Least and largest radius in kilometres, drawn evenly on a logarithmic scale.
        balance: 0 to 1.
        cell_level: S2 level of the cells.

    Returns:
        (max(1, len(photos) // batch), batch), the neighbourhood's photos first.
    """
    _check(len(photos), batch, neighbourhood, neighbourhood_km, balance)
    rng = np.random.default_rng([seed, epoch, 0x6261746368])
    cells = _Cells.of(photos.s2_id, cell_level, balance, rng)
    steps = max(1, len(photos) // batch)
    wanted = round(neighbourhood * batch)
    near = _neighbourhoods(cells, steps, wanted, neighbourhood_km, rng)
    lacking = batch - np.array([len(rows) for rows in near], np.int64)
    rest = rng.permutation(cells.draw(np.arange(len(cells.first)), int(lacking.sum()), rng))
    pieces = np.split(rest, np.cumsum(lacking)[:-1])
    return np.stack([np.concatenate(pair) for pair in zip(near, pieces, strict=True)])


@dataclass(frozen=True)
class _Cells:
    """Photos grouped by cell, in random order within each.

    Attributes:
        order: (n,) rows of the photos, cell by cell.
        first: (m,) where a cell's photos begin in `order`.
        count: (m,) photos of a cell.
        weight: (m,) its share of the draws, not normalised.
        points: (m, 3) unit vectors of the cells' centres.
    """

    order: Ints
    first: Ints
    count: Ints
    weight: NDArray[np.float64]
    points: NDArray[np.float64]

    @classmethod
    def of(cls, leaves: Ints, level: int, balance: float, rng: np.random.Generator) -> _Cells:
        ids, number, count = np.unique(s2.parent(leaves, level), return_inverse=True, return_counts=True)
        shuffled = rng.permutation(len(leaves))
        order = shuffled[np.argsort(number[shuffled], kind="stable")]
        first = np.concatenate([[0], np.cumsum(count)[:-1]])
        weight = count.astype(np.float64) ** (1.0 - balance)
        return cls(order, first, count, weight, unit_vectors(*s2.center(ids)))

    def draw(self, which: NDArray[np.integer], size: int, rng: np.random.Generator) -> Ints:
        """Rows of `size` photos out of some cells, each cell getting its share to within one photo.

        Systematic sampling: the draws stand at even distances along the cells' weights, laid out in random
        order, so that a cell's number of draws is its expectation rounded up or down.
        """
        if size == 0:
            return np.zeros(0, np.int64)
        which = rng.permutation(which)
        ends = np.cumsum(self.weight[which])
        marks = (rng.random() + np.arange(size)) * (ends[-1] / size)
        place = np.minimum(np.searchsorted(ends, marks, side="right"), len(which) - 1)
        begin = np.searchsorted(place, place, side="left")
        cell = which[place]
        # Start anywhere in the cell, then go round: no photo twice before all of them once.
        start = rng.integers(0, self.count[which])[place]
        within = (start + np.arange(size) - begin) % self.count[cell]
        rows: Ints = self.order[self.first[cell] + within]
        return rows


def _neighbourhoods(
    cells: _Cells, steps: int, wanted: int, radius_km: tuple[float, float], rng: np.random.Generator
) -> list[Ints]:
    """Up to `wanted` different photos around one place, for every step."""
    if wanted == 0:
        return [np.zeros(0, np.int64)] * steps
    every = np.arange(len(cells.first))
    centres = rng.choice(every, size=steps, p=cells.weight / cells.weight.sum())
    low, high = (math.log(value * 1000.0) for value in radius_km)
    radius = np.exp(rng.uniform(low, high, steps))
    chord = 2.0 * np.sin(np.minimum(radius / (2.0 * EARTH_RADIUS_M), np.pi / 2))
    tree = cKDTree(cells.points)
    out: list[Ints] = []
    for begin in range(0, steps, _AT_ONCE):
        part = slice(begin, begin + _AT_ONCE)
        for found in tree.query_ball_point(cells.points[centres[part]], chord[part]):
            near = np.asarray(found, np.int64)
            size = min(wanted, int(cells.count[near].sum()))
            # A cell that is drawn more often than it has photos would repeat them: those go.
            rows = np.unique(cells.draw(near, size, rng))
            out.append(rng.permutation(rows))
    return out


def _check(
    photos: int, batch: int, neighbourhood: float, radius_km: tuple[float, float], balance: float
) -> None:
    if photos < 1:
        raise BadInputError("There is no photo to train on.", hint="Build a snapshot with training photos.")
    if batch < 1:
        raise UsageError(f"Batch size {batch} is not positive.", hint="Use 2 or more.")
    if not 0.0 <= neighbourhood <= 1.0 or not 0.0 <= balance <= 1.0:
        raise UsageError(f"Neighbourhood {neighbourhood} and balance {balance} must lie in 0..1.")
    if not 0.0 < radius_km[0] <= radius_km[1]:
        raise UsageError(f"Neighbourhood radii {radius_km} km must be positive and ascending.")
