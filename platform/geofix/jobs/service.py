"""Submit, find, cancel, pause and retry jobs: what the command line, the dashboard and Python share.

The row is inserted and committed first, then the broker is told; if that fails, the sweep tells it later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID, uuid4

from pydantic_core import to_json

from geofix.database.engine import Connection, connect
from geofix.database.queries import job_control, job_flow, jobs
from geofix.database.queries.jobs import JobRow
from geofix.errors import JobFailedError, NotFoundError, UsageError
from geofix.jobs import broker
from geofix.jobs.brief import connect_briefly
from geofix.jobs.pipeline import Pipeline
from geofix.jobs.specs import QUEUES, Chunks, Queue, Specification, resumable_kinds, stored

MAX_ATTEMPTS = 3


def as_json(value: Any) -> str:
    """Any result as JSON: dataclasses, paths, dates and arrays written plainly, NaN and infinity as null."""
    return to_json(value, inf_nan_mode="null", fallback=_plain).decode()


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def submit(
    specification: Specification,
    *,
    idempotency_key: str | None = None,
    after: Sequence[UUID] = (),
    queue: Queue | None = None,
    max_attempts: int = MAX_ATTEMPTS,
    publish: bool = True,
) -> JobRow:
    """Queue a job, or return the one that was queued under the same key before.

    Args:
        specification: What to do; made by `geofix.jobs.specs.parse`.
        idempotency_key: Two submissions of the same work under one key are one job.
        after: Jobs that must have succeeded before.
        queue: Other than the kind's own.
        max_attempts: Claims before the job is parked.
        publish: Tell the broker; off where this process runs the job itself.

    Raises:
        UsageError: The key was used for other work, or a number is out of range.
        NotFoundError: A job of `after` does not exist.
    """
    if queue is not None and queue not in QUEUES:
        raise UsageError(f"There is no queue {queue!r}.", hint=f"Queues: {', '.join(QUEUES)}.")
    if not 1 <= max_attempts <= 100:
        raise UsageError(f"max_attempts is {max_attempts}.", hint="1 to 100.")
    with connect_briefly() as conn:
        missing = [str(item) for item in after if item not in jobs.existing(conn, after)]
        if missing:
            raise NotFoundError(f"There is no job {missing[0]} to wait for.", hint="See `geofix jobs list`.")
        values = _values(specification, queue, max_attempts) | {
            "idempotency_key": idempotency_key,
            "depends_on": list(after),
        }
        children: list[dict[str, Any]] = []
        if isinstance(specification, Pipeline):
            children = _children(specification, values, queue)
        job_id = jobs.insert_job(conn, values)
        if job_id is None:
            assert idempotency_key is not None
            return _first(jobs.find_by_key(conn, idempotency_key), specification, idempotency_key)
        for child in children:
            jobs.insert_job(conn, child | {"parent_job_id": job_id})
        made = [job_id, *(child["job_id"] for child in children)]
        for item in made:
            jobs.add_events(conn, item, [("state", "queued", "{}")])
    if publish:
        publish_ready(made)
    return find(job_id)


def join(specification: Specification) -> tuple[JobRow, bool]:
    """A job that does this already and has not ended, or a new one; and whether it was there before.

    Of what somebody paused everything is queued again.
    """
    with connect("writer") as conn:
        text = specification.model_dump_json()
        found = jobs.find_open(conn, specification.model_dump()["kind"], text)
    if found is None:
        return submit(specification), False
    return (resume(found) if find(found).state == "paused" else find(found)), True


def _values(specification: Specification, queue: Queue | None, max_attempts: int) -> dict[str, Any]:
    return {
        "job_id": None,
        "kind": specification.model_dump()["kind"],
        "queue": queue or specification.queue,
        "specification": specification.model_dump_json(),
        "specification_version": specification.version,
        "idempotency_key": None,
        "parent_job_id": None,
        "depends_on": [],
        "max_attempts": max_attempts,
        "progress_total": None,
        "progress_unit": "",
        "result": None,
        "is_container": isinstance(specification, Pipeline),
        "chunk": None,
        "size": None,
    }


def _children(pipeline: Pipeline, parent: dict[str, Any], queue: Queue | None) -> list[dict[str, Any]]:
    """Rows of the stages, in order; the parent's row is given their ids and their number."""
    ids = {stage.name: uuid4() for stage in pipeline.stages}
    parent["result"] = as_json({"jobs": ids})
    parent["progress_total"], parent["progress_unit"] = len(ids), "stages"
    return [
        _values(stage.specification(), queue or stage.queue, parent["max_attempts"])
        | {
            "job_id": ids[stage.name],
            "depends_on": [ids[name] for name in stage.after] or parent["depends_on"],
        }
        for stage in pipeline.ordered()
    ]


def insert_chunks(conn: Connection, job: JobRow, chunks: Chunks) -> list[UUID] | None:
    """Hand a claimed job's work to chunks, in the caller's transaction; None when it is lost or cancelled."""
    total = sum(size for _, size in chunks.parts)
    parts = [*chunks.parts, *([] if chunks.last is None else [(chunks.last, 0)])]
    text = f"0 of {len(parts)} chunks"
    if not jobs.split(conn, job.job_id, job.fencing_token, total, chunks.unit, text):
        return None
    made: list[UUID] = []
    for number, (specification, size) in enumerate(parts, start=1):
        values = _values(specification, job.queue, job.max_attempts)  # type: ignore[arg-type]
        values |= {"job_id": uuid4(), "parent_job_id": job.job_id, "chunk": number, "size": size}
        if specification is chunks.last:
            values["depends_on"] = list(made)
        jobs.insert_job(conn, values)
        jobs.add_events(conn, values["job_id"], [("state", "queued", "{}")])
        made.append(values["job_id"])
    return made


def _first(found: JobRow | None, specification: Specification, key: str) -> JobRow:
    if found is None:
        raise NotFoundError(f"The job of key {key!r} was removed just now.", hint="Submit again.")
    same = specification.model_dump(mode="json") == found.specification
    if not same:
        raise UsageError(
            f"Key {key!r} was used for other work: job {found.job_id} ({found.kind}).",
            hint="Choose another key, or submit the same parameters.",
        )
    return found


def publish_ready(ids: Sequence[UUID]) -> int:
    """Tell the broker of those jobs that are queued and wait for nothing; how many it took."""
    with connect("writer") as conn:
        ready = job_flow.ready(conn, ids)
    sent = broker.publish(ready)
    if sent:
        with connect_briefly() as conn:
            job_flow.mark_published(conn, sent)
    return len(sent)


def find(job_id: UUID | str) -> JobRow:
    """The job of an id, or of the unique beginning of one (4 characters or more).

    Raises:
        NotFoundError: There is none.
        UsageError: Several begin so.
    """
    with connect("writer") as conn:
        if isinstance(job_id, str):
            text = job_id.strip().lower()
            found = jobs.find_by_prefix(conn, text) if len(text) >= 4 else []
            if len(found) > 1:
                raise UsageError(f"Several jobs begin with {text!r}.", hint="Give more of the id.")
            row = jobs.find_job(conn, found[0]) if found else None
        else:
            row = jobs.find_job(conn, job_id)
    if row is None:
        raise NotFoundError(f"There is no job {job_id}.", hint="See `geofix jobs list`.")
    return row


def cancel(job_id: UUID | str) -> JobRow:
    """Cancel a job that waits; ask one that runs to stop, which it does within seconds.

    Raises:
        UsageError: It has ended already.
    """
    row = find(job_id)
    with connect_briefly() as conn:
        changed = job_control.request_cancel(conn, row.job_id)
        for item, state in changed:
            text = "cancelled" if state == "cancelled" else "cancel requested"
            jobs.add_events(conn, item, [("state", text, "{}")])
    if not changed and row.is_finished:
        raise UsageError(f"Job {row.job_id} is {row.state} already; there is nothing to cancel.")
    settle(row)
    return find(row.job_id)


def pause(job_id: UUID | str) -> JobRow:
    """Hold a job that waits; ask one that runs to stop where it can go on from later.

    Of a pipeline or a job in chunks, what waits is held; a stage that could only begin anew runs to its end.

    Raises:
        UsageError: It has ended, or it runs and would have to begin anew.
    """
    row = find(job_id)
    resumable = resumable_kinds()
    with connect_briefly() as conn:
        changed = job_control.request_pause(conn, row.job_id, resumable)
        for item, state in changed:
            jobs.add_events(
                conn, item, [("state", "paused" if state == "paused" else "pause requested", "{}")]
            )
    if not changed and row.state == "running" and not row.is_container:
        raise UsageError(
            f"Job {row.job_id} ({row.kind}) runs, and would begin anew.",
            hint=f"Let it end or cancel it; what can be paused: {', '.join(resumable)}.",
        )
    if not changed and row.is_finished:
        raise UsageError(f"Job {row.job_id} is {row.state} already; there is nothing to pause.")
    settle(row)
    return find(row.job_id)


def resume(job_id: UUID | str) -> JobRow:
    """Queue a paused job again; it goes on from its last checkpoint.

    Raises:
        UsageError: Nothing of it is paused.
    """
    row = find(job_id)
    with connect_briefly() as conn:
        changed = job_control.release(conn, row.job_id)
        for item, state in changed:
            text = "resumed" if state == "queued" else "pause withdrawn"
            jobs.add_events(conn, item, [("state", text, "{}")])
    if not changed:
        raise UsageError(f"Job {row.job_id} is {row.state}; nothing of it is paused.")
    settle(row)
    publish_ready([item for item, state in changed if state == "queued"])
    return find(row.job_id)


def retry(job_id: UUID | str) -> JobRow:
    """Queue a job that ended badly again, with everything that was not begun because of it.

    Raises:
        UsageError: It did not end badly.
    """
    row = find(job_id)
    with connect_briefly() as conn:
        again = job_control.requeue(conn, row.job_id)
        for item in again:
            jobs.add_events(conn, item, [("state", "queued again by hand", "{}")])
    if not again:
        raise UsageError(
            f"Job {row.job_id} is {row.state}.", hint="Only failed, cancelled and parked jobs are retried."
        )
    settle(row)
    publish_ready(again)
    return find(row.job_id)


def settle(job: JobRow) -> None:
    """After a job changed its state: fail what can never run, bring its container's row up to date."""
    with connect_briefly() as conn:
        for item, error in job_flow.fail_dependents(conn):
            jobs.add_events(conn, item, [("state", f"failed: {error}", "{}")])
    parent = job.job_id if job.is_container else job.parent_job_id
    if parent is not None:
        settle_container(parent)


def settle_container(parent: UUID) -> None:
    """Bring the row of a pipeline or of a job in chunks up to date, and the one that it is a stage of."""
    unblocked: list[UUID] = []
    with connect_briefly() as conn:
        row = jobs.find_job(conn, parent)
        if row is None or not row.is_container:
            return
        state = job_flow.settle(conn, parent, row.kind)
        if state is not None and state in jobs.TERMINAL:
            jobs.add_events(conn, parent, [("state", state, "{}")])
        if state == "succeeded":
            if row.kind != "pipeline":
                whole = stored(row.kind, row.specification_version, row.specification)
                job_flow.store_result(conn, parent, as_json(whole.join(job_flow.chunk_results(conn, parent))))
            unblocked = job_flow.dependents(conn, parent)
        if state in ("failed", "parked", "cancelled"):
            for item, error in job_flow.fail_dependents(conn):
                jobs.add_events(conn, item, [("state", f"failed: {error}", "{}")])
    if state is not None and row.parent_job_id is not None:
        settle_container(row.parent_job_id)
    publish_ready(unblocked)


def wait(
    job_id: UUID,
    *,
    timeout_s: float | None = None,
    every_s: float = 0.5,
    tell: Callable[[JobRow], None] | None = None,
) -> JobRow:
    """Look until the job has ended (or the time is up) and return its row.

    Args:
        job_id: The job.
        timeout_s: Seconds to wait at most; None waits for ever.
        every_s: Seconds between two looks.
        tell: Called with every row seen.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        row = find(job_id)
        if tell is not None:
            tell(row)
        if row.is_finished or (deadline is not None and time.monotonic() > deadline):
            return row
        time.sleep(every_s)


def require_success(job: JobRow) -> JobRow:
    """The same job.

    Raises:
        JobFailedError: It ended otherwise.
    """
    if job.state != "succeeded":
        raise JobFailedError(
            f"Job {job.job_id} ({job.kind}) is {job.state}: {job.error or 'no error was noted'}",
            hint=f"See `geofix jobs logs {job.job_id}`.",
        )
    return job
