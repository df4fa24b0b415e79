"""The cells of a code set cut into ranges of S2 ids, by the data alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Cells that are made together: at D = 512 some 300 MB with all copies.
RANGE = 32_768
_PICTURES = 4  # per cell of a range, beyond which it is cut short: what is read together stays small


class Span(NamedTuple):
    """A closed range of cell ids, the cells in it, and the pictures that these are made of."""

    first: int
    last: int
    cells: int
    pictures: int


def cut(ids: NDArray[np.int64], pictures: NDArray[np.int64], size: int) -> list[Span]:
    """Ranges of at most `size` cells and 4 `size` pictures, in order; a cell with more stands alone.

    Args:
        ids: (n,) cells, ascending.
        pictures: (n,) how many photos and tiles each is made of.
        size: Cells per range.
    """
    total = np.concatenate([[0], np.cumsum(pictures)])
    spans: list[Span] = []
    first = 0
    while first < len(ids):
        within = int(np.searchsorted(total, total[first] + _PICTURES * size, side="right")) - 1
        end = max(first + 1, min(first + size, within, len(ids)))
        held = int(total[end] - total[first])
        spans.append(Span(int(ids[first]), int(ids[end - 1]), end - first, held))
        first = end
    return spans
