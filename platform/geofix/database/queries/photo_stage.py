"""Loading photos: a staging table, duplicates, one merge per batch, rejects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from geofix.database.bulk import copy_rows
from geofix.database.engine import Connection

STAGE = "photo_stage"

STAGE_COLUMNS = {
    "ord": "int8",
    "source_key": "text",
    "uri": "text",
    "sha256": "bytea",
    "file_bytes": "int8",
    "file_mtime_ns": "int8",
    "width": "int4",
    "height": "int4",
    "lon": "float8",
    "lat": "float8",
    "s2_id": "int8",
    "gps_accuracy_m": "float4",
    "heading_deg": "float4",
    "captured_at": "timestamptz",
    "sequence_key": "text",
    "author": "text",
    "licence": "text",
    "extra": "jsonb",
}

# Both tables are the session's own; photo_seen lasts for one run and is what makes a second row for the
# same photo, or a file already listed in the metadata, recognisable with memory flat in their number.
CREATE_STAGE = """
CREATE TEMP TABLE IF NOT EXISTS photo_stage (
    ord int8 NOT NULL, source_key text NOT NULL, uri text, sha256 bytea, file_bytes int8, file_mtime_ns int8,
    width int4, height int4, lon float8 NOT NULL, lat float8 NOT NULL, s2_id int8 NOT NULL,
    gps_accuracy_m float4, heading_deg float4, captured_at timestamptz, sequence_key text,
    author text, licence text, extra jsonb
);
CREATE TEMP TABLE IF NOT EXISTS photo_seen (source_key text PRIMARY KEY);
TRUNCATE photo_stage, photo_seen
"""

SEEN = "SELECT source_key FROM photo_seen WHERE source_key = ANY(%(keys)s)"

MARK_SEEN = "INSERT INTO photo_seen SELECT unnest(%(keys)s::text[]) ON CONFLICT DO NOTHING"

# Only the first row for a key is kept, be the other in this batch or an earlier one. Without statistics a
# join of a temporary table with itself becomes a nested loop: 50 s for 20,000 rows.
ANALYZE_STAGE = "ANALYZE photo_stage"

TAKE_REPEATED = """
DELETE FROM photo_stage s
USING (
    SELECT f.ord, row_number() OVER (PARTITION BY f.source_key ORDER BY f.ord) AS turn, e.source_key AS earlier
    FROM photo_stage f LEFT JOIN photo_seen e ON e.source_key = f.source_key
) t
WHERE s.ord = t.ord AND (t.turn > 1 OR t.earlier IS NOT NULL)
RETURNING s.source_key, s.ord
"""

MARK_STAGED = "INSERT INTO photo_seen SELECT source_key FROM photo_stage"

# New bytes under an old name are a new photo: everything derived from the old one goes with it.
FIND_REPLACED = """
SELECT p.photo_id FROM photo_record p JOIN photo_stage s USING (source_key)
WHERE p.dataset_id = %(dataset_id)s AND p.sha256 <> s.sha256
"""

DELETE_PHOTOS = "DELETE FROM photo_record WHERE photo_id = ANY(%(ids)s)"

TAKE_TWINS = """
DELETE FROM photo_stage s USING photo_stage f
WHERE f.sha256 = s.sha256 AND f.ord < s.ord
  AND NOT EXISTS (SELECT FROM photo_stage e WHERE e.sha256 = s.sha256 AND e.ord < f.ord)
RETURNING s.source_key, f.source_key
"""

FIND_TWINS = """
SELECT s.source_key, p.source_key, p.uri, p.photo_id
FROM photo_stage s JOIN photo_record p ON p.dataset_id = %(dataset_id)s AND p.sha256 = s.sha256
WHERE p.source_key <> s.source_key
"""

RENAME = "UPDATE photo_record SET source_key = %(source_key)s WHERE photo_id = %(photo_id)s"

COUNT_ASSUMING_UTC = "SELECT count(*) FROM photo_stage WHERE extra ? 'time_assumed_utc'"

DELETE_STAGED = "DELETE FROM photo_stage WHERE source_key = ANY(%(keys)s)"

ADD_SEQUENCES = """
INSERT INTO sequence (dataset_id, key)
SELECT DISTINCT %(dataset_id)s::int8, sequence_key FROM photo_stage WHERE sequence_key IS NOT NULL
ON CONFLICT DO NOTHING
"""

# A photo that moved loses its regions here and gets new ones from photo_regions.
DELETE_MOVED_REGIONS = """
DELETE FROM photo_region r USING photo_record p, photo_stage s
WHERE r.photo_id = p.photo_id AND p.dataset_id = %(dataset_id)s AND p.source_key = s.source_key
  AND (ST_X(p.geom), ST_Y(p.geom)) IS DISTINCT FROM (s.lon, s.lat)
"""

MERGE = """
INSERT INTO photo_record AS p (
    dataset_id, sequence_id, source_key, uri, sha256, file_bytes, file_mtime_ns, width, height, s2_id,
    gps_accuracy_m, heading_deg, captured_at, author, licence, extra, geom)
SELECT %(dataset_id)s, q.sequence_id, s.source_key, s.uri, s.sha256, s.file_bytes, s.file_mtime_ns, s.width,
       s.height, s.s2_id, s.gps_accuracy_m, s.heading_deg, s.captured_at, s.author, s.licence, s.extra,
       ST_SetSRID(ST_MakePoint(s.lon, s.lat), 4326)
FROM photo_stage s
LEFT JOIN sequence q ON q.dataset_id = %(dataset_id)s AND q.key = s.sequence_key
ORDER BY s.ord
ON CONFLICT (dataset_id, source_key) DO UPDATE SET
    sequence_id = excluded.sequence_id, uri = excluded.uri, sha256 = excluded.sha256,
    file_bytes = excluded.file_bytes, file_mtime_ns = excluded.file_mtime_ns, width = excluded.width,
    height = excluded.height, s2_id = excluded.s2_id, gps_accuracy_m = excluded.gps_accuracy_m,
    heading_deg = excluded.heading_deg, captured_at = excluded.captured_at, author = excluded.author,
    licence = excluded.licence, extra = excluded.extra, geom = excluded.geom, ingested_at = now()
WHERE (p.sequence_id, p.uri, p.sha256, p.file_bytes, p.file_mtime_ns, p.width, p.height, p.s2_id,
       p.gps_accuracy_m, p.heading_deg, p.captured_at, p.author, p.licence, p.extra)
      IS DISTINCT FROM
      (excluded.sequence_id, excluded.uri, excluded.sha256, excluded.file_bytes, excluded.file_mtime_ns,
       excluded.width, excluded.height, excluded.s2_id, excluded.gps_accuracy_m, excluded.heading_deg,
       excluded.captured_at, excluded.author, excluded.licence, excluded.extra)
   OR (ST_X(p.geom), ST_Y(p.geom)) IS DISTINCT FROM (ST_X(excluded.geom), ST_Y(excluded.geom))
RETURNING p.xmax = 0
"""

STALE_REJECTS = """
SELECT r.reject_id FROM reject r
WHERE r.dataset_id = %(dataset_id)s AND r.kind = 'photo'
  AND (r.source_key = ANY(%(keys)s) OR r.source_key IN (SELECT source_key FROM photo_stage))
  AND NOT EXISTS (
    SELECT FROM unnest(%(keys)s::text[], %(reasons)s::text[], %(details)s::text[]) AS n(key, reason, detail)
    WHERE (n.key, n.reason, n.detail) = (r.source_key, r.reason, r.detail))
"""

DELETE_REJECTS = "DELETE FROM reject WHERE reject_id = ANY(%(ids)s)"

ADD_REJECTS = """
INSERT INTO reject (dataset_id, kind, source_key, reason, detail)
SELECT %(dataset_id)s, 'photo', key, reason, detail
FROM unnest(%(keys)s::text[], %(reasons)s::text[], %(details)s::text[]) AS r(key, reason, detail)
ON CONFLICT DO NOTHING
"""

EMPTY_STAGE = "TRUNCATE photo_stage"


@dataclass(frozen=True, slots=True)
class Twin:
    """A staged photo whose bytes another photo of the data set already has."""

    source_key: str
    other_key: str
    other_uri: str | None
    other_id: int


def begin_stage(conn: Connection) -> None:
    """Make the session's staging tables, empty."""
    conn.execute(CREATE_STAGE, prepare=False)


def seen_keys(conn: Connection, keys: Sequence[str]) -> set[str]:
    """Which of these keys this run has already handled."""
    return {row[0] for row in conn.execute(SEEN, {"keys": list(keys)})}


def stage(conn: Connection, rows: Iterable[tuple[Any, ...]]) -> int:
    """Fill the staging table; tuples in the order of `STAGE_COLUMNS`, the last a dict or None."""
    wrapped = ((*row[:-1], Jsonb(row[-1]) if row[-1] else None) for row in rows)
    return copy_rows(conn, STAGE, STAGE_COLUMNS, wrapped)


def take_repeated(conn: Connection) -> list[tuple[str, int]]:
    """Remove and return (source_key, ord) of staged rows whose key this run has already had."""
    conn.execute(ANALYZE_STAGE)
    repeated = [(row[0], int(row[1])) for row in conn.execute(TAKE_REPEATED)]
    conn.execute(MARK_STAGED)
    return repeated


def take_twins(conn: Connection, dataset_id: int) -> tuple[list[tuple[str, str]], list[Twin]]:
    """Find staged photos with the same bytes as another.

    Photos of the data set whose bytes changed under the same key are deleted first.

    Returns:
        (source_key, first key with these bytes) of rows removed from the stage, and twins of photos that are
        already loaded, still staged.
    """
    replaced = [row[0] for row in conn.execute(FIND_REPLACED, {"dataset_id": dataset_id})]
    if replaced:  # asked first: the writer's role may load photos but not delete any
        conn.execute(DELETE_PHOTOS, {"ids": replaced})
    staged = [(row[0], row[1]) for row in conn.execute(TAKE_TWINS)]
    loaded = [Twin(*row) for row in conn.execute(FIND_TWINS, {"dataset_id": dataset_id})]
    return staged, loaded


def rename(conn: Connection, photo_id: int, source_key: str) -> None:
    """Give a photo the key under which its file now lies."""
    conn.execute(RENAME, {"photo_id": photo_id, "source_key": source_key})


def unstage(conn: Connection, keys: Sequence[str]) -> None:
    """Remove rows from the stage."""
    if keys:
        conn.execute(DELETE_STAGED, {"keys": list(keys)})


def count_assuming_utc(conn: Connection) -> int:
    """Staged photos whose time names no zone."""
    row = conn.execute(COUNT_ASSUMING_UTC).fetchone()
    return int(row[0]) if row else 0


def merge(conn: Connection, dataset_id: int) -> tuple[int, int]:
    """Merge the stage into the data set; (inserted, updated). Equal rows are not touched."""
    params = {"dataset_id": dataset_id}
    conn.execute(ADD_SEQUENCES, params)
    conn.execute(DELETE_MOVED_REGIONS, params)
    inserted = [bool(row[0]) for row in conn.execute(MERGE, params)]
    return sum(inserted), len(inserted) - sum(inserted)


def replace_rejects(conn: Connection, dataset_id: int, rejects: Sequence[tuple[str, str, str]]) -> None:
    """Store (key, reason, detail) of this batch, drop older entries of its photos, and empty the stage."""
    keys, reasons, details = ([row[i] for row in rejects] for i in range(3))
    params = {"dataset_id": dataset_id, "keys": keys, "reasons": reasons, "details": details}
    stale = [row[0] for row in conn.execute(STALE_REJECTS, params)]
    if stale:
        conn.execute(DELETE_REJECTS, {"ids": stale})
    if rejects:
        conn.execute(ADD_REJECTS, params)
        conn.execute(MARK_SEEN, {"keys": keys})
    conn.execute(EMPTY_STAGE)
