"""Ctrl-C ends the dashboard with status 130, SIGTERM with 0; both close the server in good order."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_signals_end_the_dashboard(tmp_path: Path, number: int, status: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    line = [sys.executable, "-m", "geofix.cli", "dashboard", "--port", str(port), "--address", "127.0.0.1"]
    log = tmp_path / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            line,
            stdout=out,
            stderr=out,
            env={**os.environ, "HOME": str(tmp_path)},
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        wait_until_served(f"http://127.0.0.1:{port}/_stcore/health", server, log)
        server.send_signal(number)
        assert server.wait(30) == status, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        server.kill()


def wait_until_served(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None and time.monotonic() < deadline, log.read_text()
        try:
            with urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (URLError, OSError):
            time.sleep(0.1)


def test_what_is_free_goes_back_to_the_machine() -> None:
    code = (
        "from geofix_dashboard.memory import give_back; thread = give_back(); print(thread and thread.daemon)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ("True" if hasattr(ctypes.CDLL(None), "malloc_trim") else "None")
