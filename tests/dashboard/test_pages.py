"""Every page with data, without data, and without a database: what a person reads there."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from filled_database import COUNTRIES, OUTSIDE
from page_tests import metric, page, run_sql, text_of, well
from streamlit.testing.v1 import AppTest

from geofix.database import engine
from geofix.database.engine import connect
from geofix.database.queries import dashboard
from geofix.settings import get_settings
from geofix.spatial import s2
from geofix_dashboard import data
from geofix_dashboard.views import coverage

PAGES = ["overview", "localize", "accuracy", "coverage", "space", "jobs", "models", "sql", "sources"]
TOTAL = sum(n for _, _, n in COUNTRIES.values()) + OUTSIDE


@pytest.mark.parametrize("name", PAGES)
def test_pages_render_with_data(filled, name):
    test = well(page(name))
    titles = {"sources": "Data", "sql": "SQL", "space": "Embedding space"}
    assert test.title[0].value == titles.get(name, name.capitalize())


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("overview", "geofix ingest photos FOLDER --dataset NAME"),
        ("localize", "geofix codes build"),
        ("accuracy", "geofix evaluate run"),
        ("space", "geofix codes build"),
        ("jobs", "geofix jobs submit"),
        ("models", "geofix codes build"),
        ("coverage", "geofix ingest aerial"),
        ("sql", "geofix sql"),
        ("sources", "geofix ingest photos FOLDER --dataset NAME"),
    ],
)
def test_empty_pages_name_the_command_that_fills_them(blank, name, command):
    assert command in text_of(well(page(name)))


@pytest.mark.parametrize("part", ["rejects", "snapshots", "regions"])
def test_empty_parts_of_the_data_page_say_so(blank, part):
    assert "geofix " in text_of(well(page("sources", part=part)))


def test_overview_shows_counts_and_licences(filled):
    test = well(page("overview"))
    assert metric(test, "Photos") == f"{TOTAL:,}" and metric(test, "Evaluations") == "2"
    tables = [frame.value for frame in test.dataframe]
    licences = next(frame for frame in tables if "licence" in frame)
    assert "CC BY 4.0" in set(licences["licence"])
    assert "PostgreSQL" in text_of(test) and "1 data set(s) name no licence" in text_of(test)


LOOKED = []


@data.kept(1, shared=True)
def _look() -> int:
    LOOKED.append(1)
    return len(LOOKED)


@pytest.mark.parametrize("time", ["once", "again"])
def test_no_test_reads_what_another_one_left_in_a_cache(filled, time):
    before = len(LOOKED)
    assert _look() == _look() == before + 1


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_days_are_those_of_utc_whatever_zone_the_server_speaks_in(filled, monkeypatch, zone):
    with filled.database.connect() as conn:
        conn.execute("UPDATE photo_record SET captured_at = '2024-01-01T10:30Z'")
        conn.commit()
    monkeypatch.setenv("PGTZ", zone)  # ahead of UTC by 14 hours, behind it by 11
    engine.dispose()
    try:
        row = data.coverage(10, None, None, None).rename(columns={"cell": "code"}).iloc[0]
        assert row["first_captured_at"].utcoffset()
        assert "taken: 2024–2024" in coverage.density_tip(row)
        assert set(well(page("coverage", level="10")).dataframe[0].value["last_captured_at"]) <= {
            "2024-01-01",
            "–",
        }
        assert "taken 2024-01-01 to 2024-01-01" in text_of(well(page("sources")))
    finally:
        monkeypatch.delenv("PGTZ")
        engine.dispose()
        with filled.database.connect() as conn:
            conn.execute("UPDATE photo_record SET captured_at = '2024-05-01T10:00Z'")
            conn.commit()


def test_a_place_in_the_url_narrows_the_page(filled):
    test = well(page("accuracy", evaluation="first", **{"in": "country:CO"}))
    assert metric(test, "Photos") == "10"
    assert "Fewer than 30 photos" in text_of(test)
    well(test.button[0].click().run())  # back to all
    assert metric(test, "Photos") == f"{TOTAL}" and "in" not in test.query_params


@pytest.mark.parametrize("place", ["country:XX", "s2:zz", "s2:", "nonsense", "s2:47a1cbd595522b39"])
def test_a_place_that_is_not_there_shows_everything(filled, place):
    assert metric(well(page("accuracy", evaluation="first", **{"in": place})), "Photos") == f"{TOTAL}"


def test_wrong_values_in_the_url_fall_back_to_defaults(filled):
    test = well(
        page("accuracy", evaluation="'; DROP", threshold="-5", level_by="s2-99", view="?", **{"with": "x"})
    )
    assert test.selectbox(key="url_threshold").value == 200 and metric(test, "Photos") == f"{TOTAL}"


def test_choices_are_written_to_the_url(filled):
    test = well(page("accuracy"))
    test.selectbox(key="url_evaluation").set_value("first")
    well(test.selectbox(key="url_threshold").set_value(1000).run())
    assert test.query_params["evaluation"] == "first" and test.query_params["threshold"] == "1000"


def test_errors_show_recall_with_intervals(filled):
    test = well(page("accuracy", evaluation="first", view="errors", **{"with": "second"}))
    table = test.dataframe[0].value
    assert list(table.index) == ["first", "first 5", "first 10", "first 100"]
    assert re.fullmatch(r"\d+\.\d \(\d+–\d+\)", table.iloc[0, 0])
    assert f"n = {TOTAL}" in text_of(test)


def test_worst_photos_say_why_there_is_no_picture(filled):
    said = text_of(well(page("accuracy", evaluation="first", view="photos")))
    assert "No answer" in said and "loaded as a position only" in said and f"of {TOTAL}" in said
    test = well(page("accuracy", evaluation="first", view="photos", page="1"))
    assert f"Photos 7 to 12 of {TOTAL}" in text_of(test)
    assert well(page("accuracy", evaluation="first", view="photos", page="9999"))


def test_pictures_are_decoded_with_limits(filled, tmp_path):
    with connect("reader") as conn:
        uris = [
            row[0] for row in conn.execute("SELECT uri FROM photo_record WHERE uri IS NOT NULL ORDER BY 1")
        ]
    lost, first, _ = uris
    assert data.picture(first).shape == (64, 96, 3)
    assert data.picture(lost) == "The file is no longer there."
    assert "remote storage" in data.picture("s3://bucket/photo.jpg")
    text = tmp_path / "text.jpg"
    text.write_text("no photo at all")
    assert "not an image" in data.picture(str(text))


@pytest.mark.parametrize("shown", ["photos", "aerial", "codes"])
def test_coverage_counts_cells(filled, shown):
    test = well(page("coverage", level="10", show=shown))
    table = test.dataframe[0].value
    assert metric(test, "Photos") == f"{TOTAL}" and table["photos"].sum() == TOTAL
    assert metric(test, "Cells") == f"{len(table)}"
    assert set(table["code_kind"]) >= {"ground only", "ground and aerial"}


def test_where_imagery_would_help_follows_the_stated_formula(filled):
    test = well(page("coverage", level="10", show="need"))
    table = test.dataframe[0].value
    assert "need = log2(1 + photos around)" in text_of(test)
    weight = table["missing"] / 2 + (table["age_years"] / 10).clip(0, 1).fillna(0)
    assert list(table["need"]) == pytest.approx(list(np.log2(1 + table["around"]) * weight))
    assert table["need"].is_monotonic_decreasing and set(table["missing"]) <= {0, 1, 2}
    assert (table["around"] >= table["photos"]).all() and table["photos"].sum() == TOTAL


def test_coverage_of_a_region(filled):
    test = well(page("coverage", level="10", region="country:BE"))
    assert int(metric(test, "Photos")) < TOTAL


def test_data_page_shows_rejects_and_splits(filled):
    test = well(page("sources", part="rejects"))
    assert set(test.dataframe[0].value["reason"]) == {"no_gps", "truncated"}
    well(test.selectbox(key="url_reason").set_value("no_gps").run())
    assert list(test.dataframe[1].value["source_key"]) == ["a.jpg"]
    splits = well(page("sources", part="snapshots")).dataframe[0].value
    assert splits["photos"].sum() == TOTAL and list(splits["split"]) == ["train", "test_seen"]
    assert len(well(page("sources", part="regions")).dataframe[0].value) == 3


def test_splits_are_those_of_when_the_snapshot_was_stored(filled, monkeypatch):
    test = well(page("sources", part="snapshots"))
    found = test.dataframe[0].value
    assert list(found.columns) == ["split", "photos", "sequences", "cells_l15", "blocks_l13"]
    assert found["photos"].sum() == TOTAL and (found["sequences"] > 0).all()

    def splits(_conn, _snapshot):
        return pd.DataFrame(columns=["split", "photos"])

    monkeypatch.setattr(dashboard, "splits", splits)
    data.forget()
    frozen = well(page("sources", part="snapshots")).dataframe[0].value
    assert list(frozen.columns) == ["split", "photos"] and list(frozen["photos"]) == [TOTAL // 2]


def test_sql_answers_and_keeps_the_statement_in_the_url(filled):
    test = run_sql("SELECT photo_id, s2_id, geom FROM photo ORDER BY photo_id;")
    table = test.dataframe[0].value
    assert len(table) == TOTAL and list(table.columns) == ["photo_id", "s2_id"]
    assert isinstance(table["s2_id"].iloc[0], str)  # 64 bits do not fit a browser's numbers
    assert "115 rows" in text_of(test) and "115 shapes drawn" in text_of(test)
    assert test.query_params["q"] == "SELECT photo_id, s2_id, geom FROM photo ORDER BY photo_id"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT 1; SELECT 2", "more than one statement"),
        ("DELETE FROM photo_record RETURNING photo_id", "Refused"),
        ("COPY photo_record TO '/tmp/x'", "no rows"),
        ("SET ROLE geofix_owner", "no rows"),
        ("SELECT pg_read_file('/etc/passwd')", "Refused"),
        ("SELECT * FROM audit", "Refused"),
        ("SELEC 1", "syntax error"),
        ("  ;", "empty"),
    ],
)
def test_sql_refuses_in_words(filled, statement, said):
    test = run_sql(statement)
    assert said in test.error[0].value and not test.dataframe
    with connect("reader") as conn:
        assert conn.execute("SELECT count(*) FROM photo_record").fetchone()[0] == TOTAL


def test_sql_cuts_long_answers(filled, monkeypatch):
    monkeypatch.setenv("GEOFIX_SQL_MAX_ROWS", "10")
    get_settings.cache_clear()
    assert "cut at 10" in text_of(run_sql("SELECT * FROM generate_series(1, 100)"))


def test_sql_from_a_link_fills_the_editor_and_does_not_run(filled):
    test = well(page("sql", q="SELECT 42 AS answer"))
    assert test.text_area(key="sql_text").value == "SELECT 42 AS answer"
    assert not test.dataframe and "No answer yet." in text_of(test)


def test_sql_shows_shapes_of_other_systems_as_a_hint(filled):
    assert "holds no shape in EPSG:4326" in text_of(
        run_sql("SELECT ST_Transform(geom, 3857) AS geom FROM photo")
    )


def test_without_a_database_the_app_says_what_to_do(clean_environment, tmp_path):
    from geofix_dashboard import app

    data.forget()
    for role in ("DATABASE", "READER"):
        clean_environment.setenv(f"GEOFIX_{role}_URL", f"postgresql://nobody:secret@/none?host={tmp_path}")
    get_settings.cache_clear()
    test = well(AppTest.from_file(app.__file__, default_timeout=30).run())
    assert "No database answers" in test.error[0].value and "secret" not in test.error[0].value
    assert "geofix up" in text_of(test)
    assert any(button.label == "Try again" for button in test.button)
    engine.dispose()


@pytest.mark.parametrize("name", PAGES)
def test_every_page_says_that_the_database_is_down(clean_environment, tmp_path, name):
    data.forget()
    for role in ("DATABASE", "WRITER", "READER"):
        clean_environment.setenv(f"GEOFIX_{role}_URL", f"postgresql://nobody:secret@/none?host={tmp_path}")
    get_settings.cache_clear()
    script = f"""
from geofix_dashboard.guard import guarded
from geofix_dashboard.views import {name}
guarded({name}.render)()
"""
    test = AppTest.from_string(script, default_timeout=30).run()
    if name == "sql":  # it asks nothing before one runs something
        test = test.button[0].click().run()
    well(test)
    assert "No database answers" in test.error[0].value and "secret" not in test.error[0].value
    engine.dispose()


def test_the_app_opens_on_the_overview(filled):
    from geofix_dashboard import app

    test = well(AppTest.from_file(app.__file__, default_timeout=30).run())
    assert test.title[0].value == "Overview" and metric(test, "Photos") == f"{TOTAL}"


def test_a_way_of_places_is_walked_and_left_again(filled):
    with connect("reader") as conn:
        cell, inside = conn.execute(
            "SELECT s2_token(s2_parent(s2_id, 8)), count(*) FROM photo_record"
            " JOIN photo_region USING (photo_id) JOIN region USING (region_id)"
            " WHERE code = 'BE' GROUP BY 1 ORDER BY 2 DESC LIMIT 1"
        ).fetchone()
    assert s2.from_token([cell]).size == 1
    way = f"country:BE,s2:{cell}"
    test = well(page("accuracy", evaluation="first", **{"in": way}))
    assert metric(test, "Photos") == f"{inside}"
    assert [button.label for button in test.button[:3]] == ["All photos", "country BE", f"cell {cell}"]
    well(test.button(key="crumb-1").click().run())
    assert metric(test, "Photos") == "40" and test.query_params["in"] in ("country:BE", ["country:BE"])
    well(test.button(key="crumb-0").click().run())
    assert metric(test, "Photos") == f"{TOTAL}" and "in" not in test.query_params


def test_one_photo_is_shown_with_all_its_answers(filled):
    photo = int(filled.photo_ids[7])
    test = well(page("accuracy", evaluation="first", view="photos", photo_id=str(photo)))
    table = test.dataframe[0].value
    assert list(table["rank"]) == [1, 2, 3]
    wrong = filled.errors["first"][7] > 200
    assert list(table["right"] == "") == list(wrong)
    unanswered = int(filled.photo_ids[-1])
    said = text_of(well(page("accuracy", evaluation="first", view="photos", photo_id=str(unanswered))))
    assert "it counts as wrong" in said
    said = text_of(well(page("accuracy", evaluation="first", view="photos", photo_id="999999")))
    assert "did not ask about this photo." in said


def test_errors_show_splits_by_what_training_saw(filled):
    said = text_of(well(page("accuracy", evaluation="first", view="errors")))
    for part in ("nearest training photo", "training photos in its cell", "Recall by number of answers"):
        assert part in said
    assert "Only one split was evaluated." in said


def test_sql_answers_leave_in_three_formats(filled):
    import io

    import pandas as pd

    from geofix_dashboard.views import sql, sql_answer

    found = sql.answer("SELECT photo_id, captured_at, NULL AS gap, geom FROM photo ORDER BY photo_id", 1000)
    plain = found.rows.drop(columns=found.geometry)
    document = json.loads(sql_answer.geojson(plain, sql._in_degrees(found)))
    assert len(document["features"]) == TOTAL and document["features"][0]["geometry"]["type"] == "Point"
    assert document["features"][0]["properties"]["gap"] is None
    table = pd.read_parquet(io.BytesIO(sql_answer.parquet(sql._with_text(found))))
    assert list(table["photo_id"]) == list(found.rows["photo_id"]) and table["geom"].iloc[0].startswith(
        "POINT"
    )
    elsewhere = sql.answer("SELECT ST_Transform(geom, 3857) AS geom FROM photo", 10)
    assert sql._in_degrees(elsewhere) is None


def test_sql_explains_without_running_and_remembers(filled):
    test = run_sql("SELECT count(*) AS photos, 'a' AS name FROM photo")
    test = well(test.button(key="sql_explain").click().run())
    assert "Aggregate" in test.code[-1].value and "it was not run" in text_of(test)
    assert any("SELECT count(*) AS photos" in code.value for code in test.code)  # the history
    test.text_area(key="sql_text").set_value("SELECT 1; DROP TABLE photo_record")
    assert "more than one statement" in well(test.button(key="sql_explain").click().run()).error[0].value
