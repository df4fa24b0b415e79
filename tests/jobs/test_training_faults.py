"""A training whose worker dies, sleeps or finds the disk full ends with the weights it would have had."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from job_helpers import Workers, wait_for, wait_state
from trainings import Training, snapshot_on_disk, weights

from geofix.jobs import service
from servers import Database


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    made = snapshot_on_disk(tmp_path_factory)
    made.undisturbed()
    return made


@pytest.fixture
def beat(beat: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep, and steps slow enough to be met in the middle."""
    monkeypatch.setenv("PROBE_PACE_S", "0.15")


def half_way(job_id) -> None:
    """In the second of three epochs: there is a checkpoint, and more to come."""
    wait_for(lambda: service.find(job_id).progress_message.startswith("epoch 2"), "the second epoch", 60)


def ends_well(job_id, training: Training, out: Path, began: float, what: str) -> None:
    row = wait_state(job_id, "succeeded", seconds=90)
    print(f"{what}: done {time.monotonic() - began:.1f} s after the fault, {row.fencing_token} claims")
    assert weights(out) == training.undisturbed()


def test_killed(queue: Database, workers: Workers, beat: None, training: Training, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = workers.start("one", "gpu", "1")
    job_id = service.submit(training.job(out)).job_id
    half_way(job_id)
    began = time.monotonic()
    workers.kill(first)
    workers.start("one", "gpu", "1")
    ends_well(job_id, training, out, began, "kill -9")
    assert service.find(job_id).attempts == 2


def test_sigterm(queue: Database, workers: Workers, beat: None, training: Training, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = workers.start("one", "gpu", "1")
    job_id = service.submit(training.job(out)).job_id
    half_way(job_id)
    began = time.monotonic()
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait(20) == 0
    row = service.find(job_id)
    assert (row.state, row.attempts) == ("queued", 0)
    workers.start("one", "gpu", "1")
    ends_well(job_id, training, out, began, "SIGTERM")
    assert service.find(job_id).attempts == 1


def test_asleep_longer_than_its_lease(
    queue: Database, workers: Workers, beat: None, training: Training, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = workers.start("one", "gpu", "1")
    job_id = service.submit(training.job(out)).job_id
    half_way(job_id)
    began = time.monotonic()
    workers.kill(first, signal.SIGSTOP)
    workers.start("one", "gpu", "1")
    ends_well(job_id, training, out, began, "SIGSTOP")
    files = [out / "checkpoint.pt", *sorted((out / "model").iterdir())]
    before = [hashlib.sha256(file.read_bytes()).digest() for file in files]
    workers.kill(first, signal.SIGCONT)
    again = service.submit(
        training.job(tmp_path / "next")
    ).job_id  # somebody takes it: the zombie has ended its job
    wait_state(again, "succeeded", seconds=60)
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait(30) == 0
    assert [hashlib.sha256(file.read_bytes()).digest() for file in files] == before
    assert service.find(job_id).state == "succeeded"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    with suppress(OSError):
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def test_disk_full_at_a_checkpoint(
    queue: Database, workers: Workers, beat: None, training: Training, tmp_path: Path, small_disk: Path
) -> None:
    out = small_disk / "out"
    workers.start("one", "gpu", "1")
    job_id = service.submit(training.job(out), max_attempts=5).job_id
    half_way(job_id)
    filler = small_disk / "filler"
    with suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    wait_for(lambda: service.find(job_id).error, "the fault", 30)
    row = service.find(job_id)
    assert row.state in ("queued", "running") and "No space left on device" in str(row.error), row.error
    began = time.monotonic()
    filler.unlink()
    ends_well(job_id, training, out, began, "disk full")
    assert not list(out.glob(".checkpoint*"))
