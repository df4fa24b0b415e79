"""First values of the prototypes: the mean embedding of each cell's photos."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from geofix.errors import BadInputError
from geofix.log import progress
from geofix.spatial import s2
from geofix.training.pictures import embed_batches, photo_pictures
from geofix.training.places import TrainingPhotos
from geofix.training.state import State

PHOTOS_PER_CELL = 64
"""A mean of so many photos is steady enough to begin with."""


def prototype_cells(photos: TrainingPhotos, level: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cells of a level that hold training photos, ascending, and how many each holds."""
    ids, counts = np.unique(s2.parent(photos.s2_id, level), return_counts=True)
    return ids, counts.astype(np.int64)


def set_to_means(state: State, photos: TrainingPhotos, *, seed: int, threads: int) -> None:
    """Point every prototype along the mean embedding of its cell's photos, by the ground encoder as it is.

    Proxies likewise, along the means in the tiles' half.

    A cell none of whose photos can be read keeps its random direction.

    Raises:
        BadInputError: No photo can be read.
    """
    table = state.table
    if table is None:
        return
    chosen = photos.take(_some_per_cell(photos, table.level, seed))
    rows = table.rows_of(s2.parent(chosen.s2_id, table.level))
    # Each process of a team fills the rows that it holds.
    chosen = chosen.take(np.flatnonzero((rows >= table.first_row) & (rows < table.stop_row)))
    encoder = state.networks["ground"]
    state.eval()
    tables = [found for found, _ in state.tables.values()]  # in the order of the halves
    width = sum(found.dimension for found in tables)
    sums = np.zeros((table.stop_row - table.first_row, width), np.float32)
    read = 0
    with progress("first values of the prototypes", len(chosen), "photos") as advance:
        pictures = photo_pictures(chosen, encoder.transform, threads=threads)
        for numbers, vectors in embed_batches(encoder, pictures):
            rows = table.rows_of(s2.parent(chosen.s2_id[numbers], table.level))
            # The prototypes' half comes first.
            np.add.at(sums, rows - table.first_row, vectors[:, :width])
            read += len(numbers)
            advance(len(numbers))
    if not read:
        raise BadInputError(
            f"None of {len(chosen)} training photos can be read, the first is {chosen.uri[0]}.",
            hint="Are the photos where the snapshot says?",
        )
    found = np.flatnonzero(np.linalg.norm(sums, axis=1) > 0)
    for number, part in enumerate(np.split(sums[found], len(tables), axis=1)):
        tables[number].set_rows(found + table.first_row, torch.from_numpy(part))


def _some_per_cell(photos: TrainingPhotos, level: int, seed: int) -> NDArray[np.int64]:
    """At most `PHOTOS_PER_CELL` rows of every cell, drawn at random."""
    order = np.random.default_rng([seed, 0x6D65616E]).permutation(len(photos))
    cell = s2.parent(photos.s2_id[order], level)
    by_cell = np.argsort(cell, kind="stable")
    sorted_cells = cell[by_cell]
    place = np.arange(len(photos)) - np.searchsorted(sorted_cells, sorted_cells)
    return np.sort(order[by_cell[place < PHOTOS_PER_CELL]]).astype(np.int64)
