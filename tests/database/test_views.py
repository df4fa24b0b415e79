"""What analysts read: views and functions of accuracy and coverage against sums made by hand."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest
from small_world import COUNTRIES, LEVEL, PHOTOS, SEQUENCES, TOWNS, SmallWorld

from geofix.database.engine import connect
from geofix.evaluation.metrics import wilson
from geofix.spatial import s2


@pytest.fixture
def conn(small: SmallWorld):
    with connect("reader") as connection:
        yield connection


def test_photo_names_its_country_sequence_and_year(conn):
    rows = conn.execute("SELECT source_key, country_code, sequence, captured_at FROM photo").fetchall()
    assert len(rows) == len(TOWNS) * SEQUENCES * PHOTOS
    for key, country, sequence, captured_at in rows:
        town, walk = (int(part) for part in key.split("/")[0].split("-"))
        assert country == ("CHE" if town < 4 else "DEU")
        assert sequence == f"{town}-{walk}" and captured_at.year == 2018 + walk


@pytest.mark.parametrize("level", [10, 13, LEVEL, 18])
def test_coverage_counts_photos_tiles_and_codes_in_cells_of_the_level_asked_for(conn, level):
    photos = conn.execute("SELECT s2_id, extract(year FROM captured_at)::int FROM photo").fetchall()
    tiles = [row[0] for row in conn.execute("SELECT s2_id FROM aerial_tile")] if level <= LEVEL else []
    found = {
        row[0]: row[1:]
        for row in conn.execute(
            "SELECT s2_id, photos, capture_years, aerial_dates, has_prototype, has_aerial FROM coverage(%s)",
            (level,),
        )
    }
    assert {int(item) for item in s2.level(np.array(list(found)))} == {level}
    cells = s2.parent(np.array([row[0] for row in photos]), level)
    above = {int(s2.parent(np.array([item]), level)[0]) for item in tiles}
    assert set(found) == set(cells.tolist()) | above
    for cell, (count, years, dates, prototype, aerial) in found.items():
        here = [row[1] for row, own in zip(photos, cells.tolist(), strict=True) if own == cell]
        assert count == len(here) and (years or []) == sorted(set(here))
        assert [str(day) for day in dates or []] == (["2021-06-01"] if cell in above else [])
        assert aerial == (cell in above)
        assert not prototype or count
    assert any(row[3] for row in found.values()) == (level <= LEVEL)


def test_coverage_inside_a_region_and_of_stale_code_sets(small):
    box = "ST_MakeEnvelope(7.4, 47.4, 7.5, 47.55, 4326)"  # town 0 alone
    with connect() as conn:
        conn.execute("UPDATE code_set SET state = 'stale'")
        rows = conn.execute(f"SELECT photos, has_aerial FROM coverage(12, {box})").fetchall()
        assert sum(row[0] for row in rows) == SEQUENCES * PHOTOS and any(row[1] for row in rows)
        conn.rollback()


def test_wilson_is_the_same_in_sql_and_python(conn):
    pairs = [(hits, n) for n in (1, 2, 7, 96, 10_000) for hits in sorted({0, 1, n // 3, n - 1, n})]
    low, high = wilson([hits for hits, _ in pairs], [n for _, n in pairs])
    rows = [
        conn.execute("SELECT low, high FROM wilson(%s::bigint, %s::bigint)", pair).fetchone()
        for pair in pairs
    ]
    assert np.allclose(rows, np.column_stack([low, high]), rtol=0, atol=1e-9)
    assert conn.execute("SELECT low, high FROM wilson(0, 0)").fetchone() == (None, None)


def test_cells_are_counted_per_level(small):
    from geofix.database.queries.cells import refresh_cells

    with connect() as conn:
        first, again = refresh_cells(conn, 14), refresh_cells(conn, 14)
        assert first == again and first["photos"] == len(TOWNS) * SEQUENCES * PHOTOS
        rows = conn.execute("SELECT s2_id, photos, aerial_tiles FROM cell WHERE level = 14").fetchall()
        assert (
            len(rows) == first["cells"]
            and sum(row[2] for row in rows) == conn.execute("SELECT count(*) FROM aerial_tile").fetchone()[0]
        )
        conn.rollback()


def test_countries_at_positions(conn):
    from geofix.database.queries.cells import countries_at, find_region

    assert countries_at(conn, [7.5, 7.5, 0.0], [47.5, 47.6, 0.0]) == ["CHE", "DEU", None]
    assert countries_at(conn, [], []) == []
    assert find_region(conn, "country", "CHE") == find_region(conn, None, COUNTRIES["CHE"][0].lower())
    assert find_region(conn, "admin1", "CHE") is None


@pytest.mark.parametrize("call", ["accuracy_by_region(%s, 'country', 200)", "accuracy_by_cell(%s, 13, 200)"])
@pytest.mark.parametrize("name", ["nobody", "x'; DROP TABLE geofix.photo_record; --"])
def test_an_unknown_evaluation_is_named(conn, call, name):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no evaluation is named"):
        conn.execute(f"SELECT * FROM {call}", (name,))
