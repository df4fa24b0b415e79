"""A code set over three further servers: the same answers, and clear words when one of them is down."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from multiprocessing import get_context

import numpy as np
import psycopg
import pytest
import shapely
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from shard_world import NAMES, N, answers, asked
from typer.testing import CliRunner

from geofix.cli.main import app
from geofix.codes.complete import complete_query
from geofix.codes.index import build_index, measure_recall
from geofix.database import engine, restore_home, shard_copy
from geofix.database.backup import backup
from geofix.database.embedded import bootstrap
from geofix.database.engine import connect
from geofix.database.queries import codes, shard_indexes
from geofix.database.queries.shard_pieces import pieces
from geofix.database.shard_moves import distribute
from geofix.database.shards import add_shard, check_shards, remove_shard
from geofix.database.upkeep import check_database, restore_and_migrate
from geofix.errors import BadInputError, ServiceError, TransientError, UsageError
from geofix.settings import get_settings
from geofix.spatial import s2

# An odd polygon with a hole, a tiny one, and one far away from every cell.
REGIONS = {
    "everywhere": None,
    "odd": shapely.Polygon(
        [(6, 46), (9, 45.4), (9.5, 49), (7, 49.6), (5.5, 48)], [[(7, 47), (8, 47), (8, 48), (7, 48)]]
    ),
    "tiny": shapely.box(7.5, 47.5, 7.6, 47.6).buffer(0.1),
    "far": shapely.box(100, -10, 101, -9),
}

STATEMENT = """
SELECT geofix.pieces_statement(
         array_agg(leaf ORDER BY lo), array_agg(inside ORDER BY lo), array_agg(%s), array_agg(10), 10, 18),
       array_agg(lo ORDER BY lo)
FROM geofix.pieces_in_scope(%s, NULL, '{}')
"""


def run(*words, code=0):
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", REGIONS)
def test_exact_answers_are_identical(shards, name):
    with connect("reader") as conn:
        for n, k in ((1, 400), (1, 10)):
            found = answers(conn, "spread", asked(n), k, REGIONS[name])
            assert found == answers(conn, "whole", asked(n), k, REGIONS[name])
    assert (name == "far") == (found[0] == [])


def test_a_region_holds_the_cells_whose_centre_is_inside(shards):
    inside = shapely.covers(REGIONS["odd"], shapely.points(*s2.center(shards.ids)))
    with connect("reader") as conn:
        (rows,) = answers(conn, "spread", asked(1), N, REGIONS["odd"])
    assert {row[0] for row in rows} == set(shards.ids[inside].tolist())
    assert {row[3] for row in rows} == {int(inside.sum())}


@pytest.mark.parametrize(("name", "n"), [("everywhere", 20), ("odd", 3)])
def test_the_indexes_of_the_shards_reach_the_recall(shards, name, n):
    with connect("reader") as conn:
        exact = answers(conn, "whole", asked(n), region=REGIONS[name])
        near = answers(conn, "spread", asked(n), region=REGIONS[name], exact_below=0)
    assert {row[2] for rows in near for row in rows} == {"hnsw"}
    hits = [len({r[0] for r in e} & {r[0] for r in n}) for e, n in zip(exact, near, strict=True)]
    assert sum(hits) >= 0.99 * 10 * n


def test_other_readers_of_codes_see_no_difference(shards):
    with connect() as conn:
        whole, spread = (codes.find_code_set(conn, name) for name in ("whole", "spread"))
        for a, b in zip(codes.read_codes(conn, whole), codes.read_codes(conn, spread), strict=True):
            assert np.array_equal(a, b)
        recall = measure_recall(conn, spread, complete_query(asked(20).astype(np.float16)))
        assert recall.method == "hnsw" and recall.recall >= 0.99
        cell = int(shards.ids[7])
        similar = "SELECT s2_id_found, score FROM geofix.similar_cells(%s, 5, %s)"
        assert (
            conn.execute(similar, (cell, "spread")).fetchall()
            == conn.execute(similar, (cell, "whole")).fetchall()
        )
        listed = {row["name"]: row["total_bytes"] for row in codes.list_code_sets(conn)}
    assert listed["spread"] > N * 36


def explained(conn, statement, query, los):
    conn.execute(
        "CREATE OR REPLACE FUNCTION pg_temp.plan(statement text, q halfvec, los bigint[]) RETURNS SETOF text"
        " LANGUAGE plpgsql AS $$ BEGIN"
        " RETURN QUERY EXECUTE 'EXPLAIN (VERBOSE) ' || statement USING q, los; END $$"
    )
    rows = conn.execute("SELECT pg_temp.plan(%s, %s, %s)", (statement, query, los)).fetchall()
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("exact", [False, True])
def test_order_and_limit_travel_to_every_shard_and_its_index_answers(shards, exact):
    query = HalfVector(complete_query(asked(1).astype(np.float16))[0])
    with connect() as conn:
        key = codes.find_code_set(conn, "spread").code_set_id
        statement, los = conn.execute(STATEMENT, (exact, key)).fetchone()
        plan = explained(conn, statement, query, los)
    sent = re.findall(r"Remote SQL: (.*)", plan)
    assert plan.count("Async Foreign Scan") == len(sent) == len(NAMES)
    for text, server in zip(sent, shards.shards.values(), strict=True):
        assert " ORDER BY " in text and text.endswith("LIMIT 10::bigint")
        with psycopg.connect(server.url("reader"), options="-c enable_seqscan=off") as remote:
            there = "\n".join(row[0] for row in remote.execute(f"EXPLAIN {text}"))
        assert ("_hnsw" in there) != exact, there


def test_a_region_asks_only_the_shards_that_hold_it(shards):
    middle = shards.ids[N // 2]
    region = shapely.Point(*s2.center(np.array([middle]))).buffer(0.02)
    with connect("reader") as conn:
        wanted = answers(conn, "whole", asked(1), region=region)
        for name in ("a", "c"):
            shards.shards[name].stop("immediate")
        try:
            assert answers(conn, "spread", asked(1), region=region) == wanted != [[]]
        finally:
            for name in ("a", "c"):
                shards.shards[name].start()


def test_a_shard_that_is_down_is_named(shards, monkeypatch):
    with connect("reader") as conn:
        before = answers(conn, "spread", asked(1))
    shards.shards["b"].kill()
    try:
        down = pytest.raises(psycopg.OperationalError, match='server "geofix_shard_b"')
        with connect("reader") as conn, down:
            answers(conn, "spread", asked(1))  # by a connection that had been used
        engine.dispose()
        with connect("reader") as conn:
            with down:
                answers(conn, "spread", asked(1))
            conn.rollback()
            assert answers(conn, "whole", asked(1))
        done = CliRunner().invoke(app, ["sql", "SELECT count(*) FROM cell_code"])
        assert done.exit_code != 0 and "shard_b" in done.output
        with connect() as conn, pytest.raises(psycopg.OperationalError, match="geofix_shard_b"):
            codes.read_codes(conn, codes.find_code_set(conn, "spread"))
        found = run("shards", "check", code=4)
        assert [(shard["name"], shard["ok"]) for shard in found["shards"]] == [
            ("a", True),
            ("b", False),
            ("c", True),
        ]
        engine.dispose()
        monkeypatch.setenv("GEOFIX_PARTIAL_ANSWERS", "true")
        get_settings.cache_clear()
        with connect("reader") as conn:
            (rows,) = answers(conn, "spread", asked(1), N)
            near = answers(conn, "spread", asked(1), exact_below=0)[0]
        assert len(rows) == 2 * N // 3 and {row[2:] for row in rows} == {("exact without b", 2 * N // 3)}
        assert {row[2] for row in near} == {"hnsw without b"}
        held = [piece for piece in pieces_of("spread") if piece.piece == 1]
        assert not any(held[0].lo <= row[0] <= held[0].hi for row in rows)
    finally:
        shards.shards["b"].start()
    engine.dispose()
    with connect("reader") as conn:
        assert answers(conn, "spread", asked(1)) == before


def pieces_of(name):
    with connect() as conn:
        return pieces(conn, code_set_id=codes.find_code_set(conn, name).code_set_id, states=["live"])


def test_check_compares_what_is_there(shards):
    found = run("shards", "check", "--full")
    assert found["ok"] and sum(shard["cells"] for shard in found["shards"]) >= N
    piece = pieces_of("spread")[2]
    with psycopg.connect(shards.shards["c"].url()) as remote:
        remote.execute(f"UPDATE geofix_shard.{piece.table} SET has_aerial = NOT has_aerial")
    with connect() as conn, connect("reader") as reader:
        assert check_shards(conn, reader)[2].ok
        assert "another checksum" in check_shards(conn, reader, full=True)[2].message
    with psycopg.connect(shards.shards["c"].url()) as remote:
        remote.execute(f"UPDATE geofix_shard.{piece.table} SET has_aerial = NOT has_aerial")


def test_an_index_is_built_anew_on_every_shard(shards, monkeypatch):
    def build(**parameters):
        with connect() as conn:
            return build_index(conn, codes.find_code_set(conn, "spread"), **parameters)

    assert build(m=8, ef_construction=32)["bytes"] > 0
    with connect() as conn:
        assert codes.find_code_set(conn, "spread").index_parameters["m"] == 8
    piece = pieces_of("spread")[0]
    with psycopg.connect(shards.shards["a"].url()) as remote:
        remote.execute(f"UPDATE geofix_shard.{piece.table} SET has_aerial = NOT has_aerial")
    with monkeypatch.context() as patch, psycopg.connect(shards.shards["a"].url("reader")) as search:
        patch.setattr(shard_indexes, "LOCK_TIMEOUT", "SET LOCAL lock_timeout = '50ms'")
        patch.setattr(shard_copy, "_ATTEMPTS", 1)
        search.execute(f"SELECT FROM geofix_shard.{piece.table} LIMIT 1")  # a long one
        with pytest.raises(TransientError, match="held by long queries"):
            build()
    build()
    with psycopg.connect(shards.shards["a"].url()) as remote:
        made = remote.execute("SELECT indexname FROM pg_indexes WHERE tablename = %s", (piece.table,))
        assert {row[0].removeprefix(piece.table) for row in made} == {"_key", "_hnsw"}
    try:  # building an index proves nothing of what is there
        assert pieces_of("spread")[0].checksum == piece.checksum
        assert "another checksum" in run("shards", "check", "--full", code=4)["shards"][0]["message"]
    finally:
        with psycopg.connect(shards.shards["a"].url()) as remote:
            remote.execute(f"UPDATE geofix_shard.{piece.table} SET has_aerial = NOT has_aerial")


def test_passwords_are_kept_from_everybody(shards):
    listed = run("shards", "list")
    assert [row["name"] for row in listed] == NAMES and "spread" in listed[0]["code_sets"]
    with connect("reader") as conn:
        seen = json.dumps(listed, default=str) + str(conn.execute("SELECT * FROM geofix.shard").fetchall())
        seen += str(conn.execute("SELECT * FROM pg_user_mappings").fetchall())
        seen += str(conn.execute("SELECT * FROM pg_foreign_server").fetchall())
    assert not any(secret in seen for secret in shards.family.passwords.values())
    table = pieces_of("spread")[0].table
    with connect("reader") as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute(f"DELETE FROM geofix_leaf.{table}")
    with connect("writer") as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute(f"INSERT INTO geofix_leaf.{table} SELECT * FROM geofix_leaf.{table} LIMIT 1")


def test_unfit_servers_are_refused(shards, tmp_path):
    a = shards.shards["a"]
    with connect() as conn:
        for name, url, message in [
            ("local", a.url(), "no name"),
            ("a", a.url(), "exists"),
            ("d", a.url(), "is shard a already"),
            ("d", shards.home.url(), "database itself"),
            ("d", a.url("postgres"), "no password"),
            ("d", "postgresql://somewhere", "names no user"),
        ]:
            with pytest.raises(UsageError, match=message):
                add_shard(conn, name, url, reader_url=a.url("reader"))
            conn.rollback()
        with pytest.raises(ServiceError) as caught:
            add_shard(conn, "d", a.url().replace(a.passwords["geofix_owner"], "wr0ng"))
        assert "wr0ng" not in str(caught.value)
        with pytest.raises(UsageError, match=r"pieces of code sets .*spread"):
            remove_shard(conn, "a")
        with pytest.raises(BadInputError, match="No shard is named 'z'"):
            remove_shard(conn, "z")


OTHERS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt():
    raise InterruptedError


def restored_until(url, file, end):
    """Restore, and end so before keys and indexes are made."""
    real = restore_home.subprocess.run

    def ending(command, **options):
        if "--section=post-data" in command:
            end()
        return real(command, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restore_home.subprocess, "run", ending)
        restore_and_migrate(url, file, get_settings())


def test_a_backup_brings_every_code_home(shards, tmp_path):
    file = tmp_path / "all.dump"
    with pytest.raises(UsageError, match="live on other servers"):
        backup(shards.home.url(), file, get_settings())
    backup(shards.home.url(), file, get_settings(), include_foreign=True)
    with psycopg.connect(shards.home.url("postgres", database="postgres"), autocommit=True) as admin:
        bootstrap.create_database(admin, "restored")
    with psycopg.connect(shards.home.url("postgres", database="restored"), autocommit=True) as admin:
        bootstrap.create_extensions(admin)
    url = shards.home.url(database="restored")
    process = get_context("fork").Process(target=restored_until, args=(url, file, die))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(InterruptedError):
        restored_until(url, file, interrupt)
    with psycopg.connect(url, autocommit=True) as conn:
        deadline = time.monotonic() + 30
        while conn.execute(OTHERS).fetchone() != (0,):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert conn.execute("SELECT to_regnamespace('geofix')").fetchone() == (None,)
    done = restore_and_migrate(url, file, get_settings(), memory_bytes=1)
    assert "spread" not in done["came_home"] and done["left"][-1]["code_set"] == "spread"
    megabytes = re.fullmatch(
        r"geofix codes distribute spread --back --memory-mb (\d+)", done["left"][-1]["command"]
    )
    with connect("reader") as conn:
        wanted = answers(conn, "spread", asked(2), 50)
    with psycopg.connect(url) as conn:
        register_vector(conn)
        assert answers(conn, "spread", asked(2), 50) == wanted
        for item in done["left"]:
            distribute(conn, item["code_set"], ["local"], memory_bytes=int(megabytes[1]) << 20)
        assert conn.execute("SELECT count(*) FROM geofix.shard").fetchone() == (0,)
        assert answers(conn, "spread", asked(2), 50) == wanted
        assert conn.execute("SELECT count(*) FROM geofix.shard_piece").fetchone() == (0,)
        assert [check.name for check in check_database(conn) if not check.ok] == []
        near = answers(conn, "spread", asked(1), exact_below=0)
    assert near[0][0][2] == "hnsw"
