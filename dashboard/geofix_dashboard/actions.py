"""What the dashboard changes: jobs and code sets.

Each function asks first whether this session may do it, whatever the page showed, and leaves a row in the
audit table under the name of who signed in, also where it was refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from geofix.database.engine import connect
from geofix.database.queries import codes, localizations
from geofix.database.queries.jobs import JobRow
from geofix.errors import UsageError
from geofix.jobs import service
from geofix.jobs.specs import Queue, parse
from geofix_dashboard import access, uploads
from geofix_dashboard.access import Role

SOURCE = {"through": "dashboard"}
OWN = "own_jobs"  # searches that this session asked for


def localize(parameters: Mapping[str, Any]) -> JobRow:
    """Queue a search for photos that were uploaded; viewers may do this.

    Raises:
        UsageError: A parameter is wrong, or a photo is none of those that `uploads.store` wrote.
    """
    _allow("viewer", "Localizing a photo", "job", "localize")
    if not all(uploads.stored(path) for path in parameters["photos"]):
        raise UsageError("Only photos that were uploaded are localized here.", hint="Upload them.")
    row = service.submit(parse("localize", parameters))
    st.session_state.setdefault(OWN, set()).add(str(row.job_id))
    _note("submit", "job", str(row.job_id), {"kind": "localize"})
    return row


def submit(kind: str, parameters: Mapping[str, Any], queue: Queue | None = None) -> JobRow:
    """Queue a job.

    Raises:
        UsageError: Not by this session, or a parameter is unknown, missing or wrong; the message names it.
    """
    _allow("operator", "Submitting a job", "job", kind)
    row = service.submit(parse(kind, parameters), queue=queue)
    _note("submit", "job", str(row.job_id), {"kind": kind})
    return row


def may_cancel(job_id: str) -> bool:
    """Whether this session may stop a job: operators any, everyone the searches they asked for."""
    return access.may_operate() or job_id in st.session_state.get(OWN, ())


def cancel(job_id: str) -> JobRow:
    """Cancel a job that waits, or ask one that runs to stop."""
    _allow("viewer" if may_cancel(job_id) else "operator", "Cancelling a job", "job", job_id)
    row = service.cancel(job_id)
    _note("cancel", "job", str(row.job_id), {"kind": row.kind})
    return row


def retry(job_id: str) -> JobRow:
    """Queue a job that ended badly again."""
    _allow("operator", "Retrying a job", "job", job_id)
    row = service.retry(job_id)
    _note("retry", "job", str(row.job_id), {"kind": row.kind})
    return row


def pause(job_id: str) -> JobRow:
    """Hold a job that waits, or ask one that runs to stop where it can go on from later."""
    _allow("operator", "Pausing a job", "job", job_id)
    row = service.pause(job_id)
    _note("pause", "job", str(row.job_id), {"kind": row.kind})
    return row


def resume(job_id: str) -> JobRow:
    """Let a paused job go on."""
    _allow("operator", "Resuming a job", "job", job_id)
    row = service.resume(job_id)
    _note("resume", "job", str(row.job_id), {"kind": row.kind})
    return row


def mark(name: str, state: str) -> None:
    """Take a code set out of use (`stale`) or back into it (`ready`).

    Raises:
        UsageError: Not by this session, or it is being built or dropped.
    """
    _allow("operator", "Marking a code set", "code_set", name)
    with connect("writer") as conn:
        found = codes.find_code_set(conn, name)
        if found.state not in codes.SEARCHABLE or state not in codes.SEARCHABLE:
            raise UsageError(f"Code set {name} is {found.state}.", hint="Wait until it is ready.")
        reason = None if state == "ready" else "marked stale on the dashboard"
        codes.set_state(conn, found.code_set_id, state, reason)
    _note("mark", "code_set", name, {"state": state})


def drop(name: str) -> None:
    """Remove a code set with its codes; evaluations keep their rows. Needs the owner's connection."""
    _allow("operator", "Dropping a code set", "code_set", name)
    with connect("owner") as conn:
        codes.drop_code_set(conn, codes.find_code_set(conn, name))
    _note("drop", "code_set", name, {})


def _allow(role: Role, what: str, kind: str, key: str) -> None:
    """Go on only for who may do it; who may not is noted."""
    try:
        access.require(role, what)
    except UsageError:
        _note("refuse", kind, key, {"asked": what})
        raise


def _note(action: str, kind: str, key: str, detail: Mapping[str, Any]) -> None:
    person = access.visitor().person
    with connect("writer") as conn:
        localizations.audit(conn, action, kind, key, {**SOURCE, **detail}, actor=person)
