"""Parts of the queue that need no server: what stays loaded, which faults pass, which GPU a worker takes."""

from __future__ import annotations

import errno
import json
import logging
import threading
import time

import psycopg
import pytest
import structlog

from geofix.errors import BadInputError, ServiceError, TransientError
from geofix.jobs.faults import is_passing, told
from geofix.jobs.heartbeat import JobStoppedError
from geofix.jobs.settings import JobSettings
from geofix.jobs.warm import Shelf
from geofix.log import configure, get_logger

devices = pytest.importorskip("geofix_workers.devices")


def test_what_is_loaded_is_loaded_once_and_again_when_it_changed() -> None:
    shelf, loads = Shelf(keep=2, idle_s=60), []

    def take(key: str, stamp: str) -> str:
        with shelf.lend(key, stamp, lambda: loads.append(key) or f"{key}{stamp}") as value:
            return value

    assert [take("a", "1"), take("a", "1"), take("a", "2")] == ["a1", "a1", "a2"]
    assert loads == ["a", "a"]
    take("b", "1")
    take("c", "1")
    assert len(shelf) == 2
    take("b", "1")
    take("c", "1")
    assert loads == ["a", "a", "b", "c"]


def test_what_nobody_asks_for_is_unloaded_but_not_while_it_is_lent() -> None:
    shelf = Shelf(keep=2, idle_s=0.2)
    with shelf.lend("a", 0, lambda: object()):
        assert shelf.drop_idle(0) == 0 and len(shelf) == 1
    deadline = time.monotonic() + 10
    while len(shelf):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert shelf.drop_idle() == 0


def test_nothing_is_kept_where_nothing_is_to_be_kept() -> None:
    shelf = Shelf(keep=0, idle_s=60)
    with shelf.lend("a", 0, lambda: 1), shelf.lend("b", 0, lambda: 2):
        pass
    assert len(shelf) == 0


def test_a_load_that_fails_leaves_nothing_behind() -> None:
    shelf = Shelf(keep=2, idle_s=60)
    with pytest.raises(ZeroDivisionError), shelf.lend("a", 0, lambda: 1 // 0):
        pass
    with shelf.lend("a", 0, lambda: 5) as value:
        assert value == 5
    assert threading.active_count() < 50


def hidden(inner: Exception) -> Exception:
    try:
        try:
            raise inner
        except Exception:
            raise RuntimeError("enforce fail at inline_container\nmore of it")  # noqa: B904 - as libraries do
    except RuntimeError as error:
        return error


def test_only_faults_that_may_pass_are_tried_again() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    for error in (
        full,
        hidden(full),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        TransientError("busy"),
        psycopg.OperationalError("gone"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
    ):
        assert is_passing(error), error
    for error in (
        KeyError("x"),
        BadInputError("bad photo"),
        ServiceError("no GPU"),
        hidden(KeyError("x")),
        MemoryError(),
        PermissionError(errno.EACCES, "no"),
        psycopg.errors.UniqueViolation("twice"),
    ):
        assert not is_passing(error), error
    assert told(hidden(full)) == "No space left on device (RuntimeError: enforce fail at inline_container)"
    assert told(KeyError("x")) == "KeyError: 'x'" and told(MemoryError()) == "MemoryError"


def test_waits_grow_up_to_a_limit() -> None:
    settings = JobSettings(retry_s=10, retry_max_s=100)
    for attempt, wait in ((1, 10), (2, 40), (3, 100), (9, 100)):
        waits = {settings.delay_s(attempt) for _ in range(50)}
        assert 0.8 * wait <= min(waits) < max(waits) <= 1.2 * wait


def test_only_a_lost_claim_forbids_a_checkpoint() -> None:
    assert JobStoppedError("lost").leaves_nothing
    assert not any(JobStoppedError(reason).leaves_nothing for reason in ("cancelled", "paused", "released"))


def test_every_log_line_is_json_and_names_its_job(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        configure("INFO", json=True)
        with structlog.contextvars.bound_contextvars(job_id="7"):
            get_logger("ours").info("said", rows=3)
            try:
                raise KeyError("lost")
            except KeyError:
                logging.getLogger("celery").exception("task %s ended", "x")
    finally:
        structlog.reset_defaults()
        logging.basicConfig(force=True)
    ours, theirs = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (ours["event"], ours["job_id"], ours["rows"], ours["level"]) == ("said", "7", 3, "info")
    assert (theirs["event"], theirs["job_id"], theirs["logger"]) == ("task x ended", "7", "celery")
    assert "KeyError: 'lost'" in theirs["exception"]


@pytest.mark.parametrize(
    ("setting", "gpus", "expected"),
    [
        ("auto", 0, ["auto"]),
        ("auto", 2, ["cuda:0", "cuda:1"]),
        ("cuda", 1, ["cuda:0"]),
        ("cuda", 0, ["auto"]),
        ("cuda:1", 2, ["cuda:1"]),
        ("cuda:1", 1, ["auto"]),
        ("cpu", 4, ["cpu"]),
    ],
)
def test_one_worker_per_gpu_and_the_cpu_without_one(setting: str, gpus: int, expected: list[str]) -> None:
    assert devices.gpu_devices(setting, gpus) == expected


@pytest.mark.parametrize(("value", "expected"), [("", 0), ("-1", 0), ("0", 1), ("0,3", 2), ("GPU-8f", 1)])
def test_gpus_are_those_that_the_environment_allows(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert devices.visible_gpus() == expected
