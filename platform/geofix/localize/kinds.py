"""The positions that an answer can be given as."""

from __future__ import annotations

from typing import Literal

from geofix.errors import UsageError

Position = Literal["centre", "refined", "mass", "medoid"]

RADIUS_M = 200.0  # of `mass`, and of the confidence in a position
CAP_M = 1000.0  # metres that a longer distance counts as, for `medoid`
POSITIONS: dict[Position, str] = {
    "centre": "centre of the best cell",
    "refined": "moved from the best cell's centre towards neighbours that score well",
    "mass": f"most probability within {RADIUS_M:g} m",
    "medoid": f"least expected distance, capped at {CAP_M:g} m",
}


def known_position(text: str) -> Position:
    """The position of that name.

    Raises:
        UsageError: There is none.
    """
    for kind in POSITIONS:
        if kind == text:
            return kind
    raise UsageError(f"Position {text!r} is unknown.", hint=f"Use one of {', '.join(POSITIONS)}.")
