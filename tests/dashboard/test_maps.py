"""Colours, views and layers, without a browser and without a server."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pandas as pd
import pytest

from geofix_dashboard import maps, theme


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
    assert maps.nice_length(most) == pytest.approx(nice)


def test_the_view_shows_the_whole_box():
    bounds = (5.0, 45.0, 9.0, 47.0)
    view = maps.view_of(bounds)
    world = 512 * 2**view.zoom
    assert (bounds[2] - bounds[0]) / 360 * world < maps.WIDTH
    assert (maps._mercator(bounds[1]) - maps._mercator(bounds[3])) * world < maps.HEIGHT
    assert bounds[0] < view.longitude < bounds[2] and bounds[1] < view.latitude < bounds[3]
    assert str(maps.view_of(bounds)) == str(view)


def test_a_single_point_and_the_whole_world_have_a_view():
    assert 10 < maps.view_of((9.0, 47.0, 9.0, 47.0)).zoom <= 19
    assert maps.view_of((-180.0, -90.0, 180.0, 90.0)).zoom >= 0.3


def test_the_scale_bar_is_as_long_as_it_says():
    view = maps.view_of((5.0, 60.0, 9.0, 62.0))
    bar, text = maps._scale_bar(view, maps.HEIGHT)
    (_, left, right, _) = bar.data[0]["path"]
    label = text.data[0]["text"]
    metres = float(label.split()[0]) * (1000 if label.endswith("km") else 1)
    length = (right[0] - left[0]) * 111_195 * math.cos(math.radians(left[1]))
    assert length == pytest.approx(metres, rel=1e-6)


def test_finer_levels_for_smaller_boxes():
    assert maps.level_for((0, 45, 6, 47)) < maps.level_for((0, 45, 0.6, 45.2)) <= 16
    assert maps.level_for((0, 45, 0, 45)) == 16 and maps.level_for((-180, -80, 180, 80)) == 6


def test_areas_too_small_to_be_seen_become_dots():
    bounds = (0.0, 45.0, 4.0, 47.0)
    rows = frame(0.5)
    rows.loc[1, "shape"] = square(3, 46, 0.001)
    layer = maps.areas(rows, lambda row: [row.n, 0, 0, 255], lambda row: row.code, bounds)
    large, small = layer.data["features"]
    assert large["geometry"]["type"] == "Polygon" and small["geometry"]["type"] == "Point"
    assert small["geometry"]["coordinates"] == pytest.approx([3.0005, 46.0005])
    assert small["properties"]["fill"] == [50, 0, 0, 255]


def test_bounds_hold_every_shape_and_none_is_the_world():
    assert maps.bounds_of(frame(0.5)) == (0, 45, 3.5, 46.5)
    assert maps.bounds_of(pd.DataFrame({"shape": [None]}))[0] < -150


def test_a_row_without_a_shape_is_left_out():
    rows = frame(0.5)
    rows.loc[0, "shape"] = None
    layer = maps.areas(
        rows, lambda row: [0, 0, 0, 255], lambda row: row.code, (0.0, 45.0, 4.0, 47.0), chosen="b"
    )
    (feature,) = layer.data["features"]
    assert feature["properties"]["code"] == "b" and feature["properties"]["width"] == 3


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
