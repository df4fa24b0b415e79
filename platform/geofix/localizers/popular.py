"""The trivial baseline: the most photographed cells, whatever the photo shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geofix.codes.matrix import row_slices
from geofix.localizers.base import Candidates, Ints, Vectors
from geofix.spatial import s2


@dataclass(frozen=True, eq=False)
class PopularLocalizer:
    """Answers every photo with the cells that hold most training photos.

    Attributes:
        ids: (n,) cells in signed order.
        counts: (n,) training photos.
    """

    ids: Ints
    counts: Ints
    name: str = "most_photographed"

    @classmethod
    def fit(cls, s2_ids: npt.ArrayLike, level: int) -> PopularLocalizer:
        """Count training photos (leaf ids (n,)) per cell of a level."""
        ids, counts = np.unique(s2.parent(s2_ids, level), return_counts=True)
        return cls(ids, counts.astype(np.int64))

    def localize(self, embeddings: Vectors, k: int, ranges: Ints | None = None) -> Candidates:
        """Rank cells in scope by their number of photos, equal ones by id; the embeddings only count rows."""
        found = Candidates.empty(len(embeddings), k)
        rows = np.concatenate(
            [np.arange(a, b) for a, b in row_slices(self.ids, ranges)] or [np.zeros(0, dtype=np.int64)]
        )
        best = rows[np.argsort(-self.counts[rows], kind="stable")[:k]]
        lon, lat = s2.center(self.ids[best])
        found.put(slice(None), self.ids[best], lon, lat, self.counts[best])
        return found
