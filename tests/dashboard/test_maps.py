"""Colours, views and layers, without a browser and without a server."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from streamlit.elements.lib.pandas_styler_utils import marshall_styler
from streamlit.proto.ArrowData_pb2 import ArrowData

from geofix_dashboard import boxes, maps, strokes, theme
from geofix_dashboard.views.coverage import density_ticks


def square(west: float, south: float, side: float) -> str:
    ring = [
        [west, south],
        [west + side, south],
        [west + side, south + side],
        [west, south + side],
        [west, south],
    ]
    return json.dumps({"type": "Polygon", "coordinates": [ring]})


def frame(side: float) -> pd.DataFrame:
    return pd.DataFrame(
        {"code": ["a", "b"], "n": [5, 50], "shape": [square(0, 45, side), square(3, 46, side)]}
    )


def test_scales_end_at_their_ends_and_stay_inside():
    assert theme.colour(0.0) == [0x44, 0x01, 0x54, 225]
    assert theme.colour(1.0) == theme.colour(7.0) == [0xFD, 0xE7, 0x25, 225]
    assert theme.colour(-1.0) == theme.colour(0.0)
    for scale in (theme.VIRIDIS, theme.CIVIDIS):
        light = [
            0.299 * r + 0.587 * g + 0.114 * b
            for r, g, b, _ in (theme.colour(i / 50, scale) for i in range(51))
        ]
        assert light == sorted(light)  # lightness alone tells the order


@pytest.mark.parametrize(
    ("most", "nice"), [(1.0, 1), (1.9, 1), (2.0, 2), (4.99, 2), (9.9, 5), (1234.0, 1000), (0.07, 0.05)]
)
def test_scale_bars_have_round_lengths(most, nice):
    assert strokes.nice_length(most) == pytest.approx(nice)


def test_the_view_shows_the_whole_box():
    bounds = (5.0, 45.0, 9.0, 47.0)
    view = maps.view_of(bounds)
    world = 512 * 2**view.zoom
    assert (bounds[2] - bounds[0]) / 360 * world < maps.WIDTH
    assert (strokes.mercator(bounds[1]) - strokes.mercator(bounds[3])) * world < maps.HEIGHT
    assert bounds[0] < view.longitude < bounds[2] and bounds[1] < view.latitude < bounds[3]
    assert str(maps.view_of(bounds)) == str(view)


def test_a_single_point_and_the_whole_world_have_a_view():
    assert 10 < maps.view_of((9.0, 47.0, 9.0, 47.0)).zoom <= 19
    assert maps.view_of((-180.0, -90.0, 180.0, 90.0)).zoom >= 0.3


def test_the_scale_bar_is_as_long_as_it_says():
    view = maps.view_of((5.0, 60.0, 9.0, 62.0))
    degrees, metres = strokes.scale_of(view, maps.HEIGHT)
    lines, text = strokes.scale_bar(view, maps.HEIGHT)
    bar = next(line for line in lines.data if line[1] == line[3])
    assert bar[2] - bar[0] == pytest.approx(degrees)
    assert degrees * 111_195 * math.cos(math.radians(bar[1])) == pytest.approx(metres, rel=1e-6)
    assert len(lines.data) == 3 and bar[1] == np.array(lines.data)[:, [1, 3]].min()
    assert text.type == "TextLayer" and text.data == [{"at": [view.longitude, bar[1]], "text": "50 km"}]


@pytest.mark.parametrize(
    ("box", "text"), [((9.0, 47.0, 9.001, 47.001), "50 m"), ((-90, -60, 90, 70), "2000 km")]
)
def test_the_length_of_a_scale_bar_keeps_its_size_under_zoom(box, text):
    """As text in pixels; strokes in degrees could not be read after a zoom."""
    _, label = strokes.scale_bar(maps.view_of(box), maps.HEIGHT)
    written = json.loads(label.to_json())
    assert written["data"][0]["text"] == text and written["getSize"] == 13
    assert written["@@type"] == "TextLayer" and "sizeUnits" not in written


def test_borders_are_drawn_once():
    one, two = (json.loads(square(west, 45, 1))["coordinates"] for west in (0, 1))
    assert len(strokes.segments([one], 10)) == 4 and len(strokes.segments([one, two], 10)) == 7
    hole = [one[0], json.loads(square(0.2, 45.2, 0.5))["coordinates"][0]]
    assert len(strokes.segments([hole], 10)) == 8 and len(strokes.segments([[hole, two]], 10)) == 11
    assert strokes.segments([[1.0, 2.0], [[1.0, 2.0], [3.0, 4.0]]], 10).shape == (0, 4)
    near = strokes.segments([[[[1.23456789, 2], [3, 4], [5, 2], [1.23456789, 2]]]], 2.0)
    assert near[0, 0] == 1.235  # 256 pixels a degree


def test_finer_levels_for_smaller_boxes():
    assert maps.level_for((0, 45, 6, 47)) < maps.level_for((0, 45, 0.6, 45.2)) <= 16
    assert maps.level_for((0, 45, 0, 45)) == 16 and maps.level_for((-180, -80, 180, 80)) == 6


def test_areas_too_small_to_be_seen_become_dots():
    bounds = (0.0, 45.0, 4.0, 47.0)
    rows = frame(0.5)
    rows.loc[1, "shape"] = square(3, 46, 0.001)
    layers = maps.areas(rows, lambda row: [row.n, 0, 0, 255], lambda row: row.code, bounds)
    layer, rims, lines = layers
    assert [item.id for item in layers] == ["areas", "rims", "outlines"]
    large, small = layer.data["features"]
    assert rims.data == [small["geometry"]["coordinates"]] and len(lines.data) == 4
    assert large["geometry"]["type"] == "Polygon" and small["geometry"]["type"] == "Point"
    assert small["geometry"]["coordinates"] == pytest.approx([3.0005, 46.0005])
    assert small["properties"]["fill"] == [50, 0, 0, 255]


def test_a_dot_is_rimmed_and_nothing_is_under_its_colour():
    bounds = (0.0, 45.0, 4.0, 47.0)
    layers = maps.areas(frame(0.001), lambda row: [250, 240, 150, 120], lambda row: row.code, bounds)
    areas, rims, _ = (json.loads(layer.to_json()) for layer in layers)
    assert [areas["id"], rims["id"]] == ["areas", "rims"]  # above: what is below shows through a pale dot
    assert (rims["filled"], rims["stroked"], rims.get("pickable", False)) == (False, True, False)
    assert rims["getLineWidth"] == 1 and rims["lineWidthUnits"] == rims["radiusUnits"] == "pixels"
    assert rims["getRadius"] - rims["getLineWidth"] / 2 >= areas["getPointRadius"]
    assert len(rims["data"]) == 2


def test_dots_in_a_heap_show_their_colours_without_rims():
    bounds = (0.0, 45.0, 4.0, 47.0)
    heap = [square(1 + i / 10_000, 46, 0.0001) for i in range(30)]
    rows = pd.DataFrame({"code": [str(i) for i in range(33)]})
    rows["shape"] = [*heap, *(square(2 + i / 4, 46, 0.0001) for i in range(3))]
    layers = maps.areas(rows, lambda row: [0, 0, 0, 255], lambda row: row.code, bounds)
    assert [round(lon, 2) for lon, _ in layers[1].data] == [2.0, 2.25, 2.5]
    assert len(layers[0].data["features"]) == 33


@pytest.mark.parametrize(
    ("most", "ticks"),
    [
        (1, ["1", "2"]),
        (2, ["1", "2"]),
        (3, ["1", "2", "3"]),
        (16, ["1", "2", "4", "8", "16"]),
        (64_384, ["1", "16", "254", "4,042", "64,384"]),
    ],
)
def test_no_two_ticks_of_a_scale_of_counts_are_alike(most, ticks):
    assert density_ticks(most) == ticks


def test_what_is_chosen_is_marked_also_as_a_dot():
    bounds = (0.0, 45.0, 4.0, 47.0)
    side = 1e-5
    layers = maps.areas(frame(side), lambda row: [0, 0, 0, 255], lambda row: row.code, bounds, chosen="b")
    by_id = {layer.id: layer for layer in layers}
    assert [layer.id for layer in layers] == ["areas", "rims", "outlines", "chosen", "chosen-dot"]
    ring = json.loads(by_id["chosen-dot"].to_json())
    assert ring["data"] == [pytest.approx([3 + side / 2, 46 + side / 2])]
    assert (ring["filled"], ring["stroked"], ring["getLineWidth"], ring.get("pickable", False)) == (
        False,
        True,
        3,
        False,
    )
    assert ring["getLineColor"] == [213, 94, 0, 255] and ring["lineWidthUnits"] == "pixels"
    assert len(by_id["outlines"].data) == 0
    # Nearer, the outline of the place itself; not a point, to which it would be rounded.
    sizes = np.array(by_id["chosen"].data)
    assert len(sizes) == 4 and np.abs(sizes[:, 2:] - sizes[:, :2]).max(axis=1) == pytest.approx(side)


def test_what_is_chosen_and_large_is_outlined_alone():
    bounds = (0.0, 45.0, 4.0, 47.0)
    layers = maps.areas(frame(0.5), lambda row: [0] * 4, lambda row: row.code, bounds, chosen="a")
    assert [layer.id for layer in layers] == ["areas", "outlines", "chosen"] and len(layers[-1].data) == 4
    layers = maps.areas(frame(0.5), lambda row: [0] * 4, lambda row: row.code, bounds, chosen="c")
    assert [layer.id for layer in layers] == ["areas", "outlines"]


def test_shapes_without_a_position_are_no_lines_and_have_no_box():
    one = json.loads(square(0, 45, 1))["coordinates"]
    whole = strokes.segments([one], 10)
    for shape in ([[], one], [one, []], [[[]], one], [one, [[]]]):
        assert np.array_equal(strokes.segments([shape], 10), whole), shape
        assert boxes.boxes_of([shape]).tolist() == [[0, 45, 1, 46]]
    assert np.array_equal(strokes.segments([None, one, [], [[]]], 10), whole)
    assert np.isnan(boxes.boxes_of([None, [], [[]], [[], [[]]]])).all() and not boxes.is_square(None)
    rows = frame(0.5)
    rows.loc[0, "shape"] = json.dumps({"type": "MultiPolygon", "coordinates": []})
    assert maps.bounds_of(rows) == (3, 46, 3.5, 46.5)
    collection = {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [1, 46]}]}
    rows.loc[1, "shape"] = json.dumps(collection)
    layers = maps.areas(rows, lambda row: [0] * 4, lambda row: row.code, (0, 45, 4, 47), chosen="b")
    assert [layer.id for layer in layers] == ["areas", "outlines", "chosen"]


def test_bounds_hold_every_shape_and_none_is_the_world():
    assert maps.bounds_of(frame(0.5)) == (0, 45, 3.5, 46.5)
    assert maps.bounds_of(pd.DataFrame({"shape": [None]}))[0] < -150


def test_a_row_without_a_shape_is_left_out():
    rows = frame(0.5)
    rows.loc[0, "shape"] = None
    layer, _, chosen = maps.areas(
        rows, lambda row: [0, 0, 0, 255], lambda row: row.code, (0.0, 45.0, 4.0, 47.0), chosen="b"
    )
    (feature,) = layer.data["features"]
    assert feature["properties"]["code"] == "b" and chosen.id == "chosen" and len(chosen.data) == 4


def test_rows_of_few_photos_are_grey_as_pandas_would_style_them():
    rows = pd.DataFrame({"place": [f"cell {i}" for i in range(6)], "n": [3, 40, 29, 30, 0, 100]})
    few = (rows["n"] < theme.SMALL_N).to_numpy()
    style = pd.DataFrame("", index=rows.index, columns=rows.columns)
    style[few] = f"color: {theme.GREY_TEXT}"
    sent = []
    for styler in (rows.style.apply(lambda _: style, axis=None).set_uuid("few"), theme.grey_where_few(rows)):
        proto = ArrowData()
        marshall_styler(proto, styler, "other")
        sent.append(proto.styler)
    assert sent[0] == sent[1] and "row0_col1" in sent[1].styles and "row1_col1" not in sent[1].styles
    assert theme.grey_where_few(rows[~few]).equals(rows[~few])


def test_numbers_are_written_for_people():
    assert [theme.metres(x) for x in (0.0, 12.34, 345.6, 4200.0, 2.5e6)] == [
        "0 m",
        "12.3 m",
        "346 m",
        "4.2 km",
        "2,500 km",
    ]
    assert [theme.radius(x) for x in (50.0, 25_000.0)] == ["50 m", "25 km"]
    counted = {1234: "1,234", 99_999: "99,999", 100_000: "100 k", 999_600: "1.00 M", 1_215_776: "1.22 M"}
    assert {x: theme.count(x) for x in counted} == counted
    assert theme.metres(float("nan")) == "–" and theme.metres(float("inf")) == "no answer"
    assert theme.interval(27.04, 55.51) == "27.0–55.5 %" and theme.percent(None) == "–"


def test_the_dashboard_never_imports_torch():
    code = (
        "import sys, pkgutil, importlib, geofix_dashboard as g\n"
        "names = [m.name for m in pkgutil.walk_packages(g.__path__, 'geofix_dashboard.')]\n"
        "assert len(names) > 10, names\n"
        "for name in names: importlib.import_module(name)\n"
        "import geofix.evaluation.service\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'torchvision', 'timm'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"
