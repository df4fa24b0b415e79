"""The embedded servers, treated as badly as users and machines treat them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from typer.testing import CliRunner

from geofix.cli.services import app
from geofix.database import cluster
from geofix.database.embedded import bootstrap, broker, postgres
from geofix.database.embedded.paths import locate
from geofix.database.embedded.processes import processes_in, spawn_as, wait_gone
from geofix.database.urls import admin_url, database_url
from geofix.errors import ServiceError
from geofix.settings import Settings
from servers import UP

SERVER = ("postgres",)


def remember(settings: Settings, value: str) -> None:
    with psycopg.connect(database_url(settings)) as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS public.kept (value text)")
        conn.execute("INSERT INTO public.kept VALUES (%s)", [value])


def remembered(settings: Settings) -> set[str]:
    with psycopg.connect(database_url(settings)) as conn:
        return {row[0] for row in conn.execute("SELECT value FROM public.kept")}


def test_up_twice_and_down_twice(one_home: Settings) -> None:
    first = cluster.start(one_home)
    assert first.database.state == first.broker.state == "running"
    assert first.database.postgis and first.database.pgvector
    again = cluster.start(one_home)
    assert again.changed == []
    assert (again.database.pid, again.broker.pid) == (first.database.pid, first.broker.pid)
    assert sorted(cluster.stop(one_home).changed) == ["broker", "database"]
    stopped = cluster.stop(one_home)
    assert stopped.changed == []
    assert stopped.database.state == stopped.broker.state == "stopped"
    assert cluster.start(one_home).changed == ["database", "broker"]


def test_it_is_private_and_safe(one_home: Settings) -> None:
    cluster.start(one_home)
    paths = locate(one_home)
    assert paths.run.stat().st_mode & 0o777 == 0o700
    wanted = {
        "listen_addresses": "",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "session_preload_libraries": "vector",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "max_connections": "60",
    }
    with psycopg.connect(admin_url(one_home)) as conn:
        shown = {name: conn.execute(f"SHOW {name}").fetchone()[0] for name in wanted}  # type: ignore[index]
        roles = dict(
            conn.execute(
                "SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolcanlogin"
            )
        )
        owner = conn.execute(
            "SELECT datdba::regrole::text FROM pg_database WHERE datname = 'geofix'"
        ).fetchone()
    assert shown == wanted
    assert roles == {"postgres": True, "geofix_owner": False, "geofix_writer": False, "geofix_reader": False}
    assert owner == ("geofix_owner",)
    assert (broker.ask(paths, "CONFIG GET port") or "").split() == ["*2", "$4", "port", "$1", "0"]


def test_each_role_is_a_login_of_its_own(one_home: Settings) -> None:
    cluster.start(one_home)
    for role in ("owner", "writer", "reader"):
        with psycopg.connect(database_url(one_home, role)) as conn:  # type: ignore[arg-type]
            assert conn.execute("SELECT session_user::text").fetchone() == (f"geofix_{role}",)
    with (
        psycopg.connect(database_url(one_home, "reader")) as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        conn.execute("CREATE TABLE public.mine (x int)")


def test_data_survive_down_and_up(one_home: Settings) -> None:
    cluster.start(one_home)
    remember(one_home, "down")
    assert broker.ask(locate(one_home), "SET kept down") == "+OK"
    cluster.stop(one_home)
    cluster.start(one_home)
    assert "down" in remembered(one_home)
    assert (broker.ask(locate(one_home), "GET kept") or "").split() == ["$4", "down"]


def test_data_survive_kill_9_of_both(one_home: Settings) -> None:
    state = cluster.start(one_home)
    remember(one_home, "killed")
    assert state.database.pid and state.broker.pid
    os.kill(state.database.pid, signal.SIGKILL)
    os.kill(state.broker.pid, signal.SIGKILL)
    assert wait_gone(locate(one_home).redis, broker.PROGRAMS, 10)
    assert cluster.start(one_home).changed == ["database", "broker"]
    assert "killed" in remembered(one_home)


def test_a_backend_that_outlives_the_postmaster_is_ended(one_home: Settings) -> None:
    state = cluster.start(one_home)
    remember(one_home, "busy")
    conn = psycopg.connect(database_url(one_home))
    # A loop without a wait does not notice that the postmaster died.
    busy = "DO $$ BEGIN FOR i IN 1..2000000000 LOOP NULL; END LOOP; END $$"
    conn.pgconn.send_query(busy.encode())
    time.sleep(0.3)
    assert state.database.pid
    os.kill(state.database.pid, signal.SIGKILL)
    assert "database" in cluster.start(one_home).changed
    assert "busy" in remembered(one_home)
    conn.close()


@pytest.mark.parametrize("process", ["gone", "another program", "no number"])
def test_a_stale_pid_file(one_home: Settings, process: str) -> None:
    cluster.start(one_home)
    remember(one_home, process)
    paths = locate(one_home)
    text = (paths.data / "postmaster.pid").read_text()
    cluster.stop(one_home)
    with spawn_as(paths.account, ["sleep", "120"]) as stranger:
        number = {"gone": "999999", "another program": str(stranger.pid), "no number": "x"}[process]
        stale = paths.data / "postmaster.pid"
        stale.write_text(number + "\n" + text.split("\n", 1)[1])
        shutil.chown(stale, paths.account.uid, paths.account.gid)
        try:
            assert cluster.status(one_home).database.state == "stopped"
            assert "database" in cluster.start(one_home).changed
            assert stranger.poll() is None, "a stranger's process was ended"
        finally:
            stranger.kill()
    assert process in remembered(one_home)


def test_status_of_a_frozen_server_returns(one_home: Settings) -> None:
    pid = cluster.start(one_home).broker.pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        assert cluster.status(one_home).broker.state == "starting"
    finally:
        os.kill(pid, signal.SIGCONT)
    assert cluster.status(one_home).broker.state == "running"


def test_the_command_line(one_home: Settings, clean_environment: pytest.MonkeyPatch) -> None:
    clean_environment.setenv("GEOFIX_HOME", str(one_home.home))
    runner = CliRunner()
    for arguments in (["up", "--json"], ["status", "--json"]):
        result = runner.invoke(app, arguments)
        assert result.exit_code == 0, result.output
        document = json.loads(result.stdout)
        assert {"state", "url", "postgres", "postgis", "pgvector", "data_dir", "socket_dir"} <= set(
            document["database"]
        )
        assert document["database"]["state"] == document["broker"]["state"] == "running"
        assert document["workers"] == []
    assert "geofix db migrate" in runner.invoke(app, ["status"]).stderr
    clean_environment.setenv("GEOFIX_DATABASE_URL", "postgresql://u:s3cret@127.0.0.1:1/d?connect_timeout=2")
    from geofix.settings import get_settings

    get_settings.cache_clear()
    refused = runner.invoke(app, ["up"])
    assert refused.exit_code == 4
    assert "GEOFIX_DATABASE_URL" in refused.stderr
    assert "s3cret" not in refused.output
    left = runner.invoke(app, ["status", "--json"])
    assert left.exit_code == 0
    assert json.loads(left.stdout)["database"] | {"message": ""} == json.loads(left.stdout)["database"] | {
        "state": "unreachable",
        "managed": "external",
        "message": "",
    }


def test_a_missing_extension_names_the_setup(one_home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "EXTENSIONS", ("postgis", "no_such_extension"))
    with pytest.raises(ServiceError, match="no_such_extension") as caught:
        cluster.start(one_home)
    assert "scripts/setup" in caught.value.hint


def test_missing_binaries_name_the_setup(
    make_home: Callable[[str], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    from geofix.database.embedded import binaries

    monkeypatch.setattr(binaries, "_candidate_folders", lambda: iter(()))
    with pytest.raises(ServiceError, match="installed: none") as caught:
        cluster.start(make_home("h"))
    assert "scripts/setup" in caught.value.hint


def test_two_homes_side_by_side_and_hard_names(make_home: Callable[[str], Settings]) -> None:
    """One home has a path too long for a socket, the other a comma, a quote and a space."""
    long, odd = make_home("x" * 90 + "/" + "y" * 60), make_home("it's, odd")
    with ThreadPoolExecutor(2) as pool:
        states = list(pool.map(cluster.start, (long, odd)))
    assert all(s.database.state == s.broker.state == "running" for s in states)
    assert states[0].database.pid != states[1].database.pid
    for settings, value in ((long, "long"), (odd, "odd")):
        with psycopg.connect(database_url(settings)) as conn:
            conn.execute("CREATE TABLE public.kept (value text)")
        remember(settings, value)
        broker.ask(locate(settings), f"SET kept {value}")
    cluster.stop(long)
    assert remembered(odd) == {"odd"}
    assert "odd" in (broker.ask(locate(odd), "GET kept") or "")
    cluster.start(long)
    assert remembered(long) == {"long"}
    from kombu import Connection

    with Connection(cluster.broker_url(odd)) as link:
        link.ensure_connection(max_retries=1)


def test_concurrent_up_starts_one_of_each(make_home: Callable[[str], Settings]) -> None:
    settings = make_home("h")
    command = [sys.executable, "-c", UP, str(settings.home)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [child.communicate(timeout=180)[0].split() for child in children]
    assert [answer[:2] for answer in answers] == [["running", "running"]] * 3
    assert sorted(" ".join(answer[2:]) for answer in answers) == ["", "", "database broker"]
    paths = locate(settings)
    assert len(processes_in(paths.redis, broker.PROGRAMS)) == 1


def test_a_killed_up_leaves_nothing_half_made(make_home: Callable[[str], Settings]) -> None:
    settings = make_home("h")
    with subprocess.Popen([sys.executable, "-c", UP, str(settings.home)], start_new_session=True) as child:
        partial = settings.home_dir / "postgres.partial" / "PG_VERSION"
        deadline = time.monotonic() + 60
        while not partial.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(child.pid, signal.SIGKILL)
    assert not (settings.home_dir / "postgres").exists()
    state = cluster.start(settings)
    assert state.database.state == "running"
    assert not (settings.home_dir / "postgres.partial").exists()


def test_a_home_deleted_under_running_servers(make_home: Callable[[str], Settings]) -> None:
    settings = make_home("h")
    cluster.start(settings)
    paths = locate(settings)
    old = [*processes_in(paths.data, SERVER), *processes_in(paths.redis, broker.PROGRAMS)]
    shutil.rmtree(settings.home_dir)
    assert cluster.start(settings).changed == ["database", "broker"]
    now = [*processes_in(paths.data, SERVER), *processes_in(paths.redis, broker.PROGRAMS)]
    assert not set(old) & set(now)


def test_a_folder_that_is_no_database_is_left_alone(make_home: Callable[[str], Settings]) -> None:
    settings = make_home("h")
    theirs = settings.home_dir / "postgres" / "letters.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    with pytest.raises(ServiceError, match="not empty"):
        cluster.start(settings)
    assert theirs.read_text() == "mine"


def test_a_server_that_cannot_start_says_why(make_home: Callable[[str], Settings]) -> None:
    settings = make_home("h")
    cluster.start(settings)
    cluster.stop(settings)
    local = locate(settings).data / "local.conf"
    local.write_text("shared_buffers = 'a lot'\n")
    local.chmod(0o644)
    with pytest.raises(ServiceError, match="shared_buffers") as caught:
        cluster.start(settings)
    assert str(locate(settings).log) in caught.value.hint
    local.unlink()
    assert cluster.start(settings).database.state == "running"


def test_the_superuser_is_postgres(one_home: Settings) -> None:
    cluster.start(one_home)
    with psycopg.connect(admin_url(one_home)) as conn:
        assert conn.execute("SELECT current_user::text").fetchone() == (postgres.SUPERUSER,)
