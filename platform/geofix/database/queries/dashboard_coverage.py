"""What the dashboard shows of coverage: photos, aerial tiles and kinds of code per cell of any level.

Everything is counted by the server and bounded by a limit. Above it, a coarser level that is complete comes with the
fullest cells of the level that was asked for, so that a map leaves nothing out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geofix.database.engine import Connection
from geofix.database.queries.dashboard import bit_of, frame, with_cell_shapes
from geofix.spatial import s2
from geofix.spatial.covering import cover

_BITS = [1 << (2 * (30 - at) + 1) for at in range(30, -1, -1)]

# Compiling these statements costs more than it saves, up to a million photos and beyond; for this transaction only.
NO_JIT = "SET LOCAL jit = off"
# The parent of an id as bits, as `s2_parent` computes it once it has checked the id: stored ids were checked.
_PARENT = "({0}.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id"
# Everything once, then one count by cell: cheaper than a count of each kind and two joins of the counts.
_SEEN = f"""
one AS (
  SELECT {_PARENT.format("p")}, true AS photo, p.captured_at, NULL::boolean AS tile, NULL::date AS flown_at,
         NULL::boolean AS has_prototype, NULL::boolean AS has_aerial
  FROM {{scope}} geofix.photo_record p {{on_p}}
  UNION ALL
  SELECT {_PARENT.format("t")}, NULL, NULL, true, t.captured_at, NULL, NULL
  FROM {{scope}} geofix.aerial_tile t {{on_t}} WHERE t.level >= %(level)s
  UNION ALL
  SELECT {_PARENT.format("c")}, NULL, NULL, NULL, NULL, c.has_prototype, c.has_aerial
  FROM geofix.code_set s CROSS JOIN {{scope}} geofix.cell_code c {{on_c}}
  WHERE c.code_set_id = s.code_set_id AND s.state IN ('ready', 'stale') AND s.level >= %(level)s
), cell AS (
  SELECT s2_id, count(photo) AS photos, count(tile) AS aerial_tiles, min(captured_at) AS first_captured_at,
         max(captured_at) AS last_captured_at, max(flown_at) AS last_aerial,
         coalesce(bool_or(has_prototype), false) AS has_prototype, coalesce(bool_or(has_aerial), false) AS has_aerial
  FROM one GROUP BY 1
)"""
# At how many levels of the 31 a cell begins a parent, in the order of ids: two ids have the same parent at level L when
# no bit from 2 (30 - L) + 1 upwards differs. Above the limit, the finest level with few enough parents is counted too.
_FULLEST = """, total AS (
  SELECT count(*) AS cells, sum(photos)::bigint AS all_photos, sum(aerial_tiles)::bigint AS all_tiles,
         count(*) FILTER (WHERE photos > 0) AS photo_cells, count(*) FILTER (WHERE aerial_tiles > 0) AS tile_cells,
         count(*) FILTER (WHERE has_prototype OR has_aerial) AS code_cells
  FROM inside
), step AS MATERIALIZED (
  SELECT CASE WHEN differs < 0 THEN 31 ELSE width_bucket(differs, %(bits)s::bigint[]) END AS steps, count(*) AS cells
  FROM (SELECT s2_id # lag(s2_id) OVER (ORDER BY s2_id) AS differs FROM inside) AS pair
  WHERE differs IS NOT NULL AND (SELECT cells FROM total) > %(limit)s GROUP BY 1
), coarser AS (
  SELECT max(at) AS level, 1::bigint << (2 * (30 - max(at))) AS bit FROM generate_series(0, %(level)s - 1) AS at
  WHERE 1 + (SELECT sum(step.cells) FROM step WHERE step.steps > 30 - at) <= %(limit)s
), fullest AS (
  SELECT * FROM inside ORDER BY photos DESC, aerial_tiles DESC, s2_id LIMIT %(limit)s
), shown AS (
  SELECT %(level)s::integer AS level, f.* FROM fullest f
  UNION ALL
  SELECT o.level, (i.s2_id & -o.bit) | o.bit, sum(i.photos)::bigint, sum(i.aerial_tiles)::bigint, min(i.first_captured_at),
         max(i.last_captured_at), max(i.last_aerial), bool_or(i.has_prototype), bool_or(i.has_aerial)
  FROM inside i CROSS JOIN coarser o WHERE (SELECT cells FROM total) > %(limit)s GROUP BY 1, 2
)
SELECT geofix.s2_token(s2_id) AS cell, level, photos, aerial_tiles, first_captured_at, last_captured_at, last_aerial,
       has_prototype, has_aerial, total.*, s2_id
FROM shown CROSS JOIN total ORDER BY level DESC, photos DESC, aerial_tiles DESC, s2_id
"""
COVERAGE = f"""
WITH {_SEEN.format(scope="", on_p="", on_t="", on_c="")}, inside AS MATERIALIZED (
  SELECT * FROM cell
){_FULLEST}"""
# Ranges of whole cells of the level decide what is read.
_SCOPED = """scope AS (
  SELECT * FROM unnest(%(lo)s::bigint[], %(hi)s::bigint[]) AS r (lo, hi)
), """ + _SEEN.format(
    scope="scope JOIN", **{f"on_{x}": f"ON {x}.s2_id BETWEEN scope.lo AND scope.hi" for x in "ptc"}
)
CELL_COVERAGE = f"""
WITH {_SCOPED}, inside AS MATERIALIZED (
  SELECT * FROM cell
){_FULLEST}"""
# A cell is inside a region when its centre is.
REGION_COVERAGE = f"""
WITH {_SCOPED}, inside AS MATERIALIZED (
  SELECT cell.* FROM cell CROSS JOIN LATERAL (SELECT geofix.s2_center(cell.s2_id) AS at OFFSET 0) AS centre
  WHERE EXISTS (
    SELECT FROM geofix.region_part g JOIN geofix.region r USING (region_id)
    WHERE r.level = %(region_level)s AND r.code = %(region_code)s
      AND g.geom OPERATOR(public.&&) centre.at AND public.ST_Covers(g.geom, centre.at))
){_FULLEST}"""
REGION_SHAPE = "SELECT public.ST_AsBinary(geom) FROM geofix.region WHERE level = %(region_level)s AND code = %(region_code)s"
# For the map of the first page: an index holds all it reads, which is half the time of `COVERAGE`.
PHOTO_CELLS = f"""
WITH cell AS (
  SELECT {_PARENT.format("p")}, count(*) AS photos FROM geofix.photo_record p GROUP BY 1
)
SELECT geofix.s2_token(s2_id) AS code, photos, count(*) OVER () AS cells, (sum(photos) OVER ())::bigint AS all_photos, s2_id
FROM cell ORDER BY photos DESC, s2_id LIMIT %(limit)s
"""


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
    that shows all of them; the column `level` tells which is which.

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
    if region_code is None and cell is None:
        return with_cell_shapes(frame(conn, COVERAGE, values))
    ranges = np.array([[np.iinfo(np.int64).min, np.iinfo(np.int64).max]])
    if region_code is not None:
        row = conn.execute(REGION_SHAPE, values).fetchone()
        shape = shapely.Polygon() if row is None else shapely.from_wkb(bytes(row[0]))
        ranges = _whole(cover(shape, max_level=level), level)
    if cell is not None:
        ranges = _clipped(ranges, s2.from_token(np.array([cell])))
    values |= {"lo": ranges[:, 0].tolist(), "hi": ranges[:, 1].tolist()}
    return with_cell_shapes(frame(conn, CELL_COVERAGE if region_code is None else REGION_COVERAGE, values))


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
    return with_cell_shapes(frame(conn, PHOTO_CELLS, {"bit": bit_of(level), "limit": limit}))
