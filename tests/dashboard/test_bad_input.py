"""What people may send by mistake or on purpose: a clear message, nothing leaks, nothing falls over."""

from __future__ import annotations

import io
import json
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from page_tests import page, text_of, well
from PIL import Image
from streamlit.testing.v1 import AppTest

from geofix.database.engine import connect
from geofix.jobs.runner import run_inline
from geofix.settings import get_settings
from geofix_dashboard import place_data, uploads
from geofix_dashboard.views import localize_region, sql

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def jpeg(size: tuple[int, int] = (64, 48), *, exif: Image.Exif | None = None) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (10, 120, 200)).save(out, "JPEG", **({} if exif is None else {"exif": exif}))
    return out.getvalue()


def with_script() -> bytes:
    """A photo whose EXIF holds script wherever text may stand."""
    exif = Image.Exif()
    for tag in (0x010E, 0x010F, 0x0110, 0x0131, 0x013B, 0x8298):  # description, make, model, software, artist
        exif[tag] = SCRIPT
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + SCRIPT.encode()  # the comment
    return jpeg(exif=exif)


def drawn(test: AppTest) -> str:
    """All HTML that the page puts in as such, tags and all."""
    return " ".join(item.proto.body for item in test.get("html"))


def offered(*files: tuple[str, bytes]) -> AppTest:
    """The localize page after these files were dropped on it."""
    test = page("localize")
    for name, content in files:
        test.file_uploader(key="localize_files").upload(name, content, "image/jpeg")
    return well(test.run())


# -- photos


def test_a_file_of_200_mb_is_refused_before_it_is_read(monkeypatch):
    spec = find_spec("geofix_dashboard")
    assert spec is not None and spec.origin is not None
    settings = tomllib.loads((Path(spec.origin).parent / ".streamlit" / "config.toml").read_text())
    assert settings["server"]["maxUploadSize"] == 20  # MB; a browser's look at it: test_browser.py
    monkeypatch.setenv("GEOFIX_MAX_PHOTO_BYTES", "1000")
    get_settings.cache_clear()
    try:
        found = uploads.read("large.jpg", b"\xff\xd8" + bytes(2000))
        assert not found.good and "large.jpg has 2.0 kB, more than 1.0 kB" in found.preview
    finally:
        monkeypatch.undo()
        get_settings.cache_clear()


def test_each_bad_file_is_named_and_the_good_one_can_be_asked_about(towns):
    test = offered(
        ("notes.jpg", b"only text " + SCRIPT.encode()),
        ("empty.png", b""),
        ("cut.jpg", jpeg()[:200]),
        ("good.jpg", jpeg()),
    )
    told = [item.value for item in test.error]
    assert len(told) == 3 and "notes.jpg" in told[0] and "is not an image" in told[0]
    assert "empty.png is empty" in told[1] and "cut.jpg" in told[2]
    assert not test.button(key="localize_go").disabled
    assert test.button(key="localize_go").label == "Find where it was taken"
    assert offered(("notes.jpg", b"only text")).button(key="localize_go").disabled


def test_a_bomb_is_named_and_not_decoded(towns, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # decoding lowers it for good
    monkeypatch.setenv("GEOFIX_MAX_PHOTO_PIXELS", "1000")
    get_settings.cache_clear()
    test = offered(("bomb.jpg", jpeg((400, 300))))
    assert "bomb.jpg" in test.error[0].value and "pixels" in test.error[0].value
    assert test.button(key="localize_go").disabled


def test_script_in_exif_and_names_reaches_neither_page_nor_answer(towns, monkeypatch):
    from geofix.jobs import broker

    monkeypatch.setattr(broker, "publish", lambda ready: [])
    test = offered((f"{SCRIPT}.jpg".replace("/", "_"), with_script()))
    assert not test.error and "<script" not in drawn(test) and "onerror" not in drawn(test)
    test.button(key="localize_go").click()
    well(test.run())
    asked = test.query_params["job"]
    job_id = asked[0] if isinstance(asked, list) else asked
    queued = place_data.job(job_id)
    assert queued is not None and run_inline(queued.job_id).state == "succeeded"
    row = place_data.job(job_id)
    assert row is not None and "script" not in json.dumps([row.specification, row.result])
    test = well(test.run())
    assert "Evidence for rank 1" in text_of(test) and "<script" not in drawn(test)
    with connect("owner") as conn:
        kept = conn.execute("SELECT q::text FROM query q ORDER BY query_id DESC LIMIT 1").fetchone()
        assert kept is not None and "script" not in kept[0]


# -- SQL


def run(statement: str) -> AppTest:
    test = well(page("sql"))
    test.text_area(key="sql_text").set_value(statement)
    return well(test.button[0].click().run())


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT 1; DROP TABLE photo_record", "more than one statement"),
        ("COPY photo_record TO PROGRAM 'id'", "no rows"),
        ("COPY (SELECT 1) TO STDOUT", "no rows"),
        ("SELECT pg_read_file('/etc/passwd')", "Refused"),
        ("SELECT pg_read_binary_file('/etc/passwd')", "Refused"),
        ("SELECT * FROM pg_ls_dir('/')", "Refused"),
        ("SELECT rolpassword FROM pg_authid", "Refused"),
        ("SET ROLE geofix_owner", "no rows"),
        ("RESET ROLE", "no rows"),
        ("SELECT set_config('role', 'geofix_owner', false)", "Refused"),
        ("SELECT set_config('transaction_read_only', 'off', false)", "read-write mode"),
        ("SELECT nextval('geofix.photo_record_photo_id_seq')", "Refused"),
        ("SELECT lo_create(0)", "Refused"),
        ("SELECT lo_import('/etc/passwd')", "Refused"),
        ("SELECT pg_terminate_backend(pg_backend_pid())", ""),
        ("SELECT pg_reload_conf()", "Refused"),
        ("SELECT query_to_xml('DELETE FROM geofix.photo_record RETURNING 1', true, true, '')", "not allowed"),
        ("WITH gone AS (DELETE FROM photo_record RETURNING 1) SELECT * FROM gone", "Refused"),
        ("DO $$ BEGIN DELETE FROM geofix.photo_record; END $$", "no rows"),
        ("SELECT * FROM query", "Refused"),
    ],
)
def test_statements_that_do_more_than_read_are_refused(filled, statement, said):
    test = run(statement)
    assert said in test.error[0].value and not test.dataframe
    assert "root:" not in test.error[0].value
    with connect("owner") as conn:
        counts = "SELECT count(*), (SELECT count(*) FROM pg_largeobject_metadata) FROM photo_record"
        assert conn.execute(counts).fetchone() == (len(filled.photo_ids), 0)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT pg_sleep(600)",
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 0 FROM n) SELECT count(*) FROM n",
        "SELECT count(*) FROM generate_series(1, 1000000000) AS a, generate_series(1, 1000000000) AS b",
    ],
)
def test_a_statement_without_an_end_is_stopped(filled, monkeypatch, statement):
    monkeypatch.setenv("GEOFIX_SQL_TIMEOUT_S", "0.5")
    get_settings.cache_clear()
    assert "took longer than 0.5 s and was cancelled" in run(statement).error[0].value
    with connect("owner") as conn:
        left = conn.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'geofix sql' AND state = 'active'"
        ).fetchone()
    assert left == (0,)


def test_of_ten_million_rows_the_first_are_shown(filled):
    test = run("SELECT n, 'row ' || n AS name FROM generate_series(1, 10000000) AS n")
    assert len(test.dataframe[0].value) == sql.MOST_ROWS
    assert f"{sql.MOST_ROWS:,} rows" in text_of(test) and "more rows exist" in text_of(test)


@pytest.mark.parametrize(
    "value", ["repeat('x', 1000000)", "repeat('x', 1000000)::bytea", "array_fill('xy'::text, ARRAY[200000])"]
)
def test_an_answer_of_gigabytes_is_cut_by_its_size(filled, monkeypatch, value):
    monkeypatch.setattr(sql, "MOST_BYTES", 3_000_000)
    found = sql.answer(f"SELECT {value} AS large FROM generate_series(1, 5000)", 10_000)
    assert found.cut and found.too_large and 2 <= len(found.rows) <= 4
    small = sql.answer("SELECT repeat('x', 1000) FROM generate_series(1, 100)", 10_000)
    assert not small.cut and len(small.rows) == 100


def test_names_of_others_are_no_html_in_an_answer(filled):
    test = run(f"SELECT '{SCRIPT}' AS \"{SCRIPT}\", ST_Point(1, 45, 4326) AS geom")
    assert "<script" not in drawn(test) and len(test.dataframe[0].value) == 1


# -- polygons

HOLED = "POLYGON((0 0, 4 0, 4 4, 0 4, 0 0), (1 1, 3 1, 3 3, 1 3, 1 1))"
BOWTIE = {"type": "Polygon", "coordinates": [[[0, 0], [2, 2], [2, 0], [0, 2], [0, 0]]]}
ACROSS = {
    "type": "MultiPolygon",  # as RFC 7946 wants it
    "coordinates": [
        [[[179, 0], [180, 0], [180, 1], [179, 1], [179, 0]]],
        [[[-180, 0], [-179, 0], [-179, 1], [-180, 1], [-180, 0]]],
    ],
}
UNSAID = {"type": "Polygon", "coordinates": [[[179, 0], [-179, 0], [-179, 1], [179, 1], [179, 0]]]}


def given(text: str) -> AppTest:
    """The localize page after a polygon was written into it."""
    test = page("localize")
    test.session_state["localize_within"] = "file"
    well(test.run()).text_area(key="localize_wkt").set_value(text)
    return well(test.run())


@pytest.mark.parametrize(
    ("text", "area"),
    [
        (HOLED, 12),
        (json.dumps(BOWTIE), 2),
        (json.dumps(ACROSS), 2),
        ("POLYGON((179 0, 181 0, 181 1, 179 1, 179 0))", 2),
        ("POLYGON((-179 0, -181 0, -181 1, -179 1, -179 0))", 2),
    ],
)
def test_polygons_with_holes_crossings_and_the_180th_meridian_are_taken(towns, text, area):
    shape = localize_region.parse(text)
    assert shape.is_valid and shape.area == pytest.approx(area)
    assert shape.bounds[0] >= -180 and shape.bounds[2] <= 180
    test = given(text)
    assert not test.error and not test.warning


def test_a_polygon_around_the_world_is_asked_about(towns):
    assert "spans 358 degrees" in given(json.dumps(UNSAID)).warning[0].value


@pytest.mark.parametrize(
    "text",
    [
        "POLYGON((1 2",
        "POLYGON EMPTY",
        "POLYGON((999 0, 1000 0, 1000 1, 999 0))",
        "POLYGON((nan 0, 1 0, 1 1, nan 0))",
        "{",
        json.dumps({"type": "Polygon", "coordinates": []}),
        '{"type": "Polygon", "coordinates": ' + "[" * 5000,
        "/etc/passwd",
        SCRIPT,
    ],
)
def test_what_is_no_polygon_is_told_on_the_page(towns, text):
    test = given(text)
    assert len(test.error) == 1 and "/tmp" not in test.error[0].value and "<script" not in drawn(test)
    assert test.button(key="localize_go").disabled
