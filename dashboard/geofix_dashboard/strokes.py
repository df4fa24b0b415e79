"""Lines of maps: borders, outlines of cells, the scale bar with its length.

All lines are straight segments of one kind of layer, deck.gl's simplest. A browser without a GPU compiles the
program of a layer for its processor, on every first view: about half a second for jointed paths, which are
done without, and 0.65 s for the text of the scale bar, which is to be read at every zoom.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pydeck as pdk
from numpy.typing import NDArray

from geofix_dashboard.boxes import is_square, squares_of

TILE = 512  # px of the world at zoom 0
M_PER_DEGREE = 111_195.0  # of latitude on the sphere of 6371.0 km
_NEARER = 128  # how many times nearer than the first zoom lines are still exact to a pixel
_SCALE = [19, 42, 58, 255]


def segments(shapes: Iterable[Any], pixels_per_degree: float | None) -> NDArray[np.float64]:
    """West-east ordered segments (n, 4) of the rings of GeoJSON coordinates, each once.

    Rounded to a pixel of a map that is 128 times nearer than one of so many pixels a degree.

    Args:
        shapes: Coordinates of polygons and multipolygons; others, and None, have no segments.
        pixels_per_degree: Of the map's first zoom; None: nothing is rounded.
    """
    there = [shape for shape in shapes if shape]
    parts = [whole] if (whole := squares_of(there)) is not None else _parts(there)
    if not parts:
        return np.empty((0, 4))
    found = np.concatenate([np.dstack([part[:, :-1], part[:, 1:]]).reshape(-1, 4) for part in parts])
    if pixels_per_degree is not None:
        digits = min(max(math.ceil(math.log10(max(pixels_per_degree, 1e-3) * _NEARER)), 2), 7)
        found = found.round(digits)
    back = (found[:, 0] > found[:, 2]) | ((found[:, 0] == found[:, 2]) & (found[:, 1] > found[:, 3]))
    found[back] = found[back][:, [2, 3, 0, 1]]
    return np.unique(found, axis=0)


def _parts(shapes: Iterable[Any]) -> list[NDArray[np.float64]]:
    """Rings (n, corners, 2) of coordinates, those of squares together."""
    squares, rings = [], []
    for shape in shapes:
        if is_square(shape):
            squares.append(shape[0])
        else:
            rings += [np.array(ring, np.float64)[:, :2] for ring in _rings(shape)]
    return ([np.array(squares, np.float64)] if squares else []) + [ring[None] for ring in rings]


def _rings(coordinates: Any) -> list[Any]:
    """Rings of a polygon's or a multipolygon's coordinates; empty ones are left out."""
    depth = _depth(coordinates)
    if depth == 3:
        return [ring for ring in coordinates if ring]
    return [ring for polygon in coordinates for ring in polygon if ring] if depth == 4 else []


def _depth(coordinates: Any) -> int:
    """Lists around the first number of GeoJSON coordinates; 0 without a number."""
    for part in coordinates:
        if not isinstance(part, list):
            return 1
        if found := _depth(part):
            return found + 1
    return 0


def drawn(name: str, lines: NDArray[np.float64], colour: Sequence[int], width: float) -> pdk.Layer:
    """Segments (n, 4) as a layer of one colour and width in pixels, which no click finds."""
    return pdk.Layer(
        "LineLayer",
        lines.tolist(),
        id=name,
        get_source_position="[this[0], this[1]]",
        get_target_position="[this[2], this[3]]",
        get_color=list(colour),
        get_width=width,
    )


def scale_bar(view: pdk.ViewState, height: int) -> list[pdk.Layer]:
    """A bar of a round length at the bottom of a map, and its length above it.

    The bar is in geographic coordinates, so that it stays true under zoom; the text keeps its size. The
    length holds at the bar's own latitude; the Mercator map stretches with 1 / cos(latitude).
    """
    world = TILE * 2**view.zoom
    y = mercator(view.latitude) + (height / 2 - 26) / world
    degrees, metres = scale_of(view, height)
    low, high = latitude(y), latitude(y - 6 / world)
    west, east = view.longitude - degrees / 2, view.longitude + degrees / 2
    bar = np.array([[west, high, west, low], [west, low, east, low], [east, low, east, high]])
    text = pdk.Layer(
        "TextLayer",
        [
            {
                "at": [view.longitude, low],
                "text": f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m",
            }
        ],
        id="scale-text",
        get_position="at",
        get_text="text",
        get_size=13,
        get_color=_SCALE,
        get_alignment_baseline="'bottom'",
        get_pixel_offset=[0, -5],
    )
    return [drawn("scale-bar", bar, _SCALE, 1.6), text]


def scale_of(view: pdk.ViewState, height: int) -> tuple[float, float]:
    """Length of the scale bar of a map in degrees of longitude and in metres."""
    world = TILE * 2**view.zoom
    lat = latitude(mercator(view.latitude) + (height / 2 - 26) / world)
    metre = 1 / (M_PER_DEGREE * max(math.cos(math.radians(lat)), 0.05))
    length = nice_length(130 / world * 360 / metre)
    return length * metre, length


def nice_length(most: float) -> float:
    """The largest of 1, 2 or 5 times a power of ten that is not above a number."""
    power = 10 ** math.floor(math.log10(most))
    return float(next(step * power for step in (5, 2, 1) if step * power <= most))


def mercator(lat: float) -> float:
    """Web Mercator's y from 0 (north, 85.05 degrees) to 1 (south)."""
    return 0.5 - math.log(math.tan(math.pi / 4 + math.radians(lat) / 2)) / (2 * math.pi)


def latitude(y: float) -> float:
    """The latitude in degrees of a y of `mercator`."""
    return math.degrees(2 * math.atan(math.exp((0.5 - y) * 2 * math.pi)) - math.pi / 2)
