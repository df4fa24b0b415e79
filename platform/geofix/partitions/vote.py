"""The vote of several sets of classes for the regions of their intersection (CPlaNet)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geofix.errors import UsageError
from geofix.partitions.partition import Floats, Ints, Partition

_CHUNK_SCORES = 1 << 24  # scores held at a time


def atoms_per_class(regions: Partition) -> list[Ints]:
    """For each set, the number of cells of the intersection in each of its classes, 0 for none."""
    members = _members(regions)[regions.cell_class]
    return [np.bincount(column[column >= 0]).astype(np.int64) for column in members.T]


def vote_scores(
    probabilities: Sequence[NDArray[np.floating]], regions: Partition, *, normalise: bool = True
) -> Floats:
    """Score of every region: the sum of its classes' probabilities over the sets.

        s(region) = sum over sets k of p_k(class_k) / N_k(class_k)

    N_k is the number of atoms (cells of the intersection) in the class; without `normalise` it is 1, and
    large classes win by size. A set without a class there does not vote.

    Args:
        probabilities: Per set (n, classes of that set), in the order of `regions.sets`.
        regions: The intersection.
        normalise: Divide by the number of atoms; say in a result which of both it used.

    Returns:
        Shape (n, regions), float64.

    Raises:
        UsageError: Not one array per set, or with fewer classes than the set has.
    """
    members = _members(regions)
    if len(probabilities) != members.shape[1]:
        raise UsageError(
            f"{len(probabilities)} sets of probabilities for {members.shape[1]} sets of classes."
        )
    atoms = atoms_per_class(regions)
    out: Floats = np.zeros((len(probabilities[0]), len(members)))
    for number, (given, column, sizes) in enumerate(zip(probabilities, members.T, atoms, strict=True)):
        if given.ndim != 2 or given.shape[0] != len(out) or given.shape[1] < len(sizes):
            raise UsageError(
                f"Probabilities {given.shape} of set {number} ({regions.sets[number]}) do not fit "
                f"{len(out)} photos and {len(sizes)} classes."
            )
        votes = column >= 0
        weight = 1 / sizes[column[votes]] if normalise else 1.0
        out[:, votes] += given[:, column[votes]] * weight
    return out


def best_regions(
    probabilities: Sequence[NDArray[np.floating]], regions: Partition, *, k: int = 1, normalise: bool = True
) -> tuple[Ints, Floats]:
    """The k regions with the most votes and their scores, (n, k) each, best first; photos in chunks.

    Ties go to the region with more training photos.
    """
    n, k = len(probabilities[0]), min(k, len(regions))
    by_photos = np.argsort(-regions.photos, kind="stable")
    found, scores = np.empty((n, k), np.int64), np.empty((n, k))
    step = max(1, _CHUNK_SCORES // len(regions))
    for first in range(0, n, step):
        part = slice(first, first + step)
        some = vote_scores([p[part] for p in probabilities], regions, normalise=normalise)[:, by_photos]
        order = np.argsort(-some, axis=1, kind="stable")[:, :k]
        found[part] = by_photos[order]
        scores[part] = np.take_along_axis(some, order, axis=1)
    return found, scores


def _members(regions: Partition) -> Ints:
    if regions.members is None:
        raise UsageError(
            f"Partition {regions.name!r} ({regions.kind}) is no intersection of sets of classes."
        )
    return regions.members
