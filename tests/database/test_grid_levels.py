"""Cells counted once say what counting says while they fit: until a photo or a tile changes."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from alembic import command

from geofix.codes.build import CellVectors, publish
from geofix.database import garbage
from geofix.database.engine import connect
from geofix.database.migrate import alembic_config, migrate, schema_engine
from geofix.database.queries import cells, dashboard, dashboard_coverage
from geofix.database.queries.models import find_model
from geofix.database.sqlfiles import apply_sql_files
from geofix.settings import get_settings
from geofix.spatial import s2
from helpers import add_model

LEVELS = (10, 13, 14)
BASE = """
INSERT INTO dataset (name, kind) VALUES ('photos', 'photos'), ('ortho', 'aerial'), ('regions', 'regions');
INSERT INTO region (dataset_id, level, code, name, area_km2, geom)
SELECT dataset_id, 'country', 'A', 'Land A', 1, ST_Multi(ST_MakeEnvelope(7.1, 47.1, 7.3, 47.4, 4326))
FROM dataset WHERE name = 'regions';
INSERT INTO region_part (region_id, level, geom) SELECT region_id, level, (ST_Dump(geom)).geom FROM region;
INSERT INTO sequence (dataset_id, key)
SELECT dataset_id, 'walk ' || k FROM dataset, generate_series(1, 30) AS k WHERE name = 'photos';
"""
PHOTOS = """
INSERT INTO photo_record (dataset_id, sequence_id, source_key, s2_id, captured_at, geom)
SELECT d.dataset_id, s.sequence_id, 'photo ' || p.k, p.s2_id,
       '2020-02-03T10:00Z'::timestamptz + p.k * interval '40 h', ST_SetSRID(ST_MakePoint(p.lon, p.lat), 4326)
FROM unnest(%s::bigint[], %s::float8[], %s::float8[]) WITH ORDINALITY AS p (s2_id, lon, lat, k)
JOIN dataset d ON d.name = 'photos' JOIN sequence s ON s.key = 'walk ' || (1 + p.k / 10)
"""
TILES = """
INSERT INTO aerial_tile (dataset_id, level, s2_id, captured_at, side_m, coverage, aerial_raster_ids)
SELECT d.dataset_id, %s, t.s2_id, CASE WHEN t.k %% 4 > 0 THEN '2019-01-01'::date + t.k::integer END, 154, 1,
       '{}'
FROM unnest(%s::bigint[]) WITH ORDINALITY AS t (s2_id, k) JOIN dataset d ON d.name = 'ortho'
"""
CHANGES = {
    "a photo more": """
INSERT INTO photo_record (dataset_id, source_key, s2_id, geom)
SELECT dataset_id, 'one more', s2_id, geom FROM photo_record LIMIT 1""",
    "a photo less": "DELETE FROM photo_record WHERE photo_id = (SELECT min(photo_id) FROM photo_record)",
    "a photo elsewhere": """
UPDATE photo_record SET s2_id = (SELECT max(s2_id) FROM photo_record)
WHERE photo_id = (SELECT photo_id FROM photo_record ORDER BY s2_id LIMIT 1)""",
    "a photo of another day": "UPDATE photo_record SET captured_at = now()"
    " WHERE photo_id = (SELECT min(photo_id) FROM photo_record)",
    "photos without a day": "UPDATE photo_record SET captured_at = NULL",
    "a tile more": """
INSERT INTO aerial_tile (dataset_id, level, s2_id, captured_at, side_m, coverage, aerial_raster_ids)
SELECT dataset_id, level, s2_id, '2031-01-01', side_m, 1, aerial_raster_ids FROM aerial_tile LIMIT 1""",
    "no tile": "DELETE FROM aerial_tile",
    "a tile of another day": "UPDATE aerial_tile SET captured_at = '2030-01-01'"
    " WHERE aerial_tile_id = (SELECT min(aerial_tile_id) FROM aerial_tile)",
    "no tile at all": "TRUNCATE aerial_tile CASCADE",
}
SEEN = """
SELECT s2_token, photos, capture_years, aerial_dates, has_prototype, has_aerial, ST_AsText(geom)
FROM coverage"""
INSIDE = "ST_MakeEnvelope(7.1, 47.1, 7.3, 47.4, 4326)"
NOTHING = {
    "another author": "UPDATE photo_record SET author = 'somebody'",
    "the same day": "UPDATE photo_record SET captured_at = captured_at, s2_id = s2_id",
    "no photo": "DELETE FROM photo_record WHERE photo_id < 0",
    "the same tiles": "UPDATE aerial_tile SET coverage = coverage, s2_id = s2_id",
}


@pytest.fixture
def conn(db):
    """Photos near each other and apart, tiles of two levels, codes; cells of three levels that fit."""
    rng = np.random.default_rng(6)
    lon, lat = (at + rng.choice([0.0, 0.1, 0.2, 0.4], 290) + rng.normal(0, 0.003, 290) for at in (7.0, 47.0))
    leaf = s2.cell_at(lon, lat, 30)
    with connect() as conn:
        conn.execute(BASE, prepare=False)
        conn.execute(PHOTOS, (leaf.tolist(), lon.tolist(), lat.tolist()))
        for level in (14, 16):
            conn.execute(TILES, (level, np.unique(s2.parent(leaf[:150], level)).tolist()))
        model = add_model(conn, "tiny", 8)
        ids = np.unique(s2.parent(leaf[100:], 14))
        vectors = rng.standard_normal((len(ids), 8)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        some = np.arange(len(ids)) % 3
        made = CellVectors(ids, vectors, np.zeros(len(ids), np.float32), some > 0, some < 2)
        publish(conn, "codes", find_model(conn, "tiny"), "hybrid", 14, made, snapshot_id=None)
        assert model
        for level in LEVELS:
            cells.refresh_cells(conn, level)
        conn.commit()
        yield conn
        conn.rollback()


def by_rows(monkeypatch, ask, level):
    """What a question is answered from photos and tiles."""
    with monkeypatch.context() as patch:
        patch.setattr(cells, "fitting_level", lambda _conn, _level: None)
        return ask(level)


@pytest.mark.parametrize("limit", [3, 5000])
def test_cells_that_fit_say_what_photos_and_tiles_say(conn, monkeypatch, limit):
    outer = str(dashboard_coverage.coverage(conn, 8, None, None)["cell"].iloc[0])
    asked = {
        "everywhere": lambda level: dashboard_coverage.coverage(conn, level, None, None, limit=limit),
        "country": lambda level: dashboard_coverage.coverage(conn, level, "country", "A", limit=limit),
        "cell": lambda level: dashboard_coverage.coverage(conn, level, None, None, outer, limit=limit),
        "photos": lambda level: dashboard_coverage.photo_cells(conn, level, limit=limit),
    }
    for level, name in itertools.product((6, 10, 12, 13, 14, 15), asked):
        wanted = by_rows(monkeypatch, asked[name], level)
        pd.testing.assert_frame_equal(asked[name](level), wanted, obj=f"{name} at level {level}")
        assert len(wanted) or (name, level) in {("country", 6), ("cell", 6)}


def counted(conn, asked):
    """Rows of the function where no cells are known to fit, so that it counts photos and tiles."""
    conn.execute("SAVEPOINT with_cells")
    conn.execute("DELETE FROM grid_level")
    rows = conn.execute(asked).fetchall()
    conn.execute("ROLLBACK TO with_cells")
    return rows


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_the_function_reads_cells_that_fit(conn, zone):
    conn.execute(f"SET LOCAL timezone = '{zone}'")
    several = 0
    for level, where in itertools.product((6, 10, 12, 13, 14, 15), ("", f", {INSIDE}")):
        asked = f"{SEEN}({level}{where})"
        wanted = counted(conn, asked)
        assert conn.execute(asked).fetchall() == wanted and wanted
        several += any(len(row[2] or []) > 1 and len(row[3] or []) > 1 for row in wanted)
    assert several > 3  # cells that know the first and the last time alone
    conn.execute("UPDATE grid_cell SET photos = photos + 1000")
    for asked, read in (("12", True), ("14", True), ("15", False), (f"14, {INSIDE}", False)):
        assert (max(row[1] for row in conn.execute(f"{SEEN}({asked})")) > 1000) is read, asked


@pytest.mark.parametrize("change", CHANGES)
def test_the_function_counts_a_change_anew(conn, change):
    before = conn.execute(f"{SEEN}(13)").fetchall()
    conn.execute(CHANGES[change])
    for asked in (f"{SEEN}(13)", f"{SEEN}(13, {INSIDE})"):
        assert conn.execute(asked).fetchall() == counted(conn, asked)
    found = conn.execute(f"{SEEN}(13)").fetchall()
    assert found != before
    cells.refresh_cells(conn, 13)
    assert conn.execute(f"{SEEN}(13)").fetchall() == found


def test_the_function_makes_shapes_of_the_rows_that_are_kept(conn):
    asked = "SELECT s2_token, photos, geom FROM coverage(13) ORDER BY photos DESC LIMIT 5"
    plan = conn.execute(f"EXPLAIN (VERBOSE, FORMAT JSON) {asked}").fetchone()[0][0]["Plan"]
    nodes = [plan]
    for node in nodes:
        nodes += node.get("Plans", [])
    shaped = [node["Node Type"] for node in nodes if "s2_polygon" in str(node.get("Output"))]
    assert shaped and "Sort" not in shaped and "Subquery Scan" not in shaped
    rows = [row[0] for row in conn.execute("SELECT s2_id FROM coverage(13)")]
    assert rows == sorted(rows)


def test_the_coarsest_level_that_adds_up_is_read(conn):
    found = [cells.fitting_level(conn, level) for level in (4, 10, 11, 14, 15)]
    assert found == [10, 10, 13, 14, None]
    conn.execute(
        "UPDATE aerial_tile SET level = 12, s2_id = s2_parent(s2_id, 12)"
        " WHERE aerial_tile_id = (SELECT min(aerial_tile_id) FROM aerial_tile)"
    )
    for level in LEVELS:
        cells.refresh_cells(conn, level)
    # A tile of level 12 is in no cell of level 13, but in those of 11 and 12.
    assert [cells.fitting_level(conn, level) for level in (10, 11, 12, 13)] == [10, None, None, 13]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_counted_anew(conn, monkeypatch, change):
    before = dashboard_coverage.coverage(conn, 13, None, None)
    conn.execute(CHANGES[change])
    assert cells.fitting_level(conn, 13) is None
    found = dashboard_coverage.coverage(conn, 13, None, None)
    assert not found.equals(before)
    cells.refresh_cells(conn, 13)
    assert cells.fitting_level(conn, 13) == 13 and cells.fitting_level(conn, 14) is None
    pd.testing.assert_frame_equal(dashboard_coverage.coverage(conn, 13, None, None), found)


@pytest.mark.parametrize("change", NOTHING)
def test_what_changes_no_cell_is_not_noted(conn, change):
    conn.execute(NOTHING[change])
    assert cells.fitting_level(conn, 13) == 13


def test_a_change_under_way_while_cells_are_counted_is_found(conn):
    with connect() as writing, connect() as counting:
        writing.execute(CHANGES["a photo more"])
        cells.refresh_cells(counting, 13)
        counting.commit()
        assert cells.fitting_level(counting, 13) == 13  # of what is committed
        writing.commit()
        assert cells.fitting_level(counting, 13) is None


def test_the_log_is_emptied_and_what_fitted_still_does(conn, monkeypatch):
    monkeypatch.setattr(garbage, "_MOST_NOTES", 0)
    kind = "noted changes of cells"
    conn.execute(CHANGES["a photo more"])
    cells.refresh_cells(conn, 13)
    conn.commit()
    with connect("writer") as other:  # is writing, and has not ended
        other.execute("UPDATE photo_record SET captured_at = now()")
        kept = [item for item in garbage.collect(conn, get_settings()) if item.kind == kind]
        assert [item.state for item in kept] == ["kept"] and "writing" in kept[0].note
        other.rollback()
    before = cells.log.size(conn)[0]
    gone = [item for item in garbage.collect(conn, get_settings()) if item.kind == kind]
    assert [(item.state, item.rows) for item in gone] == [("removed", before)] and before > 0
    assert cells.log.size(conn)[0] == 0
    assert [cells.fitting_level(conn, level) for level in (13, 14)] == [13, None]
    conn.execute(CHANGES["no tile"])
    assert cells.fitting_level(conn, 13) is None


def test_the_functions_are_applied_again_while_somebody_writes(conn):
    with connect() as writing, connect() as applying:
        writing.execute("UPDATE aerial_tile SET captured_at = captured_at")
        writing.execute("UPDATE photo_record SET captured_at = captured_at")
        applying.execute("SET LOCAL lock_timeout = '2s'")
        apply_sql_files(applying)
        applying.rollback()
        writing.rollback()


def test_a_database_of_before_keeps_what_it_holds_and_is_counted(conn, db):
    conn.rollback()
    engine = schema_engine(db.url())
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0009")
    engine.dispose()
    with db.connect() as conn:
        for sha in "ab":
            snapshot = conn.execute(
                "INSERT INTO snapshot (uri, sha256) VALUES ('/s', repeat(%s, 64)) RETURNING snapshot_id",
                (sha,),
            ).fetchone()
            conn.execute(
                "INSERT INTO snapshot_photo (snapshot_id, photo_id, split) SELECT %s, photo_id,"
                " CASE photo_id %% 3 WHEN 0 THEN 'train' ELSE 'val' END FROM photo_record"
                " WHERE photo_id %% 5 > 0 OR %s = 'a'",
                (*snapshot, sha),
            )
        conn.execute("UPDATE photo_record SET sequence_id = NULL WHERE photo_id % 7 = 0")
        photos = conn.execute("SELECT count(*), count(captured_at) FROM photo_record").fetchone()
    assert migrate(db.url()).before == "0009"
    with db.connect() as conn:
        assert conn.execute("SELECT count(*), count(captured_at) FROM photo_record").fetchone() == photos
        assert cells.fitting_level(conn, 10) is None  # cells of before are not known to fit
        for snapshot in conn.execute("SELECT snapshot_id FROM snapshot").fetchall():
            wanted = conn.execute(
                "SELECT split, count(*), count(DISTINCT sequence_id), count(DISTINCT s2_parent(s2_id, 15)),"
                " count(DISTINCT s2_parent(s2_id, 13)) FROM snapshot_photo JOIN photo_record USING (photo_id)"
                " WHERE snapshot_id = %s GROUP BY 1"
                " ORDER BY array_position(ARRAY['train', 'val', 'test_seen', 'test_unseen'], split)",
                snapshot,
            ).fetchall()
            found = dashboard.splits(conn, snapshot[0])
            assert list(found.itertuples(index=False, name=None)) == wanted and wanted
