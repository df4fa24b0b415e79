"""Heartbeat rows that worker processes write; `queries.workers` reads them."""

from __future__ import annotations

from typing import Any

from geofix.database.engine import Connection

SEEN = """
INSERT INTO geofix.worker (name, queues, device, software_version, job_id)
VALUES (%(name)s, %(queues)s, %(device)s, %(software_version)s, %(job_id)s)
ON CONFLICT (name) DO UPDATE SET queues = excluded.queues, device = excluded.device, job_id = excluded.job_id,
    software_version = excluded.software_version, seen_at = clock_timestamp()
"""
GONE = "DELETE FROM geofix.worker WHERE name = %(name)s"
FORGET = "DELETE FROM geofix.worker WHERE seen_at < now() - interval '1 day'"


def worker_seen(conn: Connection, values: dict[str, Any]) -> None:
    """Write a worker's heartbeat row."""
    conn.execute(SEEN, values)


def worker_gone(conn: Connection, name: str) -> None:
    """Remove the row of a worker that ended in good order."""
    conn.execute(GONE, {"name": name})


def forget_workers(conn: Connection) -> None:
    """Remove rows of workers unheard of for a day."""
    conn.execute(FORGET)
