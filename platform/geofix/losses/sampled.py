"""Negatives of big tables: all that are near the batch, and a weighted sample of the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geofix.errors import UsageError
from geofix.losses.base import Place, Table
from geofix.losses.walk import Selection
from geofix.spatial import s2
from geofix.spatial.distance import unit_vectors

Ints = NDArray[np.int64]

BLOCK_LEVEL = 10  # about 9 km
EARTH_M = 6_371_000.0
# Centre to corner of a cell in radians is below this times 2**-level: half the largest diagonal of S2's
# quadratic projection (2.4387), s2metrics.
_RADIUS = 1.22
# A sphere for the ellipsoid: distances are wrong by less than 0.6 %.
_ELLIPSOID = 1.006


class SampledNegatives:
    """Draws which rows a step visits: every row near the batch, and S of the N_far others.

    Each far row drawn counts N_far / S times in the sum over the negatives, which makes the sum unbiased and
    its log slightly low. Drawn one from each of S equal stretches of the far rows in the order of the ids, so
    that the sample is spread over the map as the table is; stretches differ by one row at most, and each
    drawn row counts exactly as often as its stretch is long.

    Near is decided by blocks of S2 level 10: all rows within `near_m` of an anchor are near, and some up to
    one block's diameter (16 km) beyond. The expectation does not depend on where that border is.

    Args:
        count: S.
        near_m: Radius of what is always visited.
        above: Tables up to this many rows are visited whole.
        seed: Of the draws.
    """

    def __init__(
        self, count: int = 128_000, *, near_m: float = 50_000.0, above: int = 1_000_000, seed: int = 0
    ) -> None:
        if count < 1 or near_m < 0 or above < 0:
            raise UsageError(
                f"Cannot sample {count} negatives beyond {near_m} m in tables above {above} rows."
            )
        self.count, self.near_m, self.above, self.seed = count, near_m, above, seed
        self.draws = 0
        self._blocks: _Blocks | None = None

    def draw(self, table: Table, place: Place) -> Selection | None:
        """Rows of this step; None: all of them. Every call draws anew.

        Args:
            table: Of a sharded table, each rank draws its part of S from the rows that it holds.
            place: Of all anchors.
        """
        if len(table.ids) <= self.above:
            return None
        if self._blocks is None or self._blocks.ids is not table.ids:
            self._blocks = _Blocks(table)
        draw = np.random.default_rng((self.seed, self.draws, table.first_row))
        self.draws += 1
        near = self._blocks.near(place, self.near_m)
        first, stop = table.first_row, table.first_row + len(table.weight)
        starts, stops = np.clip(self._blocks.starts, first, stop), np.clip(self._blocks.stops, first, stop)
        near_rows = _expand(starts[near], stops[near])
        far_starts, far_sizes = starts[~near], (stops - starts)[~near]
        ends = np.cumsum(far_sizes)
        far_count = int(ends[-1]) if len(ends) else 0
        share = min(far_count, -(-self.count * len(table.weight) // len(table.ids)))
        edges = np.arange(share + 1, dtype=np.int64) * far_count // max(share, 1)
        sizes = np.diff(edges)
        picked = edges[:-1] + (draw.random(share) * sizes).astype(np.int64)
        block = np.searchsorted(ends, picked, side="right")
        far_rows = far_starts[block] + picked - (ends - far_sizes)[block]
        log_weight = np.concatenate([np.zeros(len(near_rows)), np.log(sizes)]).astype(np.float32)
        return Selection(np.concatenate([near_rows, far_rows]) - first, len(near_rows), log_weight)

    def state_dict(self) -> dict[str, Any]:
        """How many draws were made: the next one of a resumed run is the same."""
        return {"draws": self.draws}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a run stopped."""
        self.draws = int(state["draws"])


class _Blocks:
    """Contiguous rows of one coarse cell each, found by distance."""

    def __init__(self, table: Table) -> None:
        self.ids = table.ids
        self.level = min(BLOCK_LEVEL, table.level)
        parents = s2.parent(table.ids, self.level)
        self.starts = np.flatnonzero(np.append(True, parents[1:] != parents[:-1])).astype(np.int64)
        self.stops = np.append(self.starts[1:], len(parents))
        self.tree = cKDTree(unit_vectors(*s2.center(parents[self.starts])))

    def near(self, place: Place, near_m: float) -> NDArray[np.bool_]:
        """Which blocks hold a row within a distance of an anchor's cell, or one that the place names."""
        rows, ring = place.rows.numpy(), place.ring.numpy()
        out = np.zeros(len(self.starts), np.bool_)
        named = np.concatenate([rows[rows >= 0], ring[ring >= 0]])
        if not len(named):
            return out
        out[np.unique(np.searchsorted(self.starts, named, side="right") - 1)] = True
        nearest = np.take_along_axis(rows, place.weights.numpy().argmax(axis=1)[:, None], axis=1)[:, 0]
        cells = self.ids[np.unique(nearest[nearest >= 0])]
        # From the anchor to its cell's centre, and from a row's centre to its block's.
        reach = near_m * _ELLIPSOID / EARTH_M + _RADIUS * (
            2.0**-self.level + 2 * 2.0 ** -int(s2.level(cells)[0])
        )
        chord = 2 * np.sin(min(reach, np.pi) / 2)
        for found in self.tree.query_ball_point(unit_vectors(*s2.center(cells)), chord):
            out[found] = True
        return out


def _expand(starts: Ints, stops: Ints) -> Ints:
    """All numbers of ascending ranges, one after the other."""
    sizes = stops - starts
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    out: Ints = np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - sizes), sizes)
    return out
