"""One position out of a distribution over cells, chosen for what it is judged by.

- **Most mass within r** maximises the chance that the truth lies within r metres: for recall at r.
- **Medoid** minimises the expected distance capped at d0, sum p min(d, d0): for the typical error. Without
  the cap the expectation would be pulled between modes, to where nothing speaks for.

The probability of a cell is spread evenly over its four children, so that a position between two likely
cells can win. Positions tried are the centres of the cells and of their children; for the mass, the best of
them are also drawn to the middle of the mass within r.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from geofix.errors import UsageError
from geofix.localizers.base import Candidates, Floats, Ints, Vectors
from geofix.localizers.code_set import CodeSetLocalizer
from geofix.spatial import s2
from geofix.spatial.distance import EARTH_RADIUS_M, unit_vectors

Kind = Literal["mass", "medoid"]
CELLS = 128
_STARTS, _STEPS = 12, 4
_MASS = 0.999  # the tail of the distribution moves no estimate, and costs most of the time


@dataclass(frozen=True, eq=False)
class PointEstimateLocalizer:
    """A code set's answers with a point estimate put before them.

    Only the best `cells` cells take part, and of these as many as hold 99.9 % of their mass; what lies
    outside them is left out of both sums.

    Attributes:
        base: Gives the cells and their scores.
        temperature: T of softmax(score / T), calibrated.
        kind: `mass` or `medoid`.
        radius_m: r of `mass`, d0 of `medoid`, in metres.
        cells: So many cells take part.
        name: Name in results.
    """

    base: CodeSetLocalizer
    temperature: float
    kind: Kind
    radius_m: float
    cells: int = CELLS
    name: str = "cellcode_point"

    def __post_init__(self) -> None:
        if self.kind not in ("mass", "medoid"):
            raise UsageError(f"Point estimate {self.kind!r} is unknown.", hint="Use mass or medoid.")
        if not (self.temperature > 0 and self.radius_m > 0):
            raise UsageError(
                f"Temperature {self.temperature} and radius {self.radius_m} m must be above 0.",
                hint="Calibrate the codes first.",
            )

    def localize(self, embeddings: Vectors, k: int, ranges: Ints | None = None) -> Candidates:
        """The estimate first, with the base's best score; then the base's cells in their order."""
        top = self.base.localize(embeddings, max(k, self.cells), ranges)
        found = Candidates.empty(len(embeddings), k)
        found.put(slice(None), top.s2_id[:, :k], top.lon[:, :k], top.lat[:, :k], top.score[:, :k])
        found.s2_id[:, 1:], found.score[:, 1:] = top.s2_id[:, : k - 1], top.score[:, : k - 1]
        found.lon[:, 1:], found.lat[:, 1:] = top.lon[:, : k - 1], top.lat[:, : k - 1]
        for query in range(len(embeddings)):
            ok = top.answered[query, : self.cells]
            if ok.any():
                ids, score = top.s2_id[query, : self.cells][ok], top.score[query, : self.cells][ok]
                weight = np.exp((score - score[0]) / self.temperature)
                weight /= weight.sum()
                used = int(np.searchsorted(np.cumsum(weight), _MASS)) + 1
                lon, lat, _ = point_estimate(ids[:used], weight[:used], self.kind, self.radius_m)
                found.lon[query, 0], found.lat[query, 0] = lon, lat
                found.s2_id[query, 0] = int(s2.cell_at(lon, lat))
        return found


def point_estimate(ids: Ints, probability: Floats, kind: Kind, radius_m: float) -> tuple[float, float, float]:
    """Position in degrees, and what it achieves: mass within r, or the expected capped distance in metres.

    Of equal masses the one with the smaller expected distance capped at 2 r wins. Distances are great
    circles on the sphere, exact to the rounding of unit vectors (below a millimetre).

    Args:
        ids: (n,) cells.
        probability: (n,) of each, summing to at most 1.
        kind: `mass` or `medoid`.
        radius_m: r or d0.
    """
    parts = s2.children(ids).reshape(-1)
    share = np.repeat(np.asarray(probability, np.float64) / 4.0, 4)
    lon, lat = s2.center(np.concatenate([ids, parts]))
    places = unit_vectors(lon, lat)
    metres = _arcs(places, places[len(ids) :])
    if kind == "medoid":
        cost = np.minimum(metres, radius_m) @ share
        best = int(np.argmin(cost))
        return float(lon[best]), float(lat[best]), float(cost[best])
    mass = (metres <= radius_m) @ share
    drawn = _drawn(places[len(ids) :], share, places, mass, radius_m)
    metres = np.concatenate([metres, _arcs(drawn, places[len(ids) :])])
    mass = (metres <= radius_m) @ share
    lon = np.append(lon, np.degrees(np.arctan2(drawn[:, 1], drawn[:, 0])))
    lat = np.append(lat, np.degrees(np.arctan2(drawn[:, 2], np.hypot(drawn[:, 0], drawn[:, 1]))))
    equal = np.flatnonzero(mass >= mass.max() - 1e-9)
    spread = np.minimum(metres[equal], 2.0 * radius_m) @ share
    best = int(equal[np.argmin(spread)])
    return float(lon[best]), float(lat[best]), float(mass[best])


def _drawn(parts: Floats, share: Floats, places: Floats, mass: Floats, radius_m: float) -> Floats:
    """The best places drawn to the middle of the mass within r of them, again and again (m, 3)."""
    best = places[np.argsort(-mass, kind="stable")[:_STARTS]]
    found = []
    for _ in range(_STEPS):
        middle = ((_arcs(best, parts) <= radius_m) * share) @ parts
        length = np.linalg.norm(middle, axis=1, keepdims=True)
        best = np.where(length > 0, middle / np.maximum(length, 1e-300), best)
        found.append(best)
    return np.concatenate(found)


def _arcs(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> Floats:
    """Metres between unit vectors (n, 3) and (m, 3) along great circles of 6,371 km."""
    chord = cdist(a, b)
    return np.asarray(2.0 * np.arcsin(np.minimum(chord / 2.0, 1.0)) * EARTH_RADIUS_M, np.float64)
