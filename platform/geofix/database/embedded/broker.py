"""The private Redis: start it after any kind of death, ask it how it is, stop it."""

from __future__ import annotations

import os
import re
import signal
import socket
import time

from geofix.database.embedded.binaries import find_redis
from geofix.database.embedded.paths import ClusterPaths
from geofix.database.embedded.processes import processes_in, run_as, signal_all, tail, wait_gone
from geofix.errors import ServiceError
from geofix.log import get_logger, progress

PROGRAMS = ("redis", "valkey")  # Debian's redis-server is a link to redis-check-rdb
_START_S = 120
_STOP_S = 20
_CONF = """\
# Written by geofix at every start. Unix socket in a folder of mode 0700; no TCP, hence no password.
port 0
unixsocket "{socket}"
unixsocketperm 700
daemonize yes
dir "{folder}"
logfile "{log}"
loglevel notice
appendonly yes
appendfsync everysec
save ""
maxmemory 512mb
maxmemory-policy noeviction
databases 16
"""

_log = get_logger(__name__)


def start(paths: ClusterPaths) -> bool:
    """Bring Redis up; False when it already ran. The caller holds the cluster's lock.

    Raises:
        ServiceError: It is not installed or does not start.
    """
    if ask(paths, "PING") == "+PONG":
        return False
    program = find_redis()
    _end_strays(paths)
    log = paths.log / "redis.log"
    conf = paths.redis / "geofix.conf"
    conf.write_text(
        _CONF.format(socket=_quoted(paths.redis_socket), folder=_quoted(paths.redis), log=_quoted(log))
    )
    conf.chmod(0o600)
    if not paths.account.is_caller:
        os.chown(conf, paths.account.uid, paths.account.gid)
    if log.exists() and log.stat().st_size > 10_000_000:
        log.replace(log.with_suffix(".log.1"))
    run_as(paths.account, [program, conf], timeout_s=30)
    _wait_ready(paths)
    return True


def stop(paths: ClusterPaths) -> bool:
    """Stop Redis after it has written its file; False when it did not run.

    Raises:
        ServiceError: It does not end.
    """
    return _end_strays(paths)


def version(paths: ClusterPaths) -> str | None:
    """Version of the running server, or None."""
    answer = ask(paths, "INFO server") or ""
    found = re.search(r"(?:redis|valkey)_version:(\S+)", answer)
    return found[1] if found else None


def ask(paths: ClusterPaths, command: str) -> str | None:
    """One inline command; its raw answer, or None when nobody answers on the socket.

    Spoken without a client library, because the base install has none.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(3)
            link.connect(str(paths.redis_socket))
            link.sendall(f"{command}\r\n".encode())
            return link.recv(65536).decode(errors="replace").strip()
    except OSError:
        return None


def _quoted(path: object) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')


def _end_strays(paths: ClusterPaths) -> bool:
    """End every Redis that works in our folder, answering or not; True when there was one."""
    pids = processes_in(paths.redis, PROGRAMS)
    if pids:
        signal_all(pids, signal.SIGTERM)
        if not wait_gone(paths.redis, PROGRAMS, _STOP_S):
            _log.warning("Redis does not stop; killing it", processes=pids)
            signal_all(processes_in(paths.redis, PROGRAMS), signal.SIGKILL)
            if not wait_gone(paths.redis, PROGRAMS, 5):
                raise ServiceError(f"Redis in {paths.redis} does not stop: processes {pids}.")
    paths.redis_socket.unlink(missing_ok=True)
    return bool(pids)


def _wait_ready(paths: ClusterPaths) -> None:
    deadline = time.monotonic() + _START_S
    grace = time.monotonic() + 3  # the daemon needs a moment to appear
    with progress("starting Redis", None) as advance:
        while ask(paths, "PING") != "+PONG":
            now = time.monotonic()
            if now > deadline or (now > grace and not processes_in(paths.redis, PROGRAMS)):
                raise ServiceError(
                    f"Redis did not start in {paths.redis}: {tail(paths.log / 'redis.log')}",
                    hint=f"The whole log is in {paths.log / 'redis.log'}.",
                )
            advance(1)
            time.sleep(0.02)
