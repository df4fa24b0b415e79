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

COLUMNS = """
j.job_id, j.kind, j.queue, j.state, j.specification, j.specification_version, j.idempotency_key, j.parent_job_id,
j.depends_on, j.progress_done, j.progress_total, j.progress_unit, j.progress_message, j.attempts, j.max_attempts,
j.lease_owner, j.lease_expires_at, j.fencing_token, j.cancel_requested, j.pause_requested, j.not_before,
j.claimed_at, j.is_container, j.chunk, j.size, j.submitted_by, j.submitted_at, j.published_at, j.started_at,
j.finished_at, j.result, j.error
"""
READY = """
NOT EXISTS (SELECT 1 FROM unnest(j.depends_on) AS d (job_id) LEFT JOIN geofix.job p USING (job_id)
            WHERE p.state IS DISTINCT FROM 'succeeded')
"""
INSERT = """
INSERT INTO geofix.job (job_id, kind, queue, specification, specification_version, idempotency_key, parent_job_id,
                        depends_on, max_attempts, progress_total, progress_unit, result, is_container, chunk, size)
VALUES (coalesce(%(job_id)s, gen_random_uuid()), %(kind)s, %(queue)s, %(specification)s::jsonb,
        %(specification_version)s, %(idempotency_key)s, %(parent_job_id)s, %(depends_on)s, %(max_attempts)s,
        %(progress_total)s, %(progress_unit)s, %(result)s::jsonb, %(is_container)s, %(chunk)s, %(size)s)
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
FIND_OPEN = """
SELECT job_id FROM geofix.job WHERE kind = %(kind)s AND specification = %(specification)s::jsonb AND parent_job_id IS NULL
  AND state IN ('queued', 'running', 'paused', 'lost') ORDER BY submitted_at DESC LIMIT 1
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
    started_at = coalesce(j.started_at, clock_timestamp()), claimed_at = clock_timestamp(), error = NULL,
    not_before = NULL, progress_done = 0, progress_total = NULL, progress_message = ''
WHERE j.job_id = %(job_id)s AND j.state IN ('queued', 'lost') AND j.attempts < j.max_attempts
  AND NOT j.cancel_requested AND NOT j.is_container
  AND (j.not_before IS NULL OR j.not_before <= clock_timestamp()) AND {READY}
RETURNING {COLUMNS}
"""
RENEW = """
UPDATE geofix.job SET lease_expires_at = clock_timestamp() + make_interval(secs => %(lease_s)s),
    progress_done = %(done)s, progress_total = %(total)s, progress_unit = %(unit)s, progress_message = %(message)s
WHERE job_id = %(job_id)s AND fencing_token = %(token)s AND state = 'running' RETURNING cancel_requested, pause_requested
"""
# The server ends this transaction when its client says nothing for so long.
BRIEF = "SELECT set_config('idle_in_transaction_session_timeout', %(ms)s, true)"
FENCE = """
SELECT 1 FROM geofix.job WHERE job_id = %(job_id)s AND fencing_token = %(token)s AND state = 'running' FOR SHARE
"""
# A job that is tried again waits first, unless its worker gave it back: then it is published at once.
FINISH = """
UPDATE geofix.job SET state = %(state)s, result = %(result)s::jsonb, error = %(error)s, lease_owner = NULL,
    lease_expires_at = NULL, attempts = attempts - %(refund)s, published_at = NULL, pause_requested = false,
    not_before = clock_timestamp() + make_interval(secs => %(delay_s)s),
    finished_at = CASE WHEN %(state)s NOT IN ('queued', 'paused') THEN clock_timestamp() END,
    progress_done = CASE WHEN %(state)s = 'succeeded' THEN coalesce(progress_total, progress_done) ELSE progress_done END
WHERE job_id = %(job_id)s AND fencing_token = %(token)s AND state = 'running' RETURNING job_id
"""
# The claim ends without an outcome: from now on the chunks run, and the row follows them.
SPLIT = """
UPDATE geofix.job SET is_container = true, lease_owner = NULL, lease_expires_at = NULL, progress_done = 0,
    progress_total = %(total)s, progress_unit = %(unit)s, progress_message = %(message)s
WHERE job_id = %(job_id)s AND fencing_token = %(token)s AND state = 'running' AND NOT cancel_requested
RETURNING job_id
"""


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
    pause_requested: bool
    not_before: datetime | None
    claimed_at: datetime | None
    is_container: bool
    chunk: int | None
    size: int | None
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


def find_open(conn: Connection, kind: str, specification: str) -> UUID | None:
    """The newest job that has not ended and was submitted with this specification, as JSON text."""
    row = conn.execute(FIND_OPEN, {"kind": kind, "specification": specification}).fetchone()
    return None if row is None else row[0]


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


def keep_brief(conn: Connection, seconds: float) -> None:
    """Let this transaction be ended by the server when its client is silent for so long.

    Whoever is about to lock the row of a job asks for it: a process that falls asleep before its commit would
    keep the row from the sweep, which passes over locked rows, for as long as it sleeps.
    """
    conn.execute(BRIEF, {"ms": str(max(1, round(1000 * seconds)))})


def claim(conn: Connection, job_id: UUID, owner: str, lease_s: float) -> JobRow | None:
    """Take a job: one more attempt and a new fencing token; None when it is not to be had."""
    return _one(conn, CLAIM, {"job_id": job_id, "owner": owner, "lease_s": lease_s})


def renew(
    conn: Connection, job_id: UUID, token: int, lease_s: float, progress: dict[str, Any]
) -> tuple[bool, bool] | None:
    """Extend the lease and write progress; whether cancel and pause were requested, None when the claim is lost."""
    row = conn.execute(RENEW, {"job_id": job_id, "token": token, "lease_s": lease_s, **progress}).fetchone()
    return None if row is None else (bool(row[0]), bool(row[1]))


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
    delay_s: float | None = None,
) -> bool:
    """End a claim; False, and nothing written, when it was lost before.

    Args:
        conn: Open connection.
        job_id: The job.
        token: Fencing token of the claim.
        state: A terminal state, `queued` to have it tried again, or `paused`.
        result: JSON text.
        error: Why it did not succeed.
        refund: The attempt does not count.
        delay_s: Not to be claimed again before this many seconds.
    """
    values = {
        "job_id": job_id,
        "token": token,
        "state": state,
        "result": result,
        "error": error,
        "refund": int(refund),
        "delay_s": delay_s,
    }
    return conn.execute(FINISH, values).fetchone() is not None


def split(conn: Connection, job_id: UUID, token: int, total: int, unit: str, message: str) -> bool:
    """End a claim by handing its work to chunks; False when it was lost, or is to be cancelled."""
    values = {"job_id": job_id, "token": token, "total": total, "unit": unit, "message": message}
    return conn.execute(SPLIT, values).fetchone() is not None
