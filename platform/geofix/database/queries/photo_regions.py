"""The region of every photo: the one it lies in, else the nearest; set-based, the cheap way round by number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geofix.database.engine import Connection

MAX_M = 25_000.0
"""Metres beyond which a photo outside every region gets none."""

PHOTOS = "photo_region"
"""Where regions of photos are."""

LEVELS = "SELECT DISTINCT level FROM region ORDER BY level"

ANALYZE = "ANALYZE photo_record, photo_region"

CREATE_TODO = """
CREATE TEMP TABLE IF NOT EXISTS region_todo (photo_id int8 NOT NULL, geom geometry NOT NULL) ON COMMIT DELETE ROWS;
TRUNCATE region_todo
"""

FORGET_LEVEL = """
DELETE FROM photo_region r USING photo_record p
WHERE r.photo_id = p.photo_id AND r.level = %(level)s
  AND (%(dataset_id)s::int8 IS NULL OR p.dataset_id = %(dataset_id)s)
"""

TODO_LACKING = """
INSERT INTO region_todo
SELECT p.photo_id, p.geom FROM photo_record p
WHERE (%(dataset_id)s::int8 IS NULL OR p.dataset_id = %(dataset_id)s)
  AND NOT EXISTS (SELECT FROM photo_region a WHERE a.photo_id = p.photo_id AND a.level = %(level)s)
"""

# Photos of the changed regions as they were, and photos in or near them as they are: boxes as in ASSIGN_NEAREST, for a
# whole part instead of a point.
TODO_CHANGED = """
INSERT INTO region_todo
SELECT p.photo_id, p.geom FROM photo_record p
WHERE p.photo_id IN (
    SELECT a.photo_id FROM photo_region a WHERE a.region_id = ANY (%(ids)s) AND a.level = %(level)s
    UNION
    SELECT near.photo_id
    FROM region_part part
    CROSS JOIN LATERAL (
        SELECT %(max_m)s::float8 / 110574 AS dlat,
               least(180, %(max_m)s::float8 / (110574 * greatest(1e-6, cos(radians(least(90,
                   greatest(abs(ST_YMin(part.geom)), abs(ST_YMax(part.geom))) + 2 * %(max_m)s::float8 / 110574)))))) AS dlon
    ) size
    CROSS JOIN LATERAL (VALUES (0), (-360), (360)) AS turn (lon)
    CROSS JOIN LATERAL (
        SELECT n.photo_id FROM photo_record n
        WHERE n.geom && ST_Expand(ST_Translate(ST_Envelope(part.geom), turn.lon, 0), size.dlon, size.dlat)
        OFFSET 0
    ) near
    WHERE part.region_id = ANY (%(ids)s))
"""

FORGET_TODO = """
DELETE FROM photo_region r USING region_todo t WHERE r.photo_id = t.photo_id AND r.level = %(level)s
"""

# Admin-1 is taken from the nearest region of the photo's own country alone; inside one, the country does not count.
FORGET_NEAREST = """
DELETE FROM photo_region r USING region_todo t
WHERE r.photo_id = t.photo_id AND r.level = %(level)s AND r.distance_m > 0
"""
KEEP_LACKING = """
DELETE FROM region_todo t USING photo_region r WHERE r.photo_id = t.photo_id AND r.level = %(level)s
"""

ANALYZE_TODO = "ANALYZE region_todo (photo_id)"

# With a fifth of all photos to do, looking up photos part by part is cheaper.
MOST_PHOTOS = """
SELECT count(*) >= 1000 AND count(*) >= 0.2 * (SELECT greatest(reltuples, 0) FROM pg_class WHERE oid = 'photo_record'::regclass)
FROM region_todo
"""

DROP_FOUND = "DROP TABLE IF EXISTS pg_temp.region_found"

# Point by point: an index look-up and a polygon of its own per photo, about 21 us.
FIND_BY_PHOTO = """
CREATE TEMP TABLE region_found ON COMMIT DROP AS
SELECT t.photo_id, inside.region_id
FROM region_todo t
CROSS JOIN LATERAL (
    SELECT part.region_id FROM region_part part
    WHERE part.level = %(level)s AND part.geom && t.geom AND ST_Intersects(part.geom, t.geom)
    OFFSET 0
) inside
"""

# Part by part: one index look-up per polygon, which stays prepared for all photos in its box, about 4 us per photo;
# and no temporary table is read, so that workers may share it. OFFSET 0 keeps the planner from turning it round.
FIND_BY_PART = """
CREATE TEMP TABLE region_found ON COMMIT DROP AS
SELECT inside.photo_id, part.region_id
FROM region_part part
CROSS JOIN LATERAL (
    SELECT p.photo_id FROM photo_record p
    WHERE p.geom && part.geom AND ST_Intersects(part.geom, p.geom)
      AND (%(dataset_id)s::int8 IS NULL OR p.dataset_id = %(dataset_id)s)
    OFFSET 0
) inside
WHERE part.level = %(level)s
"""

# Places that are no photos are in region_todo alone: an index on it for as long as it is looked into part by part.
INDEX_PLACES = "CREATE INDEX region_todo_geom_idx ON region_todo USING gist (geom)"
FIND_PLACES_BY_PART = """
CREATE TEMP TABLE region_found ON COMMIT DROP AS
SELECT inside.photo_id, part.region_id
FROM region_part part
CROSS JOIN LATERAL (
    SELECT t.photo_id FROM region_todo t WHERE t.geom && part.geom AND ST_Intersects(part.geom, t.geom)
    OFFSET 0
) inside
WHERE part.level = %(level)s
"""
FORGET_INDEX = "DROP INDEX pg_temp.region_todo_geom_idx"

# A part costs as much as a place does.
MOST_PLACES = """
SELECT (SELECT count(*) FROM region_todo) > (SELECT count(*) FROM region_part WHERE level = %(level)s)
"""

ANALYZE_FOUND = "ANALYZE region_found (photo_id)"

# Where regions overlap (disputed areas, enclaves) the smallest one counts; of equals, the lowest code. `regions` is the
# table of photos, or a temporary one like it.
ASSIGN_INSIDE = """
WITH ranked AS MATERIALIZED (
    SELECT region_id, row_number() OVER (ORDER BY area_km2, code) AS place FROM region WHERE level = %(level)s
)
INSERT INTO {regions} (photo_id, level, region_id, distance_m)
SELECT DISTINCT ON (t.photo_id) t.photo_id, %(level)s, f.region_id, 0
FROM region_found f
JOIN region_todo t USING (photo_id)
JOIN ranked r USING (region_id)
ORDER BY t.photo_id, r.place
ON CONFLICT DO NOTHING
"""

# The box is a superset of the circle of max_m: one degree of latitude is at least 110,574 m on WGS 84, one
# of longitude at least 111,319 m times the cosine of the latitude furthest from the equator; near a pole it
# spans all longitudes, and it is repeated one turn to either side of the 180th meridian. Distances are
# geodesic on the WGS 84 spheroid. Edges become geodesics there: one of d degrees bulges by up to R d^2 / 8,
# hence the cut at 0.02 degrees: 0.1 m. Of equal distances, to the millimetre, the lowest code counts.
# A geodesic distance to a polygon costs 70 us, so it is measured only to parts that can be the nearest, and to the
# stretch of them that can be. `rough_m` is the distance in a plane that is true at the photo (longitudes times its
# cosine); within max_m it is off by less than the share `off`: 0.7 % because the earth is no sphere of 6,371 km,
# and tan(latitude) * max_m / R because the cosine changes on the way. Above 80 degrees and beside the 180th
# meridian the plane is not used: all parts of the box are measured whole.
# A photo never takes an admin-1 region of another country than its own, and those of others are not in the way of
# its own: near a border whose far side has no admin-1 loaded, everything within 25 km would else count to the near
# side. The country of an admin-1 region is that of a point in it, chosen as for photos. Conditions in an OR keep
# their sets in hash tables, made once for all photos.
ASSIGN_NEAREST = """
WITH lacking AS MATERIALIZED (
    SELECT t.photo_id, t.geom, own.region_id AS country_id, dlat, dlon, squeeze, (1 + off) / (1 - off) AS slack
    FROM region_todo t
    LEFT JOIN {regions} own ON own.photo_id = t.photo_id AND own.level = 'country' AND %(level)s = 'admin1'
    CROSS JOIN LATERAL (
        SELECT ST_X(t.geom) AS lon, ST_Y(t.geom) AS lat, %(max_m)s::float8 / 110574 AS dlat
    ) at
    CROSS JOIN LATERAL (
        SELECT least(90, abs(lat) + dlat) AS far_lat, cos(radians(lat)) AS squeeze
    ) far
    CROSS JOIN LATERAL (
        SELECT least(180, %(max_m)s::float8 / (110574 * greatest(1e-6, cos(radians(far_lat))))) AS dlon,
               0.007 + tan(radians(least(far_lat, 80))) * %(max_m)s::float8 / 6371000 AS part_off
    ) size
    CROSS JOIN LATERAL (
        SELECT CASE WHEN far_lat < 80 AND abs(lon) + dlon < 180 AND part_off < 0.2 THEN part_off END AS off
    ) error
    WHERE NOT EXISTS (SELECT FROM region_found f WHERE f.photo_id = t.photo_id)
), admin1_home AS MATERIALIZED (
    SELECT DISTINCT ON (r.region_id) r.region_id, part.region_id AS country_id
    FROM region r
    JOIN region_part part ON part.level = 'country' AND ST_Intersects(part.geom, ST_PointOnSurface(r.geom))
    JOIN region country ON country.region_id = part.region_id
    WHERE r.level = 'admin1' AND %(level)s = 'admin1'
    ORDER BY r.region_id, country.area_km2, country.code
)
INSERT INTO {regions} (photo_id, level, region_id, distance_m)
SELECT p.photo_id, %(level)s, near.region_id, near.distance_m
FROM lacking p
CROSS JOIN LATERAL (
    SELECT candidate.region_id, measured.distance_m
    FROM (
        SELECT part.region_id, part.geom, part.rough_m, min(part.rough_m) OVER () AS best_m
        FROM (
            SELECT part.region_id, part.geom,
                   111194.93 * ST_Distance(ST_Scale(part.geom, p.squeeze, 1), ST_Scale(p.geom, p.squeeze, 1)) AS rough_m
            FROM region_part part
            WHERE part.level = %(level)s
              AND (part.geom && ST_Expand(p.geom, p.dlon, p.dlat)
                OR (ST_X(p.geom) + p.dlon > 180
                    AND part.geom && ST_Expand(ST_Translate(p.geom, -360, 0), p.dlon, p.dlat))
                OR (ST_X(p.geom) - p.dlon < -180
                    AND part.geom && ST_Expand(ST_Translate(p.geom, 360, 0), p.dlon, p.dlat)))
              AND (p.country_id IS NULL
                OR (part.region_id, p.country_id) IN (SELECT home.region_id, home.country_id FROM admin1_home home)
                OR part.region_id NOT IN (SELECT home.region_id FROM admin1_home home))
            OFFSET 0
        ) part
    ) candidate
    CROSS JOIN LATERAL (
        SELECT CASE WHEN p.slack IS NOT NULL THEN ST_ClipByBox2D(candidate.geom, ST_Expand(p.geom,
                   1.1 * (candidate.rough_m * p.slack + 50) / (110574 * p.squeeze) * p.slack,
                   1.1 * (candidate.rough_m * p.slack + 50) / 110574)::box2d) END AS geom
    ) clip
    CROSS JOIN LATERAL (
        SELECT ST_Distance(ST_Segmentize(CASE
                   WHEN clip.geom IS NOT NULL AND NOT ST_IsEmpty(clip.geom) AND abs(candidate.rough_m - 111194.93 * ST_Distance(
                        ST_Scale(clip.geom, p.squeeze, 1), ST_Scale(p.geom, p.squeeze, 1))) < 0.001 THEN clip.geom
                   ELSE candidate.geom END, 0.02)::geography, p.geom::geography) AS distance_m
        OFFSET 0
    ) measured
    JOIN region named ON named.region_id = candidate.region_id
    WHERE p.slack IS NULL OR candidate.rough_m <= p.slack * least(candidate.best_m, %(max_m)s::float8) + 1
    ORDER BY round(1000 * measured.distance_m), named.code
    LIMIT 1
) near
WHERE near.distance_m <= %(max_m)s
ON CONFLICT DO NOTHING
"""

COUNT_REGIONS = "SELECT count(*) FROM region WHERE level = %(level)s"


@dataclass(frozen=True, slots=True)
class RegionCounts:
    """Photos that were given a region of one level."""

    inside: int
    nearest: int


def region_levels(conn: Connection) -> list[str]:
    """All levels for which regions are loaded."""
    return [row[0] for row in conn.execute(LEVELS)]


def assign_regions(
    conn: Connection,
    *,
    dataset_id: int | None = None,
    levels: Sequence[str] | None = None,
    max_m: float = MAX_M,
    refresh: bool = False,
) -> dict[str, RegionCounts]:
    """Give every photo without one its region: the one it lies in, else the nearest within `max_m` metres.

    Set-based statements per level; the caller commits.

    Args:
        conn: An open connection.
        dataset_id: Photos of this data set alone; None: all.
        levels: Levels of regions; None: all that are loaded.
        max_m: Greatest distance, metres.
        refresh: Decide anew for photos that have a region: needed after regions were added or redrawn.

    Returns:
        Level -> photos assigned now.
    """
    result: dict[str, RegionCounts] = {}
    conn.execute(ANALYZE)
    # Countries first: admin-1 looks at them.
    for level in sorted(
        region_levels(conn) if levels is None else levels, key=lambda item: item != "country"
    ):
        params = {"level": level, "dataset_id": dataset_id, "max_m": max_m}
        if refresh:
            conn.execute(FORGET_LEVEL, params)
        conn.execute(CREATE_TODO, prepare=False)
        conn.execute(TODO_LACKING, params)
        result[level] = _assign(conn, params)
    return result


def reassign_changed(
    conn: Connection, level: str, region_ids: Sequence[int], *, max_m: float = MAX_M
) -> RegionCounts:
    """Decide anew for photos whose region may be another one since these regions were added or redrawn.

    Where most regions of the level are among them that is every photo, else those that were in one of them,
    or lie in one or within `max_m` metres of one; the caller commits. Where countries changed, the admin-1 of
    these photos is decided anew too, unless they lie inside theirs.

    Returns:
        Photos of this level.
    """
    params: dict[str, Any] = {"level": level, "dataset_id": None, "max_m": max_m, "ids": list(region_ids)}
    row = conn.execute(COUNT_REGIONS, params).fetchone()
    if row is not None and 2 * len(region_ids) >= row[0]:
        counts = assign_regions(conn, levels=[level], max_m=max_m, refresh=True)[level]
    else:
        conn.execute(ANALYZE)
        conn.execute(CREATE_TODO, prepare=False)
        conn.execute(TODO_CHANGED, params)
        conn.execute(FORGET_TODO, params)
        counts = _assign(conn, params)
    if level == "country" and "admin1" in region_levels(conn):
        own = {**params, "level": "admin1"}
        conn.execute(FORGET_NEAREST, own)
        conn.execute(KEEP_LACKING, own)
        _assign(conn, own)
    return counts


def assign_places(conn: Connection, level: str, regions: str, *, max_m: float = MAX_M) -> RegionCounts:
    """Regions of one level, as photos get theirs, for the places in region_todo, which are no photos.

    Args:
        conn: An open connection.
        level: Of the regions; `country` before `admin1`.
        regions: Temporary table with the columns of photo_region, which takes them.
        max_m: Greatest distance, metres.
    """
    params = {"level": level, "max_m": max_m}
    conn.execute(ANALYZE_TODO)
    conn.execute(DROP_FOUND)
    most = conn.execute(MOST_PLACES, params).fetchone()
    if most is not None and most[0]:
        conn.execute(INDEX_PLACES)
        conn.execute(FIND_PLACES_BY_PART, params)
        conn.execute(FORGET_INDEX)
    else:
        conn.execute(FIND_BY_PHOTO, params)
    return _choose(conn, params, regions)


def _assign(conn: Connection, params: dict[str, Any]) -> RegionCounts:
    """Regions of one level for the photos in region_todo, which have none of it."""
    conn.execute(ANALYZE_TODO)
    conn.execute(DROP_FOUND)
    most = conn.execute(MOST_PHOTOS).fetchone()
    conn.execute(FIND_BY_PART if most is not None and most[0] else FIND_BY_PHOTO, params)
    return _choose(conn, params, PHOTOS)


def _choose(conn: Connection, params: dict[str, Any], regions: str) -> RegionCounts:
    """The region of what is in region_todo, of those found that hold it, or the nearest."""
    conn.execute(ANALYZE_FOUND)
    inside = conn.execute(ASSIGN_INSIDE.format(regions=regions), params).rowcount
    return RegionCounts(inside, conn.execute(ASSIGN_NEAREST.format(regions=regions), params).rowcount)
