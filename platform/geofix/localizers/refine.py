"""Sub-cell refinement: the answer moves from its cell's centre towards the neighbours that score well too.

A cell's centre is up to half a diagonal from the photo (109 m at level 16). Codes of neighbouring cells see
parts of the same scene, so the centres of a cell and its up to eight neighbours are averaged with weights
softmax(score / T) in a local metric frame. A neighbour that scores higher is an answer of its own and does
not pull. T is fitted on validation photos; a small T leaves the centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geofix.codes.complete import complete_query
from geofix.codes.matrix import CellMatrix
from geofix.errors import BadInputError
from geofix.localizers.base import Candidates, Floats, Ints, Vectors
from geofix.localizers.code_set import CodeSetLocalizer
from geofix.spatial import s2
from geofix.spatial.distance import great_circle_m
from geofix.spatial.frames import LocalFrame

PLACES = 10
_BATCH = 64
_FACTORS = tuple(2.0**power for power in range(-4, 7))


@dataclass(frozen=True, eq=False)
class RefinedLocalizer:
    """A code set's answers, the best of them moved within their neighbourhood.

    The order of the candidates stays. Positions are weighted means in the plane tangent at the cell's centre,
    whose distances are right to 0.5 mm at 5 km.

    Attributes:
        base: The localizer to refine.
        temperature: T, in units of the score, above 0.
        places: So many candidates are moved; the others keep their centre.
        name: Name in results.
    """

    base: CodeSetLocalizer
    temperature: float
    places: int = PLACES
    name: str = "cellcode_refined"

    def localize(self, embeddings: Vectors, k: int, ranges: Ints | None = None) -> Candidates:
        """Rank as the base does; moved answers carry the leaf cell of their position."""
        found = self.base.localize(embeddings, k, ranges)
        for start in range(0, len(embeddings), _BATCH):
            part = slice(start, start + _BATCH)
            near = neighbourhood(self.base, embeddings[part], found.s2_id[part, : self.places], ranges)
            ok = found.s2_id[part, : self.places] != 0
            lon, lat = near.moved(self.temperature)
            found.lon[part, : self.places][ok], found.lat[part, : self.places][ok] = lon[ok], lat[ok]
            found.s2_id[part, : self.places][ok] = s2.cell_at(lon[ok], lat[ok])
        return found


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Answered cells with their neighbours; the cell itself stands first of the nine.

    Attributes:
        lon: (q, k) degrees of the cells' centres.
        lat: (q, k).
        east: (q, k, 9) metres of all centres from the cell's own.
        north: (q, k, 9).
        score: (q, k, 9), -inf where there is no code.
    """

    lon: Floats
    lat: Floats
    east: Floats
    north: Floats
    score: Floats

    def moved(self, temperature: float) -> tuple[Floats, Floats]:
        """Weighted mean positions in degrees (q, k); NaN where there is no answer."""
        ok = np.isfinite(self.score[..., 0])
        own = np.where(ok, self.score[..., 0], 0.0)[..., None]
        score = np.where(ok[..., None], self.score, 0.0) - own
        weight = np.where(score <= 0, np.exp(np.minimum(score, 0.0) / temperature), 0.0)
        weight /= weight.sum(axis=-1, keepdims=True)
        east, north = (weight * self.east).sum(axis=-1), (weight * self.north).sum(axis=-1)
        lon, lat = np.full(ok.shape, np.nan), np.full(ok.shape, np.nan)
        if ok.any():
            lon[ok], lat[ok] = LocalFrame(self.lon[ok], self.lat[ok]).to_lonlat(east[ok], north[ok])
        return lon, lat


def neighbourhood(
    base: CodeSetLocalizer, embeddings: Vectors, cells: Ints, ranges: Ints | None = None
) -> Neighbourhood:
    """Scores and positions around answered cells (q, k) of one level; 0 is no answer.

    Only cells within the ranges (as in `localize`) have a score.
    """
    answered = cells != 0
    around = np.zeros((*cells.shape, 9), np.int64)
    around[answered, 0] = cells[answered]
    around[answered, 1:] = s2.neighbors(cells[answered])
    rows = rows_of(base.matrix, around)
    if ranges is not None:
        asked = [(rows >= start) & (rows < stop) for start, stop in base.matrix.slices(ranges)]
        rows = np.where(np.any(asked, axis=0), rows, -1) if asked else np.full_like(rows, -1)
    queries = complete_query(np.asarray(embeddings, np.float16).astype(np.float32))
    score = np.full(around.shape, -np.inf)
    for query in range(len(cells)):
        here = rows[query] >= 0
        codes = np.asarray(base.matrix.codes[rows[query][here]], np.float32)
        score[query][here] = codes @ queries[query] * base.scale
    lon, lat = np.full(cells.shape, np.nan), np.full(cells.shape, np.nan)
    lon[answered], lat[answered] = s2.center(cells[answered])
    east, north = np.zeros(around.shape), np.zeros(around.shape)
    exists = answered[..., None] & (around != 0)
    own = np.broadcast_to(np.where(answered, cells, 0)[..., None], around.shape)[exists]
    if exists.any():
        frame = LocalFrame(*s2.center(own))
        east[exists], north[exists] = frame.to_metres(*s2.center(around[exists]))
    return Neighbourhood(lon, lat, east, north, score)


def rows_of(matrix: CellMatrix, ids: Ints) -> Ints:
    """Row of each cell in the matrix, any shape; -1 where it has no code."""
    if not len(matrix):
        return np.full(ids.shape, -1, np.int64)
    place = np.searchsorted(matrix.ids, ids).clip(max=len(matrix) - 1)
    return np.where(matrix.ids[place] == ids, place, -1)


def fit_refinement(
    base: CodeSetLocalizer,
    embeddings: Vectors,
    lon: npt.ArrayLike,
    lat: npt.ArrayLike,
    *,
    start: float,
    cap_m: float = 200.0,
) -> tuple[float, dict[str, float]]:
    """The temperature that brings the first answers of validation photos nearest to the truth.

    Args:
        base: The localizer to refine.
        embeddings: (q, D) unit vectors of validation photos.
        lon: (q,) degrees, where they were taken.
        lat: (q,).
        start: Temperatures from 1/16 to 64 times this one are tried.
        cap_m: A longer error counts as this many metres: a wrong cell cannot be mended.

    Returns:
        The temperature, and the mean capped error in metres at each one tried.

    Raises:
        BadInputError: There is no photo.
    """
    if not len(embeddings):
        raise BadInputError("There is no validation photo to fit the refinement on.")
    true_lon, true_lat = np.asarray(lon, np.float64), np.asarray(lat, np.float64)
    totals = dict.fromkeys([start * factor for factor in _FACTORS], 0.0)
    for first in range(0, len(embeddings), _BATCH):
        part = slice(first, first + _BATCH)
        top = base.localize(embeddings[part], 1)
        near = neighbourhood(base, embeddings[part], top.s2_id)
        for temperature in totals:
            x, y = near.moved(temperature)
            ok = np.isfinite(x[:, 0])
            error = great_circle_m(true_lon[part][ok], true_lat[part][ok], x[ok, 0], y[ok, 0])
            totals[temperature] += float(np.minimum(error, cap_m).sum()) + cap_m * int((~ok).sum())
    means = {f"{temperature:.4g}": total / len(embeddings) for temperature, total in totals.items()}
    return min(totals, key=lambda temperature: totals[temperature]), means
