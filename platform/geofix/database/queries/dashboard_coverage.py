"""What the dashboard shows of coverage: photos, aerial tiles and kinds of code per cell of any level.

Everything is counted by the server and bounded by a limit: from the cells that `geofix cells refresh` counted while no
photo and no tile has changed since, else from photos and tiles. Above the limit, a coarser level that is complete comes with the
fullest cells of the level that was asked for, so that a map leaves nothing out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geofix.database.engine import Connection
from geofix.database.queries import cells
from geofix.database.queries.dashboard import bit_of, frame, with_cell_shapes
from geofix.spatial import s2
from geofix.spatial.covering import cover

_BITS = [1 << (2 * (30 - at) + 1) for at in range(30, -1, -1)]

# Compiling these statements costs more than it saves, up to a million photos and beyond; for this transaction only.
NO_JIT = "SET LOCAL jit = off"
# From counted cells there is so little to read that to set processes to work, and to merge what each found, takes longer.
ALONE = "SET LOCAL max_parallel_workers_per_gather = 0"
# The parent of an id as bits, as `s2_parent` computes it once it has checked the id: stored ids were checked.
_PARENT = "({0}.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id"
# What there is, once, then one count by cell: cheaper than a count of each kind and two joins of the counts.
_ROWS = f"""
  SELECT {_PARENT.format("p")}, 1 AS photos, p.captured_at AS first_at, p.captured_at AS last_at, NULL::integer AS tiles,
         NULL::date AS flown_at, NULL::boolean AS has_prototype, NULL::boolean AS has_aerial
  FROM {{scope}} geofix.photo_record p {{on_p}}
  UNION ALL
  SELECT {_PARENT.format("t")}, NULL, NULL, NULL, 1, t.captured_at, NULL, NULL
  FROM {{scope}} geofix.aerial_tile t {{on_t}} WHERE t.level >= %(level)s"""
# Photos and tiles as they were counted by cell of a level, while that fits: a row for ten of them, or for hundreds.
_GRID = f"""
  SELECT {_PARENT.format("g")}, g.photos, g.first_captured_at AS first_at, g.last_captured_at AS last_at,
         g.aerial_tiles AS tiles, g.last_aerial AS flown_at, NULL::boolean AS has_prototype, NULL::boolean AS has_aerial
  FROM {{scope}} geofix.grid_cell g {{on_g}} WHERE g.level = %(grid)s"""
_SEEN = f"""
one AS ({{held}}
  UNION ALL
  SELECT {_PARENT.format("c")}, NULL, NULL, NULL, NULL, NULL, c.has_prototype, c.has_aerial
  FROM geofix.code_set s CROSS JOIN {{scope}} geofix.cell_code c {{on_c}}
  WHERE c.code_set_id = s.code_set_id AND s.state IN ('ready', 'stale') AND s.level >= %(level)s
), cell AS (
  SELECT s2_id, coalesce(sum(photos), 0)::integer AS photos, coalesce(sum(tiles), 0)::integer AS aerial_tiles,
         min(first_at) AS first_captured_at, max(last_at) AS last_captured_at, max(flown_at) AS last_aerial,
         coalesce(bool_or(has_prototype), false) AS has_prototype, coalesce(bool_or(has_aerial), false) AS has_aerial
  FROM one GROUP BY 1
)"""
# At how many levels of the 31 a cell begins a parent, in the order of ids: two ids have the same parent at level L when
# no bit from 2 (30 - L) + 1 upwards differs. Above the limit, the finest level with few enough parents is counted too.
_FULLEST = """, total AS (
  SELECT count(*) AS cells, sum(photos) AS all_photos, sum(aerial_tiles) AS all_tiles,
         count(*) FILTER (WHERE photos > 0) AS photo_cells, count(*) FILTER (WHERE aerial_tiles > 0) AS tile_cells,
         count(*) FILTER (WHERE has_prototype OR has_aerial) AS code_cells
  FROM inside
), step AS MATERIALIZED (
  SELECT CASE WHEN differs < 0 THEN 31 ELSE width_bucket(differs, %(bits)s::bigint[]) END AS steps, count(*) AS cells
  FROM (SELECT s2_id # lag(s2_id) OVER (ORDER BY s2_id) AS differs FROM inside) AS pair
  WHERE differs IS NOT NULL AND (SELECT cells FROM total) > %(limit)s GROUP BY 1
), coarser AS (
  SELECT max(at) AS level, 1::bigint << (2 * (30 - max(at))) AS bit FROM generate_series(0, %(level)s - 1) AS at
  WHERE 1 + (SELECT coalesce(sum(step.cells), 0) FROM step WHERE step.steps > 30 - at) <= %(limit)s
), fullest AS (
  SELECT * FROM inside ORDER BY photos DESC, aerial_tiles DESC, s2_id LIMIT %(limit)s
), shown AS (
  SELECT %(level)s::integer AS level, f.* FROM fullest f
  UNION ALL
  SELECT (SELECT level FROM coarser), (s2_id & -(SELECT bit FROM coarser)) | (SELECT bit FROM coarser), sum(photos),
         sum(aerial_tiles), min(first_captured_at), max(last_captured_at), max(last_aerial), bool_or(has_prototype),
         bool_or(has_aerial)
  FROM inside WHERE (SELECT cells FROM total) > %(limit)s GROUP BY 2
)
SELECT geofix.s2_token(s2_id) AS cell, level, photos, aerial_tiles, first_captured_at, last_captured_at, last_aerial,
       has_prototype, has_aerial, total.*, s2_id
FROM shown CROSS JOIN total ORDER BY level DESC, photos DESC, aerial_tiles DESC, s2_id
"""
_HERE = ", inside AS MATERIALIZED (\n  SELECT * FROM cell\n)"
# A cell is inside a region when its centre is.
_IN_REGION = """, inside AS MATERIALIZED (
  SELECT cell.* FROM cell CROSS JOIN LATERAL (SELECT geofix.s2_center(cell.s2_id) AS at OFFSET 0) AS centre
  WHERE EXISTS (
    SELECT FROM geofix.region_part g JOIN geofix.region r USING (region_id)
    WHERE r.level = %(region_level)s AND r.code = %(region_code)s
      AND g.geom OPERATOR(public.&&) centre.at AND public.ST_Covers(g.geom, centre.at))
)"""


def _everywhere(held: str) -> str:
    return _SEEN.replace("{held}", held).format(scope="", on_p="", on_t="", on_c="", on_g="")


def _scoped(held: str) -> str:
    """Ranges of whole cells of the level decide what is read."""
    ranges = "scope AS (\n  SELECT * FROM unnest(%(lo)s::bigint[], %(hi)s::bigint[]) AS r (lo, hi)\n), "
    on = {f"on_{x}": f"ON {x}.s2_id BETWEEN scope.lo AND scope.hi" for x in "ptcg"}
    return ranges + _SEEN.replace("{held}", held).format(scope="scope JOIN", **on)


COVERAGE = f"\nWITH {_everywhere(_ROWS)}{_HERE}{_FULLEST}"
CELL_COVERAGE = f"\nWITH {_scoped(_ROWS)}{_HERE}{_FULLEST}"
REGION_COVERAGE = f"\nWITH {_scoped(_ROWS)}{_IN_REGION}{_FULLEST}"
GRID_COVERAGE = f"\nWITH {_everywhere(_GRID)}{_HERE}{_FULLEST}"
GRID_CELL_COVERAGE = f"\nWITH {_scoped(_GRID)}{_HERE}{_FULLEST}"
GRID_REGION_COVERAGE = f"\nWITH {_scoped(_GRID)}{_IN_REGION}{_FULLEST}"
REGION_SHAPE = "SELECT public.ST_AsBinary(geom) FROM geofix.region WHERE level = %(region_level)s AND code = %(region_code)s"
# For the map of the first page: an index holds all it reads, which is half the time of `COVERAGE`.
_PHOTO_CELLS = f"""
WITH cell AS (
  SELECT {_PARENT.format("p")}, {{photos}} AS photos FROM {{held}} GROUP BY 1
)
SELECT geofix.s2_token(s2_id) AS code, photos, count(*) OVER () AS cells, (sum(photos) OVER ())::bigint AS all_photos, s2_id
FROM cell ORDER BY photos DESC, s2_id LIMIT %(limit)s
"""
PHOTO_CELLS = _PHOTO_CELLS.format(photos="count(*)", held="geofix.photo_record p")
GRID_PHOTO_CELLS = _PHOTO_CELLS.format(
    photos="sum(p.photos)", held="geofix.grid_cell p WHERE p.level = %(grid)s AND p.photos > 0"
)


def coverage(
    conn: Connection,
    level: int,
    region_level: str | None,
    region_code: str | None,
    cell: str | None = None,
    *,
    limit: int = 5000,
) -> pd.DataFrame:
    """Photos, aerial tiles and kinds of code per cell, fullest first; `cells` and `all_*` count beyond the limit.

    Where there are more cells than the limit, those of the finest coarser level with few enough follow, for a map
    that shows all of them; the column `level` tells which is which. The coarsest cells alone have a shape.

    Args:
        conn: Open connection.
        level: Of the cells.
        region_level: Only cells whose centre lies in the region of this level ...
        region_code: ... and code.
        cell: Only cells inside this one, by its token.
        limit: Cells at most, of each level.

    Raises:
        BadInputError: The text is not the token of a cell.
    """
    values: dict[str, Any] = {"level": level, "bit": bit_of(level), "bits": _BITS, "limit": limit}
    values |= {"region_level": region_level, "region_code": region_code}
    conn.execute(NO_JIT)
    values["grid"] = cells.fitting_level(conn, level)
    counted = values["grid"] is not None
    if counted:
        conn.execute(ALONE)
    if region_code is None and cell is None:
        return _drawn(frame(conn, GRID_COVERAGE if counted else COVERAGE, values))
    ranges = np.array([[np.iinfo(np.int64).min, np.iinfo(np.int64).max]])
    if region_code is not None:
        row = conn.execute(REGION_SHAPE, values).fetchone()
        shape = shapely.Polygon() if row is None else shapely.from_wkb(bytes(row[0]))
        ranges = _whole(cover(shape, max_level=level), level)
    if cell is not None:
        ranges = _clipped(ranges, s2.from_token(np.array([cell])))
    values |= {"lo": ranges[:, 0].tolist(), "hi": ranges[:, 1].tolist()}
    if region_code is None:
        statement = GRID_CELL_COVERAGE if counted else CELL_COVERAGE
    else:
        statement = GRID_REGION_COVERAGE if counted else REGION_COVERAGE
    return _drawn(frame(conn, statement, values))


def _drawn(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the shapes of the coarsest level, which a map shows; the others are for a table."""
    if rows.empty:
        return with_cell_shapes(rows)
    shapes = with_cell_shapes(rows[rows["level"] == rows["level"].iloc[-1]])["shape"]
    return rows.drop(columns="s2_id").assign(shape=shapes.reindex(rows.index, fill_value=None))


def _whole(ranges: NDArray[np.int64], level: int) -> NDArray[np.int64]:
    """Ranges of leaf ids (n, 2), widened to whole cells of a level and disjoint."""
    if not len(ranges):
        return ranges
    low, high = s2.range_of(s2.parent(ranges[:, 0], level))[0], s2.range_of(s2.parent(ranges[:, 1], level))[1]
    starts = np.concatenate([[True], low[1:] > high[:-1]])
    return np.stack([low[starts], high[np.concatenate([starts[1:], [True]])]], axis=1)


def _clipped(ranges: NDArray[np.int64], cell: NDArray[np.int64]) -> NDArray[np.int64]:
    """What of ranges of leaf ids lies in a cell."""
    low, high = s2.range_of(cell)
    cut = np.stack([np.maximum(ranges[:, 0], low), np.minimum(ranges[:, 1], high)], axis=1)
    return cut[cut[:, 0] <= cut[:, 1]]


def photo_cells(conn: Connection, level: int, *, limit: int = 5000) -> pd.DataFrame:
    """Photos per cell, fullest first, columns code, photos, shape; `cells` and `all_photos` count beyond the limit."""
    conn.execute(NO_JIT)
    grid = cells.fitting_level(conn, level)
    statement = PHOTO_CELLS if grid is None else GRID_PHOTO_CELLS
    return with_cell_shapes(frame(conn, statement, {"bit": bit_of(level), "limit": limit, "grid": grid}))
