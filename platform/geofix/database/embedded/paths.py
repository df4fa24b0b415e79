"""Where the embedded servers of one home keep their data, sockets and logs, and whose they are.

Everything lies below GEOFIX_HOME, with two exceptions. A server started by root runs as `postgres`; where
that user cannot enter the home (/root is 0700) data and sockets go to the system's state and run folders.
A socket path that the kernel would refuse goes to a short folder. Both are keyed by a hash of the home and
recorded in the home, so that a later call in another environment finds the same place.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from geofix.database.embedded.processes import Account, run_as
from geofix.errors import ServiceError
from geofix.settings import Settings
from geofix.storage import nearest_existing

SYSTEM_STATE = Path("/var/lib/geofix")
SYSTEM_RUN = Path("/run/geofix")
SOCKET_BYTES = 107  # sizeof(sockaddr_un.sun_path) on Linux, less the closing zero
PORT = 5432  # only a part of the socket's name: nothing listens on TCP
RECORD = "cluster.json"


@dataclass(frozen=True)
class ClusterPaths:
    """The places of one embedded cluster."""

    home: Path
    root: Path  # holds postgres/, redis/ and log/
    run: Path  # holds the two sockets, mode 0700
    account: Account

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.root / "postgres"

    @property
    def redis(self) -> Path:
        """Redis's working directory: append-only file and configuration."""
        return self.root / "redis"

    @property
    def log(self) -> Path:
        """Folder of both servers' logs."""
        return self.root / "log"

    @property
    def lock(self) -> Path:
        """Lock file around `up` and `down`."""
        return self.home / "cluster.lock"

    @property
    def redis_socket(self) -> Path:
        """Redis's Unix socket."""
        return self.run / "redis.sock"


def locate(settings: Settings) -> ClusterPaths:
    """The places of the cluster of `settings.home`, recorded or chosen; creates nothing.

    Raises:
        ServiceError: Root has no `postgres` user to hand the servers to.
    """
    home = settings.home_dir
    return _recorded(home) or _choose(home)


def prepare(paths: ClusterPaths) -> None:
    """Create the folders with the right owner and mode 0700, and record where they are.

    Raises:
        ServiceError: A folder belongs to somebody else, or cannot be created.
    """
    try:
        for parent in (paths.root, paths.run.parent):
            parent.mkdir(parents=True, exist_ok=True)
        _open_system_folders(paths)
        if paths.run.parent == _private_tmp():
            _own(paths.run.parent, paths.account)
        for folder in (paths.run, paths.redis, paths.log):
            folder.mkdir(exist_ok=True)
            _own(folder, paths.account)
        record = {
            "home": str(paths.home),
            "root": str(paths.root),
            "run": str(paths.run),
            "uid": paths.account.uid,
        }
        partial = paths.home / f"{RECORD}.partial"
        partial.write_text(json.dumps(record, indent=1) + "\n")
        partial.replace(paths.home / RECORD)
    except OSError as error:
        raise ServiceError(
            f"{error.filename}: {error.strerror}; the embedded servers cannot keep their files there.",
            hint="Set GEOFIX_HOME to a folder of your own, or run as the user that owns it.",
        ) from error


def _open_system_folders(paths: ClusterPaths) -> None:
    """Let the servers' user pass through folders that root made below /var/lib and /run, whatever the umask.

    Raises:
        ServiceError: That user cannot enter a home that it could enter when the data were made.
    """
    for folder in {paths.root, paths.root.parent, paths.run.parent}:
        if folder.is_relative_to(SYSTEM_STATE) or folder.is_relative_to(SYSTEM_RUN):
            folder.chmod(0o711)
    if not paths.account.is_caller and not _can_enter(paths.account, paths.root):
        raise ServiceError(
            f"User {paths.account.name}, as whom the servers run, can no longer enter {paths.root}.",
            hint="Give it back the right to enter (chmod o+x) on that folder and those above it.",
        )


def _own(folder: Path, account: Account) -> None:
    """Make a folder private to `account`, refusing a link or a stranger's folder (/tmp is everybody's)."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {account.uid, os.geteuid()}:
        raise ServiceError(
            f"{folder} is a link or belongs to uid {found.st_uid}, not to {account.name}.",
            hint=f"Remove it, or run as {Account.of_uid(found.st_uid).name}.",
        )
    if found.st_uid != account.uid:
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
    folder.chmod(0o700)


def _recorded(home: Path) -> ClusterPaths | None:
    """What `prepare` wrote down; None without it, or when the home was copied or moved since."""
    try:
        record = json.loads((home / RECORD).read_text())
        if record["home"] != str(home):
            return None
        return ClusterPaths(
            home, Path(record["root"]), Path(record["run"]), Account.of_uid(int(record["uid"]))
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _choose(home: Path) -> ClusterPaths:
    account = _account_for(home)
    key = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    if account.is_caller or _can_enter(account, home):
        root, run = home, home / "run"
    else:
        root, run = SYSTEM_STATE / key, SYSTEM_RUN / key
    if not _socket_fits(run):
        run = (SYSTEM_RUN if os.geteuid() == 0 else _private_tmp()) / key
    return ClusterPaths(home, root, run, account)


def _private_tmp() -> Path:
    """Short folder for sockets of an ordinary user; made 0700 and checked for its owner before use."""
    return Path(f"/tmp/geofix-{os.geteuid()}")  # noqa: S108  short by intent: TMPDIR may be long


def _account_for(home: Path) -> Account:
    """The caller; for root the owner of data already there, else `postgres` (PostgreSQL refuses root)."""
    if os.geteuid() != 0:
        return Account.of_uid(os.geteuid())
    try:
        owner = (home / "postgres").stat().st_uid
    except OSError:
        owner = 0
    if owner:
        return Account.of_uid(owner)
    try:
        return Account.of_uid(pwd.getpwnam("postgres").pw_uid)
    except KeyError:
        raise ServiceError(
            "PostgreSQL does not run as root and there is no user `postgres`.",
            hint="Run `scripts/setup`, or run geofix as an ordinary user.",
        ) from None


def _can_enter(account: Account, home: Path) -> bool:
    """Ask the kernel itself, as that user: modes, ACLs and mounts all count."""
    try:
        run_as(account, ["/usr/bin/test", "-x", nearest_existing(home)], timeout_s=10)
    except ServiceError:
        return False
    return True


def _socket_fits(run: Path) -> bool:
    """Whether the kernel takes the socket's path and libpq reads it as one host (a comma separates hosts)."""
    return len(os.fsencode(run / f".s.PGSQL.{PORT}")) <= SOCKET_BYTES and "," not in str(run)
