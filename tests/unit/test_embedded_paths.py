from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from geofix.database.embedded import paths as places
from geofix.database.embedded.binaries import find_postgres
from geofix.database.embedded.paths import ClusterPaths, locate, prepare
from geofix.database.embedded.processes import Account, exclusive, processes_in, wait_gone
from geofix.errors import ServiceError
from geofix.settings import Settings

ME = Account.of_uid(os.geteuid())


def settings(home: Path, **values: Path) -> Settings:
    return Settings(home=home, _env_file=None, **values)  # type: ignore[arg-type]


@pytest.fixture
def as_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_account_for", lambda home: ME)


def test_everything_lies_below_an_ordinary_users_home(as_ordinary_user: None, tmp_path: Path) -> None:
    found = locate(settings(tmp_path / "h"))
    assert (found.data, found.redis, found.run) == (
        tmp_path / "h/postgres",
        tmp_path / "h/redis",
        tmp_path / "h/run",
    )


@pytest.mark.parametrize("name", ["x" * 120, "a,b", "ä" * 60])
def test_a_socket_path_that_does_not_fit_is_short_and_its_own(
    as_ordinary_user: None, tmp_path: Path, name: str
) -> None:
    one, two = locate(settings(tmp_path / name)), locate(settings(tmp_path / f"{name}2"))
    for found in (one, two):
        assert len(os.fsencode(found.run / ".s.PGSQL.5432")) <= 107
        assert "," not in str(found.run)
        assert found.data.is_relative_to(tmp_path)
    assert one.run != two.run


def test_107_bytes_fit_and_108_do_not() -> None:
    tail = len("/.s.PGSQL.5432")
    assert places._socket_fits(Path("/" + "x" * (107 - tail - 1)))
    assert not places._socket_fits(Path("/" + "x" * (108 - tail - 1)))


def test_a_recorded_place_is_kept_until_the_home_is_copied(tmp_path: Path) -> None:
    home = tmp_path / "h"
    chosen = ClusterPaths(home, tmp_path / "elsewhere", tmp_path / "run" / "k", ME)
    home.mkdir()
    prepare(chosen)
    assert locate(settings(home)) == chosen
    home.rename(tmp_path / "copy")
    assert locate(settings(tmp_path / "copy")).root != chosen.root


@pytest.mark.parametrize("text", ["", "{", "[]", '{"home": 1}'])
def test_a_damaged_record_is_ignored(as_ordinary_user: None, tmp_path: Path, text: str) -> None:
    (tmp_path / places.RECORD).write_text(text)
    assert locate(settings(tmp_path)).root == tmp_path


def test_folders_are_private(tmp_path: Path) -> None:
    chosen = ClusterPaths(tmp_path, tmp_path, tmp_path / "run", ME)
    prepare(chosen)
    for folder in (chosen.run, chosen.redis, chosen.log):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_link_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(tmp_path)
    with pytest.raises(ServiceError, match="link"):
        prepare(ClusterPaths(tmp_path, tmp_path, tmp_path / "run", ME))


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    broken = tmp_path / "file" / "h"
    with pytest.raises(ServiceError, match="file"):
        prepare(ClusterPaths(broken, broken, broken / "run", ME))


def test_a_folder_without_postgres_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServiceError) as caught:
        find_postgres(settings(tmp_path, postgres_bin=tmp_path))
    assert str(tmp_path) in caught.value.message
    assert "GEOFIX_POSTGRES_BIN" in caught.value.message


def test_data_of_a_version_that_is_not_installed_names_it(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="PostgreSQL 9") as caught:
        find_postgres(settings(tmp_path), data_major=9)
    assert "postgresql-9" in caught.value.hint


def test_processes_are_known_by_program_and_folder(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"], cwd=tmp_path) as child:
        try:
            assert processes_in(tmp_path, ("sleep",)) == [child.pid]
            assert processes_in(tmp_path, ("postgres",)) == []
            assert processes_in(tmp_path.parent, ("sleep",)) == []
            tmp_path.rmdir()
            assert processes_in(tmp_path, ("sleep",)) == [child.pid]  # the folder was deleted under it
        finally:
            child.kill()
        # Killed but not waited for: a zombie holds nothing.
        assert wait_gone(tmp_path, ("sleep",), 5)


HOLD = """
import fcntl, os, sys, time
handle = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(handle, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_the_lock_waits_says_so_and_is_freed_by_a_kill(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(ServiceError, match="held by another process"), exclusive(lock, timeout_s=0.1):
            pass
        holder.kill()
        holder.wait()
    with exclusive(lock, timeout_s=5), lock.open() as second, pytest.raises(BlockingIOError):
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
