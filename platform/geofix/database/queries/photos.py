"""Photos as stored: their data set, what is known of them, and the region of every photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geofix.database.engine import Connection

UPSERT_DATASET = """
INSERT INTO dataset (name, kind, licence, attribution, source_uri)
VALUES (%(name)s, 'photos', %(licence)s, %(attribution)s, %(source_uri)s)
ON CONFLICT (name) DO UPDATE SET
    licence = coalesce(excluded.licence, dataset.licence),
    attribution = coalesce(excluded.attribution, dataset.attribution),
    source_uri = coalesce(excluded.source_uri, dataset.source_uri)
RETURNING dataset_id, kind
"""

LOCK_DATASET = "SELECT pg_try_advisory_lock(hashtextextended('geofix.ingest.photos', %(dataset_id)s))"

UNLOCK_DATASET = "SELECT pg_advisory_unlock(hashtextextended('geofix.ingest.photos', %(dataset_id)s))"

KNOWN = """
SELECT p.source_key, p.file_bytes, p.file_mtime_ns, p.sha256, p.width, p.height, ST_X(p.geom), ST_Y(p.geom),
       p.gps_accuracy_m, p.heading_deg, p.captured_at, p.extra, s.key, p.author, p.licence
FROM photo_record p LEFT JOIN sequence s USING (sequence_id)
WHERE p.dataset_id = %(dataset_id)s AND p.source_key = ANY(%(keys)s)
"""

PHOTO_LEVELS = "SELECT DISTINCT level FROM region ORDER BY level"

FORGET_REGIONS = """
DELETE FROM photo_region r USING photo_record p
WHERE r.photo_id = p.photo_id AND r.level = %(level)s
  AND (%(dataset_id)s::int8 IS NULL OR p.dataset_id = %(dataset_id)s)
"""

# Where regions overlap (disputed areas, enclaves) the smallest one counts.
ASSIGN_INSIDE = """
INSERT INTO photo_region (photo_id, level, region_id, distance_m)
SELECT DISTINCT ON (p.photo_id) p.photo_id, %(level)s, r.region_id, 0
FROM photo_record p
JOIN region_part part ON part.level = %(level)s AND ST_Intersects(part.geom, p.geom)
JOIN region r ON r.region_id = part.region_id
WHERE (%(dataset_id)s::int8 IS NULL OR p.dataset_id = %(dataset_id)s)
  AND NOT EXISTS (SELECT FROM photo_region a WHERE a.photo_id = p.photo_id AND a.level = %(level)s)
ORDER BY p.photo_id, r.area_km2, r.code
ON CONFLICT DO NOTHING
"""

# The box is a superset of the circle of max_m: one degree of latitude is at least 110,574 m on WGS 84, one
# of longitude at least 111,319 m times the cosine of the latitude furthest from the equator; near a pole it
# spans all longitudes, and it is repeated one turn to either side of the 180th meridian. Distances are
# geodesic on the WGS 84 spheroid and computed for parts in the box alone. Edges become geodesics there: one
# of d degrees along a parallel bulges by up to R d^2 sin(2 lat) / 16, hence the cut at 0.1 degrees: 1.3 m.
# A photo never takes an admin-1 region of another country than its own: near a border whose far side has no
# admin-1 loaded, everything within 25 km would else count to the near side.
# The photos that lack a region are found first, whatever the planner believes: where a few photos of another data set
# were all that its statistics knew of, it measured every photo's distance and left out those inside a region at the end.
ASSIGN_NEAREST = """
WITH lacking AS MATERIALIZED (
    SELECT p.photo_id, p.geom
    FROM photo_record p
    WHERE (%(dataset_id)s::int8 IS NULL OR p.dataset_id = %(dataset_id)s)
      AND NOT EXISTS (SELECT FROM photo_region a WHERE a.photo_id = p.photo_id AND a.level = %(level)s)
), admin1_home AS MATERIALIZED (
    SELECT DISTINCT ON (r.region_id) r.region_id, part.region_id AS country_id
    FROM region r
    JOIN region_part part ON part.level = 'country' AND ST_Intersects(part.geom, ST_PointOnSurface(r.geom))
    WHERE r.level = 'admin1' AND %(level)s = 'admin1'
    ORDER BY r.region_id, part.region_id
)
INSERT INTO photo_region (photo_id, level, region_id, distance_m)
SELECT p.photo_id, %(level)s, near.region_id, near.distance_m
FROM lacking p
CROSS JOIN LATERAL (
    SELECT %(max_m)s::float8 / 110574 AS dlat,
           least(180, %(max_m)s::float8 / (110574 * greatest(1e-6, cos(radians(
               least(90, abs(ST_Y(p.geom)) + %(max_m)s::float8 / 110574)))))) AS dlon
) size
CROSS JOIN LATERAL (
    SELECT part.region_id, ST_Distance(ST_Segmentize(part.geom, 0.1)::geography, p.geom::geography) AS distance_m
    FROM region_part part
    WHERE part.level = %(level)s
      AND (part.geom && ST_Expand(p.geom, size.dlon, size.dlat)
        OR (ST_X(p.geom) + size.dlon > 180
            AND part.geom && ST_Expand(ST_Translate(p.geom, -360, 0), size.dlon, size.dlat))
        OR (ST_X(p.geom) - size.dlon < -180
            AND part.geom && ST_Expand(ST_Translate(p.geom, 360, 0), size.dlon, size.dlat)))
    ORDER BY distance_m, part.region_id
    LIMIT 1
) near
WHERE near.distance_m <= %(max_m)s
  AND (%(level)s <> 'admin1' OR NOT EXISTS (
    SELECT FROM photo_region c
    JOIN admin1_home home ON home.region_id = near.region_id
    WHERE c.photo_id = p.photo_id AND c.level = 'country' AND c.region_id <> home.country_id))
ON CONFLICT DO NOTHING
"""

ANALYZE = "ANALYZE photo_record, photo_region"

COUNT_PHOTOS = "SELECT count(*) FROM photo_record WHERE dataset_id = %(dataset_id)s"


@dataclass(frozen=True, slots=True)
class Known:
    """A photo as the database has it."""

    file_bytes: int | None
    file_mtime_ns: int | None
    sha256: bytes | None
    width: int | None
    height: int | None
    lon: float
    lat: float
    gps_accuracy_m: float | None
    heading_deg: float | None
    captured_at: Any
    extra: dict[str, Any] | None
    sequence: str | None
    author: str | None
    licence: str | None


@dataclass(frozen=True, slots=True)
class RegionCounts:
    """Photos that were given a region of one level."""

    inside: int
    nearest: int


def ensure_dataset(
    conn: Connection, name: str, *, licence: str | None, attribution: str | None, source_uri: str | None
) -> tuple[int, str]:
    """Id and kind of the data set `name`, created when new; given values replace those stored."""
    params = {"name": name, "licence": licence, "attribution": attribution, "source_uri": source_uri}
    row = conn.execute(UPSERT_DATASET, params).fetchone()
    assert row is not None
    return int(row[0]), str(row[1])


def lock_dataset(conn: Connection, dataset_id: int) -> bool:
    """Take the data set for this session; False when another session is loading it."""
    row = conn.execute(LOCK_DATASET, {"dataset_id": dataset_id}).fetchone()
    return bool(row and row[0])


def unlock_dataset(conn: Connection, dataset_id: int) -> None:
    """Give the data set back."""
    conn.execute(UNLOCK_DATASET, {"dataset_id": dataset_id})


def known_photos(conn: Connection, dataset_id: int, keys: Sequence[str]) -> dict[str, Known]:
    """What the database has under these keys."""
    rows = conn.execute(KNOWN, {"dataset_id": dataset_id, "keys": list(keys)})
    return {row[0]: Known(*row[1:]) for row in rows}


def count_photos(conn: Connection, dataset_id: int) -> int:
    """Number of photos of a data set."""
    row = conn.execute(COUNT_PHOTOS, {"dataset_id": dataset_id}).fetchone()
    return int(row[0]) if row else 0


def region_levels(conn: Connection) -> list[str]:
    """All levels for which regions are loaded."""
    return [row[0] for row in conn.execute(PHOTO_LEVELS)]


def assign_regions(
    conn: Connection,
    *,
    dataset_id: int | None = None,
    levels: Sequence[str] | None = None,
    max_m: float = 25_000.0,
    refresh: bool = False,
) -> dict[str, RegionCounts]:
    """Give every photo without one its region: the one it lies in, else the nearest within `max_m` metres.

    Two set-based statements per level; the caller commits.

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
            conn.execute(FORGET_REGIONS, params)
        inside = conn.execute(ASSIGN_INSIDE, params).rowcount
        nearest = conn.execute(ASSIGN_NEAREST, params).rowcount
        result[level] = RegionCounts(inside, nearest)
    return result
