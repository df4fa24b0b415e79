"""What pages draw: charts that keep to the schema, and coarser maps where there is too much for one."""

from __future__ import annotations

import inspect
import re

import altair as alt
import numpy as np
import pandas as pd
import pytest
from filled_database import COUNTRIES, OUTSIDE
from page_tests import map_data, metric, page, run_sql, text_of, well
from streamlit.testing.v1 import AppTest

from geofix.database.engine import connect
from geofix.database.queries import dashboard_coverage, dashboard_localize
from geofix.spatial import s2
from geofix_dashboard import accuracy_tables, charts
from geofix_dashboard.views.localize_region import blocks_told

TOTAL = sum(n for _, _, n in COUNTRIES.values()) + OUTSIDE
PAGES_WITH_CHARTS = [
    ("accuracy", {"evaluation": "first", "view": "errors", "with": "second"}, 4),
    ("sources", {"part": "snapshots"}, 1),
]
NOON = pd.Timestamp("2026-11-21T12:00Z")
SHARES = np.linspace(0, 1, 5)
INTERVALS = {"n": [20, 40], "accuracy": [50.0, 25.0], "recall": [50.0, 25.0], "low": [40.0, 20.0]}
RATED = pd.DataFrame({**INTERVALS, "high": [60.0, 30.0]})
CHARTS = {
    "error_curve": ({"first": (4, SHARES, np.array([1.0, 20, 300, 4000, np.inf]))}, 200.0),
    "split_bars": (pd.DataFrame({"split": ["train", "val"], "photos": [9, 2]}),),
    "part_bars": ({"prototype": 0.5, "aerial": -0.2, "bias": 0.1}, 0.4),
    "curves": (pd.DataFrame({"epoch": [1, 2], "value": [0.9, 0.4], "term": ["GP", "GP"]}), "term", "loss"),
    "stage_seconds": ([("ingest", 2.5, False), ("evaluate", 0.1, True)],),
    "stage_times": (pd.DataFrame({"stage": ["a"], "state": ["running"], "from": [NOON], "to": [NOON]}),),
    "recall_points": (
        pd.DataFrame({"checked_at": [NOON, NOON], "recall": [0.99, 0.9], "k": [10, 10], "queries": [50, 50]}),
    ),
    "share_bars": (RATED.assign(label=["near", "far"]), ["near", "far"]),
    "recall_curves": (RATED.assign(k=[1, 5], radius_m=[200.0, 200.0], within=["200 m", "200 m"]),),
}


@pytest.fixture
def checked(monkeypatch) -> None:
    """Charts held against the schema of Vega-Lite, and their columns against their data, as pages do not."""
    draw = charts.draw

    def held(spec, data, **others):
        alt.Chart.from_dict({"data": {"name": "rows"}, **spec}, validate=True)
        for part in spec.get("layer", [spec]):
            rows = others[part["data"]["name"]] if "data" in part else data
            assert fields(part["encoding"]) <= set(rows.columns)
        draw(spec, data, **others)

    monkeypatch.setattr(charts, "draw", held)


def fields(part) -> set[str]:
    """Columns that a part of a chart names."""
    if isinstance(part, list):
        return set().union(*map(fields, part))
    if not isinstance(part, dict):
        return set()
    return {part["field"]} if "field" in part else fields(list(part.values()))


def drawn_charts(test) -> int:
    return len(test.get("vega_lite_chart"))


@pytest.mark.parametrize(("name", "where", "least"), PAGES_WITH_CHARTS)
def test_charts_of_pages_keep_to_the_schema(filled, checked, name, where, least):
    assert drawn_charts(well(page(name, **where))) >= least


def test_every_kind_of_chart_is_checked():
    there = {name for name, item in vars(charts).items() if inspect.isfunction(item) and name[0] != "_"}
    own = {name for name in there if vars(charts)[name].__module__ == charts.__name__}
    assert own == {*CHARTS, "draw", "field", "layer"}


@pytest.mark.parametrize("name", [name for name in CHARTS])
def test_every_kind_of_chart_keeps_to_the_schema(checked, name):
    def draw(name, given):
        from geofix_dashboard import charts

        getattr(charts, name)(*given)

    test = well(AppTest.from_function(draw, args=(name, CHARTS[name]), default_timeout=30).run())
    assert drawn_charts(test) == 1


@pytest.mark.parametrize("mark", ["bar", "line", "point"])
def test_the_chart_of_an_answer_of_sql_keeps_to_the_schema(filled, checked, mark):
    test = run_sql("SELECT n, n * n AS square FROM generate_series(1, 9) AS n")
    test = well(test.segmented_control(key="sql_chart").set_value(mark).run())
    assert drawn_charts(test) == 1


def test_a_chart_against_the_schema_is_found(checked):
    def draw():
        import pandas as pd

        from geofix_dashboard import charts

        wide = charts.layer({"type": "bar", "height": "wide"}, x=charts.field("a", "Q"))
        charts.draw(wide, pd.DataFrame({"a": [1]}))

    assert AppTest.from_function(draw, default_timeout=30).run().exception


def deck_id(test) -> str:
    return test.get("deck_gl_json_chart")[0].proto.id


def features(test) -> list[dict]:
    found: list[dict] = map_data(test)["features"]
    return found


def test_a_map_of_too_many_cells_is_coarser_than_the_table(filled, monkeypatch):
    for count in (accuracy_tables.by_cell, accuracy_tables.compare_cells):
        monkeypatch.setitem(count.__kwdefaults__, "limit", 5)
    monkeypatch.setattr(accuracy_tables, "MOST_PLACES", 5)
    for view in ("places", "compare"):
        where = {"evaluation": "first", "with": "second", "level_by": "s2-14", "view": view}
        test = well(page("accuracy", **where))
        text = text_of(test)
        level = int(re.search(r"S2 cells of level (\d+) for all", text)[1])
        assert level < 14 and f"n = {TOTAL:,} photos" in text and "The 5 fullest of" in text
        tokens = [feature["properties"]["code"] for feature in features(test)]
        assert 0 < len(tokens) <= 5 and set(s2.level(s2.from_token(np.array(tokens)))) == {level}
        assert len(test.dataframe[-1].value) == 5


def test_coverage_of_too_many_cells_is_coarser_and_leads_inside(filled, monkeypatch):
    monkeypatch.setitem(dashboard_coverage.coverage.__kwdefaults__, "limit", 5)
    test = well(page("coverage", level="14"))
    text = text_of(test)
    level = int(re.search(r"S2 cells of level (\d+), edges", text)[1])
    drawn = features(test)
    assert level < 14 and f"{len(drawn)} cells of level {level} hold the" in text
    assert "The 5 fullest of" in text and metric(test, "Photos") == f"{TOTAL:,}"
    inside = well(page("coverage", level="14", inside=drawn[-1]["properties"]["code"]))
    assert int(metric(inside, "Photos")) < TOTAL and "Cells inside" in text_of(inside)
    well(next(button for button in inside.button if button.label == "All cells").click().run())
    assert metric(inside, "Photos") == f"{TOTAL:,}" and "inside" not in inside.query_params
    assert metric(well(page("coverage", level="14", inside="zz")), "Photos") == f"{TOTAL:,}"


def test_a_click_on_a_coarser_map_does_not_stay_on_the_next_one(filled, monkeypatch):
    monkeypatch.setitem(dashboard_coverage.coverage.__kwdefaults__, "limit", 2)
    test = well(page("coverage", level="16"))
    inside = well(page("coverage", level="16", inside=features(test)[0]["properties"]["code"]))
    assert "hold the" in text_of(test) and "hold the" in text_of(inside)  # both coarser than the table
    assert deck_id(test) != deck_id(inside)


def test_blocks_of_a_large_code_set_are_drawn_by_a_coarser_cell(filled):
    with connect("reader") as conn:
        name = conn.execute("SELECT name FROM code_set WHERE state = 'ready' LIMIT 1").fetchone()[0]
        every = dashboard_localize.blocks(conn, name)
        few = dashboard_localize.blocks(conn, name, limit=max(len(every) - 1, 1))
        nothing = dashboard_localize.blocks(conn, "no such set")
    assert len(every) and nothing.empty and every["blocks"].sum() == len(every)
    assert blocks_told(every) == f"{len(every):,} blocks with codes"
    assert few["cells"].sum() == every["cells"].sum() and few["blocks"].sum() == len(every)
    if len(every) > 1:
        assert len(few) < len(every) and f"of level {few['level'].iloc[0]} with" in blocks_told(few)
