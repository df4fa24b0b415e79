"""What dies, dies for real; in the end every job is done, and every row is there exactly once."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psycopg
import pytest
from job_helpers import Workers, steps, wait_for, wait_state
from probes import Probe, Sleepwalker
from typer.testing import CliRunner

from geofix.cli.main import app
from geofix.database.queries import jobs
from geofix.jobs import broker, service
from geofix.jobs.settings import JobSettings
from geofix.jobs.specs import parse
from geofix.jobs.sweep import sweep
from servers import Database, Servers


def test_a_killed_worker_s_job_is_done_once_by_another(queue: Database, workers: Workers, beat: None) -> None:
    first = workers.start()
    job_id = service.submit(Probe(key="killed", steps=12, pause_s=0.1)).job_id
    wait_for(lambda: service.find(job_id).progress_done >= 3, "some progress")
    workers.kill(first)
    workers.start()
    row = wait_state(job_id, "succeeded")
    assert row.attempts == 2 and row.fencing_token == 2
    assert steps(queue, "killed") == list(range(12))
    with psycopg.connect(queue.url("reader")) as conn:
        texts = [event["message"] for event in jobs.read_events(conn, job_id) if event["kind"] == "state"]
    assert [text.split()[0].rstrip(":") for text in texts] == [
        "queued",
        "running",
        "lost",
        "queued",
        "running",
        "succeeded",
    ]


def test_a_zombie_cannot_write(queue: Database, workers: Workers, beat: None, tmp_path: Path) -> None:
    first = workers.start()
    gate = tmp_path / "gate"
    job_id = service.submit(Sleepwalker(key="zombie", gate=gate, notes=tmp_path)).job_id
    wait_for((tmp_path / "started-1").exists, "the first attempt")
    workers.kill(first, signal.SIGSTOP)
    workers.start()
    assert wait_state(job_id, "succeeded").attempts == 2
    gate.touch()
    workers.kill(first, signal.SIGCONT)
    wait_for((tmp_path / "fenced-1").exists, "the zombie's commit")
    assert (tmp_path / "fenced-1").read_text() == "FencedOutError"
    with psycopg.connect(queue.url()) as conn:
        assert conn.execute("SELECT attempt FROM geofix.probe").fetchall() == [(2,)]
        assert not jobs.finish(conn, job_id, 1, "failed", error="written by a zombie")
        assert jobs.renew(conn, job_id, 1, 60, {"done": 9, "total": 9, "unit": "", "message": "z"}) is None
    assert service.find(job_id).state == "succeeded"


def test_an_emptied_broker_is_filled_again(
    queue: Database, workers: Workers, cluster: Servers, beat: None
) -> None:
    made = [service.submit(Probe(key="flushed", steps=1)).job_id for _ in range(20)]
    assert int(broker.waiting("cpu") or 0) >= 20
    cluster.flush_broker()
    workers.start()
    for job_id in made:
        assert wait_state(job_id, "succeeded").attempts == 1
    assert steps(queue, "flushed") == [0] * 20


def test_every_message_twice_runs_every_job_once(queue: Database, workers: Workers) -> None:
    made = [service.submit(Probe(key="double", steps=2)) for _ in range(5)]
    broker.publish([(row.job_id, row.queue) for row in made])
    assert broker.waiting("cpu") == 10
    workers.start()
    for row in made:
        assert wait_state(row.job_id, "succeeded").attempts == 1
    wait_for(lambda: broker.waiting("cpu") == 0, "an empty queue")
    assert steps(queue, "double") == [0] * 5 + [1] * 5


def test_a_poison_job_is_parked_and_others_flow(queue: Database, workers: Workers) -> None:
    workers.start("all", "gpu", "1", "beat")  # the solo pool: the whole worker dies with its job
    poison = service.submit(Probe(key="poison", fail="kill"), queue="gpu", max_attempts=2)
    good = service.submit(Probe(key="good"), queue="gpu")
    wait_state(good.job_id, "succeeded", seconds=40)
    row = wait_state(poison.job_id, "parked", seconds=40)
    assert row.attempts == 2 and "fell silent in each of 2 attempts" in str(row.error)
    assert steps(queue, "poison") == [] and steps(queue, "good") == [0]


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_sigterm_gives_a_long_job_back_uncounted(queue: Database, workers: Workers, kind: str) -> None:
    first = workers.start("one", kind, "1")
    job_id = service.submit(Probe(key="drain", steps=15, pause_s=0.1), queue=kind).job_id
    wait_state(job_id, "running")
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait(20) == 0
    row = service.find(job_id)
    assert (row.state, row.attempts, row.error) == ("queued", 0, "Its worker was shut down.")
    with psycopg.connect(queue.url("reader")) as conn:
        assert conn.execute("SELECT count(*) FROM geofix.worker").fetchone() == (0,)
    workers.start("one", kind, "1")
    assert wait_state(job_id, "succeeded").attempts == 1
    assert steps(queue, "drain") == list(range(15))


def test_a_broker_that_is_away_loses_no_job(
    queue: Database, clean_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from geofix.settings import get_settings

    there = os.environ["GEOFIX_BROKER_URL"]
    clean_environment.setenv("GEOFIX_BROKER_URL", f"redis+socket://{tmp_path}/nobody.sock")
    get_settings.cache_clear()
    row = service.submit(Probe(key="away"))
    assert row.state == "queued" and row.published_at is None
    assert sweep().published == 0
    clean_environment.setenv("GEOFIX_BROKER_URL", there)
    get_settings.cache_clear()
    assert sweep().published == 1 and broker.waiting("cpu") == 1
    assert sweep().published == 0


def test_the_command_starts_a_worker_and_ends_it_in_good_order(queue: Database, workers: Workers) -> None:
    geofix = str(Path(sys.executable).with_name("geofix"))
    process = workers.begin([geofix, "worker", "--queues", "cpu"])
    job_id = service.submit(parse("snapshot", {"datasets": "nowhere", "out": "s"})).job_id
    assert "nowhere" in str(wait_state(job_id, "failed").error)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(20) == 0
    wrong = CliRunner().invoke(app, ["worker", "--queues", "cpu,tpu"])
    assert wrong.exit_code == 2 and "tpu" in wrong.stderr


def test_a_waiting_message_is_not_sent_again_and_again(queue: Database) -> None:
    for _ in range(3):
        service.submit(Probe(key="patient"))
    at_once = JobSettings(redeliver_s=0.001)
    for _ in range(3):
        assert sweep(at_once).published == 0
    assert broker.waiting("cpu") == 3
