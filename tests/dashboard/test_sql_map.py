"""Shapes of an answer of SQL that have no place: the others are drawn and leave."""

from __future__ import annotations

import json

import pandas as pd
import shapely
from page_tests import map_data, run_sql, text_of

from geofix_dashboard.views import sql_answer


def test_sql_draws_what_has_a_place_beside_what_has_none(filled):
    """Flat; a coordinate that is no finite number has no place on a map, and no spelling in JSON."""
    test = run_sql("""
        SELECT what, ST_SetSRID(geom, 4326) AS geom FROM (VALUES
          ('sane', ST_MakePoint(9, 45)),
          ('no height', ST_MakeLine(ST_MakePoint(10, 45, 'NaN'), ST_MakePoint(11, 46, 'NaN'))),
          ('nowhere', ST_MakePoint('NaN', 45)),
          ('far', ST_MakePoint(9, 'Infinity')),
          ('partly', ST_MakeLine(ST_MakePoint(9, 45), ST_MakePoint('NaN', 46))),
          ('gap', ST_Collect('POINT EMPTY'::geometry, ST_MakePoint(9, 46))),
          ('empty', 'POINT EMPTY'::geometry), ('none', NULL)) AS v (what, geom)
    """)
    drawn = map_data(test, "shapes")["features"]
    assert [item["properties"]["tip"] for item in drawn] == [
        f"what: {x}" for x in ("sane", "no height", "gap")
    ]
    assert drawn[1]["geometry"]["coordinates"] == [[10, 45], [11, 46]]
    text = text_of(test)
    assert "geom: 3 shapes drawn" in text and "3 with a coordinate that is no finite number left out" in text
    assert len(test.dataframe[0].value) == 8
    test = run_sql("SELECT ST_SetSRID(ST_MakePoint('NaN', 45), 4326) AS geom")
    assert "holds no shape in EPSG:4326; 1 with a coordinate that is no finite number" in text_of(test)


def test_shapes_that_have_no_place_leave_as_rows_without_one():
    texts = [
        "POINT (1 2)",
        "POINT Z (1 2 3)",
        "LINESTRING Z (1 2 3, 4 5 NaN)",
        "POINT (NaN 2)",
        "POINT Z (1 Inf 3)",
    ]
    shapes = [*shapely.from_wkt(texts), None]
    document = json.loads(sql_answer.geojson(pd.DataFrame({"n": range(6)}), shapes))
    found = [item["geometry"] and item["geometry"]["coordinates"] for item in document["features"]]
    assert found == [[1, 2], [1, 2, 3], [[1, 2], [4, 5]], None, None, None]
    assert [item["properties"]["n"] for item in document["features"]] == list(range(6))
