"""Every query of docs/sql-cookbook.md runs, as the analysts' role, on data that the product itself made."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from cookbook_world import fill
from psycopg.rows import dict_row

from geofix.codes.upsample import upsample
from geofix.database import engine, sandbox
from geofix.settings import Settings, get_settings
from geofix.spatial import s2
from servers import Database, Servers

COOKBOOK = Path(__file__).resolve().parents[2] / "docs" / "sql-cookbook.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r"-- name: ([a-z0-9-]+)\n")


def blocks() -> dict[str, str]:
    """Queries of the cookbook by name."""
    found: dict[str, str] = {}
    for language, text in FENCE.findall(COOKBOOK.read_text()):
        title = TITLE.match(text)
        assert language == "sql" and title, f"a block without `-- name:` as first line: {text[:60]!r}"
        assert title[1] not in found, f"two queries are named {title[1]}"
        found[title[1]] = text
    return found


@pytest.fixture(scope="module")
def filled(cluster: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """One database for all queries: they cannot change it."""
    with cluster.database() as database, pytest.MonkeyPatch.context() as patch:
        patch.setitem(Settings.model_config, "env_file", None)
        patch.setenv("GEOFIX_HOME", str(tmp_path_factory.mktemp("home")))
        for role, variable in (("owner", "DATABASE"), ("writer", "WRITER"), ("reader", "READER")):
            patch.setenv(f"GEOFIX_{variable}_URL", database.url(role))  # type: ignore[arg-type]
        get_settings.cache_clear()
        try:
            fill(tmp_path_factory.mktemp("cookbook"))
            yield database
        finally:
            engine.dispose()
            get_settings.cache_clear()


def ask(database: Database, name: str) -> list[dict[str, Any]]:
    with database.connect("reader") as conn, conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(blocks()[name])
        assert cursor.description
        return cursor.fetchall()


def test_there_are_enough_queries() -> None:
    assert len(blocks()) >= 14


@pytest.mark.parametrize("name", blocks())
def test_query_runs_as_the_reader_and_finds_something(filled: Database, name: str) -> None:
    # The way of `geofix sql`: prepared and described first, read-only, one statement alone.
    with sandbox.ask(blocks()[name], get_settings()) as answer:
        rows = [row for batch in answer.batches() for row in batch]
        assert len(answer.columns) >= 2
    assert rows, f"{name} returned no row"


def test_the_role_is_the_reader_and_cannot_write(filled: Database) -> None:
    with filled.connect("reader") as conn:
        assert conn.execute("SELECT current_user").fetchone() == ("geofix_reader",)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("DELETE FROM reject")


def test_photos_near_a_line_are_near_it_and_complete(filled: Database) -> None:
    rows = ask(filled, "photos-near-a-line")
    assert all(row["distance_m"] <= 300 for row in rows)
    assert {row["source_key"].split("/")[0] for row in rows} == {"town1"} and len(rows) == 40


def test_range_join_counts_what_geometry_counts(filled: Database) -> None:
    (row,) = ask(filled, "photos-in-a-polygon")
    with filled.connect("reader") as conn:
        direct = conn.execute(
            "SELECT count(*) FROM photo"
            " WHERE ST_Covers(ST_MakeEnvelope(7.44, 47.49, 7.56, 47.51, 4326), geom)"
        ).fetchone()
    assert direct == (row["photos"],) and row["photos"] > 40


def test_accuracy_by_country_adds_up_to_the_evaluation(filled: Database) -> None:
    by_country = ask(filled, "accuracy-by-country")
    whole = {row["evaluation"]: row for row in ask(filled, "evaluations-side-by-side")}["streets-cellmean"]
    with filled.connect("reader") as conn:
        left_out = conn.execute(
            "SELECT count(*) FROM prediction_top1 t JOIN photo p USING (photo_id)"
            " WHERE t.evaluation = 'streets-cellmean' AND p.gps_accuracy_m > 100"
        ).fetchone()
    assert left_out is not None and left_out[0] > 0
    n = sum(row["n"] for row in by_country)
    assert n == whole["n"] - left_out[0]
    assert round(100 * sum(row["hits"] for row in by_country) / n, 6) == round(
        float(whole["recall_100m_percent"]), 6
    )


def test_worst_photos_come_worst_first_with_a_vector_each(filled: Database) -> None:
    errors = [row["error_m"] for row in ask(filled, "worst-photos")]
    assert errors == sorted(errors, reverse=True) and len(errors) == 20


def test_search_inside_a_country_stays_inside(filled: Database) -> None:
    everywhere = ask(filled, "code-sets")
    inside = ask(filled, "search-inside-a-country")
    cells = {row["name"]: row["cells"] for row in everywhere}["streets-l16"]
    assert {row["method"] for row in inside} == {"exact"}
    assert 0 < inside[0]["cells_in_scope"] < cells


def test_cells_without_aerial_tile_are_those_of_towns_without_imagery(filled: Database) -> None:
    without = {row["s2_token"] for row in ask(filled, "cells-without-aerial-tile")}
    with filled.connect("reader") as conn:
        of_towns = conn.execute(
            "SELECT DISTINCT s2_token(s2_parent(s2_id, 16)) FROM photo WHERE source_key !~ '^town[04]/'"
        ).fetchall()
    assert without == {row[0] for row in of_towns}


def test_two_evaluations_are_compared_on_all_their_photos(filled: Database) -> None:
    rows = ask(filled, "compare-two-evaluations-by-cell")
    for row in rows:
        assert row["hits_b"] - row["hits_a"] == row["only_b"] - row["only_a"]
    with filled.connect("reader") as conn:
        asked = conn.execute("SELECT count(*) FROM evaluation_hits('streets-knn', 50)").fetchone()
    assert asked == (sum(row["photos"] for row in rows),)


def test_cells_without_prototype_carry_the_bias_of_the_fit(filled: Database) -> None:
    (point,) = ask(filled, "hybrid-operating-point")
    cells = ask(filled, "cells-without-prototype")
    (sets,) = [row for row in ask(filled, "code-sets") if row["name"] == "streets-hybrid"]
    assert point["found_by"] == "logit" and point["val_photos"] > 10 and point["upsampling"] == "bilinear"
    assert len(cells) == round(sets["cells"] * (1 - float(sets["with_prototype_percent"]) / 100))
    assert all(row["has_aerial"] for row in cells)
    for row in cells:
        assert float(row["bias"]) == pytest.approx(point["bias_no_prototype"], abs=2e-3)


def test_the_parts_of_a_score_are_those_of_the_fusion(filled: Database) -> None:
    (point,) = ask(filled, "hybrid-operating-point")
    rows = ask(filled, "score-parts")
    assert [row["rank"] for row in rows] == list(range(1, 11))
    with filled.connect("reader") as conn:
        asked, model_id = conn.execute(
            "SELECT e.embedding::text, e.model_id FROM photo_embedding e JOIN photo USING (photo_id)"
            " WHERE source_key = 'town4/s2/05.jpg'"
        ).fetchone()
        learned = conn.execute(
            "SELECT s2_id, embedding::text FROM prototype WHERE model_id = %s ORDER BY 1", (model_id,)
        ).fetchall()
    vectors = np.array([json.loads(item[1]) for item in learned], np.float32)
    cells, fine = upsample(np.array([item[0] for item in learned]), vectors, 16, "bilinear")
    expected = dict(zip(s2.token(cells).tolist(), fine @ np.array(json.loads(asked)), strict=True))
    assert {row["has_aerial"] for row in rows} == {True, False}
    assert sum(row["cell"] in expected for row in rows) >= 5  # the first town's are means of photos
    for row in rows:
        if row["cell"] in expected:
            wanted = point["kappa"] * expected[row["cell"]]
            assert float(row["from_prototype"]) == pytest.approx(wanted, abs=5e-3)
        if not row["has_aerial"]:
            assert row["from_aerial"] == 0
            assert float(row["bias"]) == pytest.approx(point["bias_no_aerial"], abs=2e-3)


def test_prototypes_and_aerial_are_compared_once_per_tile_below_a_prototype(filled: Database) -> None:
    found = [row["similarity"] for row in ask(filled, "prototype-against-aerial")]
    assert found == sorted(found) and -1 <= found[0] < found[-1] <= 1


def test_a_refresh_is_noted_with_its_means(filled: Database) -> None:
    (row,) = ask(filled, "refreshes")
    assert row["name"] == "streets-hybrid" and row["changed"] > 0 and row["mean_prototypes_now"] > 0
