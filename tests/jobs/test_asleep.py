"""A worker that falls asleep just before a commit keeps no job from the others."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from job_helpers import make_table, wait_for
from probes import Probe

from geofix.database.engine import connect
from geofix.database.fenced import connect_fenced
from geofix.database.queries import job_control, job_flow, jobs
from geofix.jobs import broker, runner
from geofix.jobs.faults import is_passing
from geofix.jobs.pipeline import Pipeline
from geofix.jobs.service import cancel, pause, publish_ready, resume, retry, submit
from geofix.jobs.sweep import sweep
from servers import Database

LEASE_S = 0.5


@pytest.fixture(autouse=True)
def _table(db: Database, timing: None) -> None:
    make_table(db)


def lost() -> bool:
    with connect("writer") as conn:
        return bool(job_flow.expire_leases(conn))


def claimed(key: str) -> jobs.JobRow:
    job_id = submit(Probe(key=key)).job_id
    with connect("writer") as conn:
        row = jobs.claim(conn, job_id, "sleeper", LEASE_S)
    assert row is not None
    return row


def test_a_renewal_that_is_never_committed_ends_by_itself() -> None:
    row = claimed("renewal")
    progress = {"done": 1, "total": 2, "unit": "steps", "message": "half"}
    with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout) as told, connect("writer") as conn:
        jobs.keep_brief(conn, LEASE_S)
        assert jobs.renew(conn, row.job_id, row.fencing_token, LEASE_S, progress) == (False, False)
        wait_for(lost, "the lease of a worker that sleeps before its commit", 20)
    assert is_passing(told.value)


def test_a_commit_of_work_that_is_never_ended_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    row = claimed("work")
    ask = jobs.holds

    def asleep(*arguments: Any) -> bool:
        answer = ask(*arguments)
        wait_for(lost, "the lease of a worker that sleeps in its commit", 20)
        return answer

    monkeypatch.setattr(jobs, "holds", asleep)
    fenced = connect_fenced(row.job_id, row.fencing_token, silent_s=LEASE_S)
    with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout), fenced as conn:
        conn.execute("INSERT INTO geofix.probe VALUES ('work', 0, 1)")
        conn.commit()


def test_whoever_locks_the_row_of_a_job_is_brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims, renewals, log lines, ends, sums, the sweep, and what people ask for."""
    seen: dict[str, set[str]] = {}
    for module, names in (
        (jobs, ("claim", "renew", "finish", "add_events")),
        (
            job_flow,
            ("settle", "mend_clock", "expire_leases", "recover_lost", "fail_dependents", "mark_published"),
        ),
        (job_control, ("request_cancel", "request_pause", "release", "requeue")),
    ):
        for name in names:
            real = getattr(module, name)

            def told(conn: Any, *arguments: Any, _real: Any = real, _name: str = name, **more: Any) -> Any:
                (limit,) = conn.execute("SHOW idle_in_transaction_session_timeout").fetchone()
                seen.setdefault(_name, set()).add(limit)
                return _real(conn, *arguments, **more)

            monkeypatch.setattr(module, name, told)
    stages = [{"name": "a", "kind": "probe", "parameters": {"key": "brief", "steps": 2}}]
    assert runner.run_inline(submit(Pipeline(stages=stages)).job_id).state == "succeeded"
    sweep()
    waiting = submit(Probe(key="asked")).job_id
    for ask in (pause, resume, cancel, retry):
        ask(waiting)
    monkeypatch.setattr(broker, "publish", lambda ready: [job_id for job_id, _ in ready])
    assert publish_ready([waiting]) == 1
    assert len(seen) == 14 and set.union(*seen.values()) == {"3s"}  # the lease of these tests
