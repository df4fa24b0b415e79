"""What pages draw: charts that keep to the schema, and coarser maps where there is too much for one."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from altair.utils import schemapi
from filled_database import COUNTRIES, OUTSIDE
from page_tests import metric, page, text_of, well

from geofix.database.engine import connect
from geofix.database.queries import dashboard_coverage, dashboard_localize
from geofix.spatial import s2
from geofix_dashboard import accuracy_tables, charts
from geofix_dashboard.views.localize_region import blocks_told

TOTAL = sum(n for _, _, n in COUNTRIES.values()) + OUTSIDE
PAGES_WITH_CHARTS = [
    ("accuracy", {"evaluation": "first", "view": "errors", "with": "second"}),
    ("jobs", {}),
    ("models", {"part": "sets"}),
    ("sources", {"part": "snapshots"}),
]


@pytest.mark.parametrize(("name", "where"), PAGES_WITH_CHARTS)
def test_charts_keep_to_the_schema_that_pages_do_not_check(filled, monkeypatch, name, where):
    monkeypatch.setattr(charts, "CHECKED", True)
    with schemapi.debug_mode(True):
        well(page(name, **where))


def features(test) -> list[dict]:
    deck = json.loads(test.get("deck_gl_json_chart")[0].proto.json)
    layer = next(layer for layer in deck["layers"] if layer["id"] == "areas")
    return layer["data"]["features"]


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
