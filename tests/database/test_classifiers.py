"""Classifiers trained for seconds, registered, and evaluated like every other localizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_world import SmallWorld
from typer.testing import CliRunner

from geofix.cli.main import app
from geofix.codes.register import register_model
from geofix.database.engine import connect
from geofix.database.queries import models as model_queries
from geofix.database.queries.evaluations import list_evaluations
from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.evaluation.service import compare_evaluations, evaluate
from geofix.localizers.trained import TRAINED
from geofix.models.classifier_dir import load_classifier
from geofix.spatial.distance import great_circle_m

CONFIG = """
encoder: {trunk: test_resnet, size: 32, fit: squash, aggregation: avg}
partitions: {tau_min: 0, tau_max: [60, 20, 8]}
batch: {photos: 16, crop: 0.9, mirror: false}
optimiser: {kind: adamw, trunk_lr: 3.0e-3, head_lr: 1.0e-2}
epochs: 12
workers: 0
threads: 1
"""
MODELS = {
    "planet": "single",
    "mvmf": "mixture",
    "mvmf_mode": "mixture",
    "cplanet": "votes",
    "cplanet_sum": "votes",
}


@pytest.fixture(scope="module")
def trained(small_database: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories of a joint model, a single one and a mixture, trained through the command line."""
    folder = tmp_path_factory.mktemp("classifiers")
    (folder / "c.yaml").write_text(CONFIG)
    changes = {
        "joint": [],
        "single": ["--set", "partitions.tau_max=[8]"],
        "mixture": [
            "--set",
            "kind=mvmf",
            "--set",
            "partitions.tau_max=[8]",
            "--set",
            "mixture.prekappa=cells",
        ],
        "votes": [
            *("--set", "kind=cplanet", "--set", "geoclasses.classes=6"),
            *("--set", "geoclasses.atom_photos=4"),
        ],
    }
    for name, given in changes.items():
        words = ["train-classifier", str(folder / "c.yaml"), "--snapshot", str(small_database.snapshot)]
        done = CliRunner().invoke(app, [*words, "--out", str(folder / name), *given, "--json"])
        assert done.exit_code == 0, done.output
    return {name: folder / name for name in changes}


@pytest.fixture
def conn(small: SmallWorld, trained: dict[str, Path]):
    """The models registered; everything that a test stores is rolled back."""
    with connect() as connection:
        for name, directory in trained.items():
            register_model(connection, directory, name)
        yield connection
        connection.rollback()


def run(conn, small, localizer, model, **given):
    asked = {"split": "test_seen", "name": f"{localizer}-{model}", "snapshot": small.snapshot, **given}
    return evaluate(conn, localizer=localizer, model=model, **asked)


def test_a_trained_classifier_lands_in_the_same_rows_and_beats_the_trivial_answer(conn, small):
    result = run(conn, small, "classifier", "joint")
    assert result["localizer"] == "classifier_fstar" and result["n"] > 0
    asked = conn.execute(
        "SELECT photo_id, ST_X(geom), ST_Y(geom) FROM snapshot_photo JOIN photo USING (photo_id)"
        " WHERE split = 'test_seen'"
    ).fetchall()
    rows = conn.execute(
        "SELECT photo_id, rank, score, error_m, ST_X(geom), ST_Y(geom), s2_id FROM prediction"
        " JOIN evaluation USING (evaluation_id) WHERE name = 'classifier-joint' ORDER BY 1, 2"
    ).fetchall()
    finest = load_classifier(Path(model_queries.find_model(conn, "joint").directory_uri)).partitions[-1]
    classes = len(finest)
    assert len(rows) == len(asked) * min(classes, 100)
    truth = {photo: (lon, lat) for photo, lon, lat in asked}
    for photo, _, _, error, lon, lat, _ in rows:
        assert error == pytest.approx(float(great_circle_m(*truth[photo], lon, lat)), abs=1e-3)
    answers = np.array([row[4:6] for row in rows])
    known = np.column_stack([finest.lon, finest.lat])
    assert all(np.abs(known - answer).max(axis=1).min() < 1e-9 for answer in answers[:50])
    km = "25"
    assert result["accuracy_km"][km] >= result["trivial"]["accuracy_km"][km]
    assert result["median_m"] < 20_000  # towns are 7 to 30 km apart
    tied = model_queries.find_model(conn, "joint")
    assert tied.snapshot_id is not None


def test_every_inference_is_a_localizer_of_its_own(conn, small):
    found = {}
    plain = [name for name in TRAINED if name.startswith(("classifier", "planet", "cplanet", "mvmf"))]
    for name in plain:
        model = MODELS.get(name, "joint")
        found[name] = run(conn, small, name, model, k=3)
    assert {row["localizer"] for row in found.values()} == set(plain) - {"classifier"}
    listed = {row["evaluation"]: row["localizer"] for row in list_evaluations(conn)}
    assert listed["planet-single"] == "planet" and listed["classifier_c-joint"] == "classifier_c"
    both = compare_evaluations(conn, "classifier_f-joint", "mvmf-mixture", threshold_m=1000.0)
    assert both["n"] == found["mvmf"]["n"]


def test_crops_stand_in_the_row(conn, small):
    run(conn, small, "classifier", "single", crops="ten-mean")
    (record,) = conn.execute(
        "SELECT config -> 'protocol' ->> 'crops' FROM evaluation WHERE name = 'classifier-single'"
    ).fetchone()
    assert record == "ten-crop mean"
    with pytest.raises(UsageError, match="parts of a photo"):
        run(conn, small, "knn", "tiny", crops="ten-mean", name="x")
    with pytest.raises(UsageError, match="not known"):
        run(conn, small, "classifier", "single", crops="hundred", name="x")


def test_answers_stay_within_a_region(conn, small):
    west = "POLYGON((7.4 47.4, 7.5 47.4, 7.5 47.7, 7.4 47.7, 7.4 47.4))"
    for localizer, model in (("classifier", "joint"), ("planet", "single"), ("mvmf_mode", "mixture")):
        run(conn, small, localizer, model, within=west, name="west", replace=True)
        lon = [
            row[0]
            for row in conn.execute(
                "SELECT ST_X(geom) FROM prediction JOIN evaluation USING (evaluation_id) WHERE name = 'west'"
            )
        ]
        assert lon and max(lon) <= 7.5


def test_photos_without_pixels_count_as_unanswered(conn, small):
    lost = conn.execute(
        "SELECT photo_id FROM snapshot_photo WHERE split = 'test_seen' ORDER BY 1 LIMIT 2"
    ).fetchall()
    (gone, moved) = (row[0] for row in lost)
    conn.execute("UPDATE photo_record SET uri = NULL WHERE photo_id = %s", (gone,))
    conn.execute("UPDATE photo_record SET uri = '/nowhere.jpg' WHERE photo_id = %s", (moved,))
    result = run(conn, small, "classifier", "single")
    assert result["answered"] == pytest.approx(100 * (result["n"] - 2) / result["n"])


def test_weights_that_were_trained_anew_since_are_refused(conn, small, trained):
    conn.execute(
        "UPDATE model SET directory_uri = %s WHERE name = 'joint'", (str(trained["single"] / "model"),)
    )
    with pytest.raises(BadInputError, match="were registered"):
        run(conn, small, "classifier", "joint")


def test_an_encoder_is_no_classifier(conn, small):
    with pytest.raises(NotFoundError, match="no classifier"):
        run(conn, small, "classifier", "tiny")
    with pytest.raises(UsageError, match="does not search photos"):
        run(conn, small, "classifier", "joint", exclude_author=True)
