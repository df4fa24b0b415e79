"""One evaluation, many chunks: the same rows and figures as in one go, whoever answered and what failed."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from job_helpers import Workers, chunks_of, wait_for, wait_state

from geofix.codes.build import CellVectors, publish
from geofix.database.engine import connect
from geofix.database.garbage import collect
from geofix.database.queries import codes as code_queries
from geofix.database.queries.evaluations import find_evaluation, list_evaluations
from geofix.database.queries.jobs import read_events
from geofix.database.queries.models import add_embeddings, find_model
from geofix.errors import JobFailedError
from geofix.ingest.photos import ingest_photos
from geofix.jobs import runner, service
from geofix.jobs.specs import parse
from geofix.settings import get_settings
from geofix.snapshots.build import build_snapshot
from helpers import add_model, random_codes
from servers import Database

WORKER = [sys.executable, "-m", "geofix.cli", "worker", "--queues", "cpu", "--no-beat"]
PHOTOS, DIMENSION, UNEMBEDDED = 2400, 16, 5
PREDICTIONS = """
SELECT photo_id, rank, s2_id, score, probability, error_m, geom
FROM prediction JOIN evaluation USING (evaluation_id) WHERE name = %s ORDER BY 1, 2
"""
ASKED = """
SELECT photo_id, nearest_training_m, training_photos_in_cell
FROM evaluation_photo JOIN evaluation USING (evaluation_id) WHERE name = %s ORDER BY 1
"""
FIRST = """
SELECT photo_id, error_m FROM prediction JOIN evaluation USING (evaluation_id) WHERE name = %s AND rank = 1
"""
SPLIT_IDS = "SELECT photo_id FROM snapshot_photo WHERE split = 'train' ORDER BY photo_id"
# A record that breaks its chunk until somebody mends it.
BREAK = """
CREATE FUNCTION geofix.broken() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
    IF NEW.photo_id = TG_ARGV[0]::bigint THEN RAISE 'photo % is broken', NEW.photo_id; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER broken BEFORE INSERT ON geofix.prediction FOR EACH ROW EXECUTE FUNCTION geofix.broken({})
"""


@pytest.fixture
def snapshot(db: Database, timing: None, tmp_path: Path) -> Path:
    """Positions around one town, embedded at random; a code set with probabilities."""
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(7.4, 7.6, PHOTOS), rng.uniform(47.4, 47.6, PHOTOS)
    lines = [f"{i}.jpg,{lat[i]:.6f},{lon[i]:.6f}" for i in range(PHOTOS)]
    (tmp_path / "photos.csv").write_text("\n".join(["image_path,lat,lon", *lines]))
    with connect() as conn:
        table = tmp_path / "photos.csv"
        ingest_photos(conn, tmp_path, dataset="d", metadata=table, positions_only=True)
        conn.execute("UPDATE photo_record SET uri = 'file:///nowhere/' || source_key")
        build_snapshot(conn, ["d"], tmp_path / "snapshot", test=0.1, val=0.05)
        add_model(conn, "m", DIMENSION)
        model = find_model(conn, "m")
        ids, codes = random_codes(PHOTOS, DIMENSION, level=16, bounds=(7.4, 47.4, 7.6, 47.6))
        photos = [row[0] for row in conn.execute("SELECT photo_id FROM photo_record ORDER BY 1")]
        vectors = zip(photos[UNEMBEDDED:], codes[UNEMBEDDED:], strict=True)
        add_embeddings(conn, "photo_embedding", model.model_id, vectors)
        cells = slice(0, 300)
        flags = (np.zeros(300, np.float32), np.ones(300, bool), np.zeros(300, bool))
        made = CellVectors(ids[cells], codes[cells], *flags)
        publish(conn, "set", model, "cellmean", 16, made, snapshot_id=None)
        found = code_queries.find_code_set(conn, "set")
        code_queries.set_temperature(conn, found.code_set_id, 0.1, {})
    return tmp_path / "snapshot"


def given(snapshot: Path, name: str, *, codes: bool = False, **more):
    what = {"code_set": "set", "localizer": "cellmean"} if codes else {"model": "m", "localizer": "knn"}
    return parse("evaluate", {"snapshot": snapshot, "split": "train", "name": name, "k": 7, **what, **more})


def inline(specification):
    return runner.run_inline(service.submit(specification, publish=False).job_id)


def rows(name: str):
    """All that is stored of an evaluation but its name and its number."""
    with connect() as conn:
        kept = find_evaluation(conn, name)
        for own in ("evaluation_id", "name", "created_at"):
            del kept[own]
        return conn.execute(PREDICTIONS, (name,)).fetchall(), conn.execute(ASKED, (name,)).fetchall(), kept


@pytest.mark.parametrize("codes", [False, True])
def test_chunks_store_the_same_bytes_as_one_job(snapshot: Path, codes: bool) -> None:
    whole = service.require_success(inline(given(snapshot, "whole", codes=codes, chunk=0)))
    assert chunks_of(whole.job_id) == []
    row = service.require_success(inline(given(snapshot, "parts", codes=codes, chunk=300)))
    parts = chunks_of(row.job_id)
    asked = len({stored[0] for stored in rows("whole")[0]})
    assert 1500 < asked < whole.result["n"] < PHOTOS
    assert [part.size for part in parts] == [512] * (asked // 512) + [asked % 512, 0]
    assert (row.progress_done, row.progress_total, row.progress_unit) == (asked, asked, "photos")
    assert row.result == whole.result | {"evaluation": "parts", "chunks": len(parts)}
    assert rows("parts") == rows("whole")
    assert codes == (rows("parts")[0][0][4] is not None)


def test_chunks_exclude_authors_and_count_by_a_protocol_as_one_job_does(snapshot: Path) -> None:
    with connect() as conn:
        conn.execute("UPDATE photo_record SET author = 'by ' || photo_id % 7 WHERE photo_id % 10 > 0")
    more = {"exclude_author": True, "protocol": "g3", "missing": "drop"}
    whole = service.require_success(inline(given(snapshot, "whole", chunk=0, **more)))
    row = service.require_success(inline(given(snapshot, "parts", chunk=300, **more)))
    assert len(chunks_of(row.job_id)) > 3
    assert row.result == whole.result | {"evaluation": "parts", "chunks": row.result["chunks"]}
    assert rows("parts") == rows("whole")
    protocol = rows("parts")[2]["config"]["protocol"]
    assert (protocol["name"], protocol["same_author"]) == ("g3, changed", "excluded")
    assert (protocol["earth"], protocol["comparison"], protocol["missing"]) == ("wgs84", "<", "drop")
    free = service.require_success(inline(given(snapshot, "free", chunk=300)))
    with connect() as conn:
        found = dict(conn.execute(FIRST, ("whole",)).fetchall())
        before = dict(conn.execute(FIRST, ("free",)).fetchall())
    # A training photo finds itself first, unless it is passed over: with all of its author, or alone.
    assert found.keys() == before.keys() and min(found.values()) > 0
    assert free.result["recall"]["1"]["50"] > 99


def test_workers_that_die_change_nothing(
    queue: Database,
    workers: Workers,
    beat: None,
    snapshot: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROBE_PACE_S", "0.5")
    alone = service.require_success(inline(given(snapshot, "alone", chunk=300)))
    first = workers.start("one", "cpu", "2")
    job_id = service.submit(given(snapshot, "shared", chunk=300)).job_id
    wait_for(lambda: service.find(job_id).progress_done >= 512, "a chunk", 60)
    began = time.monotonic()
    workers.kill(first)
    workers.start("one", "cpu", "2")
    row = wait_state(job_id, "succeeded", seconds=90)
    print(f"killed within chunks of an evaluation: done {time.monotonic() - began:.1f} s after the fault")
    assert sum(part.fencing_token - 1 for part in chunks_of(job_id)) in (1, 2)
    assert row.result == alone.result | {"evaluation": "shared"} and rows("shared") == rows("alone")


def test_a_worker_of_another_home_takes_part(
    queue: Database, workers: Workers, beat: None, snapshot: Path, tmp_path: Path
) -> None:
    """As docs/operations.md says for another host: a home of its own, and the URLs of the servers."""
    urls = {name: value for name, value in os.environ.items() if re.fullmatch("GEOFIX_.*_URL", name)}
    assert len(urls) == 4
    for name in ("first", "second"):
        own = [f"{key}={value}" for key, value in {**urls, "GEOFIX_HOME": str(tmp_path / name)}.items()]
        workers.begin(["/usr/bin/env", *own, *WORKER])
    job_id = service.submit(given(snapshot, "both", chunk=300)).job_id
    row = wait_state(job_id, "succeeded", seconds=200)
    with connect("reader") as conn:
        told = [event["message"] for part in chunks_of(job_id) for event in read_events(conn, part.job_id)]
    hands = {text.split(",")[0] for text in told if text.startswith("running on cpu@")}
    assert len(hands) == 2 and row.result["chunks"] == len(chunks_of(job_id)) >= 4
    assert not (tmp_path / "second" / "postgres").exists()  # no servers of its own


def test_a_chunk_that_fails_loses_nothing_and_the_old_evaluation_answers_meanwhile(snapshot: Path) -> None:
    service.require_success(inline(given(snapshot, "e", chunk=0, k=3)))
    before = rows("e")
    with connect() as conn:
        photo = conn.execute(SPLIT_IDS).fetchall()[40][0]
        conn.execute(BREAK.format(f"'{photo}'"))
    taken = inline(given(snapshot, "e", chunk=300))
    assert taken.state == "failed" and "exists" in taken.error and chunks_of(taken.job_id) == []
    row = inline(given(snapshot, "e", chunk=300, replace=True))
    parts = chunks_of(row.job_id)
    states = [part.state for part in parts]
    assert row.state == "failed" and states.count("succeeded") == len(parts) - 2 and states[-1] == "failed"
    assert f"photo {photo} is broken" in row.error and "Not begun" not in row.error
    with connect() as conn:
        assert [item["evaluation"] for item in list_evaluations(conn)] == ["e"]
        assert conn.execute("SELECT count(DISTINCT evaluation) FROM prediction_top1").fetchone() == (1,)
        conn.execute("DROP TRIGGER broken ON prediction")
    assert rows("e") == before
    service.retry(row.job_id)
    row = service.require_success(runner.run_inline(row.job_id))
    assert [part.fencing_token for part in chunks_of(row.job_id)].count(2) == 1
    service.require_success(inline(given(snapshot, "again", chunk=0)))
    assert rows("e") == rows("again")


def test_codes_that_are_replaced_on_the_way_end_it(snapshot: Path) -> None:
    job_id = service.submit(given(snapshot, "mixed", codes=True, chunk=300), publish=False).job_id
    assert runner.execute(job_id, "me")
    with connect() as conn:
        conn.execute("UPDATE code_set SET ready_at = clock_timestamp()")  # as a refresh does
    row = runner.run_inline(job_id)
    assert row.state == "failed" and "were replaced after it had begun" in row.error
    with connect() as conn:
        assert list_evaluations(conn) == []


def test_what_was_left_in_the_making_goes_with_the_garbage(snapshot: Path) -> None:
    job_id = service.submit(given(snapshot, "left", chunk=300), publish=False).job_id
    assert runner.execute(job_id, "me")
    kind = "evaluation left in the making"
    with connect() as conn:
        conn.execute("UPDATE evaluation SET created_at = created_at - interval '9 days'")
        assert kind not in {item.kind for item in collect(conn, get_settings())}  # its job may go on
    service.cancel(job_id)
    with connect() as conn:
        assert [item.rows > 1500 for item in collect(conn, get_settings()) if item.kind == kind] == [True]
        assert conn.execute("SELECT count(*) FROM evaluation").fetchone() == (0,)
    service.retry(job_id)
    with pytest.raises(JobFailedError, match="has been removed"):
        service.require_success(runner.run_inline(job_id))
