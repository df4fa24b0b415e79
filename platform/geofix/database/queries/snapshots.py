"""Snapshots: what can be frozen, what was frozen, and the database's own proof of the split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import pandas as pd
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from geofix.database.bulk import copy_rows
from geofix.database.engine import Connection
from geofix.errors import NotFoundError, SplitLeakError

CANDIDATES = """
SELECT p.photo_id, d.name AS dataset, public.ST_X(p.geom) AS lon, public.ST_Y(p.geom) AS lat, p.s2_id, p.sequence_id,
       s.key AS sequence_key, p.captured_at, encode(p.sha256, 'hex') AS sha256, p.uri, p.heading_deg, p.gps_accuracy_m, rc.code AS country_code,
       ra.code AS admin1_code
FROM geofix.photo_record p
JOIN geofix.dataset d USING (dataset_id)
LEFT JOIN geofix.sequence s USING (sequence_id)
LEFT JOIN geofix.photo_region c ON c.photo_id = p.photo_id AND c.level = 'country'
LEFT JOIN geofix.region rc ON rc.region_id = c.region_id
LEFT JOIN geofix.photo_region a ON a.photo_id = p.photo_id AND a.level = 'admin1'
LEFT JOIN geofix.region ra ON ra.region_id = a.region_id
WHERE d.name = ANY (%(datasets)s) AND (p.uri IS NOT NULL OR %(positions_only)s)
ORDER BY p.photo_id
"""
DATASETS = "SELECT name, licence, attribution FROM geofix.dataset WHERE name = ANY (%(datasets)s) AND kind = 'photos' ORDER BY name"
AERIAL_DATASETS = """
SELECT name, licence, attribution FROM geofix.dataset
WHERE kind = 'aerial' AND (%(sources)s::text[] IS NULL OR name = ANY (%(sources)s)) ORDER BY name
"""
# One range scan of the cell index per block that holds photos; blocks are disjoint, so no tile comes twice.
AERIAL_TILES = """
SELECT t.s2_id, t.level, t.side_m, t.captured_at, d.name AS source, t.aerial_raster_ids
FROM unnest(%(low)s::int8[], %(high)s::int8[]) AS block (low, high)
JOIN geofix.aerial_tile t ON t.s2_id BETWEEN block.low AND block.high
JOIN geofix.dataset d USING (dataset_id)
WHERE d.name = ANY (%(sources)s)
ORDER BY t.s2_id, d.name, t.captured_at
"""
# In an order that does not depend on ids, which differ between databases.
AERIAL_RASTERS = """
SELECT r.aerial_raster_id, r.uri, r.kind, r.crs, (r.reading - 'footprints' - 'options')::text AS reading,
       encode(r.sha256, 'hex') AS sha256, r.captured_at, d.name AS source,
       public.ST_XMin(r.geom) AS west, public.ST_YMin(r.geom) AS south,
       public.ST_XMax(r.geom) AS east, public.ST_YMax(r.geom) AS north
FROM geofix.aerial_raster r
JOIN geofix.dataset d USING (dataset_id)
WHERE r.aerial_raster_id IN (
    SELECT unnest(t.aerial_raster_ids)
    FROM unnest(%(low)s::int8[], %(high)s::int8[]) AS block (low, high)
    JOIN geofix.aerial_tile t ON t.s2_id BETWEEN block.low AND block.high
    JOIN geofix.dataset td ON td.dataset_id = t.dataset_id
    WHERE td.name = ANY (%(sources)s)
)
ORDER BY d.name, r.sha256, r.captured_at, r.uri
"""
INSERT = """
INSERT INTO geofix.snapshot (uri, sha256, config, counts) VALUES (%(uri)s, %(sha256)s, %(config)s, %(counts)s)
ON CONFLICT (sha256) DO UPDATE SET uri = excluded.uri RETURNING snapshot_id
"""
FIND = "SELECT snapshot_id, uri, sha256, config, counts FROM geofix.snapshot WHERE sha256 = %(sha256)s"
CLEAR = """
WITH counted AS (DELETE FROM geofix.snapshot_split WHERE snapshot_id = %(snapshot_id)s)
DELETE FROM geofix.snapshot_photo WHERE snapshot_id = %(snapshot_id)s
"""
SHA256 = "SELECT sha256 FROM geofix.snapshot WHERE snapshot_id = %(snapshot_id)s"
# Photos of one snapshot that stand in the training set of another.
LEARNED = """
SELECT asked.split, count(*) FROM geofix.snapshot other
JOIN geofix.snapshot_photo learned ON learned.snapshot_id = other.snapshot_id AND learned.split = 'train'
JOIN geofix.snapshot_photo asked ON asked.photo_id = learned.photo_id
WHERE other.sha256 = %(sha256)s AND asked.snapshot_id = %(snapshot_id)s AND asked.split = ANY (%(splits)s)
GROUP BY 1 ORDER BY 1
"""
# What is distinct is counted from the distinct rows of a coarser count: one pass over the photos, no sort of them all.
COUNT = """
INSERT INTO geofix.snapshot_split (snapshot_id, split, photos, sequences, cells_l15, blocks_l13)
WITH place AS MATERIALIZED (
  SELECT sp.split, p.sequence_id, (p.s2_id & -(1::bigint << 30)) | (1::bigint << 30) AS cell, count(*) AS photos
  FROM geofix.snapshot_photo sp JOIN geofix.photo_record p USING (photo_id)
  WHERE sp.snapshot_id = %(snapshot_id)s GROUP BY 1, 2, 3
), cells AS MATERIALIZED (
  SELECT split, cell FROM place GROUP BY 1, 2
), photos AS (
  SELECT split, sum(photos)::bigint AS photos FROM place GROUP BY 1
), sequences AS (
  SELECT split, count(sequence_id) AS sequences FROM (SELECT split, sequence_id FROM place GROUP BY 1, 2) AS s GROUP BY 1
), blocks AS (
  SELECT split, count(*) AS blocks_l13
  FROM (SELECT split, (cell & -(1::bigint << 34)) | (1::bigint << 34) AS block FROM cells GROUP BY 1, 2) AS b GROUP BY 1
)
SELECT %(snapshot_id)s, split, photos, sequences, (SELECT count(*) FROM cells c WHERE c.split = photos.split) AS cells_l15, blocks_l13
FROM photos JOIN sequences USING (split) JOIN blocks USING (split)
"""
PHOTOS = """
SELECT s.photo_id, s.split, p.s2_id, public.ST_X(p.geom) AS lon, public.ST_Y(p.geom) AS lat, p.gps_accuracy_m,
       p.sequence_id, p.captured_at
FROM geofix.snapshot_photo s JOIN geofix.photo_record p USING (photo_id)
WHERE s.snapshot_id = %(snapshot_id)s AND (%(splits)s::text[] IS NULL OR s.split = ANY (%(splits)s))
  AND (%(first)s::bigint IS NULL OR p.s2_id BETWEEN %(first)s AND %(last)s)
ORDER BY s.photo_id
"""
AUTHORS = """
SELECT s.photo_id, p.author FROM geofix.snapshot_photo s JOIN geofix.photo_record p USING (photo_id)
WHERE s.snapshot_id = %(snapshot_id)s ORDER BY s.photo_id
"""
FILES = """
SELECT p.uri, public.ST_X(p.geom), public.ST_Y(p.geom) FROM geofix.snapshot_photo s JOIN geofix.photo_record p USING (photo_id)
WHERE s.snapshot_id = %(snapshot_id)s AND s.split = %(split)s AND p.uri IS NOT NULL
ORDER BY p.sha256, p.photo_id LIMIT %(limit)s
"""
# The proof: no photo of test_unseen within the buffer of a photo of another split. The planar box is a superset of
# the circle (degrees of latitude, widened by the cosine for longitude), so that the spatial index serves.
BUFFER_BREACHES = """
SELECT t.photo_id, o.photo_id, o_split.split, public.ST_DistanceSphere(t.geom, o.geom) AS distance_m
FROM geofix.snapshot_photo ts
JOIN geofix.photo_record t ON t.photo_id = ts.photo_id
JOIN geofix.photo_record o
  ON o.geom OPERATOR(public.&&) public.ST_Expand(t.geom,
       %(buffer_m)s / 111000.0 / greatest(0.01, cos(radians(least(89.4, abs(public.ST_Y(t.geom)) + 0.01)))),
       %(buffer_m)s / 111000.0)
JOIN geofix.snapshot_photo o_split ON o_split.photo_id = o.photo_id AND o_split.snapshot_id = ts.snapshot_id
WHERE ts.snapshot_id = %(snapshot_id)s AND ts.split = 'test_unseen' AND o_split.split IN ('train', 'val')
  AND public.ST_DistanceSphere(t.geom, o.geom) < %(buffer_m)s
ORDER BY 4 LIMIT 5
"""
SEQUENCE_BREACHES = """
SELECT s.key, array_agg(DISTINCT sp.split ORDER BY sp.split) FROM geofix.snapshot_photo sp
JOIN geofix.photo_record p USING (photo_id) JOIN geofix.sequence s USING (sequence_id)
WHERE sp.snapshot_id = %(snapshot_id)s GROUP BY s.sequence_id, s.key
HAVING count(DISTINCT sp.split) FILTER (WHERE sp.split <> 'val') > 1
    OR (bool_or(sp.split = 'val') AND count(DISTINCT sp.split) > 1)
ORDER BY 1 LIMIT 5
"""


@dataclass(frozen=True)
class SnapshotRow:
    """One row of `snapshot`."""

    snapshot_id: int
    uri: str
    sha256: str
    config: dict[str, Any]
    counts: dict[str, int]


def candidates(conn: Connection, datasets: list[str], *, positions_only: bool = False) -> pd.DataFrame:
    """All photos of some data sets, one row each, in order of their id.

    Raises:
        NotFoundError: A data set does not exist.
    """
    known = {row[0] for row in conn.execute(DATASETS, {"datasets": datasets})}
    unknown = sorted(set(datasets) - known)
    if unknown:
        raise NotFoundError(
            f"No photo data set is named {', '.join(map(repr, unknown))}.",
            hint="Load it with `geofix ingest photos PATH --dataset NAME`.",
        )
    with conn.cursor() as cursor:
        cursor.execute(CANDIDATES, {"datasets": datasets, "positions_only": positions_only})
        columns = [item.name for item in cursor.description or []]
        return pd.DataFrame(cursor.fetchall(), columns=columns)


def licences(conn: Connection, datasets: list[str]) -> list[dict[str, Any]]:
    """Name, licence and attribution of data sets, to be carried into what is made from them."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(DATASETS, {"datasets": datasets}).fetchall()


def aerial_licences(conn: Connection, sources: list[str] | None) -> list[dict[str, Any]]:
    """Name, licence and attribution of aerial sources; None: of all.

    Raises:
        NotFoundError: A source does not exist.
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(AERIAL_DATASETS, {"sources": sources}).fetchall()
    unknown = sorted(set(sources or ()) - {row["name"] for row in found})
    if unknown:
        raise NotFoundError(
            f"No aerial source is named {', '.join(map(repr, unknown))}.",
            hint="Load it with `geofix ingest aerial PATH --source NAME`.",
        )
    return found


def aerial_rasters(
    conn: Connection, sources: list[str], low: list[int], high: list[int]
) -> list[dict[str, Any]]:
    """Rasters of the sources' tiles within ranges of cell ids, in an order given by their content."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(AERIAL_RASTERS, {"sources": sources, "low": low, "high": high}).fetchall()


def aerial_tiles(
    conn: Connection, sources: list[str], low: list[int], high: list[int], *, rows: int = 50_000
) -> Iterator[list[tuple[int, int, float, date | None, str, list[int]]]]:
    """Tiles within ranges of cell ids as (s2_id, level, side_m, captured_at, source, raster ids), streamed.

    In order of cell, source and date; up to `rows` at a time.
    """
    with conn.cursor(name="snapshot_tiles") as cursor:
        cursor.itersize = rows
        cursor.execute(AERIAL_TILES, {"sources": sources, "low": low, "high": high})
        while found := cursor.fetchmany(rows):
            yield found


def store_snapshot(
    conn: Connection,
    *,
    uri: str,
    sha256: str,
    config: Mapping[str, Any],
    counts: Mapping[str, int],
    splits: Iterable[tuple[int, str]],
) -> int:
    """Register a snapshot with its (photo id, split) rows and what they hold; the same content keeps its id."""
    row = conn.execute(
        INSERT, {"uri": uri, "sha256": sha256, "config": Jsonb(dict(config)), "counts": Jsonb(dict(counts))}
    ).fetchone()
    assert row is not None
    snapshot_id = int(row[0])
    conn.execute(CLEAR, {"snapshot_id": snapshot_id})
    copy_rows(
        conn,
        "geofix.snapshot_photo",
        {"snapshot_id": "int8", "photo_id": "int8", "split": "text"},
        ((snapshot_id, photo_id, split) for photo_id, split in splits),
    )
    conn.execute(COUNT, {"snapshot_id": snapshot_id})
    return snapshot_id


def prove_split(conn: Connection, snapshot_id: int, buffer_m: float, *, sequences: bool = True) -> None:
    """Let the database itself check the buffer and the sequences of a stored snapshot.

    Args:
        conn: Open connection.
        snapshot_id: A stored snapshot.
        buffer_m: Least distance in metres between test_unseen and train or val.
        sequences: False for a single track that is cut along its time.

    Raises:
        SplitLeakError: Names the first photos or sequences that break the split.
    """
    key = {"snapshot_id": snapshot_id, "buffer_m": buffer_m}
    near = conn.execute(BUFFER_BREACHES, key).fetchall()
    if near:
        shown = "; ".join(f"photo {a} is {d:.0f} m from {split} photo {b}" for a, b, split, d in near)
        raise SplitLeakError(
            f"test_unseen is closer than {buffer_m:.0f} m to other splits: {shown}.",
            hint="Build the snapshot again with a larger --buffer-m.",
        )
    if sequences:
        shared = conn.execute(SEQUENCE_BREACHES, key).fetchall()
        if shared:
            shown = "; ".join(f"{name!r} in {', '.join(splits)}" for name, splits in shared)
            raise SplitLeakError(
                f"Sequences stand in several splits: {shown}.", hint="Build the snapshot again."
            )


def find_snapshot(conn: Connection, sha256: str) -> SnapshotRow:
    """The stored snapshot of a content hash.

    Raises:
        NotFoundError: This database has never seen it.
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(FIND, {"sha256": sha256}).fetchone()
    if row is None:
        raise NotFoundError(
            f"Snapshot {sha256[:12]} was not built from this database.",
            hint="Build it here with `geofix snapshot build`, or point GEOFIX_DATABASE_URL at its database.",
        )
    return SnapshotRow(**row)


def snapshot_sha256(conn: Connection, snapshot_id: int) -> str | None:
    """Content hash of a stored snapshot; None where it is gone."""
    row = conn.execute(SHA256, {"snapshot_id": snapshot_id}).fetchone()
    return None if row is None else str(row[0])


def learned_photos(
    conn: Connection, sha256: str, snapshot_id: int, splits: list[str]
) -> dict[str, int] | None:
    """How many photos of each split stand in the training set of another snapshot, named by its content hash.

    None where this database does not know that one.
    """
    if conn.execute(FIND, {"sha256": sha256}).fetchone() is None:
        return None
    key = {"sha256": sha256, "snapshot_id": snapshot_id, "splits": splits}
    return {**dict.fromkeys(splits, 0), **dict(conn.execute(LEARNED, key).fetchall())}


def snapshot_photos(
    conn: Connection,
    snapshot_id: int,
    splits: list[str] | None = None,
    *,
    span: tuple[int, int] | None = None,
) -> pd.DataFrame:
    """Photos of a snapshot with split, leaf id, position, accuracy, sequence and time, by photo id.

    `span` is a closed range of leaf ids that they lie in.
    """
    first, last = span or (None, None)
    key = {"snapshot_id": snapshot_id, "splits": splits, "first": first, "last": last}
    with conn.cursor() as cursor:
        cursor.execute(PHOTOS, key)
        columns = [item.name for item in cursor.description or []]
        return pd.DataFrame(cursor.fetchall(), columns=columns)


def split_files(conn: Connection, snapshot_id: int, split: str, limit: int) -> list[tuple[str, float, float]]:
    """Up to `limit` photos of a split as (uri, lon, lat), chosen by their content, so the same in every database."""
    return conn.execute(FILES, {"snapshot_id": snapshot_id, "split": split, "limit": limit}).fetchall()


def snapshot_authors(conn: Connection, snapshot_id: int) -> dict[int, str | None]:
    """Author of every photo of a snapshot, None where none is known."""
    return dict(conn.execute(AUTHORS, {"snapshot_id": snapshot_id}).fetchall())
