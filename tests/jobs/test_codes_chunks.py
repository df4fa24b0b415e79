"""One code set, many chunks: the same bytes as built at once, whoever made them, failed or was killed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from code_world import EAST, LEVEL, NORTH, SOUTH, WEST, fill
from job_helpers import Workers, chunks_of, wait_for, wait_state

from geofix.codes import recipes
from geofix.codes.build import build_code_set
from geofix.database.engine import connect
from geofix.database.garbage import collect
from geofix.database.queries import code_ranges
from geofix.database.queries import codes as code_queries
from geofix.database.queries.leaves import orphan_leaves
from geofix.database.queries.models import find_model
from geofix.errors import BadInputError, JobFailedError
from geofix.ingest.region_text import region_ewkb
from geofix.jobs import runner, service
from geofix.jobs.specs import parse
from geofix.settings import get_settings
from geofix.snapshots.build import stored_snapshot
from servers import Database

CODES = """
SELECT s2_id, encode(halfvec_send(code), 'hex'), has_prototype, has_aerial
FROM cell_code WHERE code_set_id = %s ORDER BY ctid
"""
BLOCKS = "SELECT s2_id, lo, hi, cells FROM cell_block WHERE code_set_id = %s ORDER BY 1"
OWN = ("code_set_id", "name", "bytes")
LEAVES = "SELECT count(*) FROM pg_tables WHERE schemaname = 'geofix_leaf' AND tablename ~ '^cell_code'"
REGION = f"POLYGON(({WEST} {SOUTH}, 7.425 {SOUTH}, 7.42 {NORTH}, {WEST} {NORTH}, {WEST} {SOUTH}))"
# Two corners of the town: between the ids of their cells lies most of it.
CORNERS = (
    f"MULTIPOLYGON((({WEST} {SOUTH}, 7.41 {SOUTH}, 7.41 47.41, {WEST} 47.41, {WEST} {SOUTH})),"
    f"((7.43 47.42, {EAST} 47.42, {EAST} {NORTH}, 7.43 {NORTH}, 7.43 47.42)))"
)
BETWEEN = f"POLYGON((7.412 {SOUTH}, 7.428 {SOUTH}, 7.428 47.41, 7.412 47.41, 7.412 {SOUTH}))"
HIDE = """
WITH gone AS (
  DELETE FROM aerial_embedding
  WHERE aerial_tile_id = (SELECT max(aerial_tile_id) - 5 FROM aerial_embedding) RETURNING *)
SELECT model_id, aerial_tile_id, embedding FROM gone
"""
KINDS = ("weights", "codes", "code set")  # of progress: a fit, a range, the end


@pytest.fixture
def snapshot(db: Database, timing: None, tmp_path: Path) -> Path:
    return fill(tmp_path)


def given(name: str, snapshot: Path, *, chunk: int = 40, **more):
    what = {"model": "m", "code_set": name, "level": LEVEL, "recipe": "hybrid", "chunk": chunk}
    return parse("codes", {**what, "snapshot": snapshot, **more})


def inline(specification):
    return runner.run_inline(service.submit(specification, publish=False).job_id)


def stored(name: str):
    """All that is kept of a code set but its key, its name and its size: rows in the order on disk."""
    with connect() as conn:
        found = code_queries.find_code_set(conn, name)
        kept = {key: value for key, value in vars(found).items() if key not in OWN}
        key = (found.code_set_id,)
        return conn.execute(CODES, key).fetchall(), conn.execute(BLOCKS, key).fetchall(), kept


def directly(name: str, snapshot: Path, **more) -> None:
    with connect() as conn:
        frozen = stored_snapshot(conn, snapshot).snapshot_id
        what = {"recipe": "hybrid", "level": LEVEL, "snapshot_id": frozen, **more}
        build_code_set(conn, name=name, model=find_model(conn, "m"), **what)


def leaves() -> int:
    with connect() as conn:
        return conn.execute(LEAVES).fetchone()[0]


def test_chunks_make_the_same_bytes_as_one_job_and_as_no_job(snapshot: Path) -> None:
    for recipe in ("cellmean", "aerial", "prototype", "hybrid"):
        directly(f"{recipe} directly", snapshot, recipe=recipe)
        whole = service.require_success(inline(given(f"{recipe} whole", snapshot, chunk=0, recipe=recipe)))
        row = service.require_success(inline(given(f"{recipe} cut", snapshot, recipe=recipe)))
        parts = chunks_of(row.job_id)
        assert chunks_of(whole.job_id) == [] and len(parts) > 3 and parts[-1].size == 0
        assert sum(part.size for part in parts) == row.result["cells"] == whole.result["cells"]
        assert (row.progress_done, row.progress_unit) == (row.result["cells"], "cells")
        own = {"code_set": row.result["code_set"], "bytes": row.result["bytes"]}
        assert row.result == whole.result | own | {"chunks": len(parts)}
        assert stored(f"{recipe} cut") == stored(f"{recipe} whole") == stored(f"{recipe} directly")
        assert [item[0] for item in stored(f"{recipe} cut")[0]] == sorted(
            item[0] for item in stored(f"{recipe} cut")[0]
        )
    hybrid = stored("hybrid cut")[2]
    assert 0 < hybrid["with_prototype"] < hybrid["cells"] > hybrid["with_aerial"] > 0 < hybrid["kappa"]
    assert leaves() == 12  # what codes wait in is gone

    with connect() as conn:
        region = region_ewkb(conn, REGION)
    directly("part directly", snapshot, region_ewkb=region, kappa=0.7, upsample="copy")
    row = inline(given("part", snapshot, region=REGION, kappa=0.7, upsample="copy", calibrate=True))
    part, calibration = stored("part"), service.require_success(row).result["calibration"]
    assert part[2]["temperature"] == calibration["temperature"] > 0
    assert part[0] == stored("part directly")[0] and 0 < len(part[0]) < hybrid["cells"]
    assert service.require_success(inline(given("one", snapshot, chunk=100_000))).result.get("chunks") is None


def test_workers_killed_while_fitting_in_a_range_and_at_the_end_change_nothing(
    queue: Database,
    workers: Workers,
    beat: None,
    snapshot: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROBE_DIE_IN", str(tmp_path))
    directly("directly", snapshot)
    workers.start("one", "cpu", "1")
    alone = wait_state(service.submit(given("alone", snapshot)).job_id, "succeeded", seconds=60)
    for kind in KINDS:
        (tmp_path / kind).touch()
    workers.start("one", "cpu", "2")
    job_id = service.submit(given("shared", snapshot)).job_id
    for kind in KINDS:
        wait_for(lambda kind=kind: not (tmp_path / kind).exists(), f"a death in {kind}", 60)
        began = time.monotonic()

        def again(kind: str = kind) -> bool:
            held = [service.find(job_id)] if kind == "weights" else chunks_of(job_id)
            held = held[-1:] if kind == "code set" else held
            return any(row.fencing_token > 1 for row in held)

        wait_for(again, f"a second attempt at {kind}", 60)
        print(f"killed in {kind} of a code set: taken up {time.monotonic() - began:.1f} s after the fault")
    row = wait_state(job_id, "succeeded", seconds=90)
    parts = chunks_of(job_id)
    assert [part.fencing_token for part in parts[:-1]].count(2) == 1 == parts[-1].fencing_token - 1
    own = {"code_set": "shared", "bytes": row.result["bytes"]}
    assert row.result == alone.result | own and len(parts) > 3
    assert stored("shared") == stored("alone") == stored("directly") and leaves() == 3


def test_a_chunk_that_fails_loses_nothing_and_nobody_sees_half_a_code_set(snapshot: Path) -> None:
    directly("directly", snapshot)
    taken = inline(given("directly", snapshot))
    assert taken.state == "failed" and "exists" in taken.error and chunks_of(taken.job_id) == []
    job_id = service.submit(given("set", snapshot), publish=False).job_id
    assert runner.execute(job_id, "me")
    with connect() as conn:
        assert orphan_leaves(conn) == []  # what the job collects in is no orphan
        gone = conn.execute(HIDE).fetchone()
    row = runner.run_inline(job_id)
    states = [part.state for part in chunks_of(job_id)]
    assert row.state == "failed" and states.count("succeeded") == len(states) - 2 and states[-1] == "failed"
    assert "changed meanwhile" in row.error and "Not begun" not in row.error
    with connect() as conn:
        assert [item["name"] for item in code_queries.list_code_sets(conn)] == ["directly"]
        assert "codes left in the making" not in {item.kind for item in collect(conn, get_settings())}
        conn.execute(
            "INSERT INTO aerial_embedding (model_id, aerial_tile_id, embedding) VALUES (%s, %s, %s)", gone
        )
    service.retry(job_id)
    service.require_success(runner.run_inline(job_id))
    assert stored("set") == stored("directly") and leaves() == 2


def test_what_was_left_in_the_making_goes_with_the_garbage(snapshot: Path) -> None:
    job_id = service.submit(given("left", snapshot), publish=False).job_id
    assert runner.execute(job_id, "me") and runner.execute(chunks_of(job_id)[0].job_id, "me")
    service.cancel(job_id)
    kind = "codes left in the making"
    with connect() as conn:
        assert kind not in {item.kind for item in collect(conn, get_settings())}  # it may be tried again
        conn.execute("UPDATE job SET finished_at = finished_at - interval '9 days'")
        assert [item.bytes > 0 for item in collect(conn, get_settings()) if item.kind == kind] == [True]
    assert leaves() == 0
    service.retry(job_id)
    with pytest.raises(JobFailedError, match="has been removed"):
        service.require_success(runner.run_inline(job_id))


@pytest.mark.parametrize("recipe", ["cellmean", "aerial", "prototype", "hybrid"])
def test_a_region_reads_what_lies_in_it_and_makes_the_bytes_of_a_whole(
    snapshot: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first id to the last of two corners lies most of the town: none of it is read or averaged."""
    kappa = {"kappa": 0.7} if recipe == "hybrid" else {}
    counted: dict[str, int] = {}

    def count(where: object, name: str, result: int | None) -> None:
        used = getattr(where, name)

        def counting(*args: object, **more: object) -> object:
            made = used(*args, **more)
            counted[name] = counted.get(name, 0) + len(args[0] if result is None else made[result])
            return made

        monkeypatch.setattr(where, name, counting)

    count(code_ranges, "read_vectors", 0)
    count(recipes, "cell_means", None)
    directly("whole", snapshot, recipe=recipe, **kappa)
    everything = dict(counted)
    counted.clear()
    with connect() as conn:
        region, between = region_ewkb(conn, CORNERS), region_ewkb(conn, BETWEEN)
    directly("corners", snapshot, recipe=recipe, region_ewkb=region, **kappa)
    whole, part = (stored(name) for name in ("whole", "corners"))
    ids = {row[0] for row in part[0]}
    assert 10 < len(ids) < 0.35 * len(whole[0])
    low, high = min(ids), max(ids)
    assert sum(low <= row[0] <= high for row in whole[0]) > 2 * len(ids)
    if recipe != "hybrid":  # whose M is that of the codes in it
        assert part[0] == [row for row in whole[0] if row[0] in ids]
    share = len(ids) / len(whole[0])
    assert counted.get("cell_means", 0) <= 1.5 * share * everything.get("cell_means", 0)
    assert counted["read_vectors"] <= 0.45 * everything["read_vectors"]
    if recipe in ("cellmean", "prototype"):
        with connect() as conn:
            far = region_ewkb(conn, "POLYGON((1 1, 2 1, 2 2, 1 1))")
        with pytest.raises(BadInputError, match="would be empty"):
            directly("far", snapshot, recipe=recipe, region_ewkb=far)
    directly("between", snapshot, recipe=recipe, region_ewkb=between, **kappa)
    assert not ids & {row[0] for row in stored("between")[0]}


def test_planning_takes_memory_by_cell_not_by_picture(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []

    def reading(*args: object) -> dict[str, object]:
        found = code_ranges_read(*args)
        rows.append(max(len(values) for values in found.values()))
        return found

    code_ranges_read = code_ranges.read_columns
    monkeypatch.setattr(code_ranges, "read_columns", reading)
    for recipe in ("cellmean", "aerial"):
        directly(recipe, snapshot, recipe=recipe)
        assert rows.pop() == len(stored(recipe)[0]) and rows == []


def test_a_running_backup_holds_up_no_code_set(snapshot: Path, db: Database) -> None:
    """It reads every table there is until it ends, and a table that is read cannot be dropped."""
    directly("directly", snapshot)
    job_id = service.submit(given("set", snapshot), publish=False).job_id
    assert runner.execute(job_id, "me")
    table = f"geofix_leaf.cell_code_making_{job_id.hex}"
    kind = "codes left in the making"
    with db.connect() as dump:
        dump.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE")
        with connect() as conn:
            # So that whoever waits fails instead.
            conn.execute(f"ALTER DATABASE {conn.info.dbname} SET lock_timeout = '10s'")
        service.require_success(runner.run_inline(job_id))
        assert stored("set") == stored("directly") and leaves() == 3
        with connect() as conn:
            assert not code_ranges.has_making(conn, job_id)  # a late attempt must not go on with it
            assert orphan_leaves(conn) == []
            left = [item for item in collect(conn, get_settings()) if item.kind == kind]
            assert [(item.state, "backup" in item.note) for item in left] == [("kept", True)]
    with connect() as conn:
        assert [item.state for item in collect(conn, get_settings()) if item.kind == kind] == ["removed"]
    assert leaves() == 2
