"""Ranges of ids that a search inside a region goes through: of thin and dense code sets, at every edge."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from pgvector import HalfVector
from small_world import pointed_at

from geofix.codes.build import CellVectors, publish
from geofix.database.engine import connect
from geofix.database.queries import codes as code_queries
from geofix.database.queries.models import find_model
from geofix.spatial import s2
from helpers import add_model, random_codes

D = 4
WORLD = shapely.box(-180, -90, 180, 90)
# Cells all over the sphere, a handful in each block at most; and every other cell of a few blocks.
SETS = {"thin": (13, 3000, (-180.0, -88.0, 180.0, 88.0)), "dense": (15, 30_000, (5.0, 45.0, 6.0, 45.6))}
REGIONS = {
    "thin": {
        "everything": WORLD,
        "a continent with a hole": shapely.Point(20, 10)
        .buffer(35)
        .difference(shapely.Point(22, 8).buffer(9)),
        "both sides of the 180th meridian": shapely.MultiPolygon(
            [shapely.box(160, -60, 180, 60), shapely.box(-180, -60, -160, 60)]
        ),
        "a cap": shapely.box(-180, 60, 180, 90),
        "the corner where the curve of face 3 ends": shapely.box(120, 20, 150, 50),
        "many slivers": shapely.MultiPolygon([shapely.box(x, -80, x + 1, 80) for x in range(-178, 178, 12)]),
    },
    "dense": {
        "everything": WORLD,
        "half": shapely.Polygon([(5.1, 45.1), (5.9, 45.05), (5.5, 45.55)]),
        "inside one block": shapely.Point(5.43, 45.31).buffer(0.03),
        "a few cells": shapely.box(5.5, 45.3, 5.506, 45.304),
    },
}
CASES = [(name, region) for name, regions in REGIONS.items() for region in regions]


@pytest.fixture(scope="module")
def stored(cluster, tmp_path_factory):
    """The database of both code sets with their keys and ids, stored once for all tests of this file."""
    with cluster.database() as database:
        home = tmp_path_factory.mktemp("home")
        with pointed_at(database, home):
            made = fill()
        yield database, home, made


@pytest.fixture
def sets(stored):
    database, home, made = stored
    with pointed_at(database, home):
        yield made


def fill() -> dict[str, tuple[int, np.ndarray]]:
    made = {}
    with connect() as conn:
        add_model(conn, "m", D)
        for name, (level, n, bounds) in SETS.items():
            ids, vectors = random_codes(n, D, level=level, bounds=bounds)
            flags = np.ones(n, bool)
            cells = CellVectors(ids, vectors, np.zeros(n, np.float32), flags, flags)
            publish(conn, name, find_model(conn, "m"), "cellmean", level, cells, snapshot_id=None)
            made[name] = (code_queries.find_code_set(conn, name).code_set_id, np.sort(ids))
    return made


def ewkb(region: shapely.Geometry) -> bytes:
    return shapely.to_wkb(shapely.set_srid(region, 4326), include_srid=True)


def among(ids: np.ndarray, ranges: list[tuple[int, int]]) -> np.ndarray:
    found = np.zeros(len(ids), bool)
    for lo, hi in ranges:
        found |= (ids >= lo) & (ids <= hi)
    return found


@pytest.mark.parametrize(("name", "region"), CASES)
def test_every_cell_of_the_region_and_no_other_after_the_test_of_centres(sets, name, region):
    code_set_id, ids = sets[name]
    shape = REGIONS[name][region]
    inside = shapely.covers(shape, shapely.points(*s2.center(ids)))
    with connect("reader") as conn:
        rows = conn.execute(
            "SELECT lo, hi, inside FROM code_set_covering(%s, ST_GeomFromEWKB(%s))",
            (code_set_id, ewkb(shape)),
        ).fetchall()
        estimate = conn.execute(
            "SELECT f.cells FROM code_set s, code_set_scope(s, ST_GeomFromEWKB(%s)) AS f"
            " WHERE s.code_set_id = %s",
            (ewkb(shape), code_set_id),
        ).fetchone()[0]
    starts, ends = [row[0] for row in rows], [row[1] for row in rows]
    assert starts == sorted(starts) and all(a < b for a, b in zip(ends, starts[1:], strict=False))
    sure = among(ids, [(lo, hi) for lo, hi, whole in rows if whole])
    border = among(ids, [(lo, hi) for lo, hi, whole in rows if not whole])
    assert inside[sure].all() and (sure | border)[inside].all()
    assert abs(estimate - inside.sum()) <= 5 + 0.5 * border.sum()


@pytest.mark.parametrize(("name", "region"), CASES)
def test_exact_search_answers_with_all_of_them_and_counts_them(sets, name, region):
    _, ids = sets[name]
    shape = REGIONS[name][region]
    inside = shapely.covers(shape, shapely.points(*s2.center(ids)))
    with connect("reader") as conn:
        rows = conn.execute(
            "SELECT s2_id, method, cells_in_scope FROM search_cells(%s, %s, %s, ST_GeomFromEWKB(%s))",
            (HalfVector([1.0] * D), len(ids), name, ewkb(shape)),
        ).fetchall()
    assert {row[0] for row in rows} == set(ids[inside].tolist())
    assert {(row[1], row[2]) for row in rows} == {("exact", int(inside.sum()))}


def test_ranges_run_on_over_land_without_cells(sets):
    """A block's neighbour in the order of ids may be a thousand kilometres away: one range takes both."""
    code_set_id, ids = sets["thin"]
    blocks = len(np.unique(s2.parent(ids, 9)))
    with connect("reader") as conn:
        rows = conn.execute(
            "SELECT inside FROM code_set_covering(%s, ST_GeomFromEWKB(%s))", (code_set_id, ewkb(WORLD))
        ).fetchall()
        cap = conn.execute(
            "SELECT count(*) FROM code_set_covering(%s, ST_GeomFromEWKB(%s))",
            (code_set_id, ewkb(REGIONS["thin"]["a cap"])),
        ).fetchone()[0]
    assert blocks > 2500 and len(rows) < 40 and any(row[0] for row in rows)
    assert cap < 80


def test_border_blocks_are_split_where_cells_are_many(sets):
    """Of 30,000 cells in a few blocks a triangle leaves few to be tested one by one."""
    code_set_id, ids = sets["dense"]
    with connect("reader") as conn:
        rows = conn.execute(
            "SELECT lo, hi FROM code_set_covering(%s, ST_GeomFromEWKB(%s)) WHERE NOT inside",
            (code_set_id, ewkb(REGIONS["dense"]["half"])),
        ).fetchall()
    assert 0 < among(ids, rows).sum() < 0.25 * len(ids)
