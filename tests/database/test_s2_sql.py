"""The S2 functions in SQL equal NumPy's, which equal the official library's: one statement per function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
import shapely
from numpy.typing import NDArray

from geofix.database.sqlfiles import sql_files
from geofix.spatial import s2

POINTS = 20_000
VERTEX_LAT = float(np.rad2deg(np.arctan(np.sqrt(0.5))))


def some_places(n: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Random positions, then poles, the 180th meridian, edges and corners of the cube."""
    rng = np.random.default_rng(seed)
    grid_lon, grid_lat = np.meshgrid(
        np.concatenate([np.arange(-180, 181, 45), [1e-9, 179.9999999999]]),
        np.concatenate([np.linspace(-90, 90, 19), [VERTEX_LAT, -VERTEX_LAT]]),
    )
    edge_lon = np.linspace(-45, 45, 91)
    edge_lat = np.rad2deg(np.arctan(np.cos(np.deg2rad(edge_lon))))
    lon = np.concatenate([rng.uniform(-180, 180, n), grid_lon.ravel(), edge_lon, edge_lon])
    lat = np.concatenate(
        [np.rad2deg(np.arcsin(rng.uniform(-1, 1, n))), grid_lat.ravel(), edge_lat, -edge_lat]
    )
    return lon, lat


def cells_of_all_levels(n: int) -> NDArray[np.int64]:
    lon, lat = some_places(n, 5)
    return np.unique(
        np.concatenate([s2.cell_at(lon[level::31], lat[level::31], level) for level in range(31)])
    )


@pytest.fixture
def conn(db: Any) -> Iterator[psycopg.Connection[Any]]:
    with db.connect() as connection:
        # As in a restore: nothing may lean on the search path.
        connection.execute("SELECT set_config('search_path', '', false)")
        yield connection


def over_cells(conn: psycopg.Connection[Any], expression: str, cells: NDArray[np.int64]) -> list[Any]:
    """The expression of `id` for each cell, in order."""
    query = f"SELECT {expression} FROM unnest(%s::bigint[]) WITH ORDINALITY AS u (id, n) ORDER BY n"
    return conn.execute(query, (cells.tolist(),)).fetchall()


def test_cells_and_parents_at_all_levels(conn: psycopg.Connection[Any]) -> None:
    lon, lat = some_places(POINTS, 1)
    rows = conn.execute(
        """
        SELECT level, array_agg(geofix.s2_cell_at(lon, lat, level) ORDER BY n),
               array_agg(geofix.s2_parent(geofix.s2_cell_at(lon, lat), level) ORDER BY n)
        FROM unnest(%s::float8[], %s::float8[]) WITH ORDINALITY AS p (lon, lat, n),
             generate_series(0, 30) AS level
        GROUP BY level ORDER BY level
        """,
        (lon.tolist(), lat.tolist()),
    ).fetchall()
    assert [row[0] for row in rows] == list(range(31))
    for level, ids, parents in rows:
        expected = s2.cell_at(lon, lat, level)
        assert np.array_equal(ids, expected), f"level {level}"
        assert np.array_equal(parents, expected), f"level {level}"


def test_level_range_token_and_children(conn: psycopg.Connection[Any]) -> None:
    cells = cells_of_all_levels(POINTS)
    rows = over_cells(
        conn,
        "geofix.s2_level(id), (geofix.s2_range(id)).lo, (geofix.s2_range(id)).hi, geofix.s2_range_min(id), "
        "geofix.s2_range_max(id), geofix.s2_token(id), geofix.s2_from_token(geofix.s2_token(id)), "
        "geofix.s2_from_token(upper(geofix.s2_token(id))), geofix.s2_is_valid(id), geofix.s2_checked(id)",
        cells,
    )
    level, lo, hi, low, high, token, back, upper, valid, checked = zip(*rows, strict=True)
    assert np.array_equal(level, s2.level(cells))
    expected_low, expected_high = s2.range_of(cells)
    assert np.array_equal(lo, expected_low) and np.array_equal(low, expected_low)
    assert np.array_equal(hi, expected_high) and np.array_equal(high, expected_high)
    assert list(token) == s2.token(cells).tolist()
    assert np.array_equal(back, cells) and np.array_equal(upper, cells) and np.array_equal(checked, cells)
    assert all(valid)
    inner = cells[s2.level(cells) < 30]
    kids = over_cells(conn, "ARRAY(SELECT geofix.s2_children(id))", inner)
    assert np.array_equal([row[0] for row in kids], s2.children(inner))


def test_validity_equals_numpy(conn: psycopg.Connection[Any]) -> None:
    rng = np.random.default_rng(2)
    numbers = rng.integers(-(2**63), 2**63 - 1, 2000) & (np.int64(-1) << rng.integers(0, 63, 2000))
    numbers = np.concatenate([numbers, [0, 1, 2, -(2**63), 2**63 - 1, -1]])
    found = [row[0] for row in over_cells(conn, "geofix.s2_is_valid(id)", numbers)]
    assert found == s2.is_valid(numbers).tolist() and 0 < sum(found) < len(found)


def test_neighbours(conn: psycopg.Connection[Any]) -> None:
    cells = cells_of_all_levels(2000)
    rows = over_cells(conn, "ARRAY(SELECT geofix.s2_neighbors(id))", cells)
    for found, expected in zip(rows, s2.neighbors(cells), strict=True):
        assert sorted(found[0]) == sorted(expected[expected != 0].tolist())


def test_centres(conn: psycopg.Connection[Any]) -> None:
    cells = cells_of_all_levels(POINTS)
    points = shapely.from_wkb(
        [bytes(row[0]) for row in over_cells(conn, "public.ST_AsEWKB(geofix.s2_center(id))", cells)]
    )
    assert set(shapely.get_srid(points).tolist()) == {4326}
    lon, lat = s2.center(cells)
    assert np.abs(shapely.get_y(points) - lat).max() < 1e-9
    turn = (shapely.get_x(points) - lon + 180) % 360 - 180
    assert np.abs(turn * np.cos(np.deg2rad(lat))).max() < 1e-9


def test_outlines(conn: psycopg.Connection[Any]) -> None:
    cells = cells_of_all_levels(300)
    cells = np.unique(np.concatenate([cells, s2.parent(cells[s2.level(cells) > 0], 0)]))
    rows = over_cells(conn, "public.ST_AsEWKB(geofix.s2_polygon(id))", cells)
    shapes = shapely.from_wkb([bytes(row[0]) for row in rows])
    expected = s2.polygon(cells)
    assert shapely.is_valid(shapes).all() and set(shapely.get_srid(shapes).tolist()) == {4326}
    assert np.abs(shapely.bounds(shapes) - shapely.bounds(expected)).max() < 1e-9
    assert np.allclose(shapely.area(shapes), shapely.area(expected), rtol=1e-6, atol=1e-20)
    coarse = s2.level(cells) < 20
    apart = shapely.area(shapely.symmetric_difference(shapes[coarse], expected[coarse]))
    assert (apart <= 1e-6 * shapely.area(expected[coarse])).all()
    faces = shapes[s2.level(cells) == 0]
    assert len(faces) == 6 and np.isclose(shapely.area(faces).sum(), 360 * 180)


def test_null_gives_null(conn: psycopg.Connection[Any]) -> None:
    row = conn.execute(
        """
        SELECT geofix.s2_cell_at(NULL, 1), geofix.s2_cell_at(1, NULL, 5), geofix.s2_cell_at(1, 1, NULL),
               geofix.s2_parent(NULL, 3), geofix.s2_parent(NULL, 99),
               geofix.s2_parent(geofix.s2_cell_at(1, 1), NULL), geofix.s2_level(NULL), geofix.s2_token(NULL),
               geofix.s2_from_token(NULL), geofix.s2_range(NULL), geofix.s2_range_min(NULL),
               geofix.s2_range_max(NULL), geofix.s2_center(NULL), geofix.s2_polygon(NULL),
               geofix.s2_is_valid(NULL), geofix.s2_checked(NULL),
               (SELECT count(*) FROM geofix.s2_neighbors(NULL)),
               (SELECT count(*) FROM geofix.s2_children(NULL))
        """
    ).fetchone()
    assert row is not None
    assert [value for value in row[:-2] if value not in (None, (None, None), "(,)")] == []
    assert row[-2:] == (0, 0)


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("geofix.s2_cell_at(180.5, 0)", "180.5"),
        ("geofix.s2_cell_at(0, -91)", "-91"),
        ("geofix.s2_cell_at('NaN', 0)", "NaN"),
        ("geofix.s2_cell_at(0, 'Infinity')", "Infinity"),
        ("geofix.s2_cell_at(0, 0, 31)", "level 31"),
        ("geofix.s2_level(0)", "not the id of an S2 cell: 0"),
        ("geofix.s2_level(-9223372036854775808)", "-9223372036854775808"),
        ("geofix.s2_token(2)", "not the id of an S2 cell: 2"),
        ("geofix.s2_center(2)", "not the id of an S2 cell: 2"),
        ("geofix.s2_polygon(2)", "not the id of an S2 cell: 2"),
        ("geofix.s2_range(2)", "not the id of an S2 cell: 2"),
        ("geofix.s2_neighbors(2)", "not the id of an S2 cell: 2"),
        ("geofix.s2_children(1)", "a leaf has no children: 1"),
        ("geofix.s2_parent(geofix.s2_cell_at(0, 0, 10), 11)", "no parent at level 11"),
        ("geofix.s2_parent(geofix.s2_cell_at(0, 0, 10), 40)", "no parent at level 40"),
        ("geofix.s2_parent(geofix.s2_cell_at(0, 0, 10), -1)", "no parent at level -1"),
        ("geofix.s2_from_token('47e4g')", '"47e4g"'),
        ("geofix.s2_from_token('')", '""'),
        ("geofix.s2_from_token('47e66')", '"47e66"'),
    ],
)
def test_bad_arguments_raise_with_their_value(
    conn: psycopg.Connection[Any], expression: str, named: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
        conn.execute(f"SELECT {expression}".encode())
    assert named in str(caught.value)


def test_file_can_be_run_again_and_functions_are_what_indexes_need(conn: psycopg.Connection[Any]) -> None:
    [file] = [file for file in sql_files() if file.name == "010_s2.sql"]
    conn.execute(file.text.encode())
    conn.execute(file.text.encode())
    rows = conn.execute(
        """
        SELECT p.proname, p.provolatile, p.proparallel FROM pg_proc p
        WHERE p.pronamespace = 'geofix'::regnamespace AND position(p.proname || '(' IN %s) > 0
        """,
        (file.text,),
    ).fetchall()
    assert len(rows) >= 17
    assert {row[1:] for row in rows} == {("i", "s")}


def test_a_descendant_query_uses_the_index(conn: psycopg.Connection[Any]) -> None:
    """The functions of one line are inlined, so a cell's descendants are an index range scan."""
    conn.execute("CREATE TEMP TABLE spot (s2_id bigint PRIMARY KEY)")
    conn.execute(
        "INSERT INTO spot SELECT geofix.s2_cell_at(x / 100.0, y / 100.0) "
        "FROM generate_series(0, 100) AS x, generate_series(0, 100) AS y"
    )
    conn.execute("ANALYZE pg_temp.spot")
    plan = conn.execute(
        """
        EXPLAIN (COSTS OFF) SELECT count(*) FROM pg_temp.spot
        WHERE s2_id BETWEEN geofix.s2_range_min(geofix.s2_from_token('0ffc'))
                        AND geofix.s2_range_max(geofix.s2_from_token('0ffc'))
        """
    ).fetchall()
    text = "\n".join(row[0] for row in plan)
    assert "Index" in text and "s2_range_min" not in text and "s2_from_token" not in text
