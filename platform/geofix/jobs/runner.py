"""Claim a job and run it in this process, from claim to recorded outcome."""

from __future__ import annotations

import os
import socket
import traceback
from dataclasses import dataclass
from uuid import UUID

import psycopg
from sqlalchemy.exc import OperationalError

from geofix.database.engine import connect
from geofix.database.fenced import FencedOutError, connect_fenced
from geofix.database.queries import jobs
from geofix.database.queries.jobs import JobRow
from geofix.errors import GeofixError
from geofix.jobs import service
from geofix.jobs.heartbeat import Heartbeat, JobStoppedError, log_lines_to
from geofix.jobs.service import as_json
from geofix.jobs.settings import JobSettings
from geofix.jobs.specs import Work, stored
from geofix.log import get_logger, progress_to

_log = get_logger(__name__)
_running: list[Heartbeat] = []


@dataclass(frozen=True)
class Outcome:
    """How a claim ended; `state` None where the claim was lost and nothing may be written."""

    state: str | None
    error: str | None = None
    refund: bool = False


SUCCEEDED = Outcome("succeeded")
LOST = Outcome(None)


def process_name() -> str:
    """Name of this process among all hosts."""
    return f"{socket.gethostname()}:{os.getpid()}"


def execute(job_id: UUID, owner: str) -> bool:
    """Claim a job and run it to its end; False when it was not to be had (done, taken, waiting, cancelled).

    Errors of the work are recorded in the row and not raised.

    Args:
        job_id: The job.
        owner: Name of the process that claims it.

    Raises:
        KeyboardInterrupt: This process was interrupted; the job is queued again.
    """
    settings = JobSettings()
    with connect("writer") as conn:
        job = jobs.claim(conn, job_id, owner, settings.lease_s)
        if job is None:
            return False
        text = f"running on {owner}, attempt {job.attempts} of {job.max_attempts}"
        jobs.add_events(conn, job_id, [("state", text, as_json({"token": job.fencing_token}))])
    if job.parent_job_id is not None:
        service.settle_pipeline(job.parent_job_id)
    _run(job, settings)
    return True


def run_inline(job_id: UUID) -> JobRow:
    """Run a job, or all stages of a pipeline in order, in this process, without broker or workers.

    What another process has claimed meanwhile is waited for.
    """
    job = service.find(job_id)
    owner = f"inline@{process_name()}"
    if job.kind != jobs.CONTAINER:
        if not execute(job.job_id, owner):
            return service.wait(job.job_id)
        return service.find(job.job_id)
    while True:
        with connect("writer") as conn:
            child = jobs.next_child(conn, job.job_id)
        if child is not None:
            execute(child, owner)
            continue
        row = service.wait(job.job_id, timeout_s=0.5)
        if row.is_finished:
            return row


def release_running(seconds: float) -> None:
    """Give back the job that runs in this process, unless it ends within some seconds."""
    for beat in list(_running):
        beat.release_in(seconds)


def _run(job: JobRow, settings: JobSettings) -> None:
    beat = Heartbeat(job, settings)
    beat.start()
    _running.append(beat)
    try:
        with log_lines_to(beat):
            outcome = _outcome(job, beat)
    except BaseException:
        beat.close()
        _record(job, Outcome("queued", "The process that ran it was interrupted.", refund=True))
        raise
    finally:
        _running.remove(beat)
    _record(job, outcome)


def _outcome(job: JobRow, beat: Heartbeat) -> Outcome:
    """Do the work; success is committed together with it, anything else is returned to be recorded."""
    try:
        specification = stored(job.kind, job.specification_version, job.specification)
        with connect_fenced(job.job_id, job.fencing_token) as conn, progress_to(beat):
            beat.attach(conn)
            result = specification.run(Work(conn, job.job_id, job.attempts, beat.check))
            beat.close()
            if not jobs.finish(conn, job.job_id, job.fencing_token, "succeeded", result=as_json(result)):
                raise FencedOutError
            psycopg.Connection.commit(conn)
        return SUCCEEDED
    except FencedOutError:
        beat.close()
        return LOST
    except (JobStoppedError, Exception) as error:
        beat.close()
        if beat.reason is not None:
            return _stopped(beat.reason)
        return _failed(job, beat, error)


def _stopped(reason: str) -> Outcome:
    if reason == "cancelled":
        return Outcome("cancelled")
    if reason == "released":
        return Outcome("queued", "Its worker was shut down.", refund=True)
    return LOST


def _failed(job: JobRow, beat: Heartbeat, error: BaseException) -> Outcome:
    """Failed, or queued again after a fault that may pass by itself, as long as attempts are left."""
    where = f" (during {beat.stage})" if beat.stage else ""
    if isinstance(error, GeofixError):
        text, passing = str(error), error.job_state == "queued"
    else:
        passing = isinstance(error, psycopg.OperationalError | OperationalError)
        text = f"{type(error).__name__}: {error}".strip()
        trace = "".join(traceback.format_exception(error))
        beat.event("log", f"unexpected {type(error).__name__}", {"level": "error", "traceback": trace})
        beat.flush()
    if passing and job.attempts < job.max_attempts:
        return Outcome("queued", f"{text}{where}")
    return Outcome("failed", f"{text}{where}")


def _record(job: JobRow, outcome: Outcome) -> None:
    """Write the outcome where it is not written yet, and what follows; the sweep mends what fails here."""
    log = _log.bind(job_id=str(job.job_id), kind=job.kind)
    try:
        if outcome.state is None or not _write(job, outcome):
            log.warning("the claim was lost; nothing was written", token=job.fencing_token)
            return
        log.info("job ended", state=outcome.state, error=outcome.error)
        service.settle(job)
        with connect("writer") as conn:
            follow = jobs.dependents(conn, job.job_id) if outcome.state == "succeeded" else []
        service.publish_ready([*follow, *([job.job_id] if outcome.refund else [])])
    except (GeofixError, psycopg.Error) as error:
        log.error("outcome not recorded; the sweep will take the job up", error=str(error))


def _write(job: JobRow, outcome: Outcome) -> bool:
    assert outcome.state is not None
    with connect("writer") as conn:
        if outcome is not SUCCEEDED and not jobs.finish(
            conn,
            job.job_id,
            job.fencing_token,
            outcome.state,
            error=outcome.error,
            refund=outcome.refund,
        ):
            return False
        text = f"{outcome.state}: {outcome.error}" if outcome.error else outcome.state
        jobs.add_events(conn, job.job_id, [("state", text, "{}")])
    return True
