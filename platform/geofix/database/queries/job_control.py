"""What people ask of jobs: cancel, pause, resume, retry; of a container, of everything below it."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from geofix.database.engine import Connection

TREE = """
tree AS (SELECT job_id, is_container FROM geofix.job WHERE job_id = %(job_id)s
         UNION SELECT j.job_id, j.is_container FROM geofix.job j JOIN tree t ON j.parent_job_id = t.job_id)
"""
CANCEL = f"""
WITH RECURSIVE {TREE}
UPDATE geofix.job SET cancel_requested = true, state = CASE WHEN state = 'running' THEN state ELSE 'cancelled' END,
    finished_at = CASE WHEN state = 'running' THEN NULL ELSE clock_timestamp() END
WHERE job_id IN (SELECT job_id FROM tree WHERE NOT is_container) AND state IN ('queued', 'running', 'lost', 'paused')
RETURNING job_id, state
"""
# What runs is asked to stop only where it can go on later from where it stopped.
PAUSE = f"""
WITH RECURSIVE {TREE}
UPDATE geofix.job SET pause_requested = (state = 'running'),
    state = CASE WHEN state = 'running' THEN state ELSE 'paused' END
WHERE job_id IN (SELECT job_id FROM tree WHERE NOT is_container)
  AND (state IN ('queued', 'lost') OR state = 'running' AND kind = ANY (%(resumable)s)) RETURNING job_id, state
"""
RESUME = f"""
WITH RECURSIVE {TREE}
UPDATE geofix.job SET pause_requested = false, published_at = CASE WHEN state = 'running' THEN published_at END,
    state = CASE WHEN state = 'paused' THEN 'queued' ELSE state END
WHERE job_id IN (SELECT job_id FROM tree WHERE NOT is_container)
  AND (state = 'paused' OR state = 'running' AND pause_requested) RETURNING job_id, state
"""
# A job that was never begun because one it depends on failed is brought back together with that one.
RETRY = """
WITH RECURSIVE chosen AS (
    SELECT j.job_id, j.is_container FROM geofix.job j
    WHERE j.job_id = %(job_id)s AND j.state IN ('failed', 'cancelled', 'parked', 'lost')
  UNION
    SELECT j.job_id, j.is_container FROM geofix.job j JOIN chosen c
      ON (c.is_container AND j.parent_job_id = c.job_id AND j.state IN ('failed', 'cancelled', 'parked'))
      OR (j.state = 'failed' AND j.started_at IS NULL AND c.job_id = ANY (j.depends_on))
)
UPDATE geofix.job SET state = 'queued', attempts = 0, cancel_requested = false, pause_requested = false, error = NULL,
    finished_at = NULL, started_at = NULL, published_at = NULL, not_before = NULL, lease_owner = NULL,
    lease_expires_at = NULL, progress_done = 0, progress_message = '', result = CASE WHEN kind = 'pipeline' THEN result END
WHERE job_id IN (SELECT job_id FROM chosen) RETURNING job_id
"""


def request_cancel(conn: Connection, job_id: UUID) -> list[tuple[UUID, str]]:
    """Cancel what waits and ask what runs to stop. Returns (id, state now)."""
    return conn.execute(CANCEL, {"job_id": job_id}).fetchall()


def request_pause(conn: Connection, job_id: UUID, resumable: Sequence[str]) -> list[tuple[UUID, str]]:
    """Hold what waits and ask what runs, of the kinds that can go on later, to stop. Returns (id, state now)."""
    return conn.execute(PAUSE, {"job_id": job_id, "resumable": list(resumable)}).fetchall()


def release(conn: Connection, job_id: UUID) -> list[tuple[UUID, str]]:
    """Queue what was held, and withdraw what was asked of those that still run. Returns (id, state now)."""
    return conn.execute(RESUME, {"job_id": job_id}).fetchall()


def requeue(conn: Connection, job_id: UUID) -> list[UUID]:
    """Queue a job that ended badly again, with what never began because of it."""
    return [row[0] for row in conn.execute(RETRY, {"job_id": job_id})]
