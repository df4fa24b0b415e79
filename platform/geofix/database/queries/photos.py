"""Photos as stored: their data set, and what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geofix.database.engine import Connection
from geofix.database.queries.photo_regions import RegionCounts as RegionCounts
from geofix.database.queries.photo_regions import assign_regions as assign_regions

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
