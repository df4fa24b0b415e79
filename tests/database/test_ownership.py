"""Deleting takes everything derived along, and says what was made from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from geofix.cli import delete as delete_cli
from geofix.database import ownership
from geofix.database.engine import Connection, connect
from geofix.database.queries import codes as code_queries
from geofix.database.queries import localizations
from geofix.database.queries.cells import refresh_cells
from geofix.database.queries.models import find_model
from geofix.database.queries.photos import lock_dataset, unlock_dataset
from geofix.errors import NotFoundError, TransientError
from geofix.settings import get_settings
from owned import LEVEL, World, make_world, photos_in, run, states
from servers import Database


@pytest.fixture
def world(db: Database) -> World:
    return make_world()


def deleted(*arguments: str) -> dict[str, Any]:
    result = run(delete_cli.app, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def grid(conn: Connection) -> list[Any]:
    return conn.execute("SELECT * FROM grid_cell ORDER BY level, s2_id").fetchall()


def recounted(conn: Connection) -> list[Any]:
    for level in (12, LEVEL):
        refresh_cells(conn, level)
    return grid(conn)


def test_a_photo_takes_everything_derived_along(world: World) -> None:
    gone = next(photo for photo in world.a if world.split_of(photo) == "test_seen")
    with connect() as conn:
        before = photos_in(conn)
        assert all(gone in ids for ids in before.values())
    result = deleted("photo", str(gone))
    assert result["rows"] == {
        "photo_embeddings": 2,
        "predictions": 1,
        "evaluation_photos": 1,
        "snapshot_photos": 1,
        "photo_regions": 1,
        "photos": 1,
    }
    with connect() as conn:
        assert photos_in(conn) == {table: ids - {gone} for table, ids in before.items()}
        assert grid(conn) == recounted(conn)
        audit = conn.execute(
            "SELECT actor, object_kind, object_id, detail FROM audit WHERE action = 'delete'"
        ).fetchall()
        assert audit[0][:3] == ("geofix_owner", "photo", str(gone))
        assert audit[0][3]["datasets"] == ["a"] and audit[0][3]["rows"] == result["rows"]


def test_code_sets_models_snapshots_and_evaluations_are_marked(world: World) -> None:
    asked = [photo for photo in world.a if world.split_of(photo) == "test_seen"][:2]
    learned = [photo for photo in world.a if world.split_of(photo) == "train"][:3]
    result = deleted("photo", *map(str, asked + learned))
    assert result["stale_code_sets"] == ["means", "prototypes"]
    assert (result["models"], result["snapshots"], result["evaluations"]) == (
        ["m2"],
        ["/nowhere/snap"],
        {"e": 18},
    )
    deleted("photo", str(world.b[0]))
    with connect() as conn:
        assert states(conn) == {
            "means": "stale",
            "prototypes": "stale",
            "tiles": "ready",
            "elsewhere": "ready",
        }
        made = code_queries.find_code_set(conn, "means")
        assert made.stale_reason == "6 photos of its snapshot were deleted (last: train 1)"
        assert find_model(conn, "m2").metrics["deleted_photos"] == 4
        assert find_model(conn, "m2").metrics["prototypes_stale"] is False
        assert find_model(conn, "m1").metrics == {}
        config = conn.execute("SELECT config FROM snapshot").fetchone()
        assert config == ({"deleted_photos": 6},)
        n, metrics, config = conn.execute("SELECT n, metrics, config FROM evaluation").fetchone()  # type: ignore[misc]
        assert n == metrics["n"] == 18 and "stale" not in metrics and config["deleted_photos"] == 2


def test_a_data_set_leaves_nothing_but_the_others(world: World) -> None:
    result = deleted("dataset", "a")
    assert result["rows"]["photos"] == 40 and result["rows"]["photo_embeddings"] == 80
    assert result["evaluations"] == {"e": 10}
    with connect() as conn:
        found = photos_in(conn)
        assert found["photo_record"] == found["photo_embedding"] == set(world.b)
        assert all(ids <= set(world.b) for ids in found.values())
        assert conn.execute("SELECT count(*) FROM sequence").fetchone() == (1,)
        assert [row[0] for row in conn.execute("SELECT name FROM dataset ORDER BY 1")] == [
            "b",
            "lands",
            "ortho",
        ]
        assert grid(conn) == recounted(conn)
    last = deleted("dataset", "b")
    assert last["evaluations"] == {"e": 0}
    with connect() as conn:
        assert not any(photos_in(conn).values())
        assert conn.execute("SELECT n FROM evaluation").fetchone() == (0,)


def test_aerial_imagery_takes_its_embeddings_and_marks_its_codes(world: World) -> None:
    with connect() as conn:
        (embedded,) = conn.execute("SELECT count(*) FROM aerial_embedding").fetchone()  # type: ignore[misc]
    result = deleted("dataset", "ortho")
    assert result["rows"]["aerial_embeddings"] == result["rows"]["aerial_tiles"] == embedded > 10
    assert result["rows"]["aerial_rasters"] == 1 and result["stale_code_sets"] == ["tiles"]
    with connect() as conn:
        assert states(conn)["means"] == states(conn)["elsewhere"] == "ready"
        reason = code_queries.find_code_set(conn, "tiles").stale_reason
        assert reason == f"{embedded} aerial tiles that it was built from were deleted"
        for table in ("aerial_embedding", "aerial_tile", "aerial_raster"):
            assert conn.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
        assert grid(conn) == recounted(conn)


def test_regions_go_and_photos_stay(world: World) -> None:
    result = deleted("dataset", "lands")
    assert result["rows"] == {"photo_regions": 80, "regions": 1} and result["stale_code_sets"] == []
    with connect() as conn:
        assert len(photos_in(conn)["photo_record"]) == 80 and not photos_in(conn)["photo_region"]


def test_a_dry_run_changes_nothing(world: World) -> None:
    with connect() as conn:
        before = photos_in(conn), states(conn), grid(conn)
    assert deleted("dataset", "a", "--dry-run", "--files")["rows"]["photos"] == 40
    with connect() as conn:
        assert (photos_in(conn), states(conn), grid(conn)) == before
        assert conn.execute("SELECT count(*) FROM audit").fetchone() == (0,)


def test_an_error_on_the_way_leaves_everything(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("power cut")

    with connect() as conn:
        before = photos_in(conn), states(conn)
    monkeypatch.setattr(ownership.localizations, "audit", broken)
    assert run(delete_cli.app, "dataset", "a").exit_code == 1
    with connect() as conn:
        assert (photos_in(conn), states(conn)) == before


def test_what_is_not_there_is_named(world: World) -> None:
    with connect() as conn:
        with pytest.raises(NotFoundError, match="999999"):
            ownership.delete_photos(conn, [world.a[0], 999_999])
        with pytest.raises(NotFoundError, match="a, b, lands, ortho"):
            ownership.delete_dataset(conn, "c")
        with pytest.raises(NotFoundError, match="77"):
            ownership.delete_query(conn, 77)
        conn.rollback()
    assert run(delete_cli.app, "dataset", "c").exit_code == 3


def test_a_data_set_in_loading_is_left_alone(world: World, db: Database) -> None:
    with db.connect() as loading, connect() as conn:
        row = loading.execute("SELECT dataset_id FROM dataset WHERE name = 'a'").fetchone()
        assert row is not None and lock_dataset(loading, row[0])
        with pytest.raises(TransientError, match="being loaded"):
            ownership.delete_dataset(conn, "a")
        conn.rollback()
        unlock_dataset(loading, row[0])
        assert ownership.delete_dataset(conn, "a").rows["photos"] == 40


def test_files_go_only_when_asked_and_only_inside_home(world: World, tmp_path: Path) -> None:
    world.folder.mkdir(parents=True)
    for n in range(1, 41):
        (world.folder / f"p{n}.jpg").write_bytes(b"x")
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(b"x")
    server = get_settings().home_dir / "postgres"
    server.mkdir()
    (server / "p4.jpg").write_bytes(b"x")
    link = world.folder / "p2.jpg"
    link.unlink()
    link.symlink_to(outside)
    names = {1: world.folder / "p1.jpg", 2: link, 3: outside, 4: server / "p4.jpg"}
    with connect() as conn:
        # The photos of b have the same files as those of a; the first four get files of their own.
        for n, path in names.items():
            conn.execute("UPDATE photo_record SET uri = %s WHERE photo_id = %s", (str(path), world.a[n - 1]))
        conn.execute("UPDATE photo_record SET uri = 'file://' || uri WHERE photo_id = %s", (world.a[0],))
        conn.execute("DELETE FROM photo_record WHERE photo_id = ANY (%s)", (world.b[:4],))
    assert deleted("photo", str(world.a[4]), "--files")["files_removed"] == []
    result = deleted("photo", *map(str, world.a[:4]), "--files")
    assert result["files_removed"] == [f"file://{world.folder / 'p1.jpg'}"] and result["files_left"] == 3
    assert not (world.folder / "p1.jpg").exists()
    assert outside.exists() and link.is_symlink() and (server / "p4.jpg").exists()
    assert (world.folder / "p5.jpg").exists()
    deleted("dataset", "a")
    assert (world.folder / "p9.jpg").exists()


def test_a_query_goes_and_the_audit_keeps_who_asked(db: Database) -> None:
    with connect() as conn:
        values = {
            "photo_sha256": b"x" * 32,
            "photo_name": "me.jpg",
            "code_set_id": None,
            "localizer": "cellmean",
        }
        more = {"k": 1, "region": None, "search_method": "exact", "cells_in_scope": 1, "in_coverage": None}
        query_id = localizations.store_query(conn, {**values, **more, "software_version": "0", "answer": {}})
        localizations.audit(conn, "localize", "query", str(query_id), {"code_set": "c", "sha256": "ab"})
    assert deleted("query", str(query_id))["rows"] == {"queries": 1, "audit_rows_scrubbed": 1}
    with connect() as conn:
        assert conn.execute("SELECT count(*) FROM query").fetchone() == (0,)
        rows = conn.execute("SELECT action, detail FROM audit ORDER BY audit_id").fetchall()
    assert rows[0] == ("localize", {"code_set": "c"}) and rows[1][0] == "delete"


def test_finished_stages_of_a_deleted_data_set_run_again(world: World) -> None:
    insert = (
        "INSERT INTO stage_run (pipeline, stage, inputs_sha256, result, seconds) VALUES (%s, %s, 'x', %s, 1)"
    )
    with connect() as conn:
        for pipeline, stage, result in (
            ("first", "ingest", '{"outputs": [{"dataset": "a"}]}'),
            ("first", "embed", "{}"),
            ("second", "ingest", '{"dataset": "ab"}'),
        ):
            conn.execute(insert, (pipeline, stage, result))
    assert deleted("dataset", "a")["rows"]["stages_forgotten"] == 2
    with connect() as conn:
        assert conn.execute("SELECT pipeline FROM stage_run").fetchall() == [("second",)]
