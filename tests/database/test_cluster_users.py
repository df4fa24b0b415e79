"""The embedded servers under root, under an ordinary user, and under both in turn."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from geofix.database import cluster
from geofix.database.embedded.paths import locate
from geofix.errors import ServiceError
from geofix.settings import Settings
from servers import UP

ROOT = os.geteuid() == 0


@pytest.mark.skipif(not ROOT, reason="needs root: closes a home to the servers' user")
def test_a_home_that_is_closed_later_is_named(make_home: Callable[[str], Settings]) -> None:
    settings = make_home("h")
    settings.home_dir.mkdir()
    cluster.start(settings)
    cluster.stop(settings)
    settings.home_dir.chmod(0o700)
    with pytest.raises(ServiceError, match="can no longer enter") as caught:
        cluster.start(settings)
    assert "chmod" in caught.value.hint
    settings.home_dir.chmod(0o755)
    assert cluster.start(settings).database.state == "running"


@pytest.mark.skipif(not ROOT, reason="needs root: a home that the servers' user cannot enter")
def test_root_in_a_home_that_postgres_cannot_enter(make_home: Callable[[str], Settings]) -> None:
    settings = make_home("closed/h")
    (settings.home_dir.parent).mkdir(mode=0o700)
    before = os.umask(0o077)
    try:
        state = cluster.start(settings)
    finally:
        os.umask(before)
    paths = locate(settings)
    assert state.database.data_dir is not None and state.database.data_dir.startswith("/var/lib/geofix/")
    assert state.database.socket_dir is not None and state.database.socket_dir.startswith("/run/geofix/")
    assert paths.data.stat().st_uid == pwd.getpwnam("postgres").pw_uid
    assert Path(f"/proc/{state.database.pid}").stat().st_uid == pwd.getpwnam("postgres").pw_uid
    assert Path(f"/proc/{state.broker.pid}").stat().st_uid == pwd.getpwnam("postgres").pw_uid
    settings.home_dir.parent.chmod(0o755)
    assert cluster.start(settings).changed == [], "an opened home lost its servers"


def _python_for(drop: dict[str, Any], environment: dict[str, str]) -> str:
    """A Python that an ordinary user can start and that imports this checkout; ours may lie below /root."""
    for python in (sys.executable, "/usr/bin/python3"):
        with suppress(OSError):
            command = [python, "-c", "import geofix.database.cluster"]
            if (
                subprocess.run(command, env=environment, capture_output=True, check=False, **drop).returncode
                == 0
            ):
                return python
    pytest.skip("an ordinary user can neither start our Python nor import this checkout with the system's")


@pytest.mark.skipif(not ROOT, reason="needs root to become an ordinary user")
def test_an_ordinary_user_and_then_root(make_home: Callable[[str], Settings]) -> None:
    """Run as `nobody` in a home of its own; root then works with the same servers as that user."""
    user = pwd.getpwnam("nobody")
    settings = make_home("theirs")
    settings.home_dir.mkdir(mode=0o700)
    os.chown(settings.home_dir, user.pw_uid, user.pw_gid)
    drop = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    python = _python_for(drop, environment)
    done = subprocess.run(
        [python, "-c", UP, str(settings.home)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        **drop,
    )
    assert done.stdout.split() == ["running", "running", "database", "broker"], done.stderr
    state = cluster.start(settings)
    assert state.changed == []
    assert Path(f"/proc/{state.database.pid}").stat().st_uid == user.pw_uid
    # A third user is told whose they are.
    settings.home_dir.chmod(0o755)
    third = drop | {"user": pwd.getpwnam("daemon").pw_uid}
    other = subprocess.run(
        [python, "-c", UP, str(settings.home)], env=environment, capture_output=True, text=True, **third
    )
    assert "belong to user nobody" in other.stderr
    cluster.stop(settings)
    assert cluster.start(settings).changed == ["database", "broker"]
    assert locate(settings).data.stat().st_uid == user.pw_uid
