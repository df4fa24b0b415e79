"""Jobs without broker or workers: the same claims, fences and records, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest
from job_helpers import make_table, steps
from probes import Probe
from typer.testing import CliRunner

from geofix.cli import jobs as jobs_cli
from geofix.database.engine import connect
from geofix.database.fenced import FencedOutError, connect_fenced
from geofix.database.queries import jobs
from geofix.errors import JobFailedError, NotFoundError, UsageError
from geofix.jobs import runner, service
from geofix.jobs.specs import parse
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
