"""The queue: how soon a job starts, answers beside a training, 10,000 waiting jobs, overhead, a deadly soak.

Its own PostgreSQL and Redis, real worker processes, the tests' small kind of job (one row written per step).

    .venv/bin/python benchmarks/jobs.py
    .venv/bin/python benchmarks/jobs.py --only soak --jobs 2000 --minutes 10
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "jobs")]
TIMING = {"LEASE_S": "6", "HEARTBEAT_S": "1", "SWEEP_S": "1", "REDELIVER_S": "5", "RETRY_S": "0.5"}
LATENCY = """
SELECT extract(epoch FROM finished_at - submitted_at)::float8
FROM job WHERE kind = 'probe' AND state = 'succeeded' AND finished_at IS NOT NULL
"""
FILL = """
INSERT INTO job (kind, queue, specification, max_attempts, published_at)
SELECT 'probe', 'gpu', '{"kind": "probe", "key": "full"}', 3, clock_timestamp() FROM generate_series(1, %s)
"""
ANSWERED = "SELECT extract(epoch FROM finished_at - submitted_at)::float8 FROM job WHERE job_id = %s"
TWICE = "SELECT count(*) FROM (SELECT key FROM geofix.probe GROUP BY key HAVING count(*) > 1) twice"


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def timed_ms(work: Callable[[], object], times: int = 20) -> float:
    """Median milliseconds."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def start(database, workers) -> None:
    """From submission to the first line of work, on an idle worker."""
    from job_helpers import wait_state
    from probes import Probe

    from geofix.jobs import service

    process = workers.start("one", "interactive", "1")
    waits = []
    for i in range(60):
        job = service.submit(Probe(key=f"start-{i}"), queue="interactive")
        row = wait_state(job.job_id, "succeeded")
        waits.append(1000 * (row.started_at - row.submitted_at).total_seconds())
    process.terminate()
    process.wait()
    waits = waits[10:]  # the first ones open connections
    shown = f"p50 {percentile(waits, 0.5):.0f} ms, p95 {percentile(waits, 0.95):.0f} ms"
    say(f"submit to start, idle worker: {shown}")


def answers(database, workers, asked: int = 60) -> None:
    """Interactive answers, from submission to result: on an idle host, then beside a training on it."""
    import numpy as np
    import yaml
    from job_helpers import wait_for
    from PIL import Image
    from trainings import TINY, Training

    from geofix.codes.build import CellVectors, publish
    from geofix.codes.register import register_model
    from geofix.database.engine import connect
    from geofix.jobs import service
    from geofix.models.create import create_model
    from helpers import random_codes

    folder = Path(tempfile.mkdtemp(prefix="geofix-bench-"))
    photo = folder / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)).save(photo)
    create_model(folder / "model", trunk="mobilenetv3_small_100", size=224, seed=3)
    with connect() as conn:
        model = register_model(conn, folder / "model", "answers")
        ids, vectors = random_codes(20_000, model.dimension, level=14)
        flags = (np.zeros(len(ids), np.float32), np.ones(len(ids), bool), np.zeros(len(ids), bool))
        publish(conn, "answers", model, "cellmean", 14, CellVectors(ids, vectors, *flags), snapshot_id=None)
    training = Training(folder, epochs=100_000)
    ground = {"trunk": "resnet10t", "size": [48, 64], "fit": "squash", "aggregation": "avg"}
    training.config.write_text(
        yaml.safe_dump(TINY | {"ground": ground, "epochs": 100_000, "workers": 1, "threads": 1})
    )
    process = workers.start("all", "interactive,gpu", "1", "no-beat")
    _answer(photo, 10)  # loads torch, the model and the codes
    idle = _answer(photo, asked)
    job_id = service.submit(training.job(folder / "out")).job_id
    wait_for(lambda: service.find(job_id).progress_unit == "steps", "the first step", 300)
    busy = _answer(photo, asked)
    if service.find(job_id).state != "running":
        sys.exit(f"the training ended before the answers: {service.find(job_id).error}")
    for name, took in (("idle host", idle), ("beside a training", busy)):
        p50, p95 = percentile(took, 0.5), percentile(took, 0.95)
        say(f"answer of localize, {name}: p50 {1000 * p50:.0f} ms, p95 {1000 * p95:.0f} ms")
    service.cancel(job_id)
    wait_for(lambda: service.find(job_id).is_finished, "the training's end", 60)
    process.terminate()
    process.wait()
    shutil.rmtree(folder)


def _answer(photo: Path, times: int) -> list[float]:
    """Seconds of localizations asked one after the other, by the database's clock."""
    from job_helpers import wait_state

    from geofix.database.engine import connect
    from geofix.jobs import service
    from geofix.jobs.specs import parse

    took = []
    for _ in range(times):
        job = service.submit(parse("localize", {"photos": [str(photo)], "code_set": "answers"}))
        wait_state(job.job_id, "succeeded", seconds=300)
        with connect() as conn:
            took.append(conn.execute(ANSWERED, (job.job_id,)).fetchone()[0])
    return took


def full(database, workers) -> None:
    """Lists and claims beside 10,000 waiting jobs."""
    from geofix.database.engine import connect
    from geofix.database.queries import job_flow, job_health, jobs
    from geofix.jobs.sweep import sweep

    with connect() as conn:
        conn.execute(FILL, (10_000,))
        conn.commit()
        conn.execute("ANALYZE job")
        ids = iter([row[0] for row in conn.execute("SELECT job_id FROM job WHERE queue = 'gpu' LIMIT 100")])
        parts: dict[str, Callable[[], object]] = {
            "jobs list (50)": lambda: jobs.list_jobs(conn, limit=50),
            "jobs list --state queued": lambda: jobs.list_jobs(conn, states=["queued"], limit=50),
            "claim": lambda: jobs.claim(conn, next(ids), "bench", 60),
            "what is due": lambda: job_flow.due(conn, 30),
            "queue_status": lambda: job_health.queue_health(conn),
        }
        for name, work in parts.items():
            say(f"10,000 queued, {name}: {timed_ms(work):.1f} ms")
    say(f"10,000 queued, a sweep: {timed_ms(sweep, 3):.0f} ms")
    with connect() as conn:
        conn.execute("DELETE FROM job WHERE queue = 'gpu'")


def embed(database, workers, pictures: int = 4096) -> None:
    """The same pictures embedded by a call and by a job in chunks, in turns; torch is loaded by then."""
    import numpy as np
    from job_helpers import wait_state
    from PIL import Image

    from geofix.codes.embed_store import embed_all
    from geofix.codes.register import register_model
    from geofix.database.engine import connect
    from geofix.database.queries.models import find_model
    from geofix.ingest.photos import ingest_photos
    from geofix.jobs import service
    from geofix.jobs.specs import parse
    from geofix.models.create import create_model

    folder = Path(tempfile.mkdtemp(prefix="geofix-bench-"))
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    lines = ["image_path,lat,lon"]
    for i in range(pictures):
        Image.fromarray(rng.integers(0, 255, (96, 96, 3), np.uint8)).save(folder / "photos" / f"{i}.jpg")
        lines.append(f"{i}.jpg,{47 + rng.uniform()},{7 + rng.uniform()}")
    (folder / "photos.csv").write_text("\n".join(lines))
    create_model(folder / "model", trunk="mobilenetv3_small_100", size=96, seed=1)
    workers.start("one", "gpu", "1")
    took: dict[str, list[float]] = {"call": [], "job": []}
    with connect() as conn:
        ingest_photos(
            conn, path=folder / "photos", dataset="bench", metadata=folder / "photos.csv", workers=1
        )
        for turn in range(4):
            for way in took:
                register_model(conn, folder / "model", f"{way}-{turn}")
                conn.commit()
                began = time.monotonic()
                if way == "call":
                    embed_all(conn, find_model(conn, f"{way}-{turn}"), "photos")
                else:
                    job = service.submit(parse("embed", {"what": "photos", "model": f"{way}-{turn}"}))
                    wait_state(job.job_id, "succeeded", seconds=600)
                took[way].append(time.monotonic() - began)
    shutil.rmtree(folder)
    call, job = (statistics.median(took[way][1:]) for way in ("call", "job"))
    more = 100 * (job / call - 1)
    say(f"embed {pictures} pictures: call {call:.2f} s, job in 2 chunks {job:.2f} s, {more:+.1f} %")


def soak(database, workers, count: int, minutes: float) -> None:
    """Many small jobs, and every few seconds a worker dies."""
    from probes import Probe

    from geofix.database.engine import connect
    from geofix.jobs import service

    rng = random.Random(1)
    with connect() as conn:
        conn.execute("DELETE FROM job")
        conn.execute("DELETE FROM probe")
    alive = [workers.start("one", "cpu", "1") for _ in range(2)]
    began = time.monotonic()
    for i in range(count):
        service.submit(Probe(key=f"soak-{i}", pause_s=0.005), queue="cpu", max_attempts=20)
    say(f"{count} jobs submitted in {time.monotonic() - began:.1f} s")
    kills, left, next_kill = 0, count, time.monotonic()
    while left and time.monotonic() - began < 60 * minutes:
        time.sleep(0.5)
        if time.monotonic() > next_kill:
            victim = rng.randrange(len(alive))
            os.killpg(alive[victim].pid, signal.SIGKILL)
            alive[victim] = workers.start("one", "cpu", "1")
            kills, next_kill = kills + 1, time.monotonic() + rng.uniform(2, 6)
        with connect() as conn:
            left = conn.execute("SELECT count(*) FROM job WHERE state <> 'succeeded'").fetchone()[0]
    seconds = time.monotonic() - began
    with connect() as conn:
        rows = conn.execute(LATENCY).fetchall()
        written = conn.execute("SELECT count(DISTINCT key) FROM probe").fetchone()[0]
        twice = conn.execute(TWICE).fetchone()[0]
        again = conn.execute("SELECT count(*) FROM job WHERE fencing_token > 1").fetchone()[0]
    waits = [row[0] for row in rows]
    say(f"soak: {count} jobs, {kills} workers killed, {seconds:.0f} s, {count / seconds:.1f} jobs/s")
    say(f"soak: latency p50 {percentile(waits, 0.5):.1f} s, p95 {percentile(waits, 0.95):.1f} s")
    say(f"soak: claimed again {again}; lost {count - written}, twice {twice}, unfinished {left}")
    if left or twice or written != count:
        sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=("start", "answers", "full", "embed", "soak"))
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--answers", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    for name in list(os.environ):
        if name.startswith(("PG", "GEOFIX_")):
            del os.environ[name]
    os.environ.update({f"GEOFIX_JOB_{name}": value for name, value in TIMING.items()})
    os.environ.update({"GEOFIX_JOB_RECALL_EVERY_H": "0", "GEOFIX_JOB_RETENTION_EVERY_H": "0"})
    from servers import Servers, new_home

    servers = Servers(new_home())
    try:
        servers.start()
        _measure(servers, options)
    finally:
        servers.stop()


def _measure(servers, options: argparse.Namespace) -> None:
    import threading

    from job_helpers import Workers, make_table

    from geofix.database import engine
    from geofix.database.cluster import broker_url
    from geofix.jobs.sweep import sweep_until
    from geofix.log import configure

    configure("ERROR")
    os.environ["GEOFIX_BROKER_URL"] = broker_url(servers.settings)
    stop, workers = threading.Event(), Workers()
    with servers.database() as database:
        for role, variable in (("owner", "DATABASE"), ("writer", "WRITER"), ("reader", "READER")):
            os.environ[f"GEOFIX_{variable}_URL"] = database.url(role)
        make_table(database)
        beat = threading.Thread(target=sweep_until, args=(stop,))
        beat.start()
        try:
            asked = partial(answers, asked=options.answers)
            for name, work in {"start": start, "answers": asked, "full": full, "embed": embed}.items():
                if options.only in (None, name):
                    work(database, workers)
            if options.only in (None, "soak"):
                soak(database, workers, options.jobs, options.minutes)
        finally:
            stop.set()
            beat.join()
            workers.end()
            engine.dispose()


if __name__ == "__main__":
    main()
