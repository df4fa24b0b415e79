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

from geofix_dashboard import beside, maps, strokes, theme


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
    lines = np.array(strokes.scale_bar(view, maps.HEIGHT).data)
    (lat,) = {line[1] for line in lines.tolist() if line[1] == line[3] == lines[:, [1, 3]].min()}
    bar = next(line for line in lines.tolist() if line[1] == line[3] == lat)
    assert bar[2] - bar[0] == pytest.approx(degrees)
    assert degrees * 111_195 * math.cos(math.radians(lat)) == pytest.approx(metres, rel=1e-6)
    assert lines[:, [0, 2]].min() == bar[0] and lines[:, [0, 2]].max() == bar[2]  # the text fits above it


def test_every_length_can_be_written():
    for text in ("10 m", "20 m", "500 m", "1 km", "2000 km", "0.5 m"):
        assert strokes._written(text)


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
    rims, layer, lines = layers
    assert [item.id for item in layers] == ["rims", "areas", "outlines"]
    large, small = layer.data["features"]
    assert rims.data == [small["geometry"]["coordinates"]] and len(lines.data) == 4
    assert large["geometry"]["type"] == "Polygon" and small["geometry"]["type"] == "Point"
    assert small["geometry"]["coordinates"] == pytest.approx([3.0005, 46.0005])
    assert small["properties"]["fill"] == [50, 0, 0, 255]


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


def test_large_data_goes_beside_the_page_under_a_name_of_its_whole_content(monkeypatch):
    kept: dict[str, bytes] = {}
    layers = [
        maps.pdk.Layer("ScatterplotLayer", [[i, value] for i in range(200_000)], id="a") for value in (1, 2)
    ]
    middle = [i if i != 70_000 else -1 for i in range(200_000)]
    layers.append(maps.pdk.Layer("ScatterplotLayer", [[i, 1] for i in middle], id="a"))
    small = beside.put("map", maps.pdk.Layer("ScatterplotLayer", [[1, 2]], id="b"))
    assert small.data == [[1, 2]]

    class Manager:
        def add(self, document, kind, place, file_name):
            kept[file_name] = document
            return f"/media/{file_name}.json"

    class Runtime:
        media_file_mgr = Manager()

    monkeypatch.setattr(beside.runtime, "get_instance", Runtime)
    addresses = [beside.put("map", layer).data for layer in layers]
    assert len(set(addresses)) == 3 == len(kept) and addresses[0].startswith("media/")


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
