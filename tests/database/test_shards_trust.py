"""Whose a shard is, what is told when it cannot answer, and what is refused before codes are lost."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import psycopg
import pytest
import shapely
from alembic import command
from psycopg.conninfo import conninfo_to_dict
from shard_world import NAMES, N, answers, asked
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from geofix.cli.main import app
from geofix.database import backup as backup_module
from geofix.database import engine, shard_links
from geofix.database.embedded import bootstrap
from geofix.database.engine import connect
from geofix.database.migrate import alembic_config, schema_engine
from geofix.database.queries import codes
from geofix.database.queries.shard_pieces import pieces
from geofix.database.queries.shards import held
from geofix.database.shard_links import Link, server_options
from geofix.database.shards import find_shard
from geofix.database.upkeep import restore_and_migrate
from geofix.errors import ServiceError, TransientError
from geofix.localize.service import Searcher, _answer
from geofix.settings import get_settings
from geofix.spatial import s2

TOKEN = "UPDATE geofix_shard.owner_token SET token = gen_random_uuid()"
OPTIONS = """
SELECT substr(o, 9) FROM pg_foreign_server, unnest(srvoptions) AS o
WHERE srvname = %s AND starts_with(o, 'options=')
"""


def run(*words, code=0):
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if code == 0 else done.output


@pytest.fixture
def further(shards):
    """A further database on the server of shard a."""
    a = shards.shards["a"]
    with psycopg.connect(a.url("postgres", database="postgres"), autocommit=True) as admin:
        bootstrap.create_database(admin, "further")
    with psycopg.connect(a.url("postgres", database="further"), autocommit=True) as admin:
        bootstrap.create_extensions(admin)
    yield a
    with psycopg.connect(a.url("postgres", database="postgres"), autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS further WITH (FORCE)")


def words(server):
    return ["--url", server.url(database="further"), "--reader-url", server.url("reader", database="further")]


def test_a_server_is_one_shard_of_one_database(shards, further):
    run("shards", "add", "d", *words(further))
    assert "is shard d already" in run("shards", "add", "e", *words(further), code=2)
    with psycopg.connect(further.url(database="further")) as remote:
        remote.execute(TOKEN)  # as if another database had added it
    try:
        found = [shard for shard in json.loads(run("shards", "check", code=4))["shards"] if not shard["ok"]]
        assert [shard["name"] for shard in found] == ["d"] and "another database" in found[0]["message"]
    finally:
        run("shards", "remove", "d")
    told = run("shards", "add", "d", *words(further), code=2)
    assert "Another database has added d" in told and "--take-over" in told
    run("shards", "add", "d", "--take-over", *words(further))
    run("shards", "remove", "d")
    run("shards", "add", "d", *words(further))  # it was left as it had been found
    run("shards", "remove", "d")


def test_a_lost_shard_is_removed_once_its_codes_are_given_up(shards, further):
    run("shards", "add", "d", *words(further))
    shards.publish("short", index=False)
    run("codes", "distribute", "short", "--shards", "d")
    with connect() as conn:
        key = codes.find_code_set(conn, "short").code_set_id
        (piece,) = pieces(conn, code_set_id=key)
    engine.dispose()
    with psycopg.connect(further.url("postgres", database="postgres"), autocommit=True) as admin:
        admin.execute("DROP DATABASE further WITH (FORCE)")
    assert "holds 1 pieces of code sets short" in run("shards", "remove", "d", "--lost", code=2)
    run("codes", "drop", "short", "--yes")
    assert "give --lost" in run("shards", "remove", "d", code=2)
    assert run("shards", "remove", "d", "--lost")["left"] == [piece.table]
    assert [row["name"] for row in run("shards", "list")] == NAMES


def test_nothing_is_written_to_a_server_of_another_database(shards, further):
    run("shards", "add", "d", *words(further))
    shards.publish("short", index=False)
    try:
        with psycopg.connect(further.url(database="further")) as remote:
            remote.execute(TOKEN)
        told = run("codes", "distribute", "short", "--shards", "d", code=4)
        assert "Shard d belongs to another database" in told
        with psycopg.connect(further.url(database="further")) as remote:
            assert held(remote) == 0
    finally:
        run("codes", "drop", "short", "--yes")
        run("shards", "remove", "d", "--lost")


def test_a_server_is_waited_for_since_it_was_lost(shards, monkeypatch):
    a = shards.shards["a"]
    with connect() as conn:
        link = Link.to_shard(conn, find_shard(conn, "a"), wait_s=0.3)
    tried = []

    def losing(remote, again):
        tried.append(again)
        if len(tried) == 1:
            time.sleep(0.4)  # longer than it is waited
        if tried.count(True) < 1 or len(tried) > 2:
            with psycopg.connect(a.url("postgres")) as admin:
                admin.execute("SELECT pg_terminate_backend(%s, 5000)", (remote.info.backend_pid,))
        return remote.execute("SELECT 7").fetchone()

    assert link.run(losing) == (7,) and tried == [False, True]
    monkeypatch.setattr(shard_links, "_MOST_LOSSES", 1)
    with pytest.raises(TransientError, match=r"Shard a .*does not answer"):
        link.run(losing)  # which ends the server's session each time
    wrong = Link(link.parts | {"password": "wr0ng"}, "Shard a", wait_s=20, schema=link.schema)
    with pytest.raises(ServiceError, match="does not let geofix_owner in") as caught:
        wrong.run(losing)
    assert "wr0ng" not in str(caught.value)
    for changed, says in (({"password": "wr0ng"}, "let geofix_owner in"), ({"port": "1"}, "not answer")):
        with pytest.raises(ServiceError, match=says), shard_links.opened(link.parts | changed, "Shard a"):
            pass


def test_an_answer_of_nobody_is_no_partial_answer(shards, monkeypatch):
    middle = shapely.Point(*s2.center(np.array([shards.ids[N // 2]]))).buffer(0.02)
    monkeypatch.setenv("GEOFIX_PARTIAL_ANSWERS", "true")
    get_settings.cache_clear()
    engine.dispose()
    shards.shards["b"].stop("immediate")
    try:
        with connect("reader") as conn:
            with pytest.raises(psycopg.OperationalError, match="geofix_shard_b") as caught:
                answers(conn, "spread", asked(1), region=middle)
            assert caught.value.sqlstate == "08001"
            conn.rollback()
            assert answers(conn, "spread", asked(1))[0][0][2] == "exact without b"
            assert answers(conn, "spread", asked(1), region=shapely.box(100, -10, 101, -9)) == [[]]
    finally:
        shards.shards["b"].start()
        engine.dispose()


def test_a_searcher_that_finds_nothing_says_so(shards):
    far = shapely.to_wkb(shapely.set_srid(shapely.box(100, -10, 101, -9), 4326), include_srid=True)
    with connect("writer") as conn:
        used = Searcher(codes.find_code_set(conn, "spread"), None, None, None)  # type: ignore[arg-type]
        with pytest.raises(ServiceError, match="spread has no cell there"):
            _answer(conn, used, Path("p.jpg"), asked(1)[0], 10, far, None)


def test_a_shard_whose_index_gives_up_is_asked_exactly(shards):
    with connect() as conn:
        before = conn.execute(OPTIONS, ("geofix_shard_b",)).fetchone()[0]
        kept = pieces(conn, code_set_id=codes.find_code_set(conn, "spread").code_set_id, states=["live"])[1]
        weak = before.replace("strict_order", "off").replace("ef_search=100", "ef_search=1")
        conn.execute(f"ALTER SERVER geofix_shard_b OPTIONS (SET options '{weak}')")
    try:
        with connect("reader") as conn:
            exact = answers(conn, "whole", asked(5))
            near = answers(conn, "spread", asked(5), exact_below=0)
    finally:
        with connect() as conn:
            conn.execute(f"ALTER SERVER geofix_shard_b OPTIONS (SET options '{before}')")
    assert {row[2] for rows in near for row in rows} == {"hnsw"}
    for wanted, found in zip(exact, near, strict=True):
        inside = {row[0] for row in wanted if kept.lo <= row[0] <= kept.hi}
        assert len(inside) > 1 and inside <= {row[0] for row in found}


def test_a_piece_with_few_cells_is_asked_exactly(shards):
    with connect("reader") as conn:
        found = answers(conn, "spread", asked(2), exact_below=N // 3)
        assert found == answers(conn, "whole", asked(2))  # its method is `exact` too
        assert answers(conn, "spread", asked(1), exact_below=N // 3 - 1)[0][0][2] == "hnsw"


def test_the_schema_is_not_taken_away_from_codes_on_shards(shards):
    refused = pytest.raises(DBAPIError, match=r"codes of .*spread.* are on other servers")
    with schema_engine(shards.home.url()).connect() as connection, refused:
        command.downgrade(alembic_config(connection), "0007")
    with connect("reader") as conn:
        assert answers(conn, "spread", asked(1)) == answers(conn, "whole", asked(1))


def test_a_backup_asks_for_room_for_the_rows_of_other_servers(shards, tmp_path, monkeypatch):
    asked_for = []
    monkeypatch.setattr(backup_module, "require_free", lambda folder, size, settings: asked_for.append(size))
    backup_module.backup(shards.home.url(), tmp_path / "x.dump", get_settings(), include_foreign=True)
    with connect() as conn:
        here = conn.execute(backup_module.SIZE).fetchone()[0]
        there = sum(p.bytes for p in pieces(conn, states=["live"]) if p.shard_id is not None)
    assert there > N * 36 and asked_for == [here + there]


def test_what_a_url_says_of_patience_comes_first():
    parts = conninfo_to_dict("postgresql://u@h/d?keepalives_idle=60&connect_timeout=9&application_name=x")
    options = server_options({key: str(value) for key, value in parts.items()}, 100)
    assert options["keepalives_idle"] == "60" and options["connect_timeout"] == "9"
    assert int(options["keepalives_interval"]) * int(options["keepalives_count"]) < 10
    assert "tcp_user_timeout" in options and "application_name" not in options


def test_a_restored_database_has_no_shards_of_the_old_one(db, empty_db, tmp_path):
    with db.connect() as conn:
        conn.execute(
            "INSERT INTO geofix.shard (name, server, address, reader, token)"
            " VALUES ('a', 'geofix_shard_a', 'h:5432/d', 'r', gen_random_uuid())"
        )
        conn.execute(
            "INSERT INTO geofix.shard_piece (code_set_id, generation, piece, shard_id, lo, hi, state)"
            " SELECT 7, nextval('geofix.shard_generation'), 0, shard_id, 1, 9, 'gone' FROM geofix.shard"
        )
    file = tmp_path / "no_foreign_tables.dump"
    backup_module.backup(db.url(), file, get_settings())
    assert restore_and_migrate(empty_db.url(), file, get_settings())["left"] == []
    with empty_db.connect() as conn:
        assert conn.execute("SELECT count(*) FROM geofix.shard").fetchone() == (0,)
        assert conn.execute("SELECT count(*) FROM geofix.shard_piece").fetchone() == (0,)
        assert conn.execute("SELECT nextval('geofix.shard_generation')").fetchone() == (2,)
