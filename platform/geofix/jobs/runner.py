"""Claim a job and run it in this process, from claim to recorded outcome."""

from __future__ import annotations

import os
import socket
import time
import traceback
from dataclasses import dataclass
from uuid import UUID

import psycopg

from geofix.database.engine import connect
from geofix.database.fenced import FencedConnection, FencedOutError, connect_fenced
from geofix.database.queries import job_flow, jobs
from geofix.database.queries.jobs import JobRow
from geofix.errors import GeofixError
from geofix.jobs import service
from geofix.jobs.brief import connect_briefly
from geofix.jobs.faults import is_passing, told
from geofix.jobs.heartbeat import Heartbeat, JobStoppedError, clock, log_lines_to
from geofix.jobs.service import as_json
from geofix.jobs.settings import JobSettings
from geofix.jobs.specs import Chunks, Work, stored
from geofix.log import get_logger, progress_to

_log = get_logger(__name__)
_running: list[Heartbeat] = []


@dataclass(frozen=True)
class Outcome:
    """How a claim ended.

    Attributes:
        state: The job's state now; None where the claim was lost and nothing may be written.
        error: Why it did not succeed.
        refund: The attempt does not count.
        delay_s: Seconds before the next attempt.
        made: Chunks that do its work from now on.
    """

    state: str | None
    error: str | None = None
    refund: bool = False
    delay_s: float | None = None
    made: tuple[UUID, ...] = ()


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
    with connect_briefly(settings) as conn:
        job = jobs.claim(conn, job_id, owner, settings.lease_s)
        if job is None:
            return False
        text = f"running on {owner}, attempt {job.attempts} of {job.max_attempts}"
        jobs.add_events(conn, job_id, [("state", text, as_json({"token": job.fencing_token}))])
    if job.parent_job_id is not None:
        service.settle_container(job.parent_job_id)
    _run(job, settings)
    return True


def run_inline(job_id: UUID) -> JobRow:
    """Run a job, or all stages of a pipeline in order, in this process, without broker or workers.

    What another process has claimed meanwhile is waited for.
    """
    job = service.find(job_id)
    owner = f"inline@{process_name()}"
    while not job.is_container:
        if not execute(job.job_id, owner):
            row = service.wait(job.job_id, timeout_s=0.5)
            if row.is_finished:
                return row
        job = service.find(job.job_id)
        if job.is_finished:
            return job
    while True:
        with connect("writer") as conn:
            child = job_flow.next_child(conn, job.job_id)
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
            outcome = _outcome(job, beat, settings)
    except BaseException:
        beat.close()
        _record(job, Outcome("queued", "The process that ran it was interrupted.", refund=True))
        raise
    finally:
        _running.remove(beat)
    _record(job, outcome)


def _outcome(job: JobRow, beat: Heartbeat, settings: JobSettings) -> Outcome:
    """Do the work; success is committed together with it, anything else is returned to be recorded."""
    try:
        specification = stored(job.kind, job.specification_version, job.specification)
        fenced = connect_fenced(job.job_id, job.fencing_token, silent_s=settings.lease_s)
        with fenced as conn, progress_to(beat):
            beat.attach(conn)
            work = Work(conn, job.job_id, job.attempts, beat.check)
            chunks = specification.chunks(work) if job.chunk is None else None
            if chunks is not None:
                return _split(job, beat, conn, chunks)
            result = specification.run(work)
            beat.close()
            jobs.keep_brief(conn, settings.lease_s)
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
        return _failed(job, beat, error, settings)


def _split(job: JobRow, beat: Heartbeat, conn: FencedConnection, chunks: Chunks) -> Outcome:
    """Chunks and the end of the claim in one transaction: all of it, or nothing."""
    beat.close()  # first: it writes the row that this transaction is going to hold
    jobs.keep_brief(conn, JobSettings().lease_s)
    made = service.insert_chunks(conn, job, chunks)
    if made is None:
        conn.rollback()
        return Outcome("cancelled")  # or lost, which is seen when this is to be written
    psycopg.Connection.commit(conn)
    return Outcome("split", f"{len(made)} chunks", made=tuple(made))


def _stopped(reason: str) -> Outcome:
    if reason in ("cancelled", "paused"):
        return Outcome(reason, refund=reason == "paused")
    if reason == "released":
        return Outcome("queued", "Its worker was shut down.", refund=True)
    return LOST


def _failed(job: JobRow, beat: Heartbeat, error: BaseException, settings: JobSettings) -> Outcome:
    """Failed, or queued again after a fault that may pass by itself, as long as attempts are left."""
    where = f" (during {beat.stage})" if beat.stage else ""
    if isinstance(error, GeofixError):
        text = str(error)
    else:
        text = told(error)
        trace = "".join(traceback.format_exception(error))
        beat.event("log", f"unexpected {type(error).__name__}", {"level": "error", "traceback": trace})
        beat.flush()
    if is_passing(error) and job.attempts < job.max_attempts:
        return Outcome("queued", f"{text}{where}", delay_s=settings.delay_s(job.attempts))
    return Outcome("failed", f"{text}{where}")


def _record(job: JobRow, outcome: Outcome) -> None:
    """Write the outcome where it is not written yet, and what follows; the sweep mends what fails here."""
    log = _log.bind(job_id=str(job.job_id), kind=job.kind)
    try:
        if outcome.state is None or not _write_patiently(job, outcome):
            log.warning("the claim was lost; nothing was written", token=job.fencing_token)
            return
        log.info("job ended", state=outcome.state, error=outcome.error)
        service.settle(service.find(job.job_id))
        with connect("writer") as conn:
            follow = job_flow.dependents(conn, job.job_id) if outcome.state == "succeeded" else []
        again = [job.job_id] if outcome.state == "queued" and outcome.refund else []
        service.publish_ready([*follow, *outcome.made, *again])
    except (GeofixError, psycopg.Error) as error:
        log.error("outcome not recorded; the sweep will take the job up", error=str(error))


def _write_patiently(job: JobRow, outcome: Outcome) -> bool:
    """Write the outcome; a database that restarts just now is waited for, as long as the lease may last."""
    settings = JobSettings()
    until = clock() + settings.lease_s
    while True:
        try:
            return _write(job, outcome)
        except (GeofixError, psycopg.Error):
            if clock() > until:
                raise
            time.sleep(settings.heartbeat_s)


def _write(job: JobRow, outcome: Outcome) -> bool:
    assert outcome.state is not None
    with connect_briefly() as conn:
        if outcome.state not in ("succeeded", "split") and not jobs.finish(
            conn,
            job.job_id,
            job.fencing_token,
            outcome.state,
            error=outcome.error,
            refund=outcome.refund,
            delay_s=outcome.delay_s,
        ):
            return False
        text = f"{outcome.state}: {outcome.error}" if outcome.error else outcome.state
        jobs.add_events(conn, job.job_id, [("state", text, "{}")])
    return True
