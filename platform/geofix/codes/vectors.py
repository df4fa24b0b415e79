"""Vectors of cells before they are completed: what recipes make, and what codes are made of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geofix.spatial import s2


@dataclass(frozen=True)
class CellVectors:
    """What a recipe makes: one vector per cell before completion.

    Attributes:
        ids: (n,) S2 ids of one level, unique.
        vectors: (n, D) codes of any norm.
        bias: (n,) added to a cell's score.
        has_prototype: (n,) the cell's photos take part.
        has_aerial: (n,) the cell's aerial tile takes part.
        kappa: Weight of the prototype, of a hybrid.
        temperature: T in units of the score, where it was fitted.
        calibration: A stored confidence fit.
        norm: M to complete to, when it is larger than these codes need.
        config: Kept with the code set: what a refresh needs to make such codes again.
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    bias: NDArray[np.float32]
    has_prototype: NDArray[np.bool_]
    has_aerial: NDArray[np.bool_]
    kappa: float | None = None
    temperature: float | None = None
    calibration: dict[str, Any] = field(default_factory=dict)
    norm: float | None = None
    config: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_photos(cls, ids: NDArray[np.int64], vectors: NDArray[np.float32], **more: Any) -> CellVectors:
        """Cells whose vectors come from photos alone."""
        n = len(ids)
        return cls(ids, vectors, np.zeros(n, np.float32), np.ones(n, bool), np.zeros(n, bool), **more)

    @classmethod
    def of_tiles(cls, ids: NDArray[np.int64], vectors: NDArray[np.float32], **more: Any) -> CellVectors:
        """Cells whose vectors come from aerial tiles alone."""
        n = len(ids)
        return cls(ids, vectors, np.zeros(n, np.float32), np.zeros(n, bool), np.ones(n, bool), **more)

    def inside(self, region_ewkb: bytes) -> CellVectors:
        """The cells whose centre lies in an EWKB region."""
        return self.taken(centres_inside(self.ids, region_ewkb))

    def taken(self, keep: NDArray[np.bool_]) -> CellVectors:
        """Some of the cells."""
        parts = ("ids", "vectors", "bias", "has_prototype", "has_aerial")
        return replace(self, **{name: getattr(self, name)[keep] for name in parts})


def centres_inside(ids: NDArray[np.int64], region_ewkb: bytes) -> NDArray[np.bool_]:
    """Whether the centre of each cell (n,) lies in a region or on its border."""
    region = shapely.from_wkb(region_ewkb)
    shapely.prepare(region)
    lon, lat = s2.center(ids)
    return np.asarray(shapely.intersects_xy(region, lon, lat), dtype=bool)


def unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Rows of fp16 unit vectors (n, D), whose length rounding left at 1 +- 5e-4, as float32 of length 1."""
    full = vectors.astype(np.float32)
    full /= np.linalg.norm(full, axis=1, keepdims=True)
    return full
