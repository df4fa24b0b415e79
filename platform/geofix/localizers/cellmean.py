"""The mean embedding of a cell's training photos as its code: no learning beyond the encoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy.typing as npt

from geofix.codes.matrix import CellMatrix
from geofix.codes.means import cell_means
from geofix.localizers.base import Candidates, Ints, Vectors
from geofix.spatial import s2


@dataclass(frozen=True, eq=False)
class CellMeanLocalizer:
    """Answers with the centres of the cells whose mean embedding is nearest.

    Attributes:
        matrix: One unit code per cell, cells of one level.
        counts: (n,) training photos per row of the matrix.
    """

    matrix: CellMatrix
    counts: Ints
    name: str = "cellmean"

    @classmethod
    def fit(
        cls, embeddings: Vectors, s2_ids: npt.ArrayLike, level: int, *, min_photos: int = 1
    ) -> CellMeanLocalizer:
        """Average training photos per cell.

        Args:
            embeddings: (n, D) unit vectors, memory-mapped if large.
            s2_ids: (n,) cells of the photos, of `level` or finer (leaf ids as ingest stores them).
            level: S2 level of the cells.
            min_photos: Cells with fewer photos are left out.
        """
        ids, means, counts = cell_means(embeddings, s2_ids, level)
        kept = counts >= min_photos
        return cls(CellMatrix.from_rows(ids[kept], means[kept]), counts[kept])

    def localize(self, embeddings: Vectors, k: int, ranges: Ints | None = None) -> Candidates:
        """Rank cells by cosine; see `Localizer.localize`."""
        found = Candidates.empty(len(embeddings), k)
        ids, scores = self.matrix.search(embeddings, k, ranges)
        lon, lat = s2.center(ids)
        found.put(slice(None), ids, lon, lat, scores)
        return found
