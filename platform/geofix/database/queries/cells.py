"""The grid and single regions: cells counted per level, a region looked up, the region of an answer."""

from __future__ import annotations

from typing import Any

from geofix.database.engine import Connection
from geofix.database.queries.change_log import ChangeLog

# Written before the cells are counted: a change that is committed in between is in the cells, and they are taken for
# ones that do not fit.
STAMP = """
INSERT INTO geofix.grid_level (level, changes, tile_levels)
SELECT %(level)s, (SELECT count(*) FROM geofix.cell_change), ARRAY(SELECT DISTINCT level FROM geofix.aerial_tile ORDER BY 1)
ON CONFLICT (level) DO UPDATE SET
    changes = excluded.changes, tile_levels = excluded.tile_levels, written_at = now()
"""
REFRESH = """
INSERT INTO geofix.grid_cell (level, s2_id, photos, first_captured_at, last_captured_at, aerial_tiles, last_aerial)
SELECT %(level)s, coalesce(p.s2_id, t.s2_id), coalesce(p.photos, 0), p.first_captured_at, p.last_captured_at,
       coalesce(t.aerial_tiles, 0), t.last_aerial
FROM (SELECT geofix.s2_parent(s2_id, %(level)s) AS s2_id, count(*) AS photos, min(captured_at) AS first_captured_at,
             max(captured_at) AS last_captured_at
      FROM geofix.photo_record GROUP BY 1) AS p
FULL JOIN (SELECT geofix.s2_parent(s2_id, %(level)s) AS s2_id, count(*) AS aerial_tiles, max(captured_at) AS last_aerial
           FROM geofix.aerial_tile WHERE level >= %(level)s GROUP BY 1) AS t USING (s2_id)
ORDER BY 2
"""
CLEAR = "DELETE FROM geofix.grid_cell WHERE level = %(level)s"
FITTING = "SELECT geofix.fitting_level(%(level)s)"
LOG_ROWS = "SELECT count(*), pg_total_relation_size('geofix.cell_change') FROM geofix.cell_change"
# Whoever is writing into the log, or has counted it for a level, is to end first; else it is left for another time.
HOLD_LOG = "LOCK TABLE geofix.cell_change, geofix.grid_level IN SHARE ROW EXCLUSIVE MODE NOWAIT"
FOLD = """
UPDATE geofix.grid_level g SET changes = CASE WHEN EXISTS (
    SELECT FROM geofix.fitting_grid f WHERE f.level = g.level) THEN 0 ELSE -1 END
"""
EMPTY_LOG = "DELETE FROM geofix.cell_change"
log = ChangeLog(LOG_ROWS, HOLD_LOG, FOLD, EMPTY_LOG)
SUMMARY = """
SELECT count(*), coalesce(sum(photos), 0)::bigint, coalesce(max(photos), 0),
       coalesce(percentile_cont(0.5) WITHIN GROUP (ORDER BY photos) FILTER (WHERE photos > 0), 0),
       count(*) FILTER (WHERE photos > 0), count(*) FILTER (WHERE aerial_tiles > 0)
FROM geofix.grid_cell WHERE level = %(level)s
"""
FIND_REGION = """
SELECT public.ST_AsEWKB(geom) FROM geofix.region
WHERE (%(level)s::text IS NULL OR level = %(level)s) AND (code = %(code)s OR lower(name) = lower(%(code)s))
ORDER BY code = %(code)s DESC, area_km2 DESC, region_id LIMIT 1
"""
REGION_AT = """
SELECT u.n, (SELECT r.code FROM geofix.region_part p JOIN geofix.region r USING (region_id)
             WHERE p.level = 'country'
               AND public.ST_Covers(p.geom, public.ST_SetSRID(public.ST_MakePoint(u.lon, u.lat), 4326))
             ORDER BY r.area_km2, r.region_id LIMIT 1)
FROM unnest(%(lon)s::float8[], %(lat)s::float8[]) WITH ORDINALITY AS u(lon, lat, n) ORDER BY u.n
"""


def refresh_cells(conn: Connection, level: int) -> dict[str, Any]:
    """Count photos and aerial tiles per cell of a level anew; the caller commits.

    The dashboard reads these cells while no photo and no tile has changed since.
    """
    conn.execute(STAMP, {"level": level})
    conn.execute(CLEAR, {"level": level})
    conn.execute(REFRESH, {"level": level})
    row = conn.execute(SUMMARY, {"level": level}).fetchone()
    assert row is not None
    names = ("cells", "photos", "max_photos", "median_photos", "with_photos", "with_aerial")
    return {"level": level, **dict(zip(names, row, strict=True))}


def fitting_level(conn: Connection, level: int) -> int | None:
    """The coarsest level whose cells were counted, still fit, and add up to those of a level; None: none does."""
    row = conn.execute(FITTING, {"level": level}).fetchone()
    return None if row is None or row[0] is None else int(row[0])


def find_region(conn: Connection, level: str | None, code: str) -> bytes | None:
    """EWKB of a loaded region by code, else by name, the largest where several match; None when there is none."""
    row = conn.execute(FIND_REGION, {"level": level, "code": code}).fetchone()
    return None if row is None else bytes(row[0])


def countries_at(conn: Connection, lon: list[float], lat: list[float]) -> list[str | None]:
    """Country code of each position, None outside every country."""
    return [row[1] for row in conn.execute(REGION_AT, {"lon": lon, "lat": lat})]
