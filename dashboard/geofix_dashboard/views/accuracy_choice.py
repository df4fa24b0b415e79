"""What the accuracy page shows: its choice, and how a click narrows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

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
        place: The focus as it stands in the URL, a path such as `country:SK,s2:TOKEN`; None: everywhere.
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


def steps(place: str | None) -> list[tuple[str, str]]:
    """The way into a place: (level of regions or `s2`, code) from the outermost."""
    parts = (step.partition(":") for step in (place or "").split(","))
    return [(kind, code) for kind, _, code in parts if kind and code]


def look_inside(code: str | None, level: str | int) -> None:
    """Narrow the page to a place, in the URL, cut finer; what lies outside every region is left alone.

    A region takes the place of one of its own level; a cell is added to the way.
    """
    if code is None or code == "-":
        return
    kind = "s2" if isinstance(level, int) else level
    way = steps(links.get("in"))
    if kind != "s2":
        way = [step for step in way if step[0] not in (kind, "s2")]
    if (kind, code) not in way:
        way.append((kind, code))
    go_to(way)


def go_to(way: list[tuple[str, str]]) -> None:
    """Show a place by the way into it, in the URL; the level falls back to what fits it."""
    links.put("in", ",".join(f"{kind}:{code}" for kind, code in way) or None)
    links.forget("level_by")


def show(view: str) -> None:
    """Turn to another view of the page, from a callback."""
    st.session_state["url_view"] = view
    links.put("view", view)
