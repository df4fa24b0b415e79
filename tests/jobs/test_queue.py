"""A running worker and its sweep, as an operator sees them; none of these tests breaks anything."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from job_helpers import steps, wait_for, wait_state
from PIL import Image
from probes import Probe, Statement
from typer.testing import CliRunner

from geofix.cli.main import app
from geofix.database.engine import connect
from geofix.database.queries.jobs import read_events
from geofix.errors import UsageError
from geofix.jobs import service
from geofix.jobs.specs import parse
from servers import Database

pytestmark = pytest.mark.usefixtures("running")


def invoke(*arguments: str, code: int = 0):
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if result.stdout else result.stderr


def photo(path: Path, lat: float, lon: float) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (lat, 0, 0), 3: "E", 4: (lon, 0, 0)})
    pixels = np.random.default_rng(int(lat * 1e6)).integers(0, 255, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(path, "JPEG", exif=exif)


def test_a_submitted_ingest_succeeds(running: Database, tmp_path: Path) -> None:
    for i in range(5):
        photo(tmp_path / f"{i}.jpg", 50 + i / 100, 8.0)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    parameters = ["-p", "what=photos", "-p", f"path={tmp_path}", "-p", "dataset=town"]
    job = invoke("jobs", "submit", "ingest", *parameters, "--wait")["job"]
    shown = invoke("jobs", "show", job[:8])
    assert shown["state"] == "succeeded" and shown["attempts"] == 1 and shown["error"] is None
    assert (shown["result"]["loaded"], shown["result"]["rejected"]) == (5, 1)
    assert shown["progress"]["message"] == "ingest photos"
    assert shown["submitted_at"] <= shown["started_at"] <= shown["finished_at"]
    with running.connect("reader") as conn:
        assert conn.execute("SELECT count(*) FROM photo WHERE dataset = 'town'").fetchone() == (5,)
    assert any(event["message"] == "photos ingested" for event in invoke("jobs", "logs", job))
    assert job in [row["id"] for row in invoke("jobs", "list", "--state", "succeeded")]


def test_the_same_key_is_the_same_job(running: Database) -> None:
    made = [service.submit(Probe(key="twice"), idempotency_key="once") for _ in range(3)]
    assert len({row.job_id for row in made}) == 1
    wait_state(made[0].job_id, "succeeded")
    assert service.submit(Probe(key="twice"), idempotency_key="once").state == "succeeded"
    assert steps(running, "twice") == [0]
    with pytest.raises(UsageError, match="other work"):
        service.submit(Probe(key="other"), idempotency_key="once")


def test_a_result_with_nan_is_null_and_log_lines_are_kept(running: Database) -> None:
    row = service.require_success(service.wait(service.submit(Probe(key="log", steps=3)).job_id))
    assert row.result == {"rows": 3, "attempt": 1, "nan": None}
    assert (row.progress_done, row.progress_total) == (3, 3)
    with connect("reader") as conn:
        events = read_events(conn, row.job_id)
    assert [event["kind"] for event in events] == ["state", "state", "progress", "log", "state"]
    assert events[3]["data"]["rows"] == 3


@pytest.mark.parametrize(
    "specification", [Probe(key="long", steps=1000, pause_s=0.1), Statement(seconds=120)]
)
def test_a_cancel_is_obeyed_within_five_seconds(running: Database, specification) -> None:
    job_id = service.submit(specification).job_id
    wait_state(job_id, "running")
    began = time.monotonic()
    service.cancel(job_id)
    row = wait_state(job_id, "cancelled")
    assert time.monotonic() - began < 5
    assert row.finished_at is not None and row.attempts == 1
    assert steps(running, "long") == []
    with pytest.raises(UsageError, match="cancelled already"):
        service.cancel(row.job_id)


def test_errors_are_recorded_with_their_stage(running: Database) -> None:
    bad, bug = (service.submit(Probe(key="bad", fail=fail)).job_id for fail in ("bad", "bug"))
    row = wait_state(bad, "failed")
    assert row.error == "photo 7.jpg holds no pixel. (during steps)" and row.attempts == 1
    assert "KeyError" in str(wait_state(bug, "failed").error)
    assert any("traceback" in event["data"] for event in invoke("jobs", "logs", str(bug)))
    assert steps(running, "bad") == []
    assert "failed" in invoke("jobs", "watch", str(bad), code=5)["state"]


def test_a_fault_that_passes_is_tried_again(running: Database) -> None:
    row = wait_state(service.submit(Probe(key="again", fail="transient")).job_id, "succeeded")
    assert row.attempts == 2 and row.result is not None and row.result["attempt"] == 2
    assert steps(running, "again") == [0]


def test_a_pipeline_runs_its_stages_in_order(running: Database) -> None:
    stages = [
        {"name": "b", "kind": "probe", "parameters": {"key": "line", "steps": 2}, "after": ["a"]},
        {"name": "a", "kind": "probe", "parameters": {"key": "line", "pause_s": 0.5}},
        {"name": "c", "kind": "probe", "parameters": {"key": "line", "steps": 3}, "after": ["a", "b"]},
    ]
    row = service.submit(parse("pipeline", {"stages": stages}))
    assert row.kind == "pipeline" and set(row.result["jobs"]) == {"a", "b", "c"}
    row = wait_state(row.job_id, "succeeded")
    assert {name: item["rows"] for name, item in row.result["results"].items()} == {"a": 1, "b": 2, "c": 3}
    a, b, c = (service.find(row.result["jobs"][name]) for name in "abc")
    assert a.finished_at <= b.started_at and b.finished_at <= c.started_at
    assert (row.progress_done, row.progress_total, row.progress_unit) == (3, 3, "stages")
    assert [stage["id"] for stage in invoke("jobs", "show", str(row.job_id))["stages"]]


def test_a_failed_dependency_fails_what_waits_for_it_and_retry_brings_both_back(running: Database) -> None:
    first = service.submit(Probe(key="dep", fail="bad", pause_s=1.0))
    second = service.submit(Probe(key="dep2"), after=[first.job_id])
    third = service.submit(Probe(key="dep3"), after=[second.job_id])
    row = wait_state(third.job_id, "failed")
    assert f"job {first.job_id} (probe), which it depends on, is failed" in row.error
    assert row.started_at is None and row.attempts == 0
    service.retry(first.job_id)
    assert service.find(third.job_id).state in ("queued", "failed")
    wait_for(lambda: service.find(third.job_id).state == "failed", "the second failure")
    assert steps(running, "dep") + steps(running, "dep2") == []


def test_a_cancelled_pipeline_stops_all_its_stages(running: Database) -> None:
    stages = [
        {"name": "a", "kind": "probe", "parameters": {"key": "stop", "steps": 500, "pause_s": 0.1}},
        {"name": "b", "kind": "probe", "parameters": {"key": "stop"}, "after": ["a"]},
    ]
    row = service.submit(parse("pipeline", {"stages": stages}))
    wait_state(row.job_id, "running")
    assert service.find(row.job_id).progress_message == "a"
    service.cancel(row.job_id)
    row = wait_state(row.job_id, "cancelled")
    assert {service.find(item).state for item in row.result["jobs"].values()} == {"cancelled"}
    assert steps(running, "stop") == []


def test_an_interactive_job_answers_while_a_long_one_runs(running: Database) -> None:
    long = service.submit(Probe(key="slow", steps=1000, pause_s=0.1))
    wait_state(long.job_id, "running")
    quick = service.submit(Probe(key="quick"), queue="interactive")
    wait_state(quick.job_id, "succeeded", seconds=5)
    assert service.find(long.job_id).state == "running"
    found = {worker["queues"][0]: worker for worker in invoke("status")["workers"]}
    assert set(found) == {"interactive", "cpu", "gpu"}
    assert found["cpu"]["job_id"] == str(long.job_id) and all(worker["alive"] for worker in found.values())
    service.cancel(long.job_id)
    wait_state(long.job_id, "cancelled")
