"""Aerial rasters and the tiles cut from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from geofix.database.bulk import copy_rows
from geofix.database.engine import Connection
from geofix.errors import UsageError

ENSURE_DATASET = """
INSERT INTO dataset (name, kind, licence, attribution, source_uri)
VALUES (%(name)s, %(kind)s, %(licence)s, %(attribution)s, %(source_uri)s)
ON CONFLICT (name) DO UPDATE SET
    licence = coalesce(excluded.licence, dataset.licence),
    attribution = coalesce(excluded.attribution, dataset.attribution),
    source_uri = coalesce(excluded.source_uri, dataset.source_uri)
RETURNING dataset_id, kind
"""

FIND_DATASET = "SELECT dataset_id FROM dataset WHERE name = %(name)s AND kind = %(kind)s"

KNOWN_RASTERS = """
SELECT uri, file_bytes, file_mtime_ns, sha256, coalesce(reading ->> 'options', '')
FROM aerial_raster WHERE dataset_id = %(dataset_id)s
"""

TOUCH_RASTER = """
UPDATE aerial_raster SET file_bytes = %(file_bytes)s, file_mtime_ns = %(file_mtime_ns)s
WHERE dataset_id = %(dataset_id)s AND uri = %(uri)s
"""

CREATE_STAGE = """
CREATE TEMP TABLE IF NOT EXISTS aerial_stage (
    uri text NOT NULL, kind text NOT NULL, sha256 bytea, file_bytes int8, file_mtime_ns int8, crs text NOT NULL,
    width int4, height int4, bands int2, dtype text, gsd_m float4 NOT NULL, captured_at date,
    reading jsonb NOT NULL, geom bytea NOT NULL
) ON COMMIT DELETE ROWS;
TRUNCATE aerial_stage
"""

STAGE_COLUMNS = {
    "uri": "text",
    "kind": "text",
    "sha256": "bytea",
    "file_bytes": "int8",
    "file_mtime_ns": "int8",
    "crs": "text",
    "width": "int4",
    "height": "int4",
    "bands": "int2",
    "dtype": "text",
    "gsd_m": "float4",
    "captured_at": "date",
    "reading": "jsonb",
    "geom": "bytea",
}

# Tiles cut from other pixels, or placed elsewhere, are other tiles: they go, with their embeddings.
DELETE_STALE_TILES = """
DELETE FROM aerial_tile t USING aerial_raster r JOIN aerial_stage s ON s.uri = r.uri
WHERE r.dataset_id = %(dataset_id)s AND t.dataset_id = r.dataset_id AND r.aerial_raster_id = ANY (t.aerial_raster_ids)
"""

MERGE_RASTERS = """
INSERT INTO aerial_raster (
    dataset_id, uri, kind, sha256, file_bytes, file_mtime_ns, crs, width, height, bands, dtype, gsd_m, captured_at,
    reading, geom)
SELECT %(dataset_id)s, uri, kind, sha256, file_bytes, file_mtime_ns, crs, width, height, bands, dtype, gsd_m,
       captured_at, reading, ST_Multi(ST_GeomFromEWKB(geom))
FROM aerial_stage
ON CONFLICT (dataset_id, uri) DO UPDATE SET
    kind = excluded.kind, sha256 = excluded.sha256, file_bytes = excluded.file_bytes,
    file_mtime_ns = excluded.file_mtime_ns, crs = excluded.crs, width = excluded.width, height = excluded.height,
    bands = excluded.bands, dtype = excluded.dtype, gsd_m = excluded.gsd_m, captured_at = excluded.captured_at,
    reading = excluded.reading, geom = excluded.geom, ingested_at = now()
"""

CLEAR_REJECTS = """
DELETE FROM reject
WHERE dataset_id = %(dataset_id)s AND kind = %(kind)s AND source_key = ANY (%(keys)s::text[])
"""

ADD_REJECTS = """
INSERT INTO reject (dataset_id, kind, source_key, reason, detail)
SELECT DISTINCT ON (key, reason) %(dataset_id)s::int8, %(kind)s::text, key, reason, detail
FROM unnest(%(keys)s::text[], %(reasons)s::text[], %(details)s::text[]) AS r (key, reason, detail)
ON CONFLICT (dataset_id, kind, source_key, reason) DO UPDATE SET detail = excluded.detail, seen_at = now()
"""

RASTERS = """
SELECT aerial_raster_id, uri, kind, crs, reading - 'footprints' - 'options'
FROM aerial_raster WHERE dataset_id = %(dataset_id)s ORDER BY aerial_raster_id
"""

FOOTPRINTS = """
SELECT captured_at, ST_AsBinary(ST_Union(geom))
FROM aerial_raster WHERE dataset_id = %(dataset_id)s GROUP BY captured_at ORDER BY captured_at
"""

ZOOM_FOOTPRINTS = """
SELECT aerial_raster_id, reading -> 'footprints'
FROM aerial_raster WHERE dataset_id = %(dataset_id)s AND kind = 'xyz' ORDER BY aerial_raster_id
"""

CREATE_TILE_STAGE = """
CREATE TEMP TABLE IF NOT EXISTS tile_stage (s2_id int8 NOT NULL, captured_at date, geom bytea NOT NULL);
CREATE TEMP TABLE IF NOT EXISTS raster_part (aerial_raster_id int8, captured_at date, gsd_m float4, geom geometry);
CREATE TEMP TABLE IF NOT EXISTS tile_new (
    s2_id int8 NOT NULL, captured_at date, coverage float4 NOT NULL, aerial_raster_ids int8[] NOT NULL);
CREATE INDEX IF NOT EXISTS raster_part_geom_idx ON raster_part USING gist (geom);
CREATE INDEX IF NOT EXISTS tile_new_s2_id_idx ON tile_new (s2_id);
TRUNCATE tile_stage, raster_part, tile_new
"""

CUT_RASTERS = """
INSERT INTO raster_part
SELECT aerial_raster_id, captured_at, gsd_m, ST_Subdivide(geom, 64) AS geom
FROM aerial_raster WHERE dataset_id = %(dataset_id)s
"""

COUNT_STAGED = "ANALYZE raster_part, tile_stage"

COUNT_FOUND = "ANALYZE tile_new"

EMPTY_TILE_STAGE = "TRUNCATE tile_stage, raster_part, tile_new"

# Degrees serve for a ratio of areas: over one tile the length of a degree changes by less than 1e-4 below 75 N.
FIND_TILES = """
INSERT INTO tile_new
WITH square AS MATERIALIZED (
    SELECT s2_id, captured_at, ST_GeomFromWKB(geom, 4326) AS geom FROM tile_stage
), piece AS (
    SELECT q.s2_id, q.captured_at, ST_Area(q.geom) AS whole, p.aerial_raster_id, p.gsd_m,
           CASE WHEN ST_Covers(p.geom, q.geom) THEN q.geom ELSE ST_Intersection(p.geom, q.geom) END AS geom
    FROM square q
    JOIN raster_part p ON ST_Intersects(p.geom, q.geom) AND p.captured_at IS NOT DISTINCT FROM q.captured_at
), by_raster AS (
    SELECT s2_id, captured_at, whole, aerial_raster_id, gsd_m, ST_Union(geom) AS geom
    FROM piece GROUP BY s2_id, captured_at, whole, aerial_raster_id, gsd_m
)
SELECT s2_id, captured_at, least(1, ST_Area(ST_Union(geom)) / whole)::float4 AS coverage,
       array_agg(aerial_raster_id ORDER BY gsd_m, aerial_raster_id) AS aerial_raster_ids
FROM by_raster GROUP BY s2_id, captured_at, whole
HAVING ST_Area(ST_Union(geom)) / whole >= %(min_coverage)s AND ST_Area(ST_Union(geom)) > 0
"""

DELETE_OTHER_TILES = """
DELETE FROM aerial_tile t
WHERE t.dataset_id = %(dataset_id)s AND t.level = %(level)s AND NOT EXISTS (
    SELECT FROM tile_new n
    WHERE n.s2_id = t.s2_id AND n.captured_at IS NOT DISTINCT FROM t.captured_at
      AND n.aerial_raster_ids = t.aerial_raster_ids AND n.coverage = t.coverage AND t.side_m = %(side_m)s::float4)
"""

INSERT_TILES = """
INSERT INTO aerial_tile (dataset_id, level, s2_id, captured_at, side_m, coverage, aerial_raster_ids)
SELECT %(dataset_id)s, %(level)s, s2_id, captured_at, %(side_m)s, coverage, aerial_raster_ids
FROM tile_new ORDER BY s2_id, captured_at
ON CONFLICT DO NOTHING
"""

COUNT_TILES = """
SELECT count(*), count(*) FILTER (WHERE coverage < 0.999), count(DISTINCT s2_id)
FROM aerial_tile WHERE dataset_id = %(dataset_id)s AND level = %(level)s
"""


@dataclass(frozen=True, slots=True)
class KnownRaster:
    """A raster of the data set as it was when it was loaded."""

    file_bytes: int | None
    file_mtime_ns: int | None
    sha256: bytes | None
    options: str


@dataclass(frozen=True, slots=True)
class Reject:
    """One piece of input that could not be used."""

    source_key: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class TileCounts:
    """What registering tiles changed, and what there is now."""

    tiles: int
    cells: int
    partial: int
    added: int
    removed: int


def ensure_source(
    conn: Connection,
    name: str,
    kind: str,
    *,
    licence: str | None,
    attribution: str | None,
    source_uri: str | None = None,
) -> int:
    """Id of the data set `name`, created when new; values that are given replace those stored.

    Raises:
        UsageError: the name belongs to a data set of another kind.
    """
    params = {
        "name": name,
        "kind": kind,
        "licence": licence,
        "attribution": attribution,
        "source_uri": source_uri,
    }
    row = conn.execute(ENSURE_DATASET, params).fetchone()
    assert row is not None
    if row[1] != kind:
        raise UsageError(
            f"Data set {name!r} holds {row[1]}, not {kind}.", hint="Choose another name for the new one."
        )
    return int(row[0])


def find_source(conn: Connection, name: str, kind: str) -> int | None:
    """Id of the data set, or None."""
    row = conn.execute(FIND_DATASET, {"name": name, "kind": kind}).fetchone()
    return None if row is None else int(row[0])


def known_rasters(conn: Connection, dataset_id: int) -> dict[str, KnownRaster]:
    """URI -> what the database holds of it."""
    rows = conn.execute(KNOWN_RASTERS, {"dataset_id": dataset_id})
    return {
        row[0]: KnownRaster(row[1], row[2], None if row[3] is None else bytes(row[3]), row[4]) for row in rows
    }


def touch_raster(conn: Connection, dataset_id: int, uri: str, file_bytes: int, file_mtime_ns: int) -> None:
    """Note the new time of a file whose bytes did not change."""
    params = {
        "dataset_id": dataset_id,
        "uri": uri,
        "file_bytes": file_bytes,
        "file_mtime_ns": file_mtime_ns,
    }
    conn.execute(TOUCH_RASTER, params)


def merge_rasters(conn: Connection, dataset_id: int, rows: Iterable[tuple[Any, ...]]) -> int:
    """Insert or replace rasters, in the order of `STAGE_COLUMNS`; tiles of replaced ones are dropped."""
    conn.execute(CREATE_STAGE)
    count = copy_rows(conn, "aerial_stage", STAGE_COLUMNS, rows)
    conn.execute(DELETE_STALE_TILES, {"dataset_id": dataset_id})
    conn.execute(MERGE_RASTERS, {"dataset_id": dataset_id})
    return count


def add_rejects(conn: Connection, dataset_id: int, kind: str, rejects: Sequence[Reject]) -> None:
    """Note bad input; the same input with the same reason is noted once."""
    if rejects:
        params = {
            "dataset_id": dataset_id,
            "kind": kind,
            "keys": [reject.source_key for reject in rejects],
            "reasons": [reject.reason for reject in rejects],
            "details": [reject.detail for reject in rejects],
        }
        conn.execute(ADD_REJECTS, params)


def clear_rejects(conn: Connection, dataset_id: int, kind: str, keys: Sequence[str]) -> None:
    """Forget rejects of input that is good now."""
    if keys:
        conn.execute(CLEAR_REJECTS, {"dataset_id": dataset_id, "kind": kind, "keys": list(keys)})


def rasters(conn: Connection, dataset_id: int) -> Iterator[tuple[int, str, str, str, dict[str, Any]]]:
    """(id, uri, kind, CRS, reading) of every raster."""
    yield from conn.execute(RASTERS, {"dataset_id": dataset_id})


def footprints(conn: Connection, dataset_id: int) -> list[tuple[date | None, bytes]]:
    """Per capture date the union of all footprints, as WKB."""
    return [(row[0], bytes(row[1])) for row in conn.execute(FOOTPRINTS, {"dataset_id": dataset_id})]


def zoom_footprints(conn: Connection, dataset_id: int) -> list[tuple[int, dict[str, Any]]]:
    """Per pyramid: raster id, and zoom -> GeoJSON of the area its tiles cover."""
    rows = conn.execute(ZOOM_FOOTPRINTS, {"dataset_id": dataset_id})
    return [(int(row[0]), row[1] or {}) for row in rows]


def merge_tiles(
    conn: Connection,
    dataset_id: int,
    squares: Iterable[tuple[int, date | None, bytes]],
    *,
    level: int,
    side_m: float,
    min_coverage: float,
) -> TileCounts:
    """Make the tiles of a data set and level those of `squares` that imagery of their date covers.

    Args:
        conn: An open connection; the caller commits.
        dataset_id: The aerial data set.
        squares: (S2 id, capture date, WKB of the tile's outline in degrees).
        level: S2 level of the cells.
        side_m: Side of a tile, metres.
        min_coverage: Least share of a tile's area that footprints must cover.
    """
    params = {"dataset_id": dataset_id, "level": level, "side_m": side_m, "min_coverage": min_coverage}
    conn.execute(CREATE_TILE_STAGE)
    copy_rows(conn, "tile_stage", {"s2_id": "int8", "captured_at": "date", "geom": "bytea"}, squares)
    conn.execute(CUT_RASTERS, params)
    conn.execute(COUNT_STAGED)
    conn.execute(FIND_TILES, params)
    conn.execute(COUNT_FOUND)
    removed = conn.execute(DELETE_OTHER_TILES, params).rowcount
    added = conn.execute(INSERT_TILES, params).rowcount
    conn.execute(EMPTY_TILE_STAGE)
    row = conn.execute(COUNT_TILES, params).fetchone()
    assert row is not None
    return TileCounts(tiles=row[0], cells=row[2], partial=row[1], added=added, removed=removed)
