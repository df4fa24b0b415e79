"""Rows of a region replaced in their leaf, or in a successor: searches, faults, the index, references."""

# ruff: noqa: F811 (fixtures of another module)
from __future__ import annotations

import numpy as np
import pytest
import shapely
from pgvector import HalfVector
from psycopg.types.json import Jsonb
from small_world import DIMENSION, TOWNS

pytest.importorskip("timm", reason="needs the extra `train`")

from refreshed import NEW, around, build, codes, conn, flags, in_place, joint, new_photos  # noqa: F401

from geofix.codes import refresh
from geofix.codes.index import build_index
from geofix.codes.refresh import refresh_region
from geofix.database.engine import connect
from geofix.database.queries import codes as code_queries
from geofix.database.queries import evaluations
from geofix.database.queries import refresh as queries


def counted(conn, found):
    """What the row and the blocks of a code set say, and what its codes say."""
    key = found.code_set_id
    said = (found.cells, found.with_prototype, found.with_aerial)
    true = conn.execute(
        "SELECT count(*), count(*) FILTER (WHERE has_prototype), count(*) FILTER (WHERE has_aerial)"
        " FROM cell_code WHERE code_set_id = %s",
        (key,),
    ).fetchone()
    blocks = conn.execute(
        "SELECT s2_id, cells FROM cell_block WHERE code_set_id = %s ORDER BY 1", (key,)
    ).fetchall()
    of_codes = conn.execute(
        "SELECT s2_parent(s2_id, 9), count(*) FROM cell_code WHERE code_set_id = %s GROUP BY 1 ORDER BY 1",
        (key,),
    ).fetchall()
    return said, true, blocks, of_codes


def test_searches_go_on_and_a_fault_leaves_everything_as_it_was(
    conn, joint, new_photos, in_place, monkeypatch
):
    build(conn)
    found, ids, _ = codes(conn)
    query = HalfVector(np.ones(DIMENSION) / DIMENSION**0.5)
    ask = "SELECT count(*), min(cells_in_scope) FROM search_cells(%s, 1000, 'live')"
    seen = []
    write = refresh._replaced if in_place else refresh._succeeded

    def looked_at(*arguments):
        written = write(*arguments)
        with connect("reader") as other:
            seen.append(other.execute(ask, (query,)).fetchone())
        if len(seen) == 1:
            raise RuntimeError("power cut")
        return written

    monkeypatch.setattr(refresh, write.__name__, looked_at)
    with pytest.raises(RuntimeError):
        refresh_region(conn, "live", around(*NEW))
    conn.rollback()
    assert codes(conn)[0] == found
    made = refresh_region(conn, "live", around(*NEW))
    assert made["in_place"] == in_place
    assert seen == [(len(ids), len(ids))] * 2  # the old codes, whole, until the commit
    with connect("reader") as other:
        assert other.execute(ask, (query,)).fetchone()[0] == made["cells"] > len(ids)
    said, true, blocks, of_codes = counted(conn, code_queries.find_code_set(conn, "live"))
    assert said == true and blocks == of_codes


def test_both_ways_write_the_same_codes(conn, joint, new_photos, monkeypatch):
    found = {}
    for name, share in (("here", 10.0), ("anew", -1.0)):
        monkeypatch.setattr(refresh, "MOST_SHARE", share)
        build(conn, name, recipe="cellmean")
        for given, what in ((None, "added"), (["streets"], "removed"), (None, "added")):
            made = refresh_region(conn, name, around(*NEW), datasets=given)
            assert made[what] > 3 and made["in_place"] == (share > 0)
        after, ids, stored = codes(conn, name)
        found[name] = (ids.tolist(), stored.tobytes(), flags(conn, after, ids), counted(conn, after))
    assert found["here"] == found["anew"]


def test_an_evaluation_keeps_no_reference_to_codes_that_it_was_not_made_with(
    conn, joint, new_photos, in_place
):
    build(conn)
    found = code_queries.find_code_set(conn, "live")
    before = code_queries.ready_stamp(conn, found)
    conn.execute(
        "INSERT INTO evaluation"
        " (name, localizer, code_set_id, split, search_method, comparison, missing_policy, n,"
        " software_version) VALUES ('of old codes', 'cellcode', %s, 'val', 'exact', '<=', 'wrong', 0, '0')",
        (found.code_set_id,),
    )
    conn.commit()
    refresh_region(conn, "live", around(*NEW))
    left = "SELECT code_set_id FROM evaluation WHERE name = 'of old codes'"
    assert conn.execute(left).fetchone() == (None,)
    assert before not in code_queries.ready_stamps(conn)  # nobody takes what they hold for the new codes
    conn.execute("DELETE FROM evaluation WHERE name = 'of old codes'")
    conn.commit()


def test_an_evaluation_that_ends_after_a_refresh_does_not_refer_to_its_codes(
    conn, joint, new_photos, in_place
):
    build(conn)
    found, stamp = code_queries.find_with_stamp(conn, "live")
    insert = (
        "INSERT INTO evaluation (name, localizer, code_set_id, split, search_method, comparison,"
        " missing_policy, n, software_version, config)"
        " VALUES (%s, 'cellcode', %s, 'val', 'exact', '<=', 'wrong', 0, '0', %s)"
        " RETURNING evaluation_id"
    )
    refers = "SELECT code_set_id FROM evaluation WHERE evaluation_id = %s"
    with connect() as other:  # begun before, committed after
        first, second = (
            other.execute(insert, (name, found.code_set_id, Jsonb({"codes": stamp}))).fetchone()[0]
            for name in ("before", "beside")
        )
        evaluations.let_go_of_replaced_codes(other, first)
        assert other.execute(refers, (first,)).fetchone() == (found.code_set_id,)
        other.rollback()
        first, second = (
            other.execute(insert, (name, found.code_set_id, Jsonb({"codes": stamp}))).fetchone()[0]
            for name in ("before", "beside")
        )
        if in_place:  # a successor waits for the evaluation before it drops the old set
            refresh_region(conn, "live", around(*NEW))
        else:
            queries.lock_code_set(conn, found)  # one is at work at this moment
        evaluations.let_go_of_replaced_codes(other, second)
        assert other.execute(refers, (second,)).fetchone() == (None,)
        other.rollback()


def test_a_refresh_that_waited_goes_on_from_what_the_other_left(conn, joint, new_photos, monkeypatch):
    monkeypatch.setattr(refresh, "MOST_SHARE", 10.0)
    build(conn)
    original, first = refresh.alone, []

    def waits(*arguments):
        if not first:  # between looking the set up and having it for itself
            first.append(None)
            with connect() as other:
                refresh_region(other, "live", around(*NEW))
        return original(*arguments)

    monkeypatch.setattr(refresh, "alone", waits)
    refresh_region(conn, "live", around(*NEW), datasets=["streets"])
    notes = code_queries.find_code_set(conn, "live").config["refreshed"]
    assert len(notes) == 2 and notes[0]["added"] == notes[1]["removed"] > 3


def graph(conn):
    key = code_queries.find_code_set(conn, "live").code_set_id
    return conn.execute(
        "SELECT pg_relation_filenode(%s::regclass)", (f"geofix_leaf.cell_code_{key}_hnsw",)
    ).fetchone()


@pytest.fixture
def other_photos(conn):
    """Embeddings of photos that a test may change; they are what they were after it."""
    conn.execute("CREATE TEMP TABLE kept_embedding AS SELECT * FROM photo_embedding")
    yield
    conn.rollback()
    conn.execute(
        "UPDATE photo_embedding e SET embedding = k.embedding FROM kept_embedding k"
        " WHERE k.model_id = e.model_id AND k.photo_id = e.photo_id AND k.embedding <> e.embedding"
    )
    conn.execute("DROP TABLE kept_embedding")
    conn.commit()


def turned(conn, found, by):
    """Other codes for all cells of TOWNS[0], as if their photos had changed."""
    west, south, east, north = shapely.from_wkb(around(*TOWNS[0])).bounds
    conn.execute(
        "UPDATE photo_embedding e SET embedding = l2_normalize(e.embedding + %s::halfvec)"
        " FROM photo_record p WHERE p.photo_id = e.photo_id AND e.model_id = %s"
        " AND p.geom && ST_MakeEnvelope(%s, %s, %s, %s, 4326)",
        (HalfVector(by), found.model_id, west, south, east, north),
    )


def test_the_index_takes_rows_in_until_too_many_of_it_are_dead(conn, joint, other_photos, monkeypatch):
    monkeypatch.setattr(refresh, "MOST_SHARE", 10.0)
    build(conn, recipe="cellmean")
    build_index(conn, code_queries.find_code_set(conn, "live"), m=8, ef_construction=32)
    conn.commit()
    first, ids, _ = codes(conn)
    rng = np.random.default_rng(3)
    dead, ways, region = 0, [], around(*TOWNS[0])
    built = graph(conn)
    for turn in range(refresh.MOST_OVERLAPS + 2):
        turned(conn, first, rng.normal(size=first.dimension - 2) * 0.5)
        made = refresh_region(conn, "live", region)
        ways.append(made["in_place"])
        assert made["changed"] > 3 and made["recall"] > 0.9
        found, now, stored = codes(conn)
        dead = dead + made["changed"] if made["in_place"] else 0
        assert found.index_parameters.get("dead_entries", 0) == dead, turn
        assert (graph(conn) == built) == (turn < refresh.MOST_OVERLAPS)
        assert (now == ids).all() and found.index_parameters["m"] == 8
        # Many cells of a worn region come from the index, too.
        assert code_queries.search(conn, found, HalfVector(stored[0]), 20, exact_below=0)[1] == "hnsw"
        for row in range(0, len(ids), 7):  # every code is found by itself, by the index
            best, method = code_queries.search(conn, found, HalfVector(stored[row]), 6, exact_below=0)
            assert method == "hnsw" and ids[row] in best
    # Overlapping refreshes make a successor; in a fresh set the next one stays in place again.
    assert ways == [True] * refresh.MOST_OVERLAPS + [False, True]
    conn.rollback()


def test_what_a_fault_left_in_the_index_counts_as_dead(conn, joint, other_photos, monkeypatch):
    monkeypatch.setattr(refresh, "MOST_SHARE", 10.0)
    build(conn, recipe="cellmean")
    build_index(conn, code_queries.find_code_set(conn, "live"), m=8, ef_construction=32)
    conn.commit()
    found = code_queries.find_code_set(conn, "live")
    turned(conn, found, np.full(found.dimension - 2, 0.5))
    conn.commit()
    original = refresh.recall_with_photos

    def fails(*arguments):
        raise RuntimeError("power cut")

    monkeypatch.setattr(refresh, "recall_with_photos", fails)
    with pytest.raises(RuntimeError):
        refresh_region(conn, "live", around(*TOWNS[0]))
    conn.rollback()
    monkeypatch.setattr(refresh, "recall_with_photos", original)
    conn.execute("SELECT pg_stat_force_next_flush()")
    conn.commit()
    made = refresh_region(conn, "live", around(*TOWNS[0]))
    assert made["index"]["dead_entries"] == 2 * made["changed"] > 0
    kept = code_queries.find_code_set(conn, "live").index_parameters
    assert kept["dead_entries"] == 2 * made["changed"]
    # A new index has none of them; the table keeps the rows, which no later refresh counts again.
    conn.execute("SELECT pg_stat_force_next_flush()")
    conn.commit()
    build_index(conn, code_queries.find_code_set(conn, "live"), m=8, ef_construction=32)
    conn.commit()
    fresh = code_queries.find_code_set(conn, "live")
    assert fresh.index_parameters["dead_before"] == 2 * made["changed"]
    assert queries.dead_entries(conn, fresh) == 0
