"""Regions: staged, dissolved by code, merged with stable ids, and cut into parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from geofix.database.bulk import copy_rows
from geofix.database.engine import Connection

CREATE_STAGE = """
CREATE TEMP TABLE IF NOT EXISTS region_stage (
    ord int8 NOT NULL, code text NOT NULL, name text NOT NULL, repaired text, geom bytea NOT NULL
) ON COMMIT DELETE ROWS;
TRUNCATE region_stage
"""

STAGE_COLUMNS = {"ord": "int8", "code": "text", "name": "text", "repaired": "text", "geom": "bytea"}

# A stored region is written again only where something differs, so its parts and its photos' regions can stay.
MERGE_REGIONS = """
WITH piece AS (
    SELECT ord, code, name, repaired, ST_GeomFromEWKB(geom) AS geom FROM region_stage
), dissolved AS (
    SELECT code, coalesce((array_agg(name ORDER BY ord) FILTER (WHERE name <> ''))[1], code) AS name,
           string_agg(DISTINCT repaired, '; ') AS repaired,
           CASE WHEN count(*) = 1 THEN (array_agg(geom))[1] ELSE ST_Union(geom) END AS geom
    FROM piece GROUP BY code
), shaped AS (
    SELECT code, name, repaired, ST_Multi(ST_CollectionExtract(geom, 3)) AS geom FROM dissolved
)
INSERT INTO region AS r (dataset_id, level, code, name, area_km2, repaired, geom)
SELECT %(dataset_id)s, %(level)s, code, name, ST_Area(geom::geography) / 1e6, repaired, geom
FROM shaped WHERE NOT ST_IsEmpty(geom) ORDER BY code
ON CONFLICT (level, code) DO UPDATE SET
    dataset_id = excluded.dataset_id, name = excluded.name, area_km2 = excluded.area_km2,
    repaired = excluded.repaired, geom = excluded.geom, loaded_at = now()
WHERE (r.dataset_id, r.name, r.repaired) IS DISTINCT FROM (excluded.dataset_id, excluded.name, excluded.repaired)
   OR NOT r.geom = excluded.geom
RETURNING region_id
"""

COUNT_STAGED = (
    "SELECT count(DISTINCT code), count(DISTINCT code) FILTER (WHERE repaired IS NOT NULL) FROM region_stage"
)

DELETE_PARTS = "DELETE FROM region_part WHERE region_id = ANY (%(ids)s)"

# Few vertices per part keep point-in-polygon fast; ST_Subdivide may leave slivers of lines on the cuts.
INSERT_PARTS = """
INSERT INTO region_part (region_id, level, geom)
SELECT cut.region_id, cut.level, (d).geom
FROM (
    SELECT r.region_id, r.level, ST_Dump(ST_Subdivide(r.geom, 128)) AS d
    FROM region r WHERE r.region_id = ANY (%(ids)s)
) cut
WHERE ST_Dimension((d).geom) = 2
"""

CLEAR_REJECTS = """
DELETE FROM reject
WHERE dataset_id = %(dataset_id)s AND kind = 'region' AND starts_with(source_key, %(prefix)s)
"""


@dataclass(frozen=True, slots=True)
class RegionCounts:
    """Distinct codes staged, those among them that were repaired, and the ids of regions written."""

    staged: int
    repaired: int
    written: tuple[int, ...]


def merge_regions(
    conn: Connection, dataset_id: int, level: str, rows: Iterable[tuple[Any, ...]]
) -> RegionCounts:
    """Load regions from rows in the order of `STAGE_COLUMNS`; several rows with one code become one region.

    Region ids stay when a region is loaded again. Parts of changed regions are cut anew; the regions of photos
    are as before until `photo_regions.reassign_changed` is called with the regions written.
    """
    conn.execute(CREATE_STAGE)
    copy_rows(conn, "region_stage", STAGE_COLUMNS, rows)
    counted = conn.execute(COUNT_STAGED).fetchone()
    assert counted is not None
    params: dict[str, Any] = {"dataset_id": dataset_id, "level": level}
    params["ids"] = [row[0] for row in conn.execute(MERGE_REGIONS, params)]
    if params["ids"]:
        conn.execute(DELETE_PARTS, params)
        conn.execute(INSERT_PARTS, params)
    return RegionCounts(counted[0], counted[1], tuple(params["ids"]))


def clear_rejects(conn: Connection, dataset_id: int, prefix: str) -> None:
    """Forget the rejects of one file, whose keys begin with `prefix`."""
    conn.execute(CLEAR_REJECTS, {"dataset_id": dataset_id, "prefix": prefix})
