"""What the dashboard changes: jobs and code sets. Each change leaves a row in the audit table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geofix.database.engine import connect
from geofix.database.queries import codes, localizations
from geofix.database.queries.jobs import JobRow
from geofix.errors import UsageError
from geofix.jobs import service
from geofix.jobs.specs import Queue, parse

SOURCE = {"through": "dashboard"}


def submit(kind: str, parameters: Mapping[str, Any], queue: Queue | None = None) -> JobRow:
    """Queue a job.

    Raises:
        UsageError: A parameter is unknown, missing or wrong; the message names it.
    """
    row = service.submit(parse(kind, parameters), queue=queue)
    _note("submit", "job", str(row.job_id), {"kind": kind})
    return row


def cancel(job_id: str) -> JobRow:
    """Cancel a job that waits, or ask one that runs to stop."""
    row = service.cancel(job_id)
    _note("cancel", "job", str(row.job_id), {"kind": row.kind})
    return row


def retry(job_id: str) -> JobRow:
    """Queue a job that ended badly again."""
    row = service.retry(job_id)
    _note("retry", "job", str(row.job_id), {"kind": row.kind})
    return row


def pause(job_id: str) -> JobRow:
    """Hold a job that waits, or ask one that runs to stop where it can go on from later."""
    row = service.pause(job_id)
    _note("pause", "job", str(row.job_id), {"kind": row.kind})
    return row


def resume(job_id: str) -> JobRow:
    """Let a paused job go on."""
    row = service.resume(job_id)
    _note("resume", "job", str(row.job_id), {"kind": row.kind})
    return row


def mark(name: str, state: str) -> None:
    """Take a code set out of use (`stale`) or back into it (`ready`).

    Raises:
        UsageError: It is being built or dropped.
    """
    with connect("writer") as conn:
        found = codes.find_code_set(conn, name)
        if found.state not in codes.SEARCHABLE or state not in codes.SEARCHABLE:
            raise UsageError(f"Code set {name} is {found.state}.", hint="Wait until it is ready.")
        reason = None if state == "ready" else "marked stale on the dashboard"
        codes.set_state(conn, found.code_set_id, state, reason)
    _note("mark", "code_set", name, {"state": state})


def drop(name: str) -> None:
    """Remove a code set with its codes; evaluations keep their rows. Needs the owner's connection."""
    with connect("owner") as conn:
        codes.drop_code_set(conn, codes.find_code_set(conn, name))
    _note("drop", "code_set", name, {})


def _note(action: str, kind: str, key: str, detail: Mapping[str, Any]) -> None:
    with connect("writer") as conn:
        localizations.audit(conn, action, kind, key, {**SOURCE, **detail})
