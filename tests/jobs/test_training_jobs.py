"""Training as a job: paused, resumed, cancelled, and no hindrance to who asks where a photo was taken."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from job_helpers import wait_for, wait_state
from PIL import Image
from trainings import CLASSIFIER, Training, snapshot_on_disk, weights
from typer.testing import CliRunner

from geofix.cli.main import app
from geofix.codes.build import CellVectors, publish
from geofix.codes.register import register_model
from geofix.database.engine import connect
from geofix.errors import UsageError
from geofix.jobs import service
from geofix.jobs.specs import parse
from geofix.models.create import create_model
from geofix.training.classify import train_classifier
from geofix.training.classify_config import parse_classifier_config
from helpers import random_codes
from servers import Database

PACE_S = 0.15
LONG = 200  # epochs; nobody waits for them

pytestmark = pytest.mark.usefixtures("running")


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    return snapshot_on_disk(tmp_path_factory)


@pytest.fixture(scope="module")
def long_one(tmp_path_factory: pytest.TempPathFactory) -> Training:
    return snapshot_on_disk(tmp_path_factory, epochs=LONG)


def invoke(*arguments: str):
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def begun(job_id: UUID) -> None:
    wait_for(lambda: service.find(job_id).progress_unit == "steps", "the first step", 60)


def test_a_paused_training_goes_on_to_the_same_weights(training: Training, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job_id = service.submit(training.job(out)).job_id
    begun(job_id)
    assert invoke("jobs", "pause", str(job_id))["pause_requested"]
    row = wait_state(job_id, "paused", seconds=5)
    assert (row.attempts, row.lease_owner, row.finished_at) == (0, None, None)
    assert (out / "checkpoint.pt").is_file()
    time.sleep(1)
    assert service.find(job_id).state == "paused"
    assert invoke("jobs", "resume", str(job_id))["state"] in ("queued", "running")  # a worker waits for it
    row = wait_state(job_id, "succeeded", seconds=60)
    assert row.attempts == 1 and row.fencing_token == 2 and row.result["epochs"] == 3
    assert weights(out) == training.undisturbed()
    with pytest.raises(UsageError, match="nothing of it is paused"):
        service.resume(job_id)


def test_a_paused_classifier_goes_on_to_the_same_weights(training: Training, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job_id = service.submit(training.classifier_job(out, name="classes")).job_id
    begun(job_id)
    service.pause(job_id)
    wait_state(job_id, "paused", seconds=30)
    assert (out / "checkpoint.pt").is_file()
    service.resume(job_id)
    row = wait_state(job_id, "succeeded", seconds=120)
    assert row.result["kind"] == "softmax" and row.result["registered"] == "classes"
    whole = tmp_path / "whole"
    train_classifier(parse_classifier_config(CLASSIFIER, "test"), training.snapshot, whole)
    assert weights(out) == weights(whole)


def test_a_cancel_is_obeyed_within_five_seconds_and_a_retry_goes_on(
    long_one: Training, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    job_id = service.submit(long_one.job(out)).job_id
    begun(job_id)
    began = time.monotonic()
    service.cancel(job_id)
    wait_state(job_id, "cancelled")
    assert time.monotonic() - began < 5
    assert (out / "checkpoint.pt").is_file()
    other = service.submit(long_one.job(out)).job_id
    assert "holds a run already" in str(wait_state(other, "failed", seconds=30).error)
    service.retry(job_id)
    begun(job_id)  # it does not say that the directory holds a run
    service.cancel(job_id)
    wait_state(job_id, "cancelled")


@pytest.fixture(scope="module")
def code_set(running: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    create_model(folder, trunk="mobilenetv3_small_050", size=32, seed=3)
    with connect() as conn:
        model = register_model(conn, folder, "tiny")
        ids, vectors = random_codes(2000, model.dimension, level=14)
        flags = (np.zeros(2000, np.float32), np.ones(2000, bool), np.zeros(2000, bool))
        publish(conn, "set", model, "cellmean", 14, CellVectors(ids, vectors, *flags), snapshot_id=None)
    yield "set"


def test_a_photo_is_answered_while_a_training_runs(long_one: Training, code_set: str, tmp_path: Path) -> None:
    photo = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(photo)
    job = service.submit(long_one.job(tmp_path / "out"))
    begun(job.job_id)
    took = []
    for _ in range(4):
        began = time.monotonic()
        asked = service.submit(parse("localize", {"photos": [str(photo)], "code_set": code_set}))
        row = wait_state(asked.job_id, "succeeded", seconds=60)
        took.append(time.monotonic() - began)
        assert row.queue == "interactive" and row.result["answers"][0]["candidates"][0]["rank"] == 1
    print(f"first answer {took[0]:.2f} s, then {', '.join(f'{item:.2f}' for item in took[1:])} s")
    assert service.find(job.job_id).state == "running"
    assert min(took[1:]) < took[0]  # the code set and its model stay loaded
    service.cancel(job.job_id)
    wait_state(job.job_id, "cancelled")
