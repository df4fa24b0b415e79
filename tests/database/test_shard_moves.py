"""Moves of code sets between servers: killed, interrupted, rolled back, brought home; a streaming replica."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from threading import Timer

import psycopg
import pytest
from shard_world import NAMES, N, answers, asked
from typer.testing import CliRunner

from geofix.cli.main import app
from geofix.database import engine, shard_copy, shard_moves, shard_pieces
from geofix.database.engine import connect
from geofix.database.garbage import collect
from geofix.database.queries import codes, shard_indexes, shard_switch
from geofix.database.queries import shard_pieces as queries
from geofix.database.queries.leaves import orphan_leaves
from geofix.database.shard_moves import distribute, give_up
from geofix.database.shards import check_shards
from geofix.database.upkeep import check_database
from geofix.errors import ServiceError, SpaceError, TransientError, UsageError
from geofix.jobs import runner, service
from geofix.jobs.specs import parse
from geofix.settings import get_settings

ON_SHARD = "SELECT relname FROM pg_class WHERE relnamespace = 'geofix_shard'::regnamespace AND relkind = 'r'"
KIND = "SELECT relkind FROM pg_class WHERE oid = %s::regclass"


@pytest.fixture
def moved(shards, monkeypatch):
    """A further code set, at home; its batches are small, so that a move takes many."""
    with connect("reader") as conn:
        known = any(row["name"] == "moved" for row in codes.list_code_sets(conn))
    if not known:
        shards.publish("moved")
    with connect() as conn:
        give_up(conn, "moved")
        distribute(conn, "moved", ["local"])
    monkeypatch.setattr(shard_copy, "_BATCH_BYTES", 20_000)
    return shards


def remote_tables(world):
    found = set()
    for server in world.shards.values():
        with psycopg.connect(server.url()) as conn:
            found |= {row[0] for row in conn.execute(ON_SHARD)} - {"owner_token"}
    return found


def expected_tables():
    with connect() as conn:
        return {piece.table for piece in queries.pieces(conn) if piece.shard_id is not None}


def same_answers():
    with connect("reader") as conn:
        return answers(conn, "moved", asked(2)) == answers(conn, "whole", asked(2))


def die(*_arguments, **_keywords):
    os.kill(os.getpid(), signal.SIGKILL)


def after(function, calls=1):
    """The function, and a kill of the process right after its n-th call."""
    count = [0]

    def wrapped(*arguments, **keywords):
        result = function(*arguments, **keywords)
        count[0] += 1
        if count[0] == calls:
            die()
        return result

    return wrapped


# Where it dies, after how many calls; None: instead of the call.
MOMENTS = {
    "planned": (shard_copy, "fill", None),
    "in the second piece": (shard_copy, "_send", 4),
    "while indexes are built": (shard_indexes, "create_hnsw", 2),
    "between foreign tables": (shard_switch, "create_foreign", 1),
    "before the switch commits": (shard_switch, "switch", 1),
    "after the switch": (shard_pieces, "clean", None),
}


def _move_until(moment, shards):
    """In a process of its own: connections of the parent are not used, and it ends by SIGKILL."""
    module, name, calls = MOMENTS[moment]
    wrapped = die if calls is None else after(getattr(module, name), calls)
    with pytest.MonkeyPatch.context() as patch, connect() as conn:
        patch.setattr(module, name, wrapped)
        distribute(conn, "moved", shards)


@pytest.mark.parametrize(
    ("moment", "names", "go_on"),
    [
        ("planned", NAMES, True),
        ("in the second piece", NAMES, False),
        ("in the second piece", ["c", "local", "a"], True),
        ("while indexes are built", ["c", "a"], True),
        ("between foreign tables", ["b", "c"], False),
        ("between foreign tables", ["b", "c"], True),
        ("before the switch commits", ["a", "local"], True),
        ("after the switch", NAMES, True),
    ],
)
def test_killed_at_any_moment_it_goes_on_or_rolls_back(moved, moment, names, go_on):
    process = get_context("fork").Process(target=_move_until, args=(moment, names))
    engine.dispose()
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert same_answers()
    with connect() as conn:
        assert orphan_leaves(conn) == []  # what a move prepares is no garbage
        if go_on:
            resumed = distribute(conn, "moved", names)
            assert resumed["resumed"] == (moment != "after the switch")
            assert [piece["shard"] for piece in resumed["pieces"]] == names
        else:
            assert give_up(conn, "moved")
    assert same_answers() and remote_tables(moved) == expected_tables()
    with connect() as conn:
        assert all(check.ok for check in check_database(conn))
        assert [row for row in conn.execute("SELECT FROM geofix.shard_piece WHERE state <> 'live'")] == []


def test_a_shard_that_is_restarted_during_the_load_loses_nothing(moved, monkeypatch):
    real, calls = shard_copy._send, []

    def interrupted(link, piece, last, data):
        calls.append(piece.piece)
        if piece.piece == 1 and calls.count(1) == 2:
            moved.shards["b"].kill()
            Timer(0.7, moved.shards["b"].start).start()
        real(link, piece, last, data)

    monkeypatch.setattr(shard_copy, "_send", interrupted)
    with connect() as conn:
        done = distribute(conn, "moved", NAMES)
    assert calls.count(1) > 2 and done["cells"] == N and same_answers()


def test_a_shard_that_stays_away_is_named_and_the_move_goes_on_later(moved):
    moved.shards["b"].stop()
    try:
        with connect() as conn, pytest.raises(TransientError, match=r"Shard b .*does not answer"):
            distribute(conn, "moved", NAMES, wait_s=0.2)
        assert same_answers()
        with connect() as conn:
            assert "moves to shards under way" in [c.name for c in check_database(conn) if not c.ok]
    finally:
        moved.shards["b"].start()
    with connect() as conn:
        assert distribute(conn, "moved", NAMES)["resumed"]
    assert same_answers()


def test_what_arrives_otherwise_than_sent_is_not_switched_to(moved, monkeypatch):
    real = shard_copy.finish

    def spoiled(conn, code_set, pieces, links, **options):
        table = next(piece.table for piece in pieces if piece.piece == 0)
        with psycopg.connect(moved.shards["a"].url()) as remote:
            remote.execute(f"UPDATE geofix_shard.{table} SET has_aerial = NOT has_aerial WHERE s2_id % 6 = 2")
        return real(conn, code_set, pieces, links, **options)

    monkeypatch.setattr(shard_copy, "finish", spoiled)
    with connect() as conn, pytest.raises(ServiceError, match=r"Shard a holds .* checksum"):
        distribute(conn, "moved", ["a", "b"])
    with connect() as conn:
        assert give_up(conn, "moved")
        with pytest.raises(SpaceError, match="graph of each part"):
            distribute(conn, "moved", ["a"], memory_bytes=1000)
        with pytest.raises(UsageError, match="named twice"):
            distribute(conn, "moved", ["a", "a"])
    assert same_answers() and remote_tables(moved) == expected_tables()


def test_two_moves_of_one_code_set_do_not_meet(moved, monkeypatch):
    monkeypatch.setattr(shard_pieces, "_LOCK_S", 0.3)
    with connect() as conn, connect() as other:
        key = codes.find_code_set(conn, "moved").code_set_id
        assert queries.try_lock(other, key)
        with pytest.raises(TransientError, match="Another process is moving"):
            distribute(conn, "moved", NAMES)
        queries.unlock(other, key)


def test_names_of_tables_never_come_again(moved):
    seen = []
    for names in (["a", "b"], ["local"], ["a", "b"], ["local"]):
        with connect() as conn:
            distribute(conn, "moved", names)
            key = codes.find_code_set(conn, "moved").code_set_id
            seen += [piece.table for piece in queries.pieces(conn, code_set_id=key)]
    assert len(seen) == len(set(seen)) == 4


def test_nothing_is_cleared_of_a_code_set_that_is_being_moved(moved, monkeypatch):
    with monkeypatch.context() as patch, connect() as conn:
        patch.setattr(shard_pieces, "clean", lambda conn: 0)
        for names in (NAMES, ["local"]):
            distribute(conn, "moved", names)
    with connect() as conn, connect() as mover:
        key = codes.find_code_set(conn, "moved").code_set_id
        assert queries.try_lock(mover, key)
        assert shard_pieces.clean(conn) == 0
        assert len(queries.pieces(conn, code_set_id=key, states=["gone"])) == len(NAMES)
        monkeypatch.setattr(shard_pieces, "_LOCK_S", 0.1)
        done = CliRunner().invoke(app, ["codes", "drop", "moved", "--yes"])
        assert done.exit_code == 4 and "Another process is moving" in done.output
        queries.unlock(mover, key)
        real = shard_pieces.opened

        def opened(parts, what):
            assert not queries.try_lock(mover, key)
            return real(parts, what)

        monkeypatch.setattr(shard_pieces, "opened", opened)
        assert shard_pieces.clean(conn) == len(NAMES)
        assert queries.try_lock(mover, key)
        queries.unlock(mover, key)
    assert remote_tables(moved) == expected_tables()


SPOILED = {
    "a gap": (
        "_planned",
        "DELETE FROM geofix.shard_piece WHERE state = 'filling' AND piece = 1",
        "begins at",
    ),
    "a gap at last": (
        "_stage",
        "DELETE FROM geofix.shard_piece WHERE state = 'filling' AND piece = 0",
        "begins at",
    ),
    "too few": (
        "_stage",
        "UPDATE geofix.shard_piece SET cells = cells - 1 WHERE state = 'filling'",
        "hold .* cells of",
    ),
}


@pytest.mark.parametrize("what", SPOILED)
def test_pieces_that_are_not_the_whole_set_are_not_switched_to(moved, monkeypatch, what):
    step, statement, message = SPOILED[what]
    real = getattr(shard_moves, step)

    def spoiling(conn, *arguments):
        result = real(conn, *arguments)
        conn.execute(statement)
        return result

    with monkeypatch.context() as patch, connect() as conn:
        patch.setattr(shard_moves, step, spoiling)
        with pytest.raises(ServiceError, match=f"not the whole code set: .*{message}"):
            distribute(conn, "moved", ["a", "b"])
    assert same_answers()
    with connect() as conn:
        assert give_up(conn, "moved")


def test_a_shard_that_its_reader_cannot_read_is_not_switched_to(moved):
    mapping = "ALTER USER MAPPING FOR geofix_reader SERVER geofix_shard_a OPTIONS (SET password '{}')"
    with connect() as conn:
        conn.execute(mapping.format("wr0ng"))
    try:
        with (
            connect() as conn,
            pytest.raises(ServiceError, match=r"geofix_reader cannot read .* geofix_shard_a"),
        ):
            distribute(conn, "moved", ["a", "b"])
        assert same_answers()
        with connect() as conn, connect("reader") as reader:
            assert [state.ok for state in check_shards(conn, reader)] == [False, True, True]
    finally:
        with connect() as conn:
            conn.execute(mapping.format(moved.family.passwords["geofix_reader"]))
    with connect() as conn:
        assert distribute(conn, "moved", ["a", "b"])["resumed"]


def test_searches_go_on_through_moves_out_and_home(moved):
    with connect() as conn:
        leaf = f"geofix_leaf.cell_code_{codes.find_code_set(conn, 'moved').code_set_id}"
    stop = []

    def search():
        asked_n = 0
        while not stop:
            assert same_answers()
            asked_n += 1
        return asked_n

    with ThreadPoolExecutor(1) as pool:
        searching = pool.submit(search)
        try:
            with connect() as conn:
                distribute(conn, "moved", ["b", "a"])
                assert conn.execute(KIND, (leaf,)).fetchone() == ("p",)
                distribute(conn, "moved", ["local"])
                assert conn.execute(KIND, (leaf,)).fetchone() == ("r",)
        finally:
            stop.append(True)
        assert searching.result() > 0
    with connect() as conn:
        near = answers(conn, "moved", asked(1), exact_below=0)
        assert near[0][0][2] == "hnsw" and orphan_leaves(conn) == []
        names = conn.execute("SELECT indexname FROM pg_indexes WHERE tablename = %s", (leaf.split(".")[1],))
        assert {row[0].rpartition(leaf.split(".")[1])[2] for row in names} == {"_key", "_parent_key", "_hnsw"}
    assert remote_tables(moved) == expected_tables()


def test_commands_and_job_move_and_dropped_codes_leave_nothing(moved, tmp_path):
    def run(*words):
        done = CliRunner().invoke(app, [*words, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    made = run("codes", "distribute", "moved", "--shards", "a", "c")
    assert [piece["shard"] for piece in made["pieces"]] == ["a", "c"] and same_answers()
    for target in ("b", "local"):
        job = service.submit(parse("distribute", {"code_set": "moved", "shards": target}), publish=False)
        row = runner.run_inline(job.job_id)
        assert row.state == "succeeded" and row.result["pieces"][0]["shard"] == target, row
        assert row.result["pieces"][0]["cells"] == N and same_answers()
    moved.publish("short", index=False)
    run("codes", "distribute", "short", "--shards", "a,b")
    run("codes", "drop", "short", "--yes")
    assert remote_tables(moved) == expected_tables()
    moved.publish("short", index=False)
    run("codes", "distribute", "short", "--shards", "b")
    with connect() as conn:
        codes.drop_code_set(conn, codes.find_code_set(conn, "short"))  # as a refresh drops what it replaces
        conn.commit()
        assert len(remote_tables(moved)) == len(NAMES) + 1
        assert any("shards" in item.kind for item in collect(conn, get_settings()))
    assert remote_tables(moved) == expected_tables()


def test_the_reader_works_on_a_streaming_replica(shards, monkeypatch):
    replica = shards.family.replica(shards.home, "replica")
    try:
        for role in ("READER", "DATABASE", "WRITER"):
            name = {"DATABASE": "owner"}.get(role, role.lower())
            monkeypatch.setenv(f"GEOFIX_{role}_URL", replica.url(name))
        engine.dispose()
        get_settings.cache_clear()
        with connect("reader") as conn:
            assert conn.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
            assert answers(conn, "whole", asked(2), exact_below=0)[0][0][2] == "hnsw"
            assert answers(conn, "spread", asked(2)) == answers(conn, "whole", asked(2))
        counted = (
            "SELECT count(*) AS n FROM cell_code JOIN code_set USING (code_set_id) WHERE name = 'spread'"
        )
        done = CliRunner().invoke(app, ["sql", counted, "--format", "csv"])
        assert done.exit_code == 0 and str(N) in done.stdout, done.output
        with psycopg.connect(shards.home.url()) as primary:
            primary.execute("UPDATE geofix.model SET name = 'renamed'")
        try:
            deadline = time.monotonic() + 30
            with connect("reader") as conn:
                while conn.execute("SELECT name FROM geofix.model").fetchone() != ("renamed",):
                    conn.rollback()
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            with connect() as conn, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                conn.execute("UPDATE geofix.model SET name = 'x'")
        finally:
            with psycopg.connect(shards.home.url()) as primary:
                primary.execute("UPDATE geofix.model SET name = 'm'")
    finally:
        engine.dispose()
        replica.remove()
