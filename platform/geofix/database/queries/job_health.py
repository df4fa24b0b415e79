"""How the queues are, and what beat has asked for already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row

from geofix.database.engine import Connection

EXISTS = "SELECT to_regclass('geofix.queue_status') IS NOT NULL"
QUEUES = "SELECT * FROM geofix.queue_status ORDER BY queue"
PERIOD = "SELECT floor(extract(epoch FROM clock_timestamp()) / %(every_s)s)::bigint"
KNOWN_KEYS = "SELECT idempotency_key FROM geofix.job WHERE idempotency_key = ANY (%(keys)s)"
# Only indexed sets have an approximate search, and only with stored photos is there anything to compare.
INDEXED_CODE_SETS = """
SELECT c.code_set_id, c.name FROM geofix.code_set c
WHERE c.state = 'ready' AND c.index_parameters <> '{}'::jsonb
  AND EXISTS (SELECT 1 FROM geofix.photo_embedding e WHERE e.model_id = c.model_id)
ORDER BY c.code_set_id
"""


def queue_health(conn: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Each queue: what waits, runs and is held, age of the oldest waiting job, live workers; none before migration."""
    row = conn.execute(EXISTS).fetchone()
    if row is None or not row[0]:
        return []
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(QUEUES).fetchall()


def period(conn: Connection, every_s: float) -> int:
    """Number of the period of so many seconds in which the database's clock is."""
    row = conn.execute(PERIOD, {"every_s": every_s}).fetchone()
    assert row is not None
    return int(row[0])


def known_keys(conn: Connection, keys: Sequence[str]) -> set[str]:
    """Those of the idempotency keys that have a job."""
    return {row[0] for row in conn.execute(KNOWN_KEYS, {"keys": list(keys)})}


def indexed_code_sets(conn: Connection) -> list[tuple[int, str]]:
    """Ready code sets with an index and stored photos: (id, name)."""
    return conn.execute(INDEXED_CODE_SETS).fetchall()
