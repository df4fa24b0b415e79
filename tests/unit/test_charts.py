"""Pictures of runs: drawn from ordinary, tiny, empty and odd input, without a display."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from PIL import Image

from geofix.pipeline import charts
from geofix.pipeline.reports import markdown
from geofix.spatial import s2


def colours(path) -> int:
    with Image.open(path) as picture:
        assert picture.format == "PNG" and min(picture.size) > 200
        pixels = np.asarray(picture.convert("RGB").resize((200, 200))).reshape(-1, 3)
    return len(np.unique(pixels, axis=0))


def lines(n, spread=0.01, lat=60.0, answered=None):
    rng = np.random.default_rng(1)
    places = rng.normal((24, lat, 24, lat), spread, (n, 4))
    found = np.column_stack([places, rng.uniform(1, 5000, n)])
    if answered is not None:
        found[answered:, 2:] = np.nan
    return found


@pytest.mark.parametrize(
    ("drawn", "training"),
    [
        (lines(50), 200),
        (lines(50, answered=10), 0),
        (lines(5, answered=0), 3),
        (lines(1), 0),
        (lines(1, spread=0.0), 1),
        (lines(3, spread=0.0, lat=89.99), 0),
        (lines(20, spread=40.0, lat=0.0), 10),
    ],
    ids=["many", "some answers", "no answer", "one", "one point", "pole", "world"],
)
def test_errors_are_drawn(tmp_path, drawn, training):
    path = tmp_path / "e.png"
    charts.draw_errors(path, drawn, lines(training)[:, :2], "title", "credit")
    assert colours(path) > 5


def test_the_same_error_everywhere_is_drawn(tmp_path):
    same = lines(4)
    same[:, 4] = 0.0
    charts.draw_errors(tmp_path / "e.png", same, np.empty((0, 2)), "title", "")
    assert colours(tmp_path / "e.png") > 5


def test_cells_are_drawn_also_on_both_sides_of_the_180th_meridian(tmp_path):
    ids = np.unique(s2.cell_at(np.array([179.95, -179.95, 179.9]), np.array([-17.0, -17.0, -17.1]), 10))
    charts.draw_cells(tmp_path / "c.png", list(s2.polygon(ids)), np.arange(3.0), "cells", "what", "credit")
    one = [shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(2, 2, 3, 3)])]
    charts.draw_cells(tmp_path / "d.png", one, np.array([5.0]), "one", "what", "")
    assert colours(tmp_path / "c.png") > 3 and colours(tmp_path / "d.png") > 3


@pytest.mark.parametrize("count", [1, 7, 24])
def test_a_contact_sheet(tmp_path, count):
    rng = np.random.default_rng(0)
    pictures = [(f"tile {i}", rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)) for i in range(count)]
    charts.contact_sheet(tmp_path / "s.png", pictures, "sheet", "credit")
    assert colours(tmp_path / "s.png") > 20


def test_markdown_escapes_and_keeps_its_columns():
    rows = [{"a": 1, "b": None, "d": 1234.56}, {"a": "x|y", "b": "z", "d": 0.0}]
    text = markdown(rows)
    assert text[0] == "| a | b | d |" and text[1].count("---") == 3
    assert text[2] == "| 1 | - | 1,234.6 |" and text[3].startswith("| x\\|y |")
    assert markdown([]) == ["(no rows)"]
