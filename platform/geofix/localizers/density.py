"""[L]kNN: where the nearest photos lie densest, in the original's two-stage grid and on the sphere.

Source: Vo, Jacobs, Hays, *Revisiting IM2GPS in the Deep Learning Era*, ICCV 2017. Each of the nearest photos
weighs 1 / d^m, where **d is the Euclidean distance of the unit embeddings**, not its square (the original
took what its nearest-neighbour library returned; if that was the square, its m = 10 is our m = 20).

Both modes are offered, by the names of `MODES`, on the same neighbours, weights and scale. They differ where
the original is weak:

| | compat | sphere |
| --- | --- | --- |
| blur | sigma in degrees, cut at 2 sigma; narrower in metres towards the poles | great circles |
| 180th meridian | clusters on its two sides stay two | they merge |
| maximum sought | on grid cells of sigma / 4, then of sigma / 40 | at the neighbours themselves |

With 4 degrees and 100 km both are the nearest photo on a small area, so both scale: see `area_scale`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from geofix.errors import UsageError
from geofix.localizers.base import Candidates, Floats, Ints, Vectors
from geofix.localizers.degreegrid import DEGREE_M, grid_maximum
from geofix.localizers.knn import KnnLocalizer
from geofix.spatial import s2
from geofix.spatial.distance import great_circle_m

SIGMA_M = 4.0 * DEGREE_M
SNAP_M = 100_000.0
Mode = Literal["sphere", "compat"]
MODES: dict[str, Mode] = {"knn_density": "sphere", "knn_density_compat": "compat"}
"""Localizers of this method by name."""
_NEAREST = 1e-3  # distances below this count as this: closer, float16 embeddings say nothing


@dataclass(frozen=True, eq=False)
class DensityLocalizer:
    """Ranks the modes of the weighted density of the nearest photos.

    The first answer is the published method's. Further ranks repeat it without the neighbours within the
    snap radius of the answers already given, so they are distinct places.

    Attributes:
        knn: The training photos.
        mode: 'sphere' or 'compat'.
        sigma_m: Width of the kernel, metres; 'compat' turns it into degrees of latitude.
        snap_m: The answer is the most similar neighbour within this many metres of the maximum.
        neighbours: Photos that vote.
        m: Power of the weight 1 / d^m on the distance d (not d^2).
    """

    knn: KnnLocalizer
    mode: Mode = "sphere"
    sigma_m: float = SIGMA_M
    snap_m: float = SNAP_M
    neighbours: int = 100
    m: float = 10.0

    def __post_init__(self) -> None:
        if self.mode not in MODES.values():
            raise UsageError(f"density mode {self.mode!r} is unknown.", hint="Use sphere or compat.")
        if min(self.sigma_m, self.snap_m, self.neighbours) <= 0:
            raise UsageError(
                f"sigma {self.sigma_m} m, snap radius {self.snap_m} m and {self.neighbours} neighbours "
                "must be positive.",
                hint="Use area_scale for values that fit the area.",
            )

    @property
    def name(self) -> str:
        """What it is called in results."""
        return next(name for name, mode in MODES.items() if mode == self.mode)

    def scaled(self) -> DensityLocalizer:
        """The same method with sigma and snap radius fitted to the area of its photos."""
        sigma, snap = area_scale(self.knn.lon, self.knn.lat)
        return replace(self, sigma_m=sigma, snap_m=snap)

    def localize(
        self, embeddings: Vectors, k: int, ranges: Ints | None = None, *, exclude: Ints | None = None
    ) -> Candidates:
        """Rank places; the score is the share of the neighbours' weight gathered there."""
        found = Candidates.empty(len(embeddings), k)
        near = self.knn.neighbours(embeddings, self.neighbours, ranges, exclude=exclude)
        peak = sphere_maximum if self.mode == "sphere" else grid_maximum
        for query, distance in enumerate(near.distance):
            rows = near.row[query][near.found[query]]
            lon, lat = self.knn.lon[rows], self.knn.lat[rows]
            weights = inverse_power_weights(distance[: len(rows)], self.m)
            places = density_modes(lon, lat, weights, peak, self.sigma_m, self.snap_m, k)
            if len(places):
                _put(found, query, places)
        return found


Peak = Callable[[Floats, Floats, Floats, float], tuple[float, float, float]]


def density_modes(
    lon: Floats, lat: Floats, weights: Floats, peak: Peak, sigma_m: float, snap_m: float, k: int
) -> Floats:
    """Up to k modes as rows (lon, lat, score) in degrees, found greedily.

    Args:
        lon: (n,) degrees of the neighbours, most similar first.
        lat: (n,) degrees.
        weights: (n,).
        peak: `sphere_maximum` or `grid_maximum`.
        sigma_m: Width of the kernel, metres.
        snap_m: Radius in metres within which the most similar neighbour replaces the maximum.
        k: Modes wanted.
    """
    places: list[tuple[float, float, float]] = []
    left = np.arange(len(lon))
    while len(left) and len(places) < k:
        east, north, value = peak(lon[left], lat[left], weights[left], sigma_m)
        distance = great_circle_m(lon[left], lat[left], east, north)
        near = np.flatnonzero(distance <= snap_m)
        if len(near):
            east, north = float(lon[left[near[0]]]), float(lat[left[near[0]]])
            distance = np.minimum(distance, great_circle_m(lon[left], lat[left], east, north))
        places.append((east, north, value))
        taken = distance <= snap_m
        taken[np.argmin(distance)] = True
        left = left[~taken]
    return np.array(places).reshape(-1, 3)


def inverse_power_weights(distance: Floats, m: float) -> Floats:
    """Weights proportional to 1 / d^m that sum to 1, by logarithms so that no power overflows."""
    if not len(distance):
        return np.zeros(0)
    logs = -m * np.log(np.maximum(distance, _NEAREST))
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def sphere_maximum(lon: Floats, lat: Floats, weights: Floats, sigma_m: float) -> tuple[float, float, float]:
    """The neighbour with the largest D(x) = sum_j w_j exp(-d(x, x_j)^2 / 2 sigma^2), and D there.

    d is the great circle on a sphere of 6,371 km, within 0.6 % of the ellipsoid. Of equal maxima the most
    similar neighbour wins.
    """
    distance = great_circle_m(lon[:, None], lat[:, None], lon, lat)
    density = np.exp(-0.5 * (distance / sigma_m) ** 2) @ weights
    best = int(np.argmax(density))
    return float(lon[best]), float(lat[best]), float(density[best])


def area_scale(lon: Floats, lat: Floats) -> tuple[float, float]:
    """Sigma and snap radius in metres for an area: 4 of 360 degrees become a 90th of the area's extent.

    The extent is the longer side of the box around the photos, measured along its middle parallel and its
    meridian; the box takes the shorter way round the earth, so that an area over the 180th meridian has the
    extent it would have elsewhere. The result never exceeds the published 4 degrees and 100 km, nor falls
    below 1 m.
    """
    if not len(lon):
        return SIGMA_M, SNAP_M
    middle = np.radians(0.5 * (float(lat.min()) + float(lat.max())))
    extent = max(longitude_span(lon) * float(np.cos(middle)), float(np.ptp(lat))) * DEGREE_M
    sigma = min(SIGMA_M, max(extent / 90.0, 1.0))
    return sigma, sigma * SNAP_M / SIGMA_M


def longitude_span(lon: Floats) -> float:
    """Degrees of the shortest arc of longitudes that holds all of them, also over the 180th meridian."""
    east = np.sort(np.mod(lon, 360.0))
    return 360.0 - float(np.diff(east, append=east[0] + 360.0).max())


def _put(found: Candidates, query: int, places: Floats) -> None:
    lon, lat, score = places.T
    found.put(query, s2.cell_at(lon, lat), lon, lat, score)
