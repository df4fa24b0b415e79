"""One job, many chunks: nothing twice, nothing lost, and the same bytes whoever did them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("timm", reason="needs the extra `train`")

import torch
from job_helpers import Workers, chunks_of, make_table, steps, wait_for, wait_state
from photographed import streets
from probes import Probe, Split

from geofix.codes.embed_store import embed_all
from geofix.codes.register import register_model
from geofix.database.engine import connect
from geofix.database.queries.models import find_model
from geofix.ingest.photos import ingest_photos
from geofix.jobs import runner, service
from geofix.jobs.specs import parse
from geofix.jobs.sweep import sweep
from geofix.models.create import create_model
from servers import Database

VECTORS = """
SELECT e.photo_id, e.embedding::text FROM photo_embedding e JOIN model m USING (model_id)
WHERE m.name = %s ORDER BY 1
"""


@pytest.fixture
def table(db: Database, timing: None) -> Database:
    make_table(db)
    return db


def vectors(name: str):
    with connect() as conn:
        return conn.execute(VECTORS, (name,)).fetchall()


def test_embedding_in_chunks_makes_the_same_bytes_whoever_dies(
    queue: Database, workers: Workers, beat: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBE_PACE_S", "0.3")
    # Kernels sum in another order with another number of threads: the same bytes need the same number.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    root = streets(tmp_path / "photos")
    create_model(tmp_path / "model", trunk="mobilenetv3_small_050", size=32, seed=3)
    with connect() as conn:
        for name in ("whole", "here", "shared"):
            register_model(conn, tmp_path / "model", name)
        ingest_photos(conn, path=root, dataset="streets", metadata=root / "metadata.csv", workers=1)
        conn.commit()
        assert embed_all(conn, find_model(conn, "whole"), "photos", batch_size=4).embedded == 72
    made = {"what": "photos", "batch_size": 4, "chunk": 7}  # rounded up to whole batches

    row = runner.run_inline(service.submit(parse("embed", made | {"model": "here"}), publish=False).job_id)
    assert row.state == "succeeded", row.error
    assert (row.result["embedded"], row.result["failed"], row.result["chunks"]) == (72, 0, 9)
    assert (row.progress_done, row.progress_total, row.progress_unit) == (72, 72, "photos")
    assert row.progress_message == "9 of 9 chunks"
    assert [part.size for part in chunks_of(row.job_id)] == [8] * 9
    assert vectors("here") == vectors("whole")

    first = workers.start("one", "cpu", "2")
    job_id = service.submit(parse("embed", made | {"model": "shared"}), queue="cpu").job_id
    wait_for(lambda: service.find(job_id).progress_done >= 8, "a chunk", 60)
    began = time.monotonic()
    workers.kill(first)
    workers.start("one", "cpu", "1")
    row = wait_state(job_id, "succeeded", seconds=90)
    print(f"killed within chunks: done {time.monotonic() - began:.1f} s after the fault")
    parts = chunks_of(job_id)
    assert sum(part.fencing_token - 1 for part in parts) in (1, 2)  # those that were running are done again
    assert (row.result["embedded"] + row.result["skipped"], row.progress_done) == (72, 72)
    assert vectors("shared") == vectors("whole")


def test_one_chunk_that_fails_does_not_lose_the_others(table: Database, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    stages = [
        {
            "name": "a",
            "kind": "split",
            "parameters": {"key": "part", "broken": 2, "gate": str(gate)},
        },
        {"name": "b", "kind": "probe", "parameters": {"key": "after"}, "after": ["a"]},
    ]
    line = runner.run_inline(service.submit(parse("pipeline", {"stages": stages}), publish=False).job_id)
    assert line.state == "failed" and "part 2 is broken" in line.error
    row = service.find(line.result["jobs"]["a"])
    assert row.state == "failed" and f"chunk 2 ({chunks_of(row.job_id)[1].job_id}): part 2" in row.error
    assert (row.progress_done, row.progress_total, row.progress_message) == (9 + 3, 12, "3 of 4 chunks")
    assert [part.state for part in chunks_of(row.job_id)] == ["succeeded", "failed", "succeeded", "succeeded"]
    gate.touch()
    service.retry(line.job_id)
    line = runner.run_inline(line.job_id)
    assert line.state == "succeeded" and line.result["results"]["a"] == {"rows": 12}
    assert [part.attempts for part in chunks_of(row.job_id)] == [1, 1, 1, 1]
    assert steps(table, "part") == [100 * part + step for part in (1, 2, 3, 4) for step in range(3)]
    assert steps(table, "after") == [0]


def test_chunks_are_cancelled_and_paused_with_their_job(table: Database) -> None:
    job_id = service.submit(Split(key="held"), publish=False).job_id
    waits = service.submit(Probe(key="waits"), after=[job_id], publish=False)
    assert runner.execute(job_id, "me")
    row = service.find(job_id)
    assert (row.state, row.is_container, row.progress_total, row.lease_owner) == ("running", True, 12, None)
    assert service.pause(job_id).state == "paused"
    assert {part.state for part in chunks_of(job_id)} == {"paused"}
    assert not runner.execute(chunks_of(job_id)[0].job_id, "me")
    assert service.resume(job_id).state == "running"
    assert runner.execute(chunks_of(job_id)[0].job_id, "me")
    assert service.cancel(job_id).state == "cancelled"
    assert [part.state for part in chunks_of(job_id)] == ["succeeded", *["cancelled"] * 3]
    assert service.find(waits.job_id).state == "failed"
    assert steps(table, "held") == [100, 101, 102]


def test_a_cancel_while_it_is_split_leaves_no_chunk(table: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = service.submit(Split(key="late"), publish=False).job_id
    intact = Split.chunks

    def slow(self, work):
        service.cancel(job_id)
        return intact(self, work)

    monkeypatch.setattr(Split, "chunks", slow)
    assert runner.execute(job_id, "me")
    assert service.find(job_id).state == "cancelled" and chunks_of(job_id) == []


def test_chunks_that_nobody_was_told_of_are_published(queue: Database) -> None:
    job_id = service.submit(Split(key="quiet"), publish=False).job_id
    with connect("writer") as conn:
        conn.execute("UPDATE job SET published_at = clock_timestamp()")
    intact, service.publish_ready = service.publish_ready, lambda ids: 0
    try:
        assert runner.execute(job_id, "me")
    finally:
        service.publish_ready = intact
    assert sweep().published == 4
