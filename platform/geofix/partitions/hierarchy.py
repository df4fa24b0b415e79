"""Which class of a coarser partition holds each class of a finer one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from geofix.errors import BadInputError, UsageError
from geofix.partitions.partition import Ints, Partition
from geofix.spatial import s2


def parents(fine: Partition, coarse: Partition) -> Ints:
    """Class of `coarse` that holds every cell of each class of `fine`, shape (len(fine),).

    By S2 containment, never by names or positions.

    Raises:
        UsageError: One of them has no cells.
        BadInputError: A cell lies in no class of `coarse`, or the cells of a class lie in several.
    """
    for partition in (fine, coarse):
        if partition.codes is not None:
            raise UsageError(f"Partition {partition.name!r} is administrative: it has no S2 cells to nest.")
    held = coarse.assign(leaf_ids=fine.cells)
    if (lost := np.flatnonzero(held < 0)).size:
        raise BadInputError(
            f"{lost.size} of {held.size} cells of {fine.name!r} lie in no class of {coarse.name!r}, first "
            f"{s2.token(fine.cells[lost[0]])}.",
            hint="Nested partitions come from one quadtree and one tau_min.",
        )
    out = np.full(len(fine), -1, np.int64)
    out[fine.cell_class] = held
    if (torn := np.flatnonzero(out[fine.cell_class] != held)).size:
        raise BadInputError(
            f"Class {int(fine.cell_class[torn[0]])} of {fine.name!r} lies in several classes of "
            f"{coarse.name!r}."
        )
    return out


def nest(partitions: Sequence[Partition]) -> tuple[Partition, ...]:
    """The same partitions, coarse to fine, each with its parents in the one before it.

    Raises:
        BadInputError: They are not nested.
    """
    out = [replace(partitions[0], coarser=None, parent=None)] if partitions else []
    for coarse, fine in pairwise(partitions):
        out.append(replace(fine, coarser=coarse.name, parent=parents(fine, coarse)))
    return tuple(out)


def ancestors(partitions: Sequence[Partition]) -> Ints:
    """For nested partitions, coarse to fine: class in every partition of each finest class.

    Returns:
        Shape (finest classes, len(partitions)), columns as the partitions; by this, hierarchical inference
        gathers log-probabilities.

    Raises:
        UsageError: A partition does not point into the one before it.
    """
    column = np.arange(len(partitions[-1]))
    columns = [column]
    for coarse, fine in zip(partitions[-2::-1], partitions[:0:-1], strict=True):
        if fine.parent is None or fine.coarser != coarse.name:
            raise UsageError(
                f"Partition {fine.name!r} has no parents in {coarse.name!r}.", hint="nest() them."
            )
        column = fine.parent[column]
        columns.append(column)
    return np.stack(columns[::-1], axis=1)
