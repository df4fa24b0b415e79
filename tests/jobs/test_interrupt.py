"""Ctrl-C ends what runs until it is stopped, in good order and with status 130; SIGTERM with 0."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from job_helpers import Workers, wait_for

from geofix.database.engine import connect
from servers import Database

GEOFIX = [sys.executable, "-m", "geofix.cli"]


def begin(*arguments: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(
            [*GEOFIX, *arguments],
            stdout=out,
            stderr=out,
            start_new_session=True,
            # A test run in the background of a shell ignores SIGINT, and its children would too.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_beat(queue: Database, tmp_path: Path, number: int, status: int) -> None:
    log = tmp_path / "log"
    process = begin("beat", log=log)
    try:
        wait_for(lambda: "sweeping" in log.read_text(), "the sweep", 60)
        process.send_signal(number)
        assert process.wait(30) == status, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_worker(queue: Database, workers: Workers, number: int, status: int) -> None:
    line = [*GEOFIX, "worker", "--queues", "interactive"]
    start = ["/usr/bin/env", "--default-signal=INT", *line]
    process = workers.begin(start)
    process.send_signal(number)
    assert process.wait(60) == status
    with connect("writer") as conn:
        assert conn.execute("SELECT count(*) FROM worker").fetchone() == (0,)  # ended in good order
