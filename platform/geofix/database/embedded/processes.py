"""Finding, running and ending the embedded servers' processes, and the lock around `up` and `down`."""

from __future__ import annotations

import fcntl
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geofix.errors import ServiceError
from geofix.log import progress

_PROC = Path("/proc")
_POLL_S = 0.05


@dataclass(frozen=True)
class Account:
    """The operating-system user that the servers run as."""

    name: str
    uid: int
    gid: int

    @classmethod
    def of_uid(cls, uid: int) -> Account:
        """The account with this number; containers run users that no passwd file names."""
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            return cls(str(uid), uid, os.getgid() if uid == os.geteuid() else uid)
        return cls(entry.pw_name, uid, entry.pw_gid)

    @property
    def is_caller(self) -> bool:
        """Whether this process already is that user."""
        return self.uid == os.geteuid()


def run_as(account: Account, command: Sequence[str | Path], *, timeout_s: float = 60) -> str:
    """Run `command` to its end as `account` and return its output.

    Raises:
        ServiceError: It could not be started, failed, or took longer than `timeout_s` seconds.
    """
    with spawn_as(account, command) as child:
        try:
            output, _ = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            raise ServiceError(f"{command[0]} did not end within {timeout_s:.0f} s.") from None
    if child.returncode:
        raise ServiceError(f"{command[0]} failed with code {child.returncode}: {output.strip()[-2000:]}")
    return output


def spawn_as(account: Account, command: Sequence[str | Path]) -> subprocess.Popen[str]:
    """Start `command` as `account`, with output and errors in one pipe.

    The child sees none of libpq's PG* variables: a PGDATA or PGPORT of the caller means another server.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")} | {"LC_ALL": "C"}
    drop: dict[str, Any] = {}
    if not account.is_caller:
        drop = {"user": account.uid, "group": account.gid, "extra_groups": []}
    try:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd="/",
            env=environment,
            umask=0o077,
            **drop,
        )
    except OSError as error:
        raise ServiceError(
            f"{command[0]} could not be started as user {account.name}: {error}.",
            hint="Run `scripts/setup`, or set GEOFIX_DATABASE_URL and GEOFIX_BROKER_URL to real servers.",
        ) from error


def require_proc() -> None:
    """The embedded servers are told apart by Linux's /proc; refuse to guess without it.

    Raises:
        ServiceError: There is no /proc.
    """
    if not (_PROC / "self" / "cwd").exists():
        raise ServiceError(
            "The embedded servers need Linux with /proc.",
            hint="Set GEOFIX_DATABASE_URL and GEOFIX_BROKER_URL to real servers.",
        )


def processes_in(folder: Path, programs: Sequence[str]) -> list[int]:
    """Live processes of `programs` (prefixes of a program's name) whose working directory is `folder`.

    PostgreSQL and Redis both work in their data directory, so this finds a server that has lost its pid
    file and never takes another program with a reused pid for it. A folder deleted under a running server
    counts too. Zombies do not: they hold nothing.
    """
    wanted = {str(folder), str(folder.resolve())}
    found = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            where = str((entry / "cwd").readlink()).removesuffix(" (deleted)")
            if where not in wanted:
                continue
            state = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            program = (entry / "exe").readlink().name.removesuffix(" (deleted)")
        except OSError:
            continue  # ended meanwhile, or another user's
        if state not in "ZX" and program.startswith(tuple(programs)):
            found.append(int(entry.name))
    return sorted(found)


def wait_gone(folder: Path, programs: Sequence[str], timeout_s: float) -> bool:
    """Wait until no process of `programs` works in `folder`; False when some still do after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while processes_in(folder, programs):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    """Send a signal to each of our own server processes; one that has just ended is no error."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
        except PermissionError as error:
            raise ServiceError(
                f"Process {pid} belongs to another user and cannot be ended.",
                hint="Run the command as that user or as root.",
            ) from error


@contextmanager
def exclusive(lock_file: Path, *, timeout_s: float = 180) -> Iterator[None]:
    """Hold `lock_file`, so that two `up` or `down` of one home follow each other.

    The kernel frees the lock when its holder dies, however it dies.

    Raises:
        ServiceError: Another process held it for all of `timeout_s`.
    """
    try:
        handle = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ServiceError(
            f"{lock_file} cannot be opened: {error.strerror}.",
            hint="Run as the user that owns this GEOFIX_HOME, or set GEOFIX_HOME to a folder of your own.",
        ) from error
    try:
        _acquire(handle, lock_file, timeout_s)
        yield
    finally:
        os.close(handle)


def _acquire(handle: int, lock_file: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    with progress("waiting for another geofix up or down of this home", None) as advance:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ServiceError(
                        f"{lock_file} has been held by another process for {timeout_s:.0f} s.",
                        hint="Wait for the other `geofix up` or `down` to end, then try again.",
                    ) from None
                advance(1)
                time.sleep(_POLL_S)


def tail(path: Path, *, lines: int = 8) -> str:
    """The last lines of a log, for an error message; empty when there is none."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])
