"""Jobs: rows of `job` and `job_event`, claimed, renewed and finished under a fencing token.

All times are the database's clock. A write by the holder of a claim names its fencing token and is void once
another process has claimed the job, or the sweep has taken it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import class_row, dict_row

from geofix.database.engine import Connection

TERMINAL = ("succeeded", "failed", "cancelled", "parked")
CONTAINER = "pipeline"  # a row that is never claimed: its state follows from its children's

COLUMNS = """
j.job_id, j.kind, j.queue, j.state, j.specification, j.specification_version, j.idempotency_key, j.parent_job_id,
j.depends_on, j.progress_done, j.progress_total, j.progress_unit, j.progress_message, j.attempts, j.max_attempts,
j.lease_owner, j.lease_expires_at, j.fencing_token, j.cancel_requested, j.submitted_by, j.submitted_at,
j.published_at, j.started_at, j.finished_at, j.result, j.error
"""
READY = """
NOT EXISTS (SELECT 1 FROM unnest(j.depends_on) AS d (job_id) LEFT JOIN geofix.job p USING (job_id)
            WHERE p.state IS DISTINCT FROM 'succeeded')
"""
INSERT = """
INSERT INTO geofix.job (job_id, kind, queue, specification, specification_version, idempotency_key, parent_job_id,
                        depends_on, max_attempts, progress_total, progress_unit, result)
VALUES (coalesce(%(job_id)s, gen_random_uuid()), %(kind)s, %(queue)s, %(specification)s::jsonb,
        %(specification_version)s, %(idempotency_key)s, %(parent_job_id)s, %(depends_on)s, %(max_attempts)s,
        %(progress_total)s, %(progress_unit)s, %(result)s::jsonb)
ON CONFLICT (idempotency_key) DO NOTHING RETURNING job_id
"""
FIND = f"SELECT {COLUMNS} FROM geofix.job j WHERE j.job_id = %(job_id)s"
FIND_KEY = f"SELECT {COLUMNS} FROM geofix.job j WHERE j.idempotency_key = %(key)s"
FIND_PREFIX = "SELECT job_id FROM geofix.job WHERE starts_with(job_id::text, %(prefix)s) LIMIT 2"
LIST = f"""
SELECT {COLUMNS} FROM geofix.job j
WHERE (%(states)s::text[] IS NULL OR j.state = ANY (%(states)s))
  AND (%(parent)s::uuid IS NULL OR j.parent_job_id = %(parent)s)
ORDER BY j.submitted_at DESC, j.job_id LIMIT %(limit)s
"""
EXISTING = "SELECT job_id FROM geofix.job WHERE job_id = ANY (%(ids)s)"
EVENT = """
INSERT INTO geofix.job_event (job_id, kind, message, data) VALUES (%(job_id)s, %(kind)s, %(message)s, %(data)s::jsonb)
"""
EVENTS = """
SELECT job_event_id, at, kind, message, data FROM geofix.job_event
WHERE job_id = %(job_id)s AND job_event_id > %(after)s ORDER BY job_event_id
"""
CLAIM = f"""
UPDATE geofix.job j SET state = 'running', attempts = j.attempts + 1, fencing_token = j.fencing_token + 1,
    lease_owner = %(owner)s, lease_expires_at = clock_timestamp() + make_interval(secs => %(lease_s)s),
    started_at = coalesce(j.started_at, clock_timestamp()), error = NULL,
    progress_done = 0, progress_total = NULL, progress_message = ''
WHERE j.job_id = %(job_id)s AND j.state IN ('queued', 'lost') AND j.attempts < j.max_attempts
  AND NOT j.cancel_requested AND j.kind <> '{CONTAINER}' AND {READY}
RETURNING {COLUMNS}
"""
RENEW = """
UPDATE geofix.job SET lease_expires_at = clock_timestamp() + make_interval(secs => %(lease_s)s),
    progress_done = %(done)s, progress_total = %(total)s, progress_unit = %(unit)s, progress_message = %(message)s
WHERE job_id = %(job_id)s AND fencing_token = %(token)s AND state = 'running' RETURNING cancel_requested
"""
FENCE = """
SELECT 1 FROM geofix.job WHERE job_id = %(job_id)s AND fencing_token = %(token)s AND state = 'running' FOR SHARE
"""
FINISH = """
UPDATE geofix.job SET state = %(state)s, result = %(result)s::jsonb, error = %(error)s, lease_owner = NULL,
    lease_expires_at = NULL, attempts = attempts - %(refund)s,
    finished_at = CASE WHEN %(state)s <> 'queued' THEN clock_timestamp() END,
    published_at = CASE WHEN %(state)s = 'queued' AND %(refund)s = 0 THEN clock_timestamp() END,
    progress_done = CASE WHEN %(state)s = 'succeeded' THEN coalesce(progress_total, progress_done) ELSE progress_done END
WHERE job_id = %(job_id)s AND fencing_token = %(token)s AND state = 'running' RETURNING job_id
"""
CANCEL = """
UPDATE geofix.job SET cancel_requested = true,
    state = CASE WHEN state = 'running' AND kind <> 'pipeline' THEN state ELSE 'cancelled' END,
    finished_at = CASE WHEN state = 'running' AND kind <> 'pipeline' THEN NULL ELSE clock_timestamp() END
WHERE (job_id = %(job_id)s AND kind <> 'pipeline' OR parent_job_id = %(job_id)s)
  AND state IN ('queued', 'running', 'lost', 'paused') RETURNING job_id, state
"""
# A job that was never begun because one it depends on failed is brought back together with that one.
RETRY = """
WITH RECURSIVE chosen AS (
    SELECT j.job_id, j.kind FROM geofix.job j
    WHERE j.job_id = %(job_id)s AND j.state IN ('failed', 'cancelled', 'parked', 'lost')
  UNION
    SELECT j.job_id, j.kind FROM geofix.job j JOIN chosen c
      ON (c.kind = 'pipeline' AND j.parent_job_id = c.job_id AND j.state IN ('failed', 'cancelled', 'parked'))
      OR (j.state = 'failed' AND j.started_at IS NULL AND c.job_id = ANY (j.depends_on))
)
UPDATE geofix.job SET state = 'queued', attempts = 0, cancel_requested = false, error = NULL, finished_at = NULL,
    started_at = NULL, published_at = NULL, lease_owner = NULL, lease_expires_at = NULL, progress_done = 0,
    progress_message = '', result = CASE WHEN kind = 'pipeline' THEN result END
WHERE job_id IN (SELECT job_id FROM chosen) RETURNING job_id
"""
EXPIRE = """
UPDATE geofix.job SET state = 'lost' WHERE job_id IN (
    SELECT job_id FROM geofix.job WHERE state = 'running' AND lease_expires_at < clock_timestamp()
    ORDER BY job_id FOR UPDATE SKIP LOCKED)
RETURNING job_id, lease_owner
"""
RECOVER = """
UPDATE geofix.job SET lease_expires_at = NULL, published_at = NULL,
    state = CASE WHEN cancel_requested THEN 'cancelled' WHEN attempts >= max_attempts THEN 'parked' ELSE 'queued' END,
    finished_at = CASE WHEN cancel_requested OR attempts >= max_attempts THEN clock_timestamp() END,
    error = CASE WHEN attempts >= max_attempts AND NOT cancel_requested THEN
        format('The worker ended or fell silent in each of %s attempts, last %s, at "%s". Look at that worker''s log and memory; then `geofix jobs retry`.',
               attempts, coalesce(lease_owner, 'unknown'), progress_message) END
WHERE job_id IN (SELECT job_id FROM geofix.job WHERE state = 'lost' ORDER BY job_id FOR UPDATE SKIP LOCKED)
RETURNING job_id, state, coalesce(error, '')
"""
# Everything that waits, directly or not, for a job that will not succeed.
FAIL_DEPENDENTS = """
WITH RECURSIVE doomed AS (
    SELECT j.job_id, p.job_id AS cause_id, p.kind AS cause_kind, p.state AS cause_state
    FROM geofix.job j CROSS JOIN unnest(j.depends_on) AS d (job_id) JOIN geofix.job p ON p.job_id = d.job_id
    WHERE j.state = 'queued' AND p.state IN ('failed', 'cancelled', 'parked')
  UNION
    SELECT j.job_id, d.cause_id, d.cause_kind, d.cause_state
    FROM geofix.job j JOIN doomed d ON d.job_id = ANY (j.depends_on) WHERE j.state = 'queued'
), first AS (
    SELECT DISTINCT ON (job_id) * FROM doomed ORDER BY job_id, cause_id
)
UPDATE geofix.job j SET state = 'failed', finished_at = clock_timestamp(),
    error = format('Not begun: job %s (%s), which it depends on, is %s. Mend that one and `geofix jobs retry %s`.',
                   f.cause_id, f.cause_kind, f.cause_state, f.cause_id)
FROM first f WHERE j.job_id = f.job_id AND j.state = 'queued' RETURNING j.job_id, j.error
"""
# `published_at` in the past is a message that nobody has taken up: the broker may have lost it.
DUE = f"""
SELECT j.job_id, j.queue, j.published_at IS NOT NULL FROM geofix.job j
WHERE j.state = 'queued' AND j.kind <> '{CONTAINER}' AND {READY}
  AND (j.published_at IS NULL OR j.published_at < clock_timestamp() - make_interval(secs => %(redeliver_s)s))
ORDER BY j.published_at NULLS FIRST, j.submitted_at LIMIT 10000
"""
FRESH = f"""
SELECT j.job_id, j.queue FROM geofix.job j
WHERE j.job_id = ANY (%(ids)s) AND j.state = 'queued' AND j.kind <> '{CONTAINER}' AND {READY}
ORDER BY j.submitted_at
"""
DEPENDENTS = "SELECT job_id FROM geofix.job WHERE state = 'queued' AND depends_on @> ARRAY[%(job_id)s::uuid]"
PUBLISHED = """
UPDATE geofix.job SET published_at = clock_timestamp() WHERE job_id = ANY (%(ids)s) AND state = 'queued'
"""
NEXT_CHILD = f"""
SELECT j.job_id FROM geofix.job j WHERE j.parent_job_id = %(parent)s AND j.state IN ('queued', 'lost') AND {READY}
ORDER BY j.submitted_at, j.job_id LIMIT 1
"""
LOCK = "SELECT 1 FROM geofix.job WHERE job_id = %(job_id)s FOR UPDATE"
# The row is locked first, so that of two children that end together the later one sees both.
SETTLE = """
UPDATE geofix.job p SET state = c.state, progress_done = c.done, progress_total = c.total, progress_unit = 'stages',
    progress_message = coalesce(c.now, ''), started_at = c.started_at, error = c.error,
    finished_at = CASE WHEN c.state NOT IN ('queued', 'running') THEN clock_timestamp() END,
    result = CASE WHEN c.state = 'succeeded' THEN p.result || jsonb_build_object('results', c.results) ELSE p.result END
FROM (
    SELECT count(*) AS total, count(*) FILTER (WHERE j.state = 'succeeded') AS done, min(j.started_at) AS started_at,
           CASE WHEN bool_or(j.state IN ('running', 'lost', 'paused'))
                  OR bool_or(j.state = 'queued') AND bool_or(j.started_at IS NOT NULL) THEN 'running'
                WHEN bool_or(j.state = 'queued') THEN 'queued'
                WHEN bool_and(j.state = 'succeeded') THEN 'succeeded'
                WHEN bool_or(j.state = 'parked') THEN 'parked'
                WHEN bool_or(j.state = 'failed' AND j.started_at IS NOT NULL) THEN 'failed'
                WHEN bool_or(j.state = 'cancelled') THEN 'cancelled'
                ELSE 'failed' END AS state,
           string_agg(s.name, ', ' ORDER BY j.started_at) FILTER (WHERE j.state = 'running') AS now,
           string_agg(s.name || ' (' || j.job_id || '): ' || j.error, '; ' ORDER BY j.finished_at)
               FILTER (WHERE j.error IS NOT NULL AND (j.started_at IS NOT NULL OR j.state = 'parked')) AS error,
           jsonb_object_agg(s.name, j.result) AS results
    FROM geofix.job p JOIN LATERAL jsonb_each_text(p.result -> 'jobs') AS s (name, job_id) ON true
    JOIN geofix.job j ON j.job_id = s.job_id::uuid
    WHERE p.job_id = %(parent)s
) c WHERE p.job_id = %(parent)s AND (p.state, p.progress_done, p.progress_message)
    IS DISTINCT FROM (c.state, c.done, coalesce(c.now, ''))
RETURNING p.state
"""
OPEN_PARENTS = f"SELECT job_id FROM geofix.job WHERE kind = '{CONTAINER}' AND state IN ('queued', 'running')"


@dataclass(frozen=True)
class JobRow:
    """One row of `job`."""

    job_id: UUID
    kind: str
    queue: str
    state: str
    specification: dict[str, Any]
    specification_version: int
    idempotency_key: str | None
    parent_job_id: UUID | None
    depends_on: list[UUID]
    progress_done: int
    progress_total: int | None
    progress_unit: str
    progress_message: str
    attempts: int
    max_attempts: int
    lease_owner: str | None
    lease_expires_at: datetime | None
    fencing_token: int
    cancel_requested: bool
    submitted_by: str
    submitted_at: datetime
    published_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    result: dict[str, Any] | None
    error: str | None

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen unless somebody retries it."""
        return self.state in TERMINAL


def _one(conn: Connection, statement: LiteralString, values: dict[str, Any]) -> JobRow | None:
    with conn.cursor(row_factory=class_row(JobRow)) as cursor:
        return cursor.execute(statement, values).fetchone()


def insert_job(conn: Connection, values: dict[str, Any]) -> UUID | None:
    """Insert a queued job; None when its idempotency key is taken."""
    row = conn.execute(INSERT, values).fetchone()
    return None if row is None else row[0]


def find_job(conn: Connection, job_id: UUID) -> JobRow | None:
    """The job of an id."""
    return _one(conn, FIND, {"job_id": job_id})


def find_by_key(conn: Connection, key: str) -> JobRow | None:
    """The job of an idempotency key."""
    return _one(conn, FIND_KEY, {"key": key})


def find_by_prefix(conn: Connection, prefix: str) -> list[UUID]:
    """Up to two ids that begin so."""
    return [row[0] for row in conn.execute(FIND_PREFIX, {"prefix": prefix})]


def list_jobs(
    conn: Connection, *, states: Sequence[str] | None = None, parent: UUID | None = None, limit: int = 50
) -> list[JobRow]:
    """Jobs, newest first."""
    values = {"states": None if states is None else list(states), "parent": parent, "limit": limit}
    with conn.cursor(row_factory=class_row(JobRow)) as cursor:
        return cursor.execute(LIST, values).fetchall()


def existing(conn: Connection, ids: Sequence[UUID]) -> set[UUID]:
    """Those of the ids that are jobs."""
    return {row[0] for row in conn.execute(EXISTING, {"ids": list(ids)})}


def add_events(conn: Connection, job_id: UUID, events: Iterable[tuple[str, str, str]]) -> None:
    """Append (kind, message, JSON text) in order."""
    rows = [{"job_id": job_id, "kind": kind, "message": text, "data": data} for kind, text, data in events]
    if rows:
        with conn.cursor() as cursor:
            cursor.executemany(EVENT, rows)


def read_events(conn: Connection, job_id: UUID, after: int = 0) -> list[dict[str, Any]]:
    """Events of a job after one of them, in order."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(EVENTS, {"job_id": job_id, "after": after}).fetchall()


def claim(conn: Connection, job_id: UUID, owner: str, lease_s: float) -> JobRow | None:
    """Take a job: one more attempt and a new fencing token; None when it is not to be had."""
    return _one(conn, CLAIM, {"job_id": job_id, "owner": owner, "lease_s": lease_s})


def renew(
    conn: Connection, job_id: UUID, token: int, lease_s: float, progress: dict[str, Any]
) -> bool | None:
    """Extend the lease and write progress; whether a cancel was requested, None when the claim is lost."""
    row = conn.execute(RENEW, {"job_id": job_id, "token": token, "lease_s": lease_s, **progress}).fetchone()
    return None if row is None else bool(row[0])


def holds(conn: Connection, job_id: UUID, token: int) -> bool:
    """Whether the claim stands, and will until this transaction ends."""
    return conn.execute(FENCE, {"job_id": job_id, "token": token}).fetchone() is not None


def finish(
    conn: Connection,
    job_id: UUID,
    token: int,
    state: str,
    *,
    result: str | None = None,
    error: str | None = None,
    refund: bool = False,
) -> bool:
    """End a claim; False, and nothing written, when it was lost before.

    Args:
        conn: Open connection.
        job_id: The job.
        token: Fencing token of the claim.
        state: A terminal state, or `queued` to have it tried again.
        result: JSON text.
        error: Why it did not succeed.
        refund: The attempt does not count.
    """
    values = {
        "job_id": job_id,
        "token": token,
        "state": state,
        "result": result,
        "error": error,
        "refund": int(refund),
    }
    return conn.execute(FINISH, values).fetchone() is not None


def request_cancel(conn: Connection, job_id: UUID) -> list[tuple[UUID, str]]:
    """Cancel what waits and ask what runs to stop; for a pipeline its children. Returns (id, state now)."""
    return conn.execute(CANCEL, {"job_id": job_id}).fetchall()


def requeue(conn: Connection, job_id: UUID) -> list[UUID]:
    """Queue a job that ended badly again, with what never began because of it."""
    return [row[0] for row in conn.execute(RETRY, {"job_id": job_id})]


def expire_leases(conn: Connection) -> list[tuple[UUID, str | None]]:
    """Mark running jobs whose lease ran out as lost: (id, last owner)."""
    return conn.execute(EXPIRE).fetchall()


def recover_lost(conn: Connection) -> list[tuple[UUID, str, str]]:
    """Queue lost jobs again, or park those without an attempt left: (id, state, error)."""
    return conn.execute(RECOVER).fetchall()


def fail_dependents(conn: Connection) -> list[tuple[UUID, str]]:
    """Fail queued jobs that wait for one that did not succeed: (id, error)."""
    return conn.execute(FAIL_DEPENDENTS).fetchall()


def due(conn: Connection, redeliver_s: float) -> list[tuple[UUID, str, bool]]:
    """Queued jobs that are ready and unpublished, or published long ago: (id, queue, published)."""
    return conn.execute(DUE, {"redeliver_s": redeliver_s}).fetchall()


def ready(conn: Connection, ids: Sequence[UUID]) -> list[tuple[UUID, str]]:
    """Those of the ids that are queued and wait for nothing: (id, queue)."""
    return conn.execute(FRESH, {"ids": list(ids)}).fetchall()


def dependents(conn: Connection, job_id: UUID) -> list[UUID]:
    """Queued jobs that name this one in `depends_on`."""
    return [row[0] for row in conn.execute(DEPENDENTS, {"job_id": job_id})]


def mark_published(conn: Connection, ids: Sequence[UUID]) -> None:
    """Note that the broker has a message for these."""
    conn.execute(PUBLISHED, {"ids": list(ids)})


def next_child(conn: Connection, parent: UUID) -> UUID | None:
    """A child of a pipeline that can be claimed now."""
    row = conn.execute(NEXT_CHILD, {"parent": parent}).fetchone()
    return None if row is None else row[0]


def settle(conn: Connection, parent: UUID) -> str | None:
    """Bring a pipeline's row up to date with its children; its state when something changed."""
    conn.execute(LOCK, {"job_id": parent})
    row = conn.execute(SETTLE, {"parent": parent}).fetchone()
    return None if row is None else str(row[0])


def open_parents(conn: Connection) -> list[UUID]:
    """Pipelines that have not ended."""
    return [row[0] for row in conn.execute(OPEN_PARENTS)]
