"""The one position that stands for an answer, and the probability that the photo was taken near it.

The centre of the best cell needs scores alone. The others move away from it: by the codes of neighbouring
cells, whose temperature is fitted where a code set is calibrated, or to what the probabilities say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geofix.codes.matrix import CellMatrix
from geofix.database.queries.codes import CodeSet
from geofix.errors import BadInputError, UsageError
from geofix.localize.confidence import Posterior
from geofix.localize.kinds import CAP_M, RADIUS_M, Position, known_position
from geofix.localizers.base import Ints, Localizer
from geofix.localizers.code_set import CodeSetLocalizer
from geofix.localizers.point_estimates import PointEstimateLocalizer
from geofix.localizers.refine import RefinedLocalizer, fit_refinement
from geofix.spatial import s2
from geofix.spatial.distance import EARTH_RADIUS_M, great_circle_m

_HALF_DIAGONAL = 1.2194  # of the largest cell of a level, radians times 2^level
_AROUND_LEVEL = 14  # its narrowest cell is 366 m wide: the cell of a place and its neighbours reach that far


@dataclass(frozen=True, eq=False)
class Mover:
    """How a code set's answers become positions.

    Attributes:
        kind: What the position is.
        localizer: Gives it as its first answer; None for the centre, which the search itself gives.
        note: Why it is not what was asked for; None where it is.
    """

    kind: Position
    localizer: Localizer | None = None
    note: str | None = None

    @classmethod
    def of(cls, asked: str, code_set: CodeSet, matrix: CellMatrix, temperature: float | None) -> Mover:
        """The way to the position that is asked for; the centre where only the refinement's fit is missing.

        Args:
            asked: One of `POSITIONS`.
            code_set: Its row, with the fit of the refinement.
            matrix: All its codes.
            temperature: Calibrated, in units of the score; None where it was not.

        Raises:
            UsageError: There is no such position.
            BadInputError: The code set was not calibrated, and the position needs it.
        """
        kind = known_position(asked)
        if kind == "centre":
            return cls(kind)
        if temperature is None:
            raise BadInputError(
                f"Code set {code_set.name} was not calibrated, and the position {kind} needs that.",
                hint=f"Run `geofix codes calibrate --code-set {code_set.name}`, or ask for the centre.",
            )
        refinement = code_set.calibration.get("refinement")
        if kind == "refined" and not refinement:
            note = (
                f"The centre in place of a refined position: code set {code_set.name} was calibrated before "
                "refinements were fitted. Run `geofix codes calibrate` again."
            )
            return cls("centre", note=note)
        fitted = refinement["temperature"] if refinement else None
        return cls(kind, moving(kind, CodeSetLocalizer.of(matrix, code_set), temperature, fitted))

    def position(self, vector: npt.NDArray[Any], ranges: Ints | None, finest: int) -> tuple[float, float]:
        """Where one photo (D,) was taken, in degrees, as the centre of a cell of the finest level allowed."""
        assert self.localizer is not None
        found = self.localizer.localize(np.asarray(vector)[None], 1, ranges)
        lon, lat = s2.center(s2.cell_at(found.lon[0, :1], found.lat[0, :1], finest))
        return float(lon[0]), float(lat[0])


CENTRE = Mover("centre")


def moving(
    kind: Position,
    base: CodeSetLocalizer,
    temperature: float,
    refinement: float | None,
    *,
    radius_m: float = RADIUS_M,
    cap_m: float = CAP_M,
) -> RefinedLocalizer | PointEstimateLocalizer:
    """A code set's answers with the first of them moved.

    Args:
        kind: Any but the centre.
        base: Gives cells and scores.
        temperature: Calibrated, in units of the score.
        refinement: Temperature of the refinement; only this kind needs it.
        radius_m: r of the position with most mass.
        cap_m: d0 of the medoid.
    """
    if kind == "refined" and refinement is not None:
        return RefinedLocalizer(base, refinement)
    if kind == "mass":
        return PointEstimateLocalizer(base, temperature, "mass", radius_m, name="cellcode_mass")
    if kind == "medoid":
        return PointEstimateLocalizer(base, temperature, "medoid", cap_m, name="cellcode_medoid")
    raise UsageError(f"Position {kind} moves nothing, or its temperature is missing.")


def refinement_fit(
    base: CodeSetLocalizer,
    vectors: npt.NDArray[Any],
    lon: npt.ArrayLike,
    lat: npt.ArrayLike,
    temperature: float,
    *,
    radius_m: float = RADIUS_M,
) -> dict[str, Any]:
    """Temperature of the refinement, in units of the score, and the errors it was chosen by: as stored.

    Args:
        base: Whose answers are moved.
        vectors: (q, D) validation photos.
        lon: (q,) degrees, where they were taken.
        lat: (q,).
        temperature: Calibrated, in units of the score.
        radius_m: A longer error counts as this.
    """
    fitted, tried = fit_refinement(base, vectors, lon, lat, start=temperature, cap_m=radius_m)
    return {"temperature": fitted, "mean_capped_error_m": tried}


def mass_within(chances: Posterior, lon: float, lat: float, radius_m: float = RADIUS_M) -> float | None:
    """Probability of the cells whose centres lie within r of a position, as the calibration error judges it.

    None where a cell can reach farther than r from its own centre (level 15 and coarser at 200 m): its
    probability is then not that of a place within r.

    Args:
        chances: Of all cells in scope, all of one level.
        lon: Degrees.
        lat: Degrees.
        radius_m: r, at most 366 m.
    """
    if not len(chances.ids):
        return None
    level = int(s2.level(chances.ids[:1])[0])
    if _HALF_DIAGONAL * EARTH_RADIUS_M / 2**level > radius_m:
        return None
    around = s2.cell_at(np.array([lon]), np.array([lat]), _AROUND_LEVEL)
    around = np.append(around, s2.neighbors(around).reshape(-1))
    low, high = s2.range_of(around[around != 0])
    starts, stops = np.searchsorted(chances.ids, low), np.searchsorted(chances.ids, high, side="right")
    rows = np.unique(np.concatenate([np.arange(a, b) for a, b in zip(starts, stops, strict=True)]))
    metres = great_circle_m(lon, lat, *s2.center(chances.ids[rows]))
    return min(1.0, float(chances.probability[rows][metres <= radius_m].sum()))
