"""Lines of maps: borders, outlines of cells, the scale bar with its length.

All are straight segments of one kind of layer, deck.gl's simplest. A browser without a GPU compiles the
program of a layer for its processor, on every first view: half a second each for jointed paths and for text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pydeck as pdk
from numpy.typing import NDArray

from geofix_dashboard.boxes import is_square

TILE = 512  # px of the world at zoom 0
M_PER_DEGREE = 111_195.0  # of latitude on the sphere of 6371.0 km
_NEARER = 128  # how many times nearer than the first zoom lines are still exact to a pixel
# Signs of the scale bar on a grid, strokes from corner to corner; the baseline is 0, capitals are 6 high.
_SIGNS: dict[str, tuple[float, list[list[tuple[float, float]]]]] = {
    "0": (3.6, [[(1, 0), (2.6, 0), (3.6, 1.2), (3.6, 4.8), (2.6, 6), (1, 6), (0, 4.8), (0, 1.2), (1, 0)]]),
    "1": (2.2, [[(0, 4.7), (1.6, 6), (1.6, 0)]]),
    "2": (3.6, [[(0, 4.8), (0.9, 6), (2.7, 6), (3.6, 4.9), (3.6, 3.9), (0, 0), (3.6, 0)]]),
    "5": (
        3.6,
        [[(3.3, 6), (0.4, 6), (0, 3.2), (2.4, 3.6), (3.6, 2.6), (3.6, 1.1), (2.6, 0), (0.9, 0), (0, 1)]],
    ),
    "k": (3.0, [[(0, 0), (0, 6)], [(2.8, 4), (0, 1.5)], [(1, 2.4), (3, 0)]]),
    "m": (
        5.2,
        [
            [(0, 0), (0, 4)],
            [(0, 3), (0.9, 4), (1.9, 4), (2.6, 3.2), (2.6, 0)],
            [(2.6, 3), (3.5, 4), (4.5, 4), (5.2, 3.2), (5.2, 0)],
        ],
    ),
    ".": (0.4, [[(0, 0), (0.4, 0)]]),
    " ": (1.4, []),
}
_SIGN_PX, _GAP = 1.5, 1.5  # of a step of the grid; steps between signs


def segments(shapes: Iterable[Any], pixels_per_degree: float) -> NDArray[np.float64]:
    """West-east ordered segments (n, 4) of the rings of GeoJSON coordinates, each once.

    Rounded to a pixel of a map that is 128 times nearer than one of so many pixels a degree.

    Args:
        shapes: Coordinates of polygons and multipolygons; others have no segments.
        pixels_per_degree: Of the map's first zoom.
    """
    squares, rings = [], []
    for shape in shapes:
        if is_square(shape):
            squares.append(shape[0])
        else:
            rings += [np.array(ring, np.float64)[:, :2] for ring in _rings(shape)]
    parts = [np.array(squares, np.float64)] if squares else []
    parts += [ring[None] for ring in rings]
    if not parts:
        return np.empty((0, 4))
    found = np.concatenate([np.dstack([part[:, :-1], part[:, 1:]]).reshape(-1, 4) for part in parts])
    digits = min(max(math.ceil(math.log10(max(pixels_per_degree, 1e-3) * _NEARER)), 2), 7)
    found = found.round(digits)
    back = (found[:, 0] > found[:, 2]) | ((found[:, 0] == found[:, 2]) & (found[:, 1] > found[:, 3]))
    found[back] = found[back][:, [2, 3, 0, 1]]
    return np.unique(found, axis=0)


def _rings(coordinates: Any) -> list[Any]:
    """Rings of a polygon's or a multipolygon's coordinates."""
    depth, inner = 0, coordinates
    while isinstance(inner, list) and inner:
        depth, inner = depth + 1, inner[0]
    if depth == 3:
        return list(coordinates)
    return [ring for polygon in coordinates for ring in polygon] if depth == 4 else []


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


def scale_bar(view: pdk.ViewState, height: int) -> pdk.Layer:
    """A bar of a round length, its length above it, at the bottom of a map.

    In geographic coordinates, so that it stays true under zoom. Its length holds at its own latitude; the
    Mercator map stretches with 1 / cos(latitude).
    """
    world = TILE * 2**view.zoom
    y = mercator(view.latitude) + (height / 2 - 26) / world
    degrees, metres = scale_of(view, height)
    wide = degrees / 360 * world
    lines: list[tuple[float, ...]] = [(0, 6, 0, 0), (0, 0, wide, 0), (wide, 0, wide, 6)]
    text = _written(f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m")
    shift = (wide - max(x for line in text for x in line[::2])) / 2
    lines += [(x1 + shift, y1 + 7, x2 + shift, y2 + 7) for x1, y1, x2, y2 in text]
    west = view.longitude - degrees / 2
    placed = [
        [west + x1 / world * 360, latitude(y - y1 / world), west + x2 / world * 360, latitude(y - y2 / world)]
        for x1, y1, x2, y2 in lines
    ]
    return drawn("scale-bar", np.array(placed), [19, 42, 58, 255], 1.6)


def scale_of(view: pdk.ViewState, height: int) -> tuple[float, float]:
    """Length of the scale bar of a map in degrees of longitude and in metres."""
    world = TILE * 2**view.zoom
    lat = latitude(mercator(view.latitude) + (height / 2 - 26) / world)
    metre = 1 / (M_PER_DEGREE * max(math.cos(math.radians(lat)), 0.05))
    length = nice_length(130 / world * 360 / metre)
    return length * metre, length


def _written(text: str) -> list[tuple[float, float, float, float]]:
    """Strokes of a text in pixels, from its lower left corner."""
    found, left = [], 0.0
    for sign in text:
        width, strokes = _SIGNS[sign]
        for stroke in strokes:
            at = [((left + x) * _SIGN_PX, y * _SIGN_PX) for x, y in stroke]
            found += [(*one, *two) for one, two in pairwise(at)]
        left += width + _GAP
    return found


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
