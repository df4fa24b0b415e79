"""Prototypes of coarse cells passed down to the cells that are searched."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geofix.codes.plan import Upsample
from geofix.errors import UsageError
from geofix.spatial import s2
from geofix.spatial.frames import bilinear_weights

__all__ = ["Upsample", "brought_down", "descendants", "interpolate", "upsample"]

_CHUNK = 32_768
_SHORTEST = 1e-3  # a weighted sum of unit vectors below this length has no direction to speak of


def descendants(ids: npt.NDArray[np.int64], level: int) -> npt.NDArray[np.int64]:
    """All cells (n * 4^steps,) of a level inside cells no finer, in the order of their parents.

    Raises:
        UsageError: The cells are finer than the level.
    """
    if not len(ids):
        return ids
    own = int(s2.level(ids[0]))
    if own > level:
        raise UsageError(
            f"Prototypes stand at level {own}; codes of level {level} would be coarser.",
            hint=f"Build codes at level {own} or finer.",
        )
    for _ in range(level - own):
        ids = s2.children(ids).reshape(-1)
    return ids


def upsample(
    ids: npt.NDArray[np.int64], vectors: npt.NDArray[np.float32], level: int, how: Upsample
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Give every cell of a level below a prototype a vector; cells below none get none.

    `copy`: the parent's. `bilinear`: of the four prototype cells whose centres surround the cell's own, by
    their weights in a local metric frame (as in training, error bounds in
    `spatial.frames.bilinear_weights`); missing ones are dropped and the sum is normalised again. Where the
    four nearly cancel, the parent's.

    Args:
        ids: (n,) cells of one level, ascending.
        vectors: (n, D) unit vectors.
        level: Level of the result, the prototypes' own or finer.
        how: See above. At the prototypes' own level both return them unchanged.

    Returns:
        Cells (m,), ascending, and unit vectors (m, D).
    """
    cells = descendants(ids, level)
    return cells, brought_down(ids, vectors, cells, how)


def brought_down(
    ids: npt.NDArray[np.int64],
    vectors: npt.NDArray[np.float32],
    cells: npt.NDArray[np.int64],
    how: Upsample,
) -> npt.NDArray[np.float32]:
    """Unit vectors (m, D) of some of the cells below prototypes, the same ones as of all.

    Args:
        ids: (n,) prototype cells of one level, ascending: the parents of `cells`, and for `bilinear` those of
            the parents' eight neighbours that have a prototype.
        vectors: (n, D) unit vectors.
        cells: (m,) cells of one level.
        how: As in `upsample`.
    """
    if not len(cells):
        return np.zeros((0, vectors.shape[1]), np.float32)
    own = int(s2.level(ids[0]))
    same = own == int(s2.level(cells[0]))
    rows = np.searchsorted(ids, cells if same else s2.parent(cells, own))
    if how == "copy" or same:
        return vectors[rows]
    made = np.empty((len(cells), vectors.shape[1]), np.float32)
    for first in range(0, len(cells), _CHUNK):
        part = slice(first, first + _CHUNK)
        made[part] = interpolate(ids, vectors, cells[part], rows[part])
    return made


def interpolate(
    ids: npt.NDArray[np.int64],
    vectors: npt.NDArray[np.float32],
    cells: npt.NDArray[np.int64],
    parents: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Bilinear unit vectors (m, D) at the centres of cells (m,) whose parents' rows are given."""
    near, weights = bilinear_weights(*s2.center(cells), int(s2.level(ids[0])))
    rows = np.searchsorted(ids, near).clip(max=len(ids) - 1)
    weights = np.where(ids[rows] == near, weights, 0.0)
    made = np.zeros((len(cells), vectors.shape[1]))
    for place in range(4):
        made += weights[:, place, None] * vectors[rows[:, place]]
    # The weights that are left may be small, the direction is not.
    lengths = np.linalg.norm(made, axis=1) / np.maximum(weights.sum(axis=1), 1e-12)
    good = lengths > _SHORTEST
    made[~good] = vectors[parents[~good]]
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made.astype(np.float32)
