"""`geofix gc` takes what nobody needs, and nothing else."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from geofix.cli import gc as gc_cli
from geofix.database import ownership
from geofix.database.engine import connect
from geofix.database.garbage import collect
from geofix.database.queries import code_ranges, garbage, leaves
from geofix.database.queries.models import find_model
from geofix.database.upkeep import check_database
from geofix.errors import TransientError
from geofix.settings import get_settings
from geofix.storage import FINISHED, readable_bytes
from owned import World, make_world, photos_in, run, states
from servers import Database


@pytest.fixture
def world(db: Database) -> World:
    return make_world()


def findings(*arguments: str) -> dict[str, list[dict[str, Any]]]:
    result = run(gc_cli.app, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for item in json.loads(result.stdout)["items"]:
        found.setdefault(item["kind"], []).append(item)
    return found


def leftovers(db: Database) -> None:
    """One of everything that a kill leaves in a database."""
    with connect() as conn:
        conn.execute("CREATE TABLE geofix_leaf.cell_code_901 (LIKE cell_code)")
        leaves.ensure_leaf(conn, "cell_code", 902, 10)
        conn.execute("CREATE TABLE geofix_leaf.stray (a int)")
        model_id = find_model(conn, "m1").model_id
        insert = (
            "INSERT INTO code_set (name, model_id, recipe, level, dimension, state, created_at)"
            " VALUES (%s, %s, 'aerial', 15, 10, %s, now() - %s::interval)"
        )
        conn.execute(insert, ("dead", model_id, "building", "3 days"))
        conn.execute(insert, ("young", model_id, "building", "1 minute"))
        conn.execute(insert, ("half", model_id, "dropping", "0"))
        conn.execute("DELETE FROM photo_record WHERE source_key = 'p1'")
        conn.execute("UPDATE audit SET at = at - interval '3 years'")
        conn.execute(
            "INSERT INTO audit (at, action, object_kind, object_id)"
            " VALUES (now() - interval '1 day', 'a', 'b', 'c')"
        )


def test_gc_removes_what_nothing_refers_to(world: World, db: Database) -> None:
    with connect() as conn:
        conn.execute("INSERT INTO audit (action, object_kind, object_id) VALUES ('old', 'b', 'c')")
    leftovers(db)
    with connect() as conn:
        codes_before = conn.execute("SELECT count(*) FROM cell_code").fetchone()
    found = findings("--dry-run")
    assert {item["name"] for item in found["orphan leaf"]} == {"cell_code_901", "cell_code_902", "stray"}
    assert found["code set left building"][0]["name"] == "dead"
    assert found["code set left dropping"][0]["name"] == "half"
    assert sum(item["rows"] for item in found["embedding without its picture"]) == 4
    assert found["audit rows"][0]["rows"] == 1
    assert all(item["state"] == "found" for items in found.values() for item in items)
    assert findings("--dry-run").keys() >= found.keys()

    removed = findings()
    assert {kind: len(items) for kind, items in removed.items() if kind in found} == {
        kind: len(items) for kind, items in found.items()
    }
    assert all(item["state"] == "removed" for items in removed.values() for item in items)
    with connect() as conn:
        assert leaves.orphan_leaves(conn) == []
        assert states(conn).keys() == {"means", "tiles", "prototypes", "elsewhere", "young"}
        assert photos_in(conn)["photo_embedding"] == photos_in(conn)["photo_record"]
        assert conn.execute("SELECT count(*) FROM cell_code").fetchone() == codes_before
        assert [row[0] for row in conn.execute("SELECT action FROM audit ORDER BY at")] == ["a", "gc"]
    again = findings()
    assert set(again) <= {"deleted rows in a leaf"}


def test_gc_removes_old_log_lines_of_ended_jobs(db: Database) -> None:
    with connect() as conn:
        for state, ended in (("succeeded", "200 days"), ("failed", "1 day"), ("running", None)):
            (job_id,) = conn.execute(
                "INSERT INTO job (kind, state, finished_at, specification)"
                " VALUES (%s, %s, now() - %s::interval, '{}') RETURNING job_id",
                (state, state, ended),
            ).fetchone()
            for age in ("300 days", "1 minute" if state == "running" else "200 days"):
                conn.execute(
                    "INSERT INTO job_event (job_id, at, kind, message)"
                    " VALUES (%s, now() - %s::interval, 'log', 'x')",
                    (job_id, age),
                )
    assert findings("--dry-run")["job_event rows"][0]["rows"] == 2
    assert findings()["job_event rows"][0]["state"] == "removed"
    with connect() as conn:
        left = conn.execute(
            "SELECT j.kind, count(e.job_id) FROM job j LEFT JOIN job_event e USING (job_id) GROUP BY 1"
        ).fetchall()
    assert dict(left) == {"succeeded": 0, "failed": 2, "running": 2}
    assert "job_event rows" not in findings()


def test_gc_wipes_deleted_vectors_but_no_indexed_leaf(world: World, db: Database) -> None:
    with connect() as conn:
        plain, indexed = (find_model(conn, name).model_id for name in ("m1", "m2"))
        conn.execute(
            f"CREATE INDEX ON geofix_leaf.photo_embedding_{indexed}"
            " USING hnsw ((embedding::halfvec(8)) halfvec_ip_ops)"
        )
        ownership.delete_dataset(conn, "a")
        conn.commit()
        conn.execute("SELECT pg_stat_force_next_flush()")
        conn.commit()
        names = {item.name for item in collect(conn, get_settings()) if item.kind == "deleted rows in a leaf"}
        assert f"photo_embedding_{plain}" in names and f"photo_embedding_{indexed}" not in names
        assert conn.execute("SELECT count(*) FROM photo_embedding").fetchone() == (80,)


def test_codes_in_the_making_are_found_when_gc_may_remove_them_and_never_vacuumed(db: Database) -> None:
    kind = "codes left in the making"
    with connect() as conn:
        (job_id,) = conn.execute(
            "INSERT INTO job (kind, state, finished_at, specification)"
            " VALUES ('codes', 'failed', now() - interval '1 minute', '{}') RETURNING job_id"
        ).fetchone()
        code_ranges.create_making(conn, job_id)
        table = f"cell_code_making_{job_id.hex}"
        conn.execute(
            f"INSERT INTO geofix_leaf.{table} SELECT n, '[1,0]', true, true FROM generate_series(1, 50) AS n"
        )
        conn.commit()
        conn.execute(f"DELETE FROM geofix_leaf.{table} WHERE s2_id < 9")
        conn.commit()
        conn.execute("SELECT pg_stat_force_next_flush()")
        conn.commit()
        assert table not in {row[0] for row in garbage.bloated_leaves(conn)}
        assert all(check.ok for check in check_database(conn))  # it may be tried again
        assert kind not in {item.kind for item in collect(conn, get_settings())}
        conn.execute("UPDATE job SET finished_at = now() - interval '9 days'")
        assert {check.name: check.found for check in check_database(conn) if not check.ok} == {kind: table}
        assert kind in {item.kind for item in collect(conn, get_settings())}
        assert all(check.ok for check in check_database(conn))
        assert garbage.vacuum_leaf(conn, table) == 0  # gone since it was listed
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_gc_runs_alone(world: World, db: Database) -> None:
    with db.connect() as other, connect() as conn:
        other.execute("SELECT pg_advisory_lock(hashtext('geofix.gc'))")
        with pytest.raises(TransientError, match="Another"):
            collect(conn, get_settings())
        other.execute("SELECT pg_advisory_unlock(hashtext('geofix.gc'))")
        collect(conn, get_settings())


def old(path: Path, days: float = 40) -> Path:
    for item in [*path.rglob("*"), path] if path.is_dir() else [path]:
        os.utime(item, (time.time() - days * 86_400,) * 2)
    return path


def folder(path: Path, *names: str) -> Path:
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_bytes(b"1234")
    return path


def test_gc_removes_old_files_below_home_and_nothing_else(db: Database, tmp_path: Path) -> None:
    home = get_settings().home_dir
    gone = [
        old(folder(home / "snapshots" / ".wuhan.ab12_z9x", "photos.parquet", "snapshot.json")),
        old(folder(home / "models" / ".mnv2.old", "weights.safetensors")),
        old(folder(home / ".matrix.old.abcdefgh" / "matrix", "ids.npy").parent),
    ]
    folder(home / "models" / "mnv2", "weights.safetensors")
    folder(home / "matrix", "ids.npy")
    kept = [
        folder(home / "snapshots" / ".young.ab12_z9x", "photos.parquet"),
        old(folder(home / "models" / ".only.old", "weights.safetensors")),
        old(folder(home / ".config.settings", "notes.txt")),
        old(folder(home / "postgres" / ".base.ab12_z9x", "ids.npy")),
        old(folder(home / "snapshots" / "wuhan", "photos.parquet")),
    ]
    backups = folder(
        home / "backups", *(f"before-migrate-2026010{n}T000000.dump" for n in range(1, 9)), "mine.dump"
    )
    record = {"home": str(home), "root": str(home), "run": str(home / "run"), "uid": os.getuid()}
    (home / "cluster.json").write_text(json.dumps(record))
    logs = folder(home / "log", "postgres-Mon.log", "redis.log", "redis.log.1")
    for name in ("postgres-Mon.log", "redis.log"):
        old(logs / name)
    found = findings()
    assert {item["name"] for item in found["half-written folder"]} == {str(gone[0])}
    states_of = {item["name"]: item["state"] for item in found["replaced folder"]}
    assert states_of == {str(gone[1]): "removed", str(gone[2]): "removed", str(kept[1]): "kept"}
    assert not any(path.exists() for path in gone) and all(path.exists() for path in kept)
    assert sorted(path.name for path in backups.iterdir()) == [
        *(f"before-migrate-2026010{n}T000000.dump" for n in range(4, 9)),
        "mine.dump",
    ]
    assert len(found["backup before a migration"]) == 3
    assert sorted(path.name for path in logs.iterdir()) == ["redis.log", "redis.log.1"]
    shown = run(gc_cli.app, "--dry-run")
    assert "only copy" in shown.stdout and f"{readable_bytes(0)} can be freed" in shown.stderr


def test_gc_removes_checkpoints_of_trainings_that_ended_long_ago(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = get_settings().home_dir / "training"
    files = ("checkpoint.pt", "checkpoint-rank1.pt", "epochs.jsonl")
    ended = old(folder(trainings / "a" / "a", *files, FINISHED))
    others = [
        folder(trainings / "b" / "ended-today", *files, FINISHED),
        old(folder(trainings / "c" / "interrupted", *files)),
    ]
    kind = "checkpoint of an ended training"
    assert {Path(item["name"]).name for item in findings("--dry-run")[kind]} == set(files[:2])
    with monkeypatch.context() as change:
        change.setattr(get_settings(), "keep_checkpoints_days", 0)
        assert kind not in findings()
    assert sum(item["bytes"] for item in findings()[kind]) == 8
    assert sorted(path.name for path in ended.iterdir()) == ["epochs.jsonl", FINISHED]
    assert all((place / name).exists() for place in others for name in files)
