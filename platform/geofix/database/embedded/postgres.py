"""The private PostgreSQL: create its data directory, start it after any kind of death, stop it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from geofix.database.embedded.binaries import PostgresBinaries, find_postgres
from geofix.database.embedded.paths import PORT, ClusterPaths
from geofix.database.embedded.processes import (
    processes_in,
    run_as,
    signal_all,
    spawn_as,
    tail,
    wait_gone,
)
from geofix.errors import ServiceError
from geofix.log import get_logger, progress
from geofix.settings import Settings
from geofix.storage import require_free

SUPERUSER = "postgres"
PROGRAMS = ("postgres",)
_LOCALE = "C.UTF-8"
_INITDB_BYTES = 60_000_000
_RECOVERY_S = 3600  # crash recovery replays at most max_wal_size
_MB = 1 << 20

# Everybody who can open the socket may be any role. That is safe because the socket lies in a folder of
# mode 0700: only the servers' own user (and root, who needs no password for anything) can reach it, and
# nothing listens on TCP. Roles still bound what a connection may do: the SQL page connects as the reader.
_HBA = """\
# Written by geofix at every start. Unix socket in a folder of mode 0700; no TCP.
local all all trust
"""

_CONF = """\
# Written by geofix at every start; put your own settings into local.conf beside this file.
listen_addresses = ''
port = {port}
unix_socket_directories = '{run}'
unix_socket_permissions = 0700
max_connections = 60
session_preload_libraries = 'vector'
shared_buffers = {shared_mb}MB
maintenance_work_mem = {maintenance_mb}MB
effective_cache_size = {cache_mb}MB
work_mem = 16MB
dynamic_shared_memory_type = {dsm}
max_locks_per_transaction = 256
max_wal_size = 2GB
checkpoint_timeout = 15min
random_page_cost = 1.1
jit = off
fsync = on
synchronous_commit = on
full_page_writes = on
timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = on
log_directory = '{log}'
log_filename = 'postgres-%a.log'
log_file_mode = 0600
log_truncate_on_rotation = on
log_rotation_age = 1d
log_rotation_size = 0
log_line_prefix = '%m [%p] %u@%d '
include_if_exists = 'local.conf'
"""

_log = get_logger(__name__)


def is_running(paths: ClusterPaths) -> bool:
    """Whether the postmaster that the pid file names is alive and works in this data directory."""
    pid = postmaster_pid(paths)
    return pid is not None and pid in processes_in(paths.data, PROGRAMS)


def postmaster_pid(paths: ClusterPaths) -> int | None:
    """The number in postmaster.pid, whether or not that process lives."""
    try:
        return int((paths.data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def start(paths: ClusterPaths, settings: Settings) -> bool:
    """Bring PostgreSQL up; False when it already ran. The caller holds the cluster's lock.

    Raises:
        ServiceError: No fitting binaries, or the server does not start.
        SpaceError: Too little room for a new data directory.
    """
    if is_running(paths):
        _wait_ready(paths, find_postgres(settings, _data_major(paths.data)))
        return False
    binaries = find_postgres(settings, _data_major(paths.data))
    _clear_leftovers(paths)
    if not (paths.data / "PG_VERSION").exists():
        _create(paths, binaries, settings)
    _configure(paths)
    _launch(paths, binaries)
    return True


def stop(paths: ClusterPaths, settings: Settings) -> bool:
    """Stop PostgreSQL, at once for its clients and cleanly for its data; False when it did not run.

    Raises:
        ServiceError: It does not end.
    """
    if not is_running(paths):
        _clear_leftovers(paths)
        return False
    pg_ctl = find_postgres(settings, _data_major(paths.data)).program("pg_ctl")
    for mode in ("fast", "immediate"):
        try:
            command: list[str | Path] = [pg_ctl, "stop", "-D", paths.data, "-m", mode, "-w", "-t", "60"]
            run_as(paths.account, command, timeout_s=90)
            break
        except ServiceError as error:
            _log.warning("PostgreSQL does not stop", mode=mode, reason=error.message)
    if not wait_gone(paths.data, PROGRAMS, 10):
        raise ServiceError(
            f"PostgreSQL in {paths.data} does not stop: processes {processes_in(paths.data, PROGRAMS)}.",
            hint=f"Look into {paths.log}.",
        )
    return True


def _data_major(data: Path) -> int | None:
    try:
        return int((data / "PG_VERSION").read_text().split(".")[0])
    except (OSError, ValueError):
        return None


def _clear_leftovers(paths: ClusterPaths) -> None:
    """After a kill -9: end orphaned backends and remove a pid file that names no postmaster of ours.

    PostgreSQL refuses to start while the pid in its file lives, even as a zombie or as another program,
    and while an old backend holds the shared memory. Backends leave by themselves once they notice that
    the postmaster is gone; one in a long computation is told to (SIGQUIT: without writing anything).
    """
    orphans = processes_in(paths.data, PROGRAMS)
    if orphans and not wait_gone(paths.data, PROGRAMS, 2):
        _log.warning("ending what is left of a killed PostgreSQL", processes=orphans)
        signal_all(processes_in(paths.data, PROGRAMS), signal.SIGQUIT)
        if not wait_gone(paths.data, PROGRAMS, 10):
            signal_all(processes_in(paths.data, PROGRAMS), signal.SIGKILL)
            wait_gone(paths.data, PROGRAMS, 5)
    if not processes_in(paths.data, PROGRAMS):
        for name in (paths.data / "postmaster.pid", paths.run / f".s.PGSQL.{PORT}.lock"):
            name.unlink(missing_ok=True)


def _create(paths: ClusterPaths, binaries: PostgresBinaries, settings: Settings) -> None:
    """Make the data directory beside its place and rename it: a kill never leaves half of one."""
    require_free(paths.root, _INITDB_BYTES, settings)
    if paths.data.exists() and any(paths.data.iterdir()):
        raise ServiceError(
            f"{paths.data} is not empty and holds no PostgreSQL data (no PG_VERSION).",
            hint="Move it away, or set GEOFIX_HOME to another folder.",
        )
    partial = paths.root / "postgres.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    if not paths.account.is_caller:
        os.chown(partial, paths.account.uid, paths.account.gid)
    with progress("creating the private PostgreSQL", None):
        command: list[str | Path] = [
            binaries.program("initdb"), "-D", partial, "-U", SUPERUSER, "--encoding=UTF8",
            f"--locale={_LOCALE}", "--data-checksums", "--auth-local=trust", "--auth-host=reject",
        ]  # fmt: skip
        run_as(paths.account, command, timeout_s=300)
    if paths.data.exists():
        paths.data.rmdir()
    partial.rename(paths.data)


def _configure(paths: ClusterPaths) -> None:
    memory_mb = _memory_bytes() // _MB
    budget_mb = max(64, min(memory_mb // 16, 1024))
    shm_mb = shutil.disk_usage("/dev/shm").free // _MB if Path("/dev/shm").is_dir() else 0  # noqa: S108
    conf = _CONF.format(
        port=PORT,
        run=_quoted(paths.run),
        log=_quoted(paths.log),
        shared_mb=min(budget_mb, 512),
        maintenance_mb=budget_mb,
        cache_mb=max(128, memory_mb // 2),
        # A parallel index build puts its graph into shared memory; a container's /dev/shm is often 64 MB.
        dsm="posix" if shm_mb > 2 * budget_mb else "mmap",
    )
    main = paths.data / "postgresql.conf"
    line = "include = 'geofix.conf'"
    _write(paths, "geofix.conf", conf)
    _write(paths, "pg_hba.conf", _HBA)
    if line not in main.read_text().splitlines():
        _write(paths, "postgresql.conf", f"{main.read_text()}\n{line}\n")


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _write(paths: ClusterPaths, name: str, text: str) -> None:
    """Replace a configuration file whole, owned by the servers' user."""
    partial = paths.data / f"{name}.partial"
    partial.write_text(text)
    partial.chmod(0o600)
    if not paths.account.is_caller:
        os.chown(partial, paths.account.uid, paths.account.gid)
    partial.replace(paths.data / name)


def _memory_bytes() -> int:
    """Memory of the machine, or of the container where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return total


def _launch(paths: ClusterPaths, binaries: PostgresBinaries) -> None:
    log = paths.log / "postgres-start.log"
    log.unlink(missing_ok=True)
    command: list[str | Path] = [
        binaries.program("pg_ctl"), "start", "-D", paths.data, "-l", log, "-w", "-t", str(_RECOVERY_S),
    ]  # fmt: skip
    child = spawn_as(paths.account, command)
    _watch(child, "starting PostgreSQL (after a crash it first replays its log)")
    if child.returncode:
        raise ServiceError(
            f"PostgreSQL {binaries.major} did not start in {paths.data}: {_reason(paths)}",
            hint=f"The whole log is in {paths.log}.",
        )


def _wait_ready(paths: ClusterPaths, binaries: PostgresBinaries) -> None:
    """Wait for a server that somebody else started and that may still be recovering."""
    ready = binaries.program("pg_isready")
    deadline = time.monotonic() + _RECOVERY_S
    with progress("waiting for PostgreSQL", None) as advance:
        while is_running(paths) and time.monotonic() < deadline:
            child = spawn_as(paths.account, [ready, "-q", "-h", paths.run, "-p", str(PORT)])
            child.communicate()
            if child.returncode == 0:
                return
            advance(1)
            time.sleep(0.2)
    raise ServiceError(f"PostgreSQL in {paths.data} does not become ready: {_reason(paths)}")


def _watch(child: subprocess.Popen[str], label: str) -> None:
    with progress(label, None) as advance, child:
        while True:
            try:
                child.communicate(timeout=0.2)
                return
            except subprocess.TimeoutExpired:
                advance(1)


def _reason(paths: ClusterPaths) -> str:
    newest = max(paths.log.glob("postgres-*.log"), key=lambda p: p.stat().st_mtime, default=None)
    return (tail(newest) if newest else "") or "it wrote no log"
