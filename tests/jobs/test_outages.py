"""Servers that go away, processes that die at the worst moment, clocks that jump, two of everything."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from job_helpers import Workers, steps, wait_for, wait_state
from probes import Probe

from geofix.database import cluster as product
from geofix.database.embedded import broker as redis
from geofix.database.embedded.paths import locate
from geofix.database.embedded.processes import processes_in, signal_all, wait_gone
from geofix.database.engine import connect
from geofix.jobs import service
from geofix.jobs.schedule import submit_due
from geofix.jobs.settings import JobSettings
from geofix.jobs.specs import parse
from geofix.jobs.sweep import sweep, sweep_until
from servers import Database, Servers


@contextmanager
def beating() -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=sweep_until, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def beat(queue: Database) -> Iterator[None]:
    with beating():
        yield


def all_done(made: list[UUID], began: float, what: str, seconds: float = 60) -> None:
    """Every job has succeeded; how long that took from the fault."""
    for job_id in made:
        row = wait_state(job_id, "succeeded", "failed", "parked", seconds=seconds)
        assert row.state == "succeeded", row.error
    print(f"{what}: {len(made)} jobs done {time.monotonic() - began:.1f} s after the fault")


def test_redis_killed_and_back_empty(queue: Database, workers: Workers, cluster: Servers, beat: None) -> None:
    paths = locate(cluster.settings)
    workers.start("all", "cpu", "1", "no-beat")
    made = [service.submit(Probe(key="redis", pause_s=0.02)).job_id for _ in range(50)]
    wait_state(made[0], "succeeded")
    began = time.monotonic()
    signal_all(processes_in(paths.redis, redis.PROGRAMS), signal.SIGKILL)
    assert wait_gone(paths.redis, redis.PROGRAMS, 10)
    for file in paths.redis.rglob("*.aof*"):
        file.unlink()
    late = service.submit(Probe(key="redis")).job_id  # queued while nobody can be told
    product.start(cluster.settings)
    all_done([*made, late], began, "Redis killed and restarted empty")
    assert steps(queue, "redis") == [0] * 51


def test_postgresql_restarted_under_load(queue: Database, workers: Workers, cluster: Servers) -> None:
    with beating():
        workers.start("one", "cpu", "2")
        made = [service.submit(Probe(key=f"pg-{i}", steps=5, pause_s=0.1)).job_id for i in range(12)]
        wait_state(made[0], "running", "succeeded")
        began = time.monotonic()
        data = locate(cluster.settings).data
        postmaster = int((data / "postmaster.pid").read_text().splitlines()[0])
        os.kill(postmaster, signal.SIGINT)  # fast: every session ends now
        wait_for(lambda: not Path("/proc", str(postmaster)).exists(), "the end of PostgreSQL", 30)
        product.start(cluster.settings)
        all_done(made, began, "PostgreSQL restarted")
    assert [steps(queue, f"pg-{i}") for i in range(12)] == [[0, 1, 2, 3, 4]] * 12


@pytest.mark.parametrize("place", ["claimed", "committed"])
def test_killed_between_two_steps_of_the_queue(
    queue: Database, workers: Workers, beat: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    trigger = tmp_path / "die"
    monkeypatch.setenv("PROBE_DIE_AT", f"{place}:{trigger}")
    workers.start("all", "gpu", "1", "no-beat")
    trigger.touch()
    stages = [
        {"name": "a", "kind": "probe", "parameters": {"key": "edge"}},
        {"name": "b", "kind": "probe", "parameters": {"key": "edge", "steps": 2}, "after": ["a"]},
    ]
    began = time.monotonic()
    job_id = service.submit(parse("pipeline", {"stages": stages}), queue="gpu").job_id
    all_done([job_id], began, f"killed when {place}")
    assert not trigger.exists()
    assert steps(queue, "edge") == [0, 0, 1]
    first = service.find(service.find(job_id).result["jobs"]["a"])
    assert first.attempts == (2 if place == "claimed" else 1)


def test_a_child_that_runs_out_of_memory(queue: Database, workers: Workers, beat: None) -> None:
    workers.start("one", "cpu", "1")
    job_id = service.submit(Probe(key="memory", steps=10, pause_s=0.1)).job_id
    wait_for(lambda: service.find(job_id).progress_done >= 2, "some progress")
    child = int(str(service.find(job_id).lease_owner).rpartition(":")[2])
    began = time.monotonic()
    os.kill(child, signal.SIGKILL)  # what the kernel does; the worker itself lives
    all_done([job_id], began, "child killed")
    assert service.find(job_id).attempts == 2 and steps(queue, "memory") == list(range(10))


def test_two_beats_do_everything_once(queue: Database, workers: Workers) -> None:
    daily = JobSettings(retention_every_h=24)
    with ExitStack() as beats:
        for _ in range(2):
            beats.enter_context(beating())
        threads = [threading.Thread(target=submit_due, args=(daily,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        first = workers.start("one", "cpu", "1")
        made = [service.submit(Probe(key="two", pause_s=0.2), publish=False).job_id for _ in range(8)]
        wait_for(lambda: any(service.find(job_id).state == "running" for job_id in made), "a running job")
        began = time.monotonic()
        workers.kill(first)
        workers.start("one", "cpu", "1")
        all_done(made, began, "two beats, worker killed")
        for thread in threads:
            thread.join()
    assert steps(queue, "two") == [0] * 8
    with psycopg.connect(queue.url()) as conn:
        kinds = Counter(row[0] for row in conn.execute("SELECT kind FROM geofix.job"))
        wrong = conn.execute(LOST_TWICE).fetchall()
    assert kinds == {"probe": 8, "retention": 1} and not wrong


LOST_TWICE = """
SELECT job_id FROM geofix.job_event WHERE message LIKE 'lost%' GROUP BY job_id HAVING count(*) > 1
"""
JUMP = """
UPDATE geofix.job SET lease_expires_at = lease_expires_at + %(by)s, published_at = published_at + %(by)s,
  not_before = coalesce(not_before, clock_timestamp()) + %(by)s WHERE state IN ('queued', 'running')
"""


@pytest.mark.parametrize("hours", [-2, 2])
def test_the_clock_jumps(
    queue: Database, workers: Workers, beat: None, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """The database's clock: what it wrote lies hours off. The worker's: three days wrong, and no matter."""
    monkeypatch.setenv("PROBE_CLOCK_OFF_S", str(-hours * 129_600))
    first = workers.start("one", "cpu", "1")
    made = [service.submit(Probe(key=f"jump-{i}", steps=8, pause_s=0.1)).job_id for i in range(3)]
    wait_for(lambda: service.find(made[0]).progress_done >= 2, "some progress")
    began = time.monotonic()
    workers.kill(first)
    with connect("writer") as conn:
        conn.execute(JUMP.replace("%(by)s", f"interval '{hours} hours'"))
    workers.start("one", "cpu", "1")
    all_done(made, began, f"clock put {'forward' if hours < 0 else 'back'} by 2 hours")
    assert [steps(queue, f"jump-{i}") for i in range(3)] == [list(range(8))] * 3


def test_a_fault_that_passes_waits_longer_each_time(queue: Database) -> None:
    from geofix.jobs import runner

    waits = []
    job_id = service.submit(Probe(key="wait", fail="always"), max_attempts=4, publish=False).job_id
    for _ in range(3):
        assert runner.execute(job_id, "here")
        row = service.find(job_id)
        assert row.state == "queued" and "the store was away" in str(row.error)
        with connect("writer") as conn:
            left = conn.execute(
                "SELECT extract(epoch FROM not_before - clock_timestamp())::float8 FROM job"
            ).fetchone()[0]
        waits.append(left)
        assert not runner.execute(job_id, "too early") and sweep().published == 0
        with connect("writer") as conn:
            conn.execute("UPDATE job SET not_before = clock_timestamp()")
    assert 0.2 < waits[0] < 0.7 and 1.4 < waits[1] < 2.5 and 1.4 < waits[2] < 2.5  # 0.5, 2, then the most, 2
    assert runner.execute(job_id, "here") and service.find(job_id).state == "failed"
