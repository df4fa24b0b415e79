"""What an operator sees: queues and workers in SQL and in `geofix status`, scheduled work, deaf workers."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from job_helpers import make_table
from probes import Probe
from typer.testing import CliRunner

from geofix.cli.main import app
from geofix.codes.build import CellVectors, publish
from geofix.database.engine import connect
from geofix.database.queries import presence
from geofix.database.queries.models import add_embeddings, find_model
from geofix.jobs import broker, runner, schedule, service
from geofix.jobs.settings import JobSettings
from geofix_workers import supervise
from helpers import add_model, random_codes
from servers import Database

WORKER = {"queues": ["cpu"], "device": "cpu", "software_version": "1", "job_id": None}


@pytest.fixture
def table(db: Database, timing: None) -> Database:
    make_table(db)
    return db


def submit(key: str, **options):
    return service.submit(Probe(key=key), publish=False, **options)


def test_queues_and_workers_are_seen_in_sql_and_in_status(table: Database) -> None:
    first = submit("a")
    submit("b", after=[first.job_id])
    submit("c")
    service.pause(submit("d").job_id)
    submit("e", queue="gpu")
    with connect("writer") as conn:
        for name in ("cpu@here:1", "cpu@there:2"):
            presence.worker_seen(conn, WORKER | {"name": name})
        conn.execute("UPDATE worker SET seen_at = seen_at - interval '1 hour' WHERE name = 'cpu@there:2'")
        conn.execute(
            "UPDATE job SET submitted_at = submitted_at - interval '90 s' WHERE job_id = %s", [first.job_id]
        )
    with connect("reader") as conn:
        rows = conn.execute(
            "SELECT queue, waiting, blocked, running, paused, workers FROM queue_status ORDER BY 1"
        ).fetchall()
        oldest = conn.execute("SELECT extract(epoch FROM max(oldest_waits)) FROM queue_status").fetchone()
        workers = conn.execute("SELECT host, alive FROM worker_status ORDER BY 1").fetchall()
    assert rows == [("cpu", 2, 1, 0, 1, 1), ("gpu", 1, 0, 0, 0, 0), ("interactive", 0, 0, 0, 0, 0)]
    assert 90 <= oldest[0] < 200 and workers == [("here", True), ("there", False)]
    document = json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)
    assert [item["waiting"] for item in document["queues"]] == [2, 1, 0]
    shown = CliRunner().invoke(app, ["status"])
    assert "oldest waits" in shown.stdout and shown.exit_code == 0


def test_a_running_job_has_an_end_in_sight(table: Database) -> None:
    with connect("writer") as conn:
        job_id = submit("eta").job_id
        conn.execute(
            "UPDATE job SET state = 'running', claimed_at = now() - interval '30 s', progress_done = 25,"
            " progress_total = 100 WHERE job_id = %s",
            [job_id],
        )
    with connect("reader") as conn:
        eta = conn.execute("SELECT extract(epoch FROM eta) FROM job_status").fetchone()[0]
    shown = json.loads(CliRunner().invoke(app, ["jobs", "show", str(job_id), "--json"]).stdout)
    assert eta == pytest.approx(90, abs=20) and shown["progress"]["eta_s"] == pytest.approx(90, abs=20)


def test_scheduled_work_is_queued_once_per_period(table: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect() as conn:
        add_model(conn, "m", 8)
        model = find_model(conn, "m")
        ids, codes = random_codes(50, 8, level=14)
        flags = (np.zeros(50, np.float32), np.ones(50, bool), np.zeros(50, bool))
        for name in ("indexed", "bare"):
            publish(conn, name, model, "cellmean", 14, CellVectors(ids, codes, *flags), snapshot_id=None)
        conn.execute("UPDATE code_set SET index_parameters = '{\"m\": 8}' WHERE name = 'indexed'")
    both = JobSettings(recall_every_h=1, retention_every_h=24)
    monkeypatch.setattr(schedule, "_done", {})
    assert schedule.submit_due(both) == 1  # nothing to compare without photos
    with connect() as conn:
        conn.execute("INSERT INTO dataset (name, kind) VALUES ('d', 'photos')")
        conn.execute(
            "INSERT INTO photo_record (dataset_id, source_key, s2_id, geom) SELECT dataset_id, 'k', 1,"
            " ST_SetSRID(ST_MakePoint(7, 47), 4326) FROM dataset"
        )
        photo = conn.execute("SELECT photo_id FROM photo_record").fetchone()[0]
        assert add_embeddings(conn, "photo_embedding", model.model_id, [(photo, codes[0])]) == 1
    monkeypatch.setattr(schedule, "_done", {})
    assert schedule.submit_due(both) == 1
    monkeypatch.setattr(schedule, "_done", {})  # another beat
    assert schedule.submit_due(both) == 0 and schedule.submit_due(JobSettings()) == 0
    with connect() as conn:
        rows = conn.execute("SELECT kind, specification->>'code_set', job_id FROM job ORDER BY 1").fetchall()
    assert [row[:2] for row in rows] == [("recall_check", "indexed"), ("retention", None)]
    assert runner.run_inline(rows[1][2]).state == "succeeded"


def test_a_worker_that_no_longer_listens_is_found(table: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"cpu": 3, "gpu": 0}
    monkeypatch.setattr(broker, "waiting", lambda queue: asked[queue])
    name = f"cpu@{supervise.socket.gethostname()}:7"
    watch = supervise.Watch()
    children = [SimpleNamespace(queue="cpu"), SimpleNamespace(queue="gpu")]

    def look():
        watch._next = 0.0
        return [child.queue for child in watch.deaf(children)]

    job_id = submit("busy").job_id
    with connect("writer") as conn:
        presence.worker_seen(conn, WORKER | {"name": name, "job_id": job_id})
    assert [look(), look(), look()] == [[], [], []]  # it works
    with connect("writer") as conn:
        presence.worker_seen(conn, WORKER | {"name": name})
    assert [look(), look(), look()] == [[], ["cpu"], []]
    asked["cpu"] = 0
    assert [look(), look()] == [[], []]
