"""What every localizer gives: ranked positions for a batch of photo embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from geofix.errors import UsageError
from geofix.localizers.crops import Crops

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Ranked answers, best first, one row per query.

    All arrays are (q, k). A query with fewer answers than k ends in empty places: s2_id 0 (which is no cell),
    lon and lat NaN, score -inf.

    Attributes:
        s2_id: Signed S2 id of the answered cell, or the leaf cell of an answered position.
        lon: Degrees.
        lat: Degrees.
        score: Higher is better; comparable within one query, not between localizers.
    """

    s2_id: Ints
    lon: Floats
    lat: Floats
    score: Floats

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """(q, k), False at empty places."""
        return np.asarray(self.s2_id != 0)

    @classmethod
    def empty(cls, queries: int, k: int) -> Candidates:
        """K empty places for each query."""
        if k < 1:
            raise UsageError(f"k is {k}.", hint="Ask for at least one candidate.")
        shape = (queries, k)
        nan = np.full(shape, np.nan)
        return cls(np.zeros(shape, dtype=np.int64), nan, nan.copy(), np.full(shape, -np.inf))

    def put(self, query: int | slice, s2_id: Ints, lon: Floats, lat: Floats, score: Vectors) -> None:
        """Fill the first places of a query, or of all queries of a slice at once."""
        n = s2_id.shape[-1]
        self.s2_id[query, :n], self.lon[query, :n], self.lat[query, :n] = s2_id, lon, lat
        self.score[query, :n] = score


@runtime_checkable
class Localizer(Protocol):
    """A method that turns photo embeddings into ranked positions."""

    @property
    def name(self) -> str:
        """What it is called in results."""
        ...

    def localize(self, embeddings: Vectors, k: int, ranges: Ints | None = None) -> Candidates:
        """Rank positions.

        Args:
            embeddings: (q, D) unit vectors of photos.
            k: Candidates per photo.
            ranges: Closed ranges (n, 2) of signed S2 ids that answers must lie in; None: anywhere.
        """
        ...


@runtime_checkable
class PhotoLocalizer(Protocol):
    """A method that looks at the photos themselves: its last layer is more than an embedding."""

    @property
    def name(self) -> str:
        """What it is called in results."""
        ...

    @property
    def answer_ids(self) -> Ints:
        """Sorted ids of the cells, or leaf ids of the positions, that it can answer with."""
        ...

    def localize_photos(self, photos: Sequence[str | None], k: int, ranges: Ints | None = None) -> Candidates:
        """Rank positions.

        Args:
            photos: Paths or URIs; None, or a file that cannot be read, gets no answer.
            k: Candidates per photo.
            ranges: Closed ranges (n, 2) of signed S2 ids that answers must lie in; None: anywhere.
        """
        ...


@runtime_checkable
class SeesCrops(PhotoLocalizer, Protocol):
    """A method that can be shown several parts of a photo."""

    def with_crops(self, crops: Crops) -> SeesCrops:
        """The same method, shown other parts."""
        ...
