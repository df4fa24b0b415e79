"""`geofix sql`: what it refuses, where it stops, and that its files read back as what was asked."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import geopandas
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from geofix.cli.sql import app
from geofix.database.sandbox import ask
from geofix.errors import ServiceError, UsageError
from geofix.settings import get_settings
from servers import Database

PHOTOS = """
WITH d AS (
  INSERT INTO dataset (name, kind, licence, attribution)
  VALUES ('alps', 'photos', 'CC-BY-4.0', 'Ä. Müller'), ('bare', 'photos', NULL, NULL)
  RETURNING dataset_id, name
)
INSERT INTO photo_record (dataset_id, source_key, s2_id, geom, heading_deg, captured_at, extra)
SELECT dataset_id, 'p' || n, s2_cell_at(8 + n / 100.0, 47, 30),
       ST_SetSRID(ST_MakePoint(8 + n / 100.0, 47), 4326), CASE WHEN n > 1 THEN n END,
       CASE WHEN n > 1 THEN timestamptz '2020-01-02 03:04:05+00' END, '{"a": [1, "ß"]}'
FROM d, generate_series(1, 20) AS n WHERE d.name = 'alps' ORDER BY n
"""
ALL = """
SELECT photo_id, source_key, s2_id, heading_deg, captured_at, heading_deg > 5 AS big,
       round(1.5, 2) AS number, extra, ARRAY[1, 2]::int8[] AS list, geom FROM photo_record ORDER BY photo_id
"""


@pytest.fixture
def photos(db: Database) -> Database:
    with db.connect() as conn:
        conn.execute(PHOTOS)
    return db


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def rows_of(db: Database) -> int:
    with db.connect() as conn:
        return int(conn.execute("SELECT count(*) FROM photo_record").fetchone()[0])  # type: ignore[index]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM photo_record", "returns no rows"),
        ("DELETE FROM photo_record RETURNING photo_id", "Refused"),
        ("WITH gone AS (DELETE FROM photo_record RETURNING *) SELECT * FROM gone", "Refused"),
        ("INSERT INTO dataset (name, kind) VALUES ('x', 'photos') RETURNING 1", "Refused"),
        ("SELECT * FROM audit", "Refused"),
        ("SELECT set_config('role', 'geofix_owner', false)", "Refused"),
        ("SELECT 1 INTO TEMP t", "returns no rows"),
        ("COPY photo_record TO STDOUT", "returns no rows"),
        ("DO $$ BEGIN DELETE FROM photo_record; END $$", "returns no rows"),
        ("COMMIT", "returns no rows"),
        ("", "returns no rows"),
        ("SELECT 1; SELECT 2", "more than one statement"),
        ("SELECT 1; DROP TABLE photo_record", "more than one statement"),
        ("COMMIT; DROP TABLE photo_record", "more than one statement"),
        ("SELECT $1::int", "parameters"),
        ("SELECT nothing FROM photo", "nothing"),
        ("SELECT 1/0", "division by zero"),
        ("SELEC 1", "at character 1"),
        ("SELECT 1 \0", "zero byte"),
        ("SELECT 'infinity'::timestamptz", "Cast that column to text"),
    ],
)
def test_what_is_refused(photos: Database, statement: str, said: str) -> None:
    result = run(statement)
    assert result.exit_code == 2
    assert said in result.stderr and result.stdout == ""
    assert rows_of(photos) == 20


def test_settings_do_not_open_the_door(photos: Database) -> None:
    result = run("SELECT set_config('transaction_read_only', 'off', false)", "--json")
    assert result.exit_code == 2 and "read-write mode" in result.stderr


def test_a_slow_statement_is_cancelled_by_our_clock(
    photos: Database, clean_environment: pytest.MonkeyPatch
) -> None:
    clean_environment.setenv("GEOFIX_SQL_TIMEOUT_S", "0.5")
    get_settings.cache_clear()
    began = time.monotonic()
    # Whatever the statement does to its own settings.
    result = run("SELECT set_config('statement_timeout', '0', false), pg_sleep(60)")
    assert result.exit_code == 2 and "0.5 s" in result.stderr and "GEOFIX_SQL_TIMEOUT_S" in result.stderr
    assert time.monotonic() - began < 30
    with photos.connect() as conn:
        left = conn.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()"
        )
        assert left.fetchone() == (0,)


def test_time_between_rows_is_not_the_statements(photos: Database) -> None:
    with ask("SELECT generate_series(1, 12000)", get_settings(), timeout_s=2) as answer:
        total = 0
        for batch in answer.batches():
            total += len(batch)
            time.sleep(0.8)
    assert total == 12_000 and not answer.cut


@pytest.mark.parametrize(("limit", "cut"), [(19, True), (20, False), (21, False)])
def test_the_row_cap_says_when_it_cut(
    photos: Database, clean_environment: pytest.MonkeyPatch, tmp_path: Path, limit: int, cut: bool
) -> None:
    clean_environment.setenv("GEOFIX_SQL_MAX_ROWS", str(limit))
    get_settings.cache_clear()
    result = run("SELECT photo_id, geom FROM photo_record", "--json")
    document = json.loads(result.stdout)
    assert (document["n"], len(document["rows"]), document["cut"]) == (min(20, limit), min(20, limit), cut)
    assert ("there are more" in result.stderr) is cut
    file = tmp_path / "a.geojson"
    assert run("SELECT photo_id, geom FROM photo_record", "--out", str(file)).exit_code == 0
    assert json.loads(file.read_text()).get("cut_at_rows") == (limit if cut else None)


def test_endless_answers_end_at_the_cap(photos: Database, tmp_path: Path) -> None:
    began = time.monotonic()
    with ask("SELECT generate_series(1, 2000000000)", get_settings(), max_rows=7000) as answer:
        assert [len(batch) for batch in answer.batches()] == [5000, 2000]
        assert answer.cut
    assert time.monotonic() - began < 20


def test_percent_signs_and_comments_are_left_alone(photos: Database) -> None:
    statement = "SELECT count(*) AS n FROM photo_record WHERE source_key LIKE '%1%' -- 100 %s\n;"
    result = run("-", "--json", stdin=statement)
    assert json.loads(result.stdout)["rows"] == [{"n": 11}]


def test_the_table_is_for_reading(photos: Database) -> None:
    result = run("SELECT source_key, geom, NULL AS nothing FROM photo_record ORDER BY photo_id LIMIT 2")
    assert result.exit_code == 0
    assert "p1" in result.stdout and "POINT (8.01 47)" in result.stdout and "2 rows" in result.stderr


def test_csv_reads_back(photos: Database, tmp_path: Path) -> None:
    file = tmp_path / "photos.csv"
    result = run(ALL, "--out", str(file), "--json")
    done = json.loads(result.stdout)
    assert (done["rows"], done["format"], done["bytes"]) == (20, "csv", file.stat().st_size)
    table = pd.read_csv(file)
    assert list(table.columns)[:3] == ["photo_id", "source_key", "s2_id"]
    assert table.s2_id.dtype == "int64" and table.heading_deg.isna().sum() == 1
    assert json.loads(table.extra[0]) == {"a": [1, "ß"]} and table.number[0] == 1.5
    assert geopandas.GeoSeries.from_wkt(table.geom).x.round(9).tolist() == [
        round(8 + n / 100, 9) for n in range(1, 21)
    ]
    note = (tmp_path / "photos.csv.attribution.txt").read_text()
    assert note.splitlines() == [
        "alps (photos): CC-BY-4.0; Ä. Müller",
        "bare (photos): licence not recorded; no attribution recorded",
    ]
    assert run("SELECT 1 AS a, true AS b, NULL AS c", "--format", "csv").stdout == "a,b,c\n1,true,\n"


def test_geojson_reads_back(photos: Database, tmp_path: Path) -> None:
    file = tmp_path / "photos.geojson"
    assert run(ALL, "--out", str(file)).exit_code == 0
    document = json.loads(file.read_text())
    assert document["attribution"][0] == {
        "dataset": "alps",
        "kind": "photos",
        "licence": "CC-BY-4.0",
        "attribution": "Ä. Müller",
    }
    assert document["features"][1]["properties"]["extra"] == {"a": [1, "ß"]}
    assert document["features"][0]["properties"]["heading_deg"] is None
    frame = geopandas.read_file(file)
    assert len(frame) == 20 and frame.crs.to_epsg() == 4326 and round(frame.geometry.x.max(), 6) == 8.2
    streamed = run("SELECT geom FROM photo_record LIMIT 1", "--format", "geojson").stdout
    assert json.loads(streamed)["features"][0]["geometry"]["type"] == "Point"
    empty = run("SELECT NULL::geometry AS geom, 'NaN'::float8 AS a WHERE false", "--format", "geojson").stdout
    assert json.loads(empty)["features"] == []
    odd = "SELECT 'NaN'::float8 AS a, NULL::geometry AS g UNION ALL SELECT 1, 'SRID=4326;POINT EMPTY'"
    assert [f["geometry"] for f in json.loads(run(odd, "--format", "geojson").stdout)["features"]] == [
        None,
        None,
    ]


def test_parquet_reads_back(photos: Database, tmp_path: Path) -> None:
    file = tmp_path / "photos.parquet"
    assert run(ALL, "--out", str(file)).exit_code == 0
    frame = geopandas.read_parquet(file)
    assert frame.crs.to_epsg() == 4326 and round(frame.geometry.x.max(), 6) == 8.2
    assert frame.s2_id.dtype == "int64" and str(frame.captured_at.dtype) == "datetime64[us, UTC]"
    assert frame.heading_deg.isna().sum() == 1 and list(frame.list[0]) == [1, 2]
    records = json.loads(pq.read_schema(file).metadata[b"geofix_attribution"])
    assert [(r["dataset"], r["licence"]) for r in records] == [("alps", "CC-BY-4.0"), ("bare", None)]
    metres = tmp_path / "metres.parquet"
    run("SELECT ST_Transform(geom, 3035) AS geom FROM photo_record", "--out", str(metres))
    assert geopandas.read_parquet(metres).crs.to_epsg() == 3035
    nothing = tmp_path / "nothing.parquet"
    run("SELECT 1 AS a, geom FROM photo_record WHERE false", "--out", str(nothing))
    assert len(geopandas.read_parquet(nothing)) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["SELECT 1", "--format", "geojson"], "geometry column"),
        (
            ["SELECT ST_Transform(geom, 3035) AS g FROM photo_record", "--format", "geojson"],
            "ST_Transform(g, 4326)",
        ),
        (
            ["SELECT 'CIRCULARSTRING(0 0, 1 1, 2 0)'::geometry AS g", "--format", "geojson"],
            "ST_CurveToLine(g)",
        ),
        (["SELECT 1", "--format", "parquet"], "--out"),
        (["SELECT 1", "--format", "xlsx"], "xlsx"),
        (["SELECT 1", "--out", "{tmp}/a.txt"], "--format"),
        (["SELECT 1", "--out", "{tmp}/no/a.csv"], "no folder"),
        (["SELECT 1", "--out", "{tmp}/there.csv"], "exists"),
    ],
)
def test_formats_that_do_not_fit(photos: Database, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "there.csv").write_text("kept")
    result = run(*(item.replace("{tmp}", str(tmp_path)) for item in arguments))
    assert result.exit_code == 2 and said in result.stderr
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["there.csv"]


def test_a_failing_export_leaves_nothing(photos: Database, tmp_path: Path) -> None:
    file = tmp_path / "half.csv"
    file.write_text("old")
    failing = "SELECT 1 / (15000 - n) AS a FROM generate_series(1, 20000) AS n"
    assert run(failing, "--out", str(file), "--overwrite").exit_code == 2
    assert file.read_text() == "old" and [path.name for path in tmp_path.iterdir() if path.is_file()] == [
        "half.csv"
    ]
    assert run("SELECT 1 AS a", "--out", str(file), "--overwrite").exit_code == 0
    assert file.read_text() == "a\n1\n"


def test_equal_names_stay_apart(photos: Database) -> None:
    assert json.loads(run("SELECT 1 AS a, 2 AS a, 3 AS a", "--json").stdout)["rows"] == [
        {"a": 1, "a_2": 2, "a_3": 3}
    ]


def test_a_lost_session_is_an_error_of_the_service(photos: Database) -> None:
    with ask("SELECT pg_sleep(1)", get_settings()) as answer:
        with photos.connect("reader") as conn:
            ended = conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'geofix sql' AND datname = current_database()"
            ).fetchall()
        assert ended == [(True,)]
        with pytest.raises(ServiceError, match="went away"):
            list(answer.batches())


def test_the_whole_command_line(photos: Database) -> None:
    code = "import sys; from geofix.cli.main import main; sys.argv[0] = 'geofix'; main()"
    command = [sys.executable, "-c", code, "sql", "SELECT count(*) AS n FROM photo", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == [{"n": 20}]
    refused = subprocess.run(
        [*command[:-2], "DROP TABLE photo_record"], capture_output=True, text=True, timeout=120, check=False
    )
    assert refused.returncode == 2 and refused.stdout == "" and len(refused.stderr.splitlines()) == 1


def test_limits_can_be_given_by_the_caller(photos: Database) -> None:
    with (
        pytest.raises(UsageError, match=r"0\.2 s"),
        ask("SELECT pg_sleep(30)", get_settings(), timeout_s=0.2) as answer,
    ):
        list(answer.batches())
