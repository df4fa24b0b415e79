"""Nearest training photos: the answer is where the most similar photo was taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geofix.codes.matrix import CellMatrix
from geofix.errors import BadInputError
from geofix.localizers.base import Candidates, Floats, Ints, Vectors
from geofix.spatial import s2


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Nearest training photos, most similar first; all (q, k), empty places have row -1.

    Attributes:
        row: Row of the localizer's matrix.
        cosine: Inner product of the unit vectors.
    """

    row: Ints
    cosine: npt.NDArray[np.float32]

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """False at empty places."""
        return self.row >= 0

    @property
    def distance(self) -> Floats:
        """Euclidean distance of the unit vectors, d = sqrt(2 - 2 cos)."""
        return np.sqrt(np.maximum(2.0 - 2.0 * self.cosine.astype(np.float64), 0.0))


@dataclass(frozen=True, eq=False)
class KnnLocalizer:
    """Answers with the positions of the most similar training photos.

    Attributes:
        matrix: One row per photo, sorted by the leaf cell of its position; positions may repeat.
        lon: (n,) degrees, in the order of the matrix.
        lat: (n,) degrees.
        group: (n,) what `exclude` refers to: photo ids, or the ids of authors or sequences.
        dedupe_level: Keep only the best photo of each cell of this level; None keeps all photos.
    """

    matrix: CellMatrix
    lon: Floats
    lat: Floats
    group: Ints
    dedupe_level: int | None = None
    name: str = "knn"

    @classmethod
    def fit(
        cls,
        embeddings: npt.ArrayLike,
        lon: npt.ArrayLike,
        lat: npt.ArrayLike,
        *,
        group: npt.ArrayLike | None = None,
        dedupe_level: int | None = None,
    ) -> KnnLocalizer:
        """Sort training photos (n, D) at lon, lat (n,) in degrees; `group` defaults to 0 ... n - 1."""
        east, north = np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)
        vectors = np.asarray(embeddings)
        groups = np.arange(len(vectors)) if group is None else np.asarray(group, dtype=np.int64)
        if not len(vectors) == len(east) == len(north) == len(groups):
            raise BadInputError(
                f"{len(vectors)} embeddings, {len(east)} longitudes, {len(north)} latitudes, "
                f"{len(groups)} groups: numbers differ.",
                hint="Give one of each per photo.",
            )
        leaves = s2.cell_at(east, north)
        order = np.argsort(leaves, kind="stable")
        matrix = CellMatrix.from_rows(leaves[order], vectors[order], unique=False)
        return cls(matrix, east[order], north[order], groups[order].astype(np.int64), dedupe_level)

    def localize(
        self, embeddings: Vectors, k: int, ranges: Ints | None = None, *, exclude: Ints | None = None
    ) -> Candidates:
        """Rank photo positions by cosine; see `Localizer.localize` and `neighbours`."""
        near = self.neighbours(embeddings, k, ranges, exclude=exclude)
        found, row, ok = Candidates.empty(len(embeddings), k), near.row, near.found
        if len(self.matrix):
            found.s2_id[ok], found.score[ok] = self.matrix.ids[row[ok]], near.cosine[ok]
            found.lon[ok], found.lat[ok] = self.lon[row[ok]], self.lat[row[ok]]
        return found

    def neighbours(
        self, embeddings: Vectors, k: int, ranges: Ints | None = None, *, exclude: Ints | None = None
    ) -> Neighbours:
        """The k nearest photos of each query, one per cell where `dedupe_level` is set.

        Args:
            embeddings: (q, D).
            k: Neighbours wanted.
            ranges: Closed ranges (n, 2) of leaf ids.
            exclude: (q,) photos whose `group` equals the query's value are passed over (its own frame, its
                author's other photos).
        """
        queries = np.atleast_2d(embeddings)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        cosine = np.full((len(queries), k), -np.inf, dtype=np.float32)
        scope = self.matrix.cells_in_scope(ranges)
        plain = self.dedupe_level is None and exclude is None
        fetch, open_ = (k if plain else 2 * k), np.arange(len(queries))
        while len(open_) and scope:
            found, scores = self.matrix.search_rows(queries[open_], fetch, ranges)
            kept = self._kept(found, None if exclude is None else exclude[open_])
            place = np.cumsum(kept, axis=1) - 1
            kept &= place < k
            query, column = np.nonzero(kept)
            rows[open_[query], place[query, column]] = found[query, column]
            cosine[open_[query], place[query, column]] = scores[query, column]
            if plain or fetch >= scope:
                break
            open_ = open_[kept.sum(axis=1) < k]
            fetch *= 4
        return Neighbours(rows, cosine)

    def _kept(self, rows: Ints, exclude: Ints | None) -> npt.NDArray[np.bool_]:
        """Which places of ranked rows (q, m) remain: not excluded, and the first of their cell."""
        kept = np.ones(rows.shape, dtype=bool)
        if exclude is not None:
            kept = self.group[rows] != np.asarray(exclude, dtype=np.int64)[:, None]
        if self.dedupe_level is None:
            return kept
        cells = np.where(kept, s2.parent(self.matrix.ids[rows], self.dedupe_level), 0)
        order = np.argsort(cells, axis=1, kind="stable")
        ranked = np.take_along_axis(cells, order, axis=1)
        first = np.ones(rows.shape, dtype=bool)
        first[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
        unique = np.empty_like(first)
        np.put_along_axis(unique, order, first, axis=1)
        return kept & unique
