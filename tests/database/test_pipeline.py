"""Pipelines: skipped while nothing changed, run again when something did, and whole after any kill."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_world import countries, orthophoto, photos, pointed_at

from geofix.database.engine import connect
from geofix.database.ownership import delete_dataset
from geofix.database.queries import codes as code_queries
from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.evaluation.error_pictures import draw_error_pictures
from geofix.pipeline.run import run_pipeline
from geofix.settings import get_settings

pytest.importorskip("timm", reason="needs the extra `train`")

PIPELINE = """
name: little
stages:
  - {do: ingest_regions, path: "${here}/countries.geojson", level: country, code_field: code,
     name_field: name, dataset: lands}
  - {do: ingest_photos, path: "${here}/photos", metadata: "${here}/photos/metadata.csv", dataset: streets}
  - {do: ingest_aerial, paths: ["${here}/ortho.tif"], source: ortho}
  - {do: cells, levels: [14]}
  - {do: snapshot, datasets: [streets], test: 0.3, val: 0.2, seed: 1}
  - {do: model, name: tiny, trunk: mobilenetv3_small_050, size: 32, dimension: 16, seed: 3}
  - {do: embed, what: photos, model: tiny, datasets: [streets]}
  - {do: embed, what: aerial, model: tiny}
  - {do: codes, model: tiny, levels: [14, 16], index: true}
  - {do: codes, model: tiny, recipe: aerial, levels: [16], calibrate: false}
  - {do: evaluate, model: tiny, localizers: [cellmean, knn], levels: [16]}
  - {do: evaluate, model: tiny, localizers: [aerial_only], levels: [16], within: "${here}/area.geojson"}
  - {do: table, by: [country]}
  - {do: map, evaluation: knn-l16-test_seen}
  - {do: localize, model: tiny, level: 16, split: test_seen, limit: 2}
"""
AREA = (
    '{"type": "Polygon", "coordinates": [[[7.4, 47.4], [7.8, 47.4], [7.8, 47.7], [7.4, 47.7], [7.4, 47.4]]]}'
)
# What must be the same whatever happened on the way; ids differ, so rows are named by what they are about.
ROWS = {
    "photos": "SELECT source_key, country_code, s2_id FROM photo",
    "regions": "SELECT level, code, area_km2 FROM region",
    "rasters": "SELECT regexp_replace(uri, '.*/', ''), gsd_m FROM aerial_raster",
    "tiles": "SELECT level, s2_id, coverage FROM aerial_tile",
    "cells": "SELECT level, s2_id, photos, aerial_tiles FROM grid_cell",
    "snapshot": "SELECT source_key, split FROM snapshot_photo JOIN photo_record USING (photo_id)",
    "models": "SELECT name, weights_sha256 FROM model",
    "embedded": "SELECT source_key, embedding::text FROM photo_embedding JOIN photo_record USING (photo_id)",
    "tiles embedded": "SELECT s2_id, embedding::text FROM aerial_embedding JOIN aerial_tile"
    " USING (aerial_tile_id)",
    "code sets": "SELECT name, state, cells, with_prototype, with_aerial, scale, temperature FROM code_set",
    "codes": "SELECT name, s2_id, code::text FROM cell_code JOIN code_set USING (code_set_id)",
    "blocks": "SELECT name, s2_id, b.cells FROM cell_block b JOIN code_set USING (code_set_id)",
    "evaluations": "SELECT e.name, n, metrics::text, c.name FROM evaluation e LEFT JOIN code_set c"
    " USING (code_set_id)",
    "predictions": """SELECT e.name, source_key, rank, prediction.s2_id, score, error_m FROM prediction
        JOIN evaluation e USING (evaluation_id) JOIN photo_record USING (photo_id)""",
    "queries": "SELECT photo_sha256, k, answer - 'query_id' FROM query",
    "audit": "SELECT action, object_kind FROM audit",
    "stages": "SELECT pipeline, stage, inputs_sha256 FROM stage_run",
    "leaves": "SELECT count(*) FROM pg_tables WHERE schemaname = 'geofix_leaf'",
    "unattached": "SELECT count(*) FROM pg_class WHERE relnamespace = 'geofix_leaf'::regnamespace"
    " AND relkind = 'r' AND NOT relispartition",
}


def prepare(folder: Path) -> Path:
    """The inputs of the pipeline and its file."""
    folder.mkdir(parents=True, exist_ok=True)
    photos(folder / "photos", towns=4)
    countries(folder / "countries.geojson")
    orthophoto(folder / "ortho.tif")
    (folder / "area.geojson").write_text(AREA)
    (folder / "little.yaml").write_text(PIPELINE)
    return folder / "little.yaml"


def rows() -> dict[str, list[tuple]]:
    with connect() as conn:
        return {key: sorted(map(repr, conn.execute(query))) for key, query in ROWS.items()}


def ran(file: Path, **given) -> list[str]:
    """Kinds of the stages that ran, in order."""
    return [item.stage for item in run_pipeline(file, **given) if not item.skipped]


def numbered(first: int, last: int = 15) -> set[int]:
    return set(range(first, last + 1))


def numbers(names: list[str]) -> set[int]:
    return {int(name[:2]) for name in names}


@pytest.fixture(scope="module")
def little(cluster, tmp_path_factory):
    """The pipeline's file, run once in a database of its own; each test leaves it run and unchanged."""
    folder = tmp_path_factory.mktemp("little")
    with cluster.database() as database, pointed_at(database, folder / "home"):
        file = prepare(folder / "in")
        assert len(ran(file)) == 15
        yield file


def test_a_second_run_skips_everything_and_changes_no_row(little):
    before = rows()
    results = run_pipeline(little)
    assert all(item.skipped for item in results) and rows() == before
    out = get_settings().home_dir / "runs" / "little"
    assert (out / "table.md").read_text().count("| cellmean |") == 2
    assert (out / "localized.json").is_file() and (out / "errors-knn-l16-test_seen.png").is_file()


def test_force_runs_everything_to_the_same_rows(little):
    before = rows()
    assert numbers(ran(little, force=True)) == numbered(1)
    after = rows()
    for key in ("queries", "audit"):  # two more photos were localized
        assert len(after.pop(key)) == 2 * len(before.pop(key))
    assert after == before
    with connect() as conn:
        conn.execute("DELETE FROM query")
        conn.execute("DELETE FROM audit")
    ran(little)


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (
            lambda folder: (folder / "countries.geojson").write_text(
                (folder / "countries.geojson").read_text() + " "
            ),
            1,
        ),
        (lambda folder: os.utime(folder / "photos" / "0-0" / "0.jpg", ns=(1, 1)), 2),
        (lambda folder: (folder / "area.geojson").write_text(AREA + " "), 12),
        (lambda folder: (folder / "little.yaml").write_text(PIPELINE.replace("limit: 2", "limit: 1")), 15),
    ],
    ids=["content of a file", "time of a photo", "file of a region", "parameter"],
)
def test_what_changed_runs_again_with_all_that_follows(little, change, first):
    change(little.parent)
    assert numbers(ran(little)) == numbered(first)
    assert ran(little) == []
    (little.parent / "little.yaml").write_text(PIPELINE)
    ran(little)


def drop_codes(conn):
    code_queries.drop_code_set(conn, code_queries.find_code_set(conn, "little-tiny-cellmean-l16"))


def delete_evaluation(conn):
    conn.execute("DELETE FROM evaluation WHERE name = 'little-knn-l16-test_seen'")


def remove_weights(_conn):
    (get_settings().home_dir / "models" / "tiny" / "weights.safetensors").unlink()


def remove_table(_conn):
    (get_settings().home_dir / "runs" / "little" / "table.md").unlink()


def stale_codes(conn):
    conn.execute("UPDATE code_set SET state = 'stale' WHERE name = 'little-tiny-aerial-l16'")


@pytest.mark.parametrize(
    ("loss", "again"),
    [
        (drop_codes, numbered(9)),
        (stale_codes, numbered(10)),
        (delete_evaluation, numbered(11)),
        (remove_weights, numbered(6)),
        (remove_table, {13}),
        (lambda conn: delete_dataset(conn, "streets"), numbered(1)),
    ],
    ids=["code set", "stale code set", "evaluation", "weights", "report", "data set"],
)
def test_what_is_gone_is_made_again_with_all_that_was_made_from_it(little, loss, again):
    before = rows()
    with connect() as conn:
        loss(conn)
    assert numbers(ran(little)) == again
    after = rows()
    for key in ("queries", "audit"):
        before.pop(key)
        after.pop(key)
    assert after == before


def test_a_rebuild_that_fails_keeps_the_old_code_set(little, monkeypatch):
    before = rows()
    text = PIPELINE.replace("levels: [14, 16], index: true", "levels: [16], index: true")
    little.write_text(text)

    def fails(*_args, **_given):
        raise RuntimeError("in the middle of the rebuild")

    with monkeypatch.context() as patch:
        patch.setattr("geofix.codes.index.build_index", fails)
        with pytest.raises(RuntimeError, match="in the middle"):
            run_pipeline(little)
    after = rows()
    for key in ("code sets", "codes", "blocks", "leaves", "unattached"):
        assert after[key] == before[key], key
    little.write_text(PIPELINE)
    ran(little)
    assert rows()["codes"] == before["codes"]


def test_a_name_of_another_model_is_refused_before_its_files_are_touched(little):
    weights = get_settings().home_dir / "models" / "tiny" / "weights.safetensors"
    before = weights.read_bytes()
    little.write_text(PIPELINE.replace("name: little", "name: other").replace("seed: 3", "seed: 4"))
    with pytest.raises(UsageError, match="other weights or configuration"):
        run_pipeline(little)
    assert weights.read_bytes() == before
    assert [path.name for path in weights.parent.parent.iterdir()] == ["tiny"]
    little.write_text(PIPELINE)
    assert ran(little) == []


def test_the_table_shows_this_pipelines_evaluations_alone(little):
    with connect() as conn:
        conn.execute(
            "INSERT INTO evaluation (name, localizer, split, search_method, comparison, missing_policy, n,"
            " software_version)"
            " VALUES ('little-two-knn-l16-test_seen', 'knn', 'test_seen', 'exact', '<=', 'wrong', 1, '0')"
        )
    remove_table(None)
    assert numbers(ran(little)) == {13}
    with connect() as conn:
        conn.execute("DELETE FROM evaluation WHERE name = 'little-two-knn-l16-test_seen'")


def test_codes_without_validation_photos_in_their_cells_are_not_calibrated_and_no_fault(little, monkeypatch):
    def nothing(*_args):
        raise BadInputError("none of 3 validation queries lies in a searched cell.")

    before = rows()
    with connect() as conn:
        drop_codes(conn)
    with monkeypatch.context() as patch:
        patch.setattr("geofix.localize.calibrate.calibrate_code_set", nothing)
        results = {item.stage: item.result for item in run_pipeline(little)}
    made = results["09-codes"]["code_sets"]["little-tiny-cellmean-l16"]
    assert "none of 3" in made["calibration"]["not_calibrated"]
    assert results["15-localize"]["photos"][0]["probability"] is None
    with connect() as conn:
        drop_codes(conn)
    ran(little)
    assert rows()["code sets"] == before["code sets"]


def test_photos_that_match_nothing_and_unknown_regions_are_told(little):
    text = PIPELINE.replace("split: test_seen, limit: 2", "photos: ['${here}/none/*.jpg']")
    little.write_text(text)
    with pytest.raises(BadInputError, match="No file matches"):
        run_pipeline(little)
    little.write_text(PIPELINE.replace("by: [country]", "by: [planet]"))
    with pytest.raises(NotFoundError, match="No region of level 'planet'"):
        run_pipeline(little)
    little.write_text(PIPELINE)
    assert numbers(ran(little)) <= numbered(13)


def test_errors_are_drawn_as_photos_beside_what_stands_at_the_answer_and_at_the_truth(little, tmp_path):
    name, sheet = "little-knn-l16-test_seen", tmp_path / "sheets" / "worst.png"
    with connect("reader") as conn:
        asked = conn.execute(
            "SELECT source_key, error_m FROM prediction_top1 WHERE evaluation = %s"
            " ORDER BY error_m DESC NULLS FIRST, photo_id",
            (name,),
        ).fetchall()
        worst = draw_error_pictures(conn, name, sheet, pick="worst", photos=3)["photos"]
        best = draw_error_pictures(conn, name, sheet, pick="best", photos=2)["photos"]
        spread = draw_error_pictures(conn, name, sheet, pick="spread", photos=4)["photos"]
        with pytest.raises(UsageError, match="pick is 'nearest'"):
            draw_error_pictures(conn, name, sheet, pick="nearest")
        with pytest.raises(NotFoundError):
            draw_error_pictures(conn, "little-none", sheet)
    assert [(row["source_key"], row["error_m"]) for row in worst] == asked[:3]
    assert [row["source_key"] for row in best] == [key for key, _ in asked[-2:]]
    places = [key for key, _ in asked]
    assert len(spread) == 4 and places.index(spread[0]["source_key"]) == 0
    assert places.index(spread[-1]["source_key"]) == len(asked) - 1
    neighbours = {row[side] for row in [*worst, *spread] for side in ("answer_key", "truth_key")}
    assert not neighbours & set(places), "a neighbour is a photo that was not asked"
    with Image.open(sheet) as image:
        assert image.height > image.width / 2 and np.asarray(image.convert("L")).std() > 20


def test_a_pipeline_killed_at_random_moments_ends_like_one_that_was_not(cluster, tmp_path):
    """SIGKILL before statements, commits and blocks of COPY drawn at random; every attempt goes on."""
    found = []
    script = Path(__file__).with_name("killed_pipeline.py")
    file = prepare(tmp_path / "in")
    rng = random.Random(7)
    whole = 0
    for name in ("whole", "killed"):
        kills = [rng.randint(1, whole // 3) for _ in range(5)] if whole else []
        with cluster.database() as database, pointed_at(database, tmp_path / name):
            done = subprocess.run(
                [sys.executable, str(script), str(file), *map(str, kills), "0"],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, done.stderr[-4000:]
            said = done.stdout.split("\n")
            assert [line for line in said if "killed" in line] == [f"{n} killed" for n in kills], said
            whole = whole or int(said[0].split()[1])
            found.append(rows())
            assert all(item.skipped for item in run_pipeline(file))
    for key, wanted in found[0].items():
        if "embedded" in key:
            assert len(found[1][key]) == len(wanted)
        else:
            assert found[1][key] == wanted, key
    assert whole > 300
