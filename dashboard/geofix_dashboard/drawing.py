"""A map to draw areas on: by hand while the pointer is held, or corner by corner; without internet.

The drawing itself is `drawing.js`, the dashboard's one piece of script: pydeck tells which area of ours was
clicked, but neither where on empty ground nor along which way.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import shapely
import streamlit as st

from geofix.errors import BadInputError
from geofix_dashboard import data, maps

MOST_AREAS = 50
MOST_CORNERS = 20_000  # of all areas
_HTML = """
<svg role="application" aria-label="Map to draw on"></svg>
<div>
  <button type="button" data-act="mode" title="Draw or move the map">Drawing</button>
  <button type="button" data-act="nearer" aria-label="Zoom in">+</button>
  <button type="button" data-act="farther" aria-label="Zoom out">−</button>
  <button type="button" data-act="undo">Undo</button>
  <button type="button" data-act="clear">Clear</button>
</div>
"""
_CSS = """
svg { width: 100%; display: block; background: #e6edf2; border: 1px solid #dbe3e8; border-radius: 6px;
      touch-action: none; cursor: crosshair; }
.land { fill: #fafaf7; stroke: #96a4ae; } .blocks { fill: #21918c33; stroke: #21918c88; stroke-width: 0.5; }
.drawn { fill: #d55e0040; stroke: #d55e00; stroke-width: 2.5; }
.line { fill: none; stroke: #d55e00; stroke-width: 2; stroke-dasharray: 4 3; }
.corner { fill: #ffffff; stroke: #d55e00; stroke-width: 2; }
path.scale { fill: none; stroke: #132a3a; stroke-width: 1.5; }
text.scale { fill: #132a3a; font: 12px sans-serif; text-anchor: middle; }
div { display: flex; gap: 6px; margin-top: 6px; flex-wrap: wrap; }
button { font: 13px sans-serif; padding: 4px 10px; border: 1px solid #dbe3e8; border-radius: 6px;
         background: #f3f6f8; color: #1b2733; cursor: pointer; }
button:focus-visible { outline: 2px solid #1f6f8b; }
"""
_JS = Path(__file__).with_name("drawing.js")


def areas(key: str, rows: pd.DataFrame) -> shapely.Geometry | None:
    """Draw the map over the shapes of a frame, and return what was drawn on it; None: nothing.

    Raises:
        BadInputError: What the browser sent is no drawing.
    """
    bounds = maps.bounds_of(rows)
    component = st.components.v2.component(
        "geofix_drawing", html=_HTML, css=_CSS, js=_JS.read_text(encoding="utf-8")
    )
    kept = (st.session_state.get(key) or {}).get("rings")
    sent = component(
        key=key,
        data={
            "of": key,
            "bounds": bounds,
            "land": rings_of(data.outlines("country", bounds)["shape"]),
            "blocks": rings_of(rows["shape"]),
            "rings": kept or [],
        },
        default={"rings": kept or []},
        on_rings_change=_nothing,
    )
    return union(sent.rings)


def _nothing() -> None:
    """What was drawn is read from the component's state."""


def rings_of(shapes: Iterable[Any]) -> list[list[list[float]]]:
    """Every ring of GeoJSON texts, longitude and latitude to 1e-5 degrees (1.2 m)."""
    rings: list[list[list[float]]] = []
    for text in shapes:
        if not isinstance(text, str):
            continue
        shape = json.loads(text)
        coordinates = shape.get("coordinates", [])
        polygons = [coordinates] if shape["type"] == "Polygon" else coordinates
        if shape["type"] in ("Polygon", "MultiPolygon"):
            rings += [[[round(x, 5), round(y, 5)] for x, y, *_ in ring] for part in polygons for ring in part]
    return rings


def union(rings: Any) -> shapely.Geometry | None:
    """The areas inside any ring, repaired where a line crosses itself; None where there is none.

    Raises:
        BadInputError: No list of rings of longitudes and latitudes, or too much of it.
    """
    if not rings:
        return None
    try:
        whole = [[(float(x), float(y)) for x, y in ring] for ring in rings]
    except (TypeError, ValueError):
        raise BadInputError("The drawing cannot be read.", hint="Clear it and draw again.") from None
    corners = [value for ring in whole for at in ring for value in at]
    if len(whole) > MOST_AREAS or len(corners) > 2 * MOST_CORNERS:
        raise BadInputError(
            f"The drawing has {len(whole):,} areas with {len(corners) // 2:,} corners.",
            hint=f"Draw at most {MOST_AREAS} areas with {MOST_CORNERS:,} corners in all.",
        )
    if not all(map(math.isfinite, corners)):
        raise BadInputError("The drawing leaves the map.", hint="Clear it and draw again.")
    polygons = [shapely.make_valid(shapely.Polygon(ring)) for ring in whole if len(ring) > 2]
    merged = shapely.union_all(polygons)
    parts = [part for part in shapely.get_parts(merged) if part.geom_type in ("Polygon", "MultiPolygon")]
    return shapely.union_all(parts) if parts else None
