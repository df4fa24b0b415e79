"""The sweep: takes jobs back from workers that fell silent, and tells the broker again what it may have lost.

It needs neither broker nor workers and may run in any number of processes at once: each step is one
statement that skips what another sweep holds.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass
from uuid import UUID

import psycopg

from geofix.database.engine import connect
from geofix.database.queries import job_flow, jobs, presence
from geofix.errors import GeofixError
from geofix.jobs import broker, service
from geofix.jobs.brief import connect_briefly
from geofix.jobs.schedule import submit_due
from geofix.jobs.settings import JobSettings
from geofix.log import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True)
class Swept:
    """What one sweep did: counts of jobs."""

    lost: int = 0
    requeued: int = 0
    parked: int = 0
    published: int = 0

    def __bool__(self) -> bool:
        return bool(self.lost or self.requeued or self.parked or self.published)


def sweep(settings: JobSettings | None = None) -> Swept:
    """Expired leases -> lost -> queued again or parked; dead dependencies; pipelines; unsent messages."""
    used = settings or JobSettings()
    with connect_briefly(used) as conn:
        job_flow.mend_clock(conn, used.lease_s, 1.2 * used.retry_max_s)
        lost = job_flow.expire_leases(conn)
        for job_id, owner in lost:
            jobs.add_events(conn, job_id, [("state", f"lost: {owner} let its lease run out", "{}")])
    with connect_briefly(used) as conn:
        recovered = job_flow.recover_lost(conn, used.retry_s, used.retry_max_s)
        for job_id, state, error in recovered:
            jobs.add_events(conn, job_id, [("state", f"{state}: {error}" if error else state, "{}")])
    with connect_briefly(used) as conn:
        for job_id, error in job_flow.fail_dependents(conn):
            jobs.add_events(conn, job_id, [("state", f"failed: {error}", "{}")])
        presence.forget_workers(conn)
        parents = job_flow.open_parents(conn)
    for parent in parents:
        service.settle_container(parent)
    states = [state for _, state, _ in recovered]
    return Swept(len(lost), states.count("queued"), states.count("parked"), _publish_due(used))


def _publish_due(settings: JobSettings) -> int:
    """Send what was never sent, and of what was sent long ago as much as the broker no longer has.

    Which messages were lost is unknown; the longest waiting are sent again, and a message too many does no
    harm. Counting keeps a busy queue from filling up with copies.
    """
    with connect("writer") as conn:
        rows = job_flow.due(conn, settings.redeliver_s)
    new: list[tuple[UUID, str]] = []
    old: dict[str, list[tuple[UUID, str]]] = defaultdict(list)
    for job_id, queue, published in rows:
        if published:
            old[queue].append((job_id, queue))
        else:
            new.append((job_id, queue))
    again: list[tuple[UUID, str]] = []
    for queue, items in old.items():
        there = broker.waiting(queue)
        if there is not None:
            again += items[: max(0, len(items) - there)]
    sent = broker.publish([*new, *again])
    if sent:
        with connect_briefly(settings) as conn:
            job_flow.mark_published(conn, sent)
    return len(sent)


def sweep_until(stop: threading.Event) -> None:
    """Sweep again and again until `stop` is set; a server that is away is waited for."""
    settings = JobSettings()
    while not stop.is_set():
        try:
            swept = sweep(settings)
            submit_due(settings)
            if swept:
                _log.info(
                    "swept",
                    lost=swept.lost,
                    requeued=swept.requeued,
                    parked=swept.parked,
                    published=swept.published,
                )
        except (GeofixError, psycopg.Error) as error:
            _log.warning("sweep failed", error=str(error))
        stop.wait(settings.sweep_s)
