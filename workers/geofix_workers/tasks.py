"""The one task: run the job of an id. Names are explicit, so modules may move while messages wait."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from geofix.jobs import broker
from geofix_workers import lifecycle


def register(app: Any) -> None:
    """Add the tasks to an application."""
    app.task(name=broker.TASK)(run_job)


def run_job(job_id: str) -> None:
    """Claim and run; a message for a job that is done, taken or cancelled does nothing.

    Torch is imported inside the job, after the worker process has started.
    """
    from geofix.jobs.runner import execute

    with lifecycle.working_on(UUID(job_id)), lifecycle.ending_on_interrupt():
        execute(UUID(job_id), lifecycle.worker_name())
