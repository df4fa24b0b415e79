"""Which worker processes there are, by their heartbeat rows."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

ALIVE_S = 90  # six missed heartbeats

EXISTS = "SELECT to_regclass('geofix.worker') IS NOT NULL"
WORKERS = """
SELECT name, queues, device, software_version, job_id, started_at, seen_at,
       abs(extract(epoch FROM clock_timestamp() - seen_at)) < %(alive_s)s AS alive
FROM geofix.worker ORDER BY name
"""


def list_workers(conn: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Every known worker and whether it was heard of lately; none before the first migration."""
    row = conn.execute(EXISTS).fetchone()
    if row is None or not row[0]:
        return []
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(WORKERS, {"alive_s": ALIVE_S}).fetchall()
