"""What the accuracy page shows: its choice, and how a click narrows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from geofix.database.queries.dashboard_accuracy import Focus
from geofix_dashboard import links, maps


@dataclass(frozen=True)
class Choice:
    """What the page shows.

    Attributes:
        name: The evaluation.
        created: When it was stored; part of every cache key.
        other: The evaluation it is compared with, or None.
        threshold_m: An answer counts within this many metres.
        level: A level of regions, or an S2 level.
        focus: Only photos in there.
        place: The focus as it stands in the URL, `country:SK` or `s2:TOKEN`; None: everywhere.
        bounds: West, south, east, north of all photos of the evaluation.
        row: Its summary and metrics.
    """

    name: str
    created: str
    other: str | None
    threshold_m: float
    level: str | int
    focus: Focus
    place: str | None
    bounds: maps.Bounds
    row: dict[str, Any]


def look_inside(code: str | None, level: str | int) -> None:
    """Narrow the page to a place, in the URL, cut finer; what lies outside every region is left alone."""
    if code is None or code == "-":
        return
    links.put("in", f"{'s2' if isinstance(level, int) else level}:{code}")
    links.forget("level_by")
