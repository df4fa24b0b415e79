"""Maps that draw without internet: our own polygons and lines on a plain ground, with a scale bar."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import pydeck as pdk
import streamlit as st
from pydeck.bindings.json_tools import default_serialize

from geofix.spatial.distance import great_circle_m
from geofix_dashboard import beside, data, strokes
from geofix_dashboard.boxes import boxes_of
from geofix_dashboard.strokes import M_PER_DEGREE, TILE, latitude, mercator

Bounds = tuple[float, float, float, float]
HEIGHT = 520
WIDTH = 500  # px a map beside a table is at least wide on a desk's screen; the zoom fits the data into this
SMALL_PX = 7.0  # areas smaller than this on the screen are drawn as dots
MAX_FEATURES = 5_000
MANY = 400
_HEAP = 4  # so many dots on one spot still have rims
_LINE = [40, 56, 68, 150]
_CHOSEN = [213, 94, 0, 255]


def level_for(bounds: Bounds, *, cells_across: int = 14, finest: int = 16, coarsest: int = 6) -> int:
    """The S2 level that puts about this many cells across a box, between `coarsest` and `finest`.

    A cell of level L has an edge of about 7842 km / 2^L; real edges differ by up to 25 %.
    """
    west, south, east, north = bounds
    wide = (east - west) * math.cos(math.radians((south + north) / 2))
    across_km = max(wide, north - south, 1e-4) * M_PER_DEGREE / 1000
    return int(min(max(round(math.log2(7842 * cells_across / across_km)), coarsest), finest))


def padded(bounds: Bounds, share: float = 0.12, least_deg: float = 0.001) -> Bounds:
    """A box with room around it."""
    west, south, east, north = bounds
    dx, dy = max((east - west) * share, least_deg), max((north - south) * share, least_deg)
    return west - dx, max(-85.0, south - dy), east + dx, min(85.0, north + dy)


def bounds_of(rows: pd.DataFrame) -> Bounds:
    """The box around the shapes of a frame; the whole world when there are none."""
    boxes = boxes_of([shape.get("coordinates") for shape in _read(rows["shape"]) if shape is not None])
    boxes = boxes[~np.isnan(boxes[:, 0])]
    if not len(boxes):
        return (-170.0, -60.0, 170.0, 75.0)
    west, south = boxes[:, :2].min(axis=0).tolist()
    east, north = boxes[:, 2:].max(axis=0).tolist()
    return west, south, east, north


def _read(shapes: Iterable[Any]) -> list[dict[str, Any] | None]:
    """GeoJSON texts, read all at once; None of what is none."""
    texts = (shape if isinstance(shape, str) else "null" for shape in shapes)
    found: list[dict[str, Any] | None] = json.loads(f"[{','.join(texts)}]")
    return found


def view_of(bounds: Bounds, height: int = HEIGHT, width: int = WIDTH) -> pdk.ViewState:
    """The fixed view that shows a box: same box, same view, so a rerun does not move the map."""
    west, south, east, north = padded(bounds)
    x, y = max((east - west) / 360, 1e-7), max(mercator(south) - mercator(north), 1e-7)
    zoom = min(math.log2(width / TILE / x), math.log2(height / TILE / y))
    middle = latitude((mercator(south) + mercator(north)) / 2)
    return pdk.ViewState(
        longitude=round((west + east) / 2, 6),
        latitude=round(middle, 6),
        zoom=round(min(max(zoom, 0.3), 19), 3),
    )


def pixels_per_degree(bounds: Bounds, height: int = HEIGHT, width: int = WIDTH) -> float:
    """Pixels of a degree of longitude at the first zoom of the map of a box."""
    return float(TILE * 2 ** view_of(bounds, height, width).zoom / 360)


def tolerance_of(bounds: Bounds) -> float:
    """Degrees by which outlines may be simplified without it being seen: up to half a pixel of the map.

    Powers of two, so that maps of nearly one box share their outlines.
    """
    west, south, east, north = padded(bounds)
    return float(2.0 ** math.floor(math.log2(max(east - west, north - south) / (2 * WIDTH))))


def around(rows: pd.DataFrame, code: str, metres: float) -> pd.DataFrame:
    """The rows (code, lon, lat) within a distance of one of them, it included."""
    at = rows[rows["code"] == code].iloc[0]
    away = great_circle_m(rows["lon"].to_numpy(), rows["lat"].to_numpy(), at["lon"], at["lat"])
    return rows[away <= metres]


class _Deck(pdk.Deck):  # type: ignore[misc]
    """A deck written as short JSON by the encoder in C; pydeck's own indents it, in Python alone."""

    def to_json(self) -> str:
        """The deck as deck.gl reads it."""
        return json.dumps(self, default=default_serialize, separators=(",", ":"))


def draw(
    key: str,
    layers: Sequence[pdk.Layer],
    bounds: Bounds,
    *,
    height: int = HEIGHT,
    width: int = WIDTH,
    trace: bool = True,
    outline_level: str = "country",
    on_select: Callable[[], None] | None = None,
    several: bool = False,
) -> None:
    """Draw layers over the outlines of our own regions and a trace of the photos, with a scale bar.

    Args:
        key: Constant name of the map on its page.
        layers: From `areas`, `lines`, `points`.
        bounds: What must be in view; decides the fixed view.
        height: Pixels.
        width: Pixels that the map has at least.
        trace: Draw dots where photos are.
        outline_level: Level of regions to outline besides countries.
        on_select: Called when an area is clicked; read it with `clicked`.
        several: A click adds to what is chosen, and a second one takes it back.
    """
    view = view_of(bounds, height, width)
    below = _outlines("country", bounds, ground=True)
    if outline_level != "country":
        below += _outlines(outline_level, bounds, ground=False)
    if trace:
        below += _trace(bounds)
    deck = _Deck(
        layers=[beside.put(key, layer) for layer in (*below, *layers, *strokes.scale_bar(view, height))],
        initial_view_state=view,
        # No provider, and pydeck's own default for the style: with None Streamlit would ask for a basemap.
        map_provider=None,
        # As text, never as HTML: names come from files of others.
        tooltip={"text": "{tip}", "style": {"fontSize": "12px", "background": "#132a3a", "color": "#fff"}},
    )
    if on_select is None:
        st.pydeck_chart(deck, height=height, key=key)
    else:
        mode: Literal["multi-object", "single-object"] = "multi-object" if several else "single-object"
        st.pydeck_chart(deck, height=height, key=key, on_select=on_select, selection_mode=mode)


def clicked(key: str, layer: str = "areas") -> str | None:
    """The code of the area that was clicked on the map of a key; None when the click took it back."""
    state = st.session_state.get(key)
    if not state:
        return None
    objects = state["selection"]["objects"].get(layer, [])
    if not objects:
        return None
    return str(objects[0].get("properties", objects[0])["code"])


def areas(
    rows: pd.DataFrame,
    fill: Callable[[Any], Sequence[int]] | Sequence[Sequence[int]],
    tip: Callable[[Any], str],
    bounds: Bounds,
    *,
    chosen: str | None = None,
) -> list[pdk.Layer]:
    """Places of a frame with the columns code and shape (GeoJSON text), coloured by row, with a tooltip.

    A place too small to be seen at the first zoom is a dot at its middle, the smaller the more there are. The
    layer `areas` holds them all and is the one that is clicked; the others are their outlines.

    Args:
        rows: At most `MAX_FEATURES` of them are drawn, the first ones.
        fill: RGBA of a row, or of all rows in their order.
        tip: Text of a row.
        bounds: Of the map.
        chosen: Code of the place that is outlined.
    """
    row: Any
    features = []
    shown = rows.head(MAX_FEATURES)
    paint = map(fill, shown.itertuples(index=False)) if callable(fill) else iter(fill)
    for row, rgba, geometry in zip(shown.itertuples(index=False), paint, _read(shown["shape"]), strict=False):
        if geometry is None:
            continue
        properties = {"code": row.code, "tip": tip(row), "fill": list(rgba)}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    seen = _seen(features, bounds, WIDTH)
    dots, rings = _coordinates(seen, dots=True), _coordinates(seen, dots=False)
    radius = 6 if len(features) < 100 else 4 if len(features) < 1000 else 2.5
    layers = [
        pdk.Layer(
            "GeoJsonLayer",
            {"type": "FeatureCollection", "features": seen},
            id="areas",
            pickable=True,
            auto_highlight=True,
            stroked=False,
            get_fill_color="properties.fill",
            get_point_radius=radius,
            point_radius_units="'pixels'",
        )
    ]
    if dots:
        layers.append(_rings("rims", _apart(dots, radius, bounds), radius, _LINE, 1))
    layers.append(strokes.drawn("outlines", strokes.segments(rings, pixels_per_degree(bounds)), _LINE, 1))
    picked = [i for i, item in enumerate(seen) if chosen is not None and item["properties"]["code"] == chosen]
    if picked:
        # Exact: rounded, the outline of what is a dot here would be a point however near one comes.
        outline = strokes.segments(_coordinates([features[i] for i in picked], dots=False), None)
        layers.append(strokes.drawn("chosen", outline, _CHOSEN, 3))
        if marked := _coordinates([seen[i] for i in picked], dots=True):
            layers.append(_rings("chosen-dot", marked, radius, _CHOSEN, 3))
    return layers


def _coordinates(features: Iterable[dict[str, Any]], *, dots: bool) -> list[Any]:
    """Coordinates of the features that are points, or of all others; None of a GeometryCollection."""
    geometries = (feature["geometry"] for feature in features)
    return [item.get("coordinates") for item in geometries if (item["type"] == "Point") == dots]


def _apart(dots: list[Any], radius: float, bounds: Bounds) -> list[Any]:
    """The dots that do not lie in a heap: rims of many on one spot would hide their colours."""
    at = np.array([dot[:2] for dot in dots], np.float64)
    at[:, 1] /= np.maximum(np.cos(np.radians(at[:, 1])), 0.01)
    spots = np.floor(at * pixels_per_degree(bounds) / (2 * radius))
    _, spot, dots_of = np.unique(spots, axis=0, return_inverse=True, return_counts=True)
    crowded = dots_of[spot.ravel()] > _HEAP
    return [dot for dot, hidden in zip(dots, crowded, strict=True) if not hidden]


def _rings(name: str, dots: list[Any], radius: float, colour: Sequence[int], width: float) -> pdk.Layer:
    """Rings around dots, from their edge outwards, so that no dot changes its colour; in pixels."""
    return pdk.Layer(
        "ScatterplotLayer",
        dots,
        id=name,
        filled=False,
        stroked=True,
        get_position="[this[0], this[1]]",
        get_line_color=list(colour),
        get_line_width=width,
        line_width_units="'pixels'",
        get_radius=radius + width / 2,
        radius_units="'pixels'",
    )


def lines(rows: pd.DataFrame, tip: Callable[[Any], str]) -> list[pdk.Layer]:
    """Arrows without heads from true_lon/true_lat (a dot) to lon/lat, columns rgba and error_m."""
    row: Any
    made = []
    for row in rows.itertuples(index=False):
        ends = {"from": [row.true_lon, row.true_lat], "to": [row.lon, row.lat]}
        made.append({**ends, "rgba": list(row.rgba), "tip": tip(row)})
    return [
        pdk.Layer(
            "LineLayer",
            made,
            id="errors",
            get_source_position="from",
            get_target_position="to",
            get_color="rgba",
            get_width=2,
            pickable=True,
            auto_highlight=True,
        ),
        pdk.Layer(
            "ScatterplotLayer",
            made,
            id="truth",
            get_position="from",
            get_fill_color=[19, 42, 58, 230],
            get_radius=3.5,
            radius_units="'pixels'",
            pickable=True,
        ),
        pdk.Layer(
            "ScatterplotLayer",
            made,
            id="answers",
            get_position="to",
            get_fill_color="rgba",
            get_line_color=[255, 255, 255, 255],
            stroked=True,
            line_width_min_pixels=1,
            get_radius=5,
            radius_units="'pixels'",
            pickable=True,
        ),
    ]


def shapes(features: Iterable[dict[str, Any]], bounds: Bounds, width: int) -> pdk.Layer:
    """Any GeoJSON features with a property tip, in one colour; those too small to be seen as dots."""
    return pdk.Layer(
        "GeoJsonLayer",
        {"type": "FeatureCollection", "features": _seen(features, bounds, width)},
        id="shapes",
        pickable=True,
        get_fill_color=[33, 145, 140, 110],
        get_line_color=[19, 42, 58, 220],
        line_width_min_pixels=1.5,
        get_point_radius=5,
        point_radius_units="'pixels'",
        point_radius_min_pixels=4,
    )


def tip_of(title: str, facts: dict[str, str]) -> str:
    """Lines of a tooltip."""
    return "\n".join([*([title] if title else []), *(f"{name}: {value}" for name, value in facts.items())])


def _seen(features: Iterable[dict[str, Any]], bounds: Bounds, width: int) -> list[dict[str, Any]]:
    """The features, those smaller than a few pixels at the first zoom of the map as points.

    Of many, only those that would hardly be seen: a grid half of dots looks like two kinds of things.
    """
    seen = list(features)
    least = (SMALL_PX if len(seen) < MANY else SMALL_PX / 3) / pixels_per_degree(bounds, width=width)
    # A GeometryCollection has no coordinates.
    placed = [i for i, feature in enumerate(seen) if feature["geometry"].get("coordinates")]
    boxes = boxes_of([seen[i]["geometry"]["coordinates"] for i in placed])
    small = np.flatnonzero((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0.0) < least)
    middles = ((boxes[small, :2] + boxes[small, 2:]) / 2).tolist()
    for i, middle in zip(small, middles, strict=True):
        seen[placed[i]] = {**seen[placed[i]], "geometry": {"type": "Point", "coordinates": middle}}
    return seen


def _outlines(level: str, bounds: Bounds, *, ground: bool) -> list[pdk.Layer]:
    layers = []
    for name, document in _ground(level, bounds, ground):
        layer = (
            pdk.Layer("GeoJsonLayer", [], id=name, stroked=False, get_fill_color=[250, 250, 247, 255])
            if name.startswith("ground")
            else strokes.drawn(name, np.empty((0, 4)), [150, 164, 174, 255], 1)
        )
        layer.data = document
        layers.append(layer)
    return layers


@data.kept(40)
def _ground(level: str, bounds: Bounds, filled: bool) -> list[tuple[str, bytes]]:
    """Regions of a level around a box as documents of layers: areas, where they are filled, and lines."""
    rows = data.outlines(level, bounds)
    if rows.empty:
        return []
    geometries = [json.loads(shape) for shape in rows["shape"]]
    lines = strokes.segments([item.get("coordinates") for item in geometries], pixels_per_degree(bounds))
    found = [(f"outlines-{level}", beside.encoded(lines.tolist()))]
    if filled:
        features = [{"type": "Feature", "geometry": item, "properties": {}} for item in geometries]
        document = beside.encoded({"type": "FeatureCollection", "features": features})
        found.insert(0, (f"ground-{level}", document))
    return found


def _trace(bounds: Bounds) -> list[pdk.Layer]:
    level = level_for(bounds, cells_across=45, finest=20, coarsest=2)
    rows = data.table("trace", level, padded(bounds, 1.5))
    return [
        pdk.Layer(
            "ScatterplotLayer",
            rows[["lon", "lat"]].to_numpy(np.float64).round(6).tolist(),
            id="photos",
            get_position="[this[0], this[1]]",
            get_fill_color=[110, 126, 138, 110],
            get_radius=2,
            radius_units="'pixels'",
        )
    ]
