"""Jobs without broker or workers: the same claims, fences and records, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest
from job_helpers import make_table, steps
from probes import Probe, Split
from typer.testing import CliRunner

from geofix.cli import jobs as jobs_cli
from geofix.database.engine import connect
from geofix.database.fenced import FencedOutError, connect_fenced
from geofix.database.queries import job_flow, jobs
from geofix.errors import JobFailedError, NotFoundError, UsageError
from geofix.jobs import runner, service
from geofix.jobs.specs import parse
from geofix.jobs.sweep import sweep
from servers import Database

pytestmark = pytest.mark.usefixtures("timing")


@pytest.fixture
def table(db: Database) -> Database:
    make_table(db)
    return db


def submit(specification, **options):
    return service.submit(specification, publish=False, **options)


def test_a_job_runs_here(table: Database) -> None:
    row = runner.run_inline(submit(Probe(key="here", steps=2)).job_id)
    assert (row.state, row.attempts, row.lease_owner) == ("succeeded", 1, None)
    assert steps(table, "here") == [0, 1]
    assert not runner.execute(row.job_id, "again")


def test_progress_names_its_unit(table: Database) -> None:
    row = runner.run_inline(submit(Probe(key="units", steps=2)).job_id)
    shown = CliRunner().invoke(jobs_cli.app, ["show", str(row.job_id), "--json"])
    assert json.loads(shown.stdout)["progress"] == {
        "done": 2,
        "total": 2,
        "unit": "rows",
        "message": "steps",
        "eta_s": None,
    }


def test_a_pipeline_runs_here_and_its_failure_is_told(table: Database) -> None:
    stages = [
        {"name": "a", "kind": "probe", "parameters": {"key": "p"}},
        {"name": "b", "kind": "probe", "parameters": {"key": "p", "fail": "bad"}, "after": ["a"]},
        {"name": "c", "kind": "probe", "parameters": {"key": "p"}, "after": ["b"]},
    ]
    row = runner.run_inline(submit(parse("pipeline", {"stages": stages})).job_id)
    assert row.state == "failed" and (row.progress_done, row.progress_total) == (1, 3)
    assert "photo 7.jpg holds no pixel" in row.error and "Not begun" not in row.error
    with pytest.raises(JobFailedError, match="photo 7"):
        service.require_success(row)
    again = service.retry(row.job_id)
    states = {name: service.find(item).state for name, item in again.result["jobs"].items()}
    assert again.state == "running" and states == {"a": "succeeded", "b": "queued", "c": "queued"}


def test_an_interrupt_gives_the_job_back(table: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    job = submit(Probe(key="ctrl-c"))
    monkeypatch.setattr(Probe, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        runner.run_inline(job.job_id)
    row = service.find(job.job_id)
    assert (row.state, row.attempts) == ("queued", 0)


def test_a_job_that_waits_for_another_cannot_be_claimed(table: Database) -> None:
    first = submit(Probe(key="first"))
    second = submit(Probe(key="second"), after=[first.job_id])
    assert not runner.execute(second.job_id, "eager")
    assert runner.execute(first.job_id, "me") and runner.execute(second.job_id, "me")
    with pytest.raises(NotFoundError, match="to wait for"):
        submit(Probe(key="third"), after=[uuid4()])


def test_an_old_token_commits_nothing(table: Database) -> None:
    job_id = submit(Probe(key="old")).job_id
    with connect("writer") as conn:
        old = jobs.claim(conn, job_id, "one", 60)
        conn.execute("UPDATE geofix.job SET state = 'lost' WHERE job_id = %s", (job_id,))
        new = jobs.claim(conn, job_id, "two", 60)
    assert old is not None and new is not None and new.fencing_token == old.fencing_token + 1
    insert = "INSERT INTO geofix.probe VALUES ('old', %s, 1)"
    with pytest.raises(FencedOutError), connect_fenced(job_id, old.fencing_token) as conn:
        conn.execute(insert, (0,))
        conn.commit()
    with (
        pytest.raises(FencedOutError),
        connect_fenced(job_id, old.fencing_token) as conn,
        conn.transaction(),
    ):
        conn.execute(insert, (1,))
    with connect_fenced(job_id, new.fencing_token) as conn:
        with conn.transaction():
            conn.execute(insert, (2,))
        conn.execute(insert, (3,))
        conn.commit()
        conn.execute(insert, (4,))  # never committed
    assert steps(table, "old") == [2, 3]


def test_a_failed_job_cannot_be_cancelled(db: Database, tmp_path: Path) -> None:
    specification = parse("snapshot", {"datasets": "nowhere", "out": str(tmp_path / "s")})
    row = runner.run_inline(submit(specification).job_id)
    assert row.state == "failed" and "nowhere" in row.error
    with pytest.raises(UsageError, match="failed"):
        service.cancel(row.job_id)


def test_a_paused_pipeline_holds_its_stages_until_it_is_resumed(table: Database) -> None:
    stages = [
        {"name": "a", "kind": "probe", "parameters": {"key": "hold"}},
        {"name": "b", "kind": "probe", "parameters": {"key": "hold", "steps": 2}, "after": ["a"]},
    ]
    row = submit(parse("pipeline", {"stages": stages}))
    assert service.pause(row.job_id).state == "paused"
    first = service.find(row.result["jobs"]["a"])
    assert first.state == "paused" and not runner.execute(first.job_id, "me")
    with connect("writer") as conn:
        assert job_flow.next_child(conn, row.job_id) is None
    assert service.resume(row.job_id).state == "queued"
    assert runner.run_inline(row.job_id).state == "succeeded"
    assert steps(table, "hold") == [0, 0, 1]
    with pytest.raises(UsageError, match="nothing to pause"):
        service.pause(row.job_id)


def test_what_would_begin_anew_is_not_paused_while_it_runs(table: Database) -> None:
    job_id = submit(Probe(key="anew")).job_id
    with connect("writer") as conn:
        jobs.claim(conn, job_id, "me", 60)
    with pytest.raises(UsageError, match=r"would begin anew.*what can be paused: .*embed, .*train"):
        service.pause(job_id)
    assert not service.find(job_id).pause_requested


def test_a_pause_asked_of_a_worker_that_then_dies_is_kept(table: Database) -> None:
    job_id = submit(Split(key="both", parts=1)).job_id
    assert runner.execute(job_id, "me")
    with connect("writer") as conn:
        part = jobs.list_jobs(conn, parent=job_id)[0].job_id
        jobs.claim(conn, part, "me", 60)
    assert service.pause(job_id).state == "running" and service.find(part).pause_requested
    with connect("writer") as conn:
        conn.execute("UPDATE job SET lease_expires_at = clock_timestamp() WHERE job_id = %s", (part,))
    sweep()
    assert service.find(part).state == service.find(job_id).state == "paused"
    assert service.resume(part).state == "queued" and service.find(job_id).state == "running"
