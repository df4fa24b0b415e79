"""Stored evaluations in the table of their photo set, and searching without an author's own photos."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small_world import SmallWorld
from typer.testing import CliRunner

from geofix.cli.main import app
from geofix.database.engine import connect
from geofix.database.queries import evaluations as queries
from geofix.errors import BadInputError, UsageError
from geofix.evaluation import set_table
from geofix.evaluation.bounds import ClassPositions
from geofix.evaluation.protocols import EvaluationProtocol
from geofix.evaluation.service import evaluate, prepare
from geofix.spatial import s2


@pytest.fixture
def conn(small: SmallWorld):
    """Everything that a test stores is rolled back."""
    with connect() as connection:
        yield connection
        connection.rollback()


def run(conn, small, **given):
    return evaluate(
        conn, snapshot=small.snapshot, split="test_seen", model="tiny", **{"localizer": "knn", **given}
    )


def test_evaluations_stand_in_the_table_of_their_data_set(conn, small):
    result = run(conn, small, name="first")
    run(conn, small, name="second", localizer="cellmean")
    stored = queries.list_with_datasets(conn)
    table = set_table.find_table("STREETS", stored)
    lon, lat = set_table.add_stored(table, stored, conn)
    assert [row.system for row in table.own] == ["first", "second"]
    assert len(lon) == len(lat) == result["n"] == table.own[0].n
    assert table.own[0].accuracy_km == tuple(result["accuracy_km"].values())
    assert table.own[0].median_km == result["median_m"] / 1000
    assert table.own[0].protocol == set_table.protocol_fields(EvaluationProtocol())
    cells = np.unique(s2.parent(s2.cell_at(np.array(lon), np.array(lat), 30), 12))
    classes = ClassPositions(*s2.center(cells), None, cells)
    set_table.add_bounds(table, lon, lat, {"l12": classes}, EvaluationProtocol())
    assert table.bounds[0].accuracy_km[1] == 100.0 and table.bounds[0].n == result["n"]
    other = set_table.find_table("Im2GPS", stored)
    assert set_table.add_stored(other, stored) == ([], []) and other.own == []
    with pytest.raises(UsageError, match="No published result is known for streets"):
        set_table.add_published(table)


def test_an_evaluation_of_two_data_sets_belongs_to_neither(conn, small):
    run(conn, small, name="first")
    conn.execute("INSERT INTO dataset (name, kind) VALUES ('im2gps', 'photos')")
    conn.execute(
        "UPDATE photo_record SET dataset_id = (SELECT dataset_id FROM dataset WHERE name = 'im2gps') "
        "WHERE photo_id = (SELECT min(photo_id) FROM evaluation_photo)"
    )
    (row,) = queries.list_with_datasets(conn)
    assert row["datasets"] == ["im2gps", "streets"]
    for name in ("Im2GPS", "streets"):
        table = set_table.find_table(name, [row])
        set_table.add_stored(table, [row])
        assert table.own == []


def test_the_command_asks_the_database(small):
    with connect() as conn:
        run(conn, small, name="kept")
    try:
        done = CliRunner().invoke(app, ["evaluate", "table", "--set", "streets", "--json"])
        assert done.exit_code == 0, done.output
        assert [row["system"] for row in json.loads(done.stdout)["own"]] == ["kept"]
        unknown = CliRunner().invoke(app, ["evaluate", "table", "--set", "roads"])
        assert unknown.exit_code == 3 and "streets" in unknown.stderr
        shown = CliRunner().invoke(app, ["evaluate", "table", "--set", "Im2GPS", "--with-published"])
        assert shown.exit_code == 0 and "kept" not in shown.stdout and "TransLocator" in shown.stdout
    finally:
        with connect() as conn:
            queries.delete_evaluation(conn, "kept")


@pytest.mark.parametrize("localizer", ["knn", "knn_density", "knn_density_compat"])
def test_an_authors_own_photos_are_passed_over(conn, small, localizer):
    """The author of a photo is the town it was taken in, so that nothing of that town can be found."""
    conn.execute("UPDATE photo_record SET author = split_part(source_key, '-', 1)")
    lost = conn.execute("SELECT min(photo_id) FROM snapshot_photo WHERE split = 'test_seen'").fetchone()[0]
    conn.execute("UPDATE photo_record SET author = NULL WHERE photo_id = %s", (lost,))
    free = run(conn, small, localizer=localizer)
    bound = run(conn, small, localizer=localizer, exclude_author=True)
    assert bound["evaluation"] == f"{free['evaluation']}-other-authors"
    assert bound["protocol"]["same_author"] == "excluded" and free["protocol"]["same_author"] == "kept"
    found = dict(zip(*_top(conn, bound["evaluation"]), strict=True))
    before = dict(zip(*_top(conn, free["evaluation"]), strict=True))
    town = 1000.0  # metres; towns lie further apart than this, streets are 300 m long
    assert np.median(list(before.values())) < town
    assert all(error > town for photo, error in found.items() if photo != lost)
    assert found[lost] == before[lost]


def _top(conn, name):
    ids, errors = queries.read_errors(conn, queries.find_evaluation(conn, name)["evaluation_id"])
    return ids.tolist(), errors[:, 0].tolist()


def test_authors_are_excluded_where_they_are_known_and_photos_are_searched(conn, small):
    asked = {"snapshot": small.snapshot, "split": "test_seen", "model": "tiny", "exclude_author": True}
    conn.execute("UPDATE photo_record SET author = NULL")
    with pytest.raises(BadInputError, match="has an author"):
        prepare(conn, localizer="knn", **asked)
    with pytest.raises(UsageError, match="does not search photos"):
        prepare(conn, localizer="cellmean", **asked)
