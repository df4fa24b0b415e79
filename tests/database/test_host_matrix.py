"""One matrix of a code set per host: written once, mapped by all, removed with the set."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from geofix.codes import host_matrix as module
from geofix.codes.build import CellVectors, publish
from geofix.codes.host_matrix import host_matrix
from geofix.codes.matrix import CellMatrix
from geofix.database.engine import connect
from geofix.database.queries import codes as code_queries
from geofix.database.queries.models import find_model
from geofix.settings import get_settings
from helpers import add_model, random_codes

D, N = 8, 3000


def stored(name: str, seed: int):
    ids, vectors = random_codes(N, D, level=13, seed=seed)
    flags = np.ones(N, bool)
    with connect() as conn:
        cells = CellVectors(ids, vectors, np.zeros(N, np.float32), flags, flags)
        publish(conn, name, find_model(conn, "m"), "cellmean", 13, cells, snapshot_id=None)
        return code_queries.find_code_set(conn, name)


@pytest.fixture
def code_set(db, monkeypatch):
    monkeypatch.setattr(module, "SMALL_BYTES", 0)
    monkeypatch.setattr(module, "_PAGE_BYTES", 10_000)  # several pages
    with connect() as conn:
        add_model(conn, "m", D)
    return stored("set", 1)


def folder() -> Path:
    return get_settings().home_dir / "matrices"


def written() -> list[Path]:
    return sorted(path for path in folder().iterdir() if path.is_dir())


def test_every_row_is_in_the_file_and_the_second_asks_for_the_same_one(code_set):
    with connect("reader") as conn:
        wanted = CellMatrix.from_rows(*code_queries.read_codes(conn, code_set))
        one, two = host_matrix(conn, code_set), host_matrix(conn, code_set)
    for found in (one, two):
        assert np.array_equal(found.ids, wanted.ids) and np.array_equal(found.codes, wanted.codes)
        assert isinstance(found.codes, np.memmap) and not found.codes.flags.writeable
    (only,) = written()
    assert one.codes.filename == two.codes.filename == only / "codes.npy"


def _ask(name: str, results) -> None:
    with connect("reader") as conn:
        found = host_matrix(conn, code_queries.find_code_set(conn, name))
        results.put((os.stat(found.codes.filename).st_ino, int(found.ids.sum())))


def test_processes_that_ask_at_once_share_what_one_of_them_wrote(code_set):
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    from geofix.database import engine

    engine.dispose()
    asking = [fork.Process(target=_ask, args=("set", results)) for _ in range(4)]
    for process in asking:
        process.start()
    answers = {results.get(timeout=60) for _ in asking}
    for process in asking:
        process.join(30)
    assert len(answers) == 1 and len(written()) == 1


def test_a_damaged_file_is_written_again(code_set):
    with connect() as conn:
        first = host_matrix(conn, code_set)
        wanted = np.array(first.codes)
        (path,) = written()
        (path / "codes.npy").write_bytes(b"nothing")
        again = host_matrix(conn, code_set)
    assert np.array_equal(again.codes, wanted)


def test_files_of_sets_that_are_gone_are_removed_with_the_next(code_set):
    with connect() as conn:
        held = host_matrix(conn, code_set)
        before = written()
        code_queries.drop_code_set(conn, code_set)
    other = stored("other", 2)
    with connect() as conn:
        host_matrix(conn, other)
    (path,) = written()
    assert path not in before and not list(folder().glob(f".{before[0].name}*"))
    assert np.isfinite(np.array(held.codes)).all()  # who maps it still reads it


def test_codes_replaced_while_they_are_read_leave_no_file_of_both(code_set, monkeypatch):
    original = code_queries.code_pages

    def pages(conn, found, rows):
        for number, page in enumerate(original(conn, found, rows)):
            if number == 1:
                with connect() as other:
                    other.execute(
                        "UPDATE cell_code SET code = (SELECT code FROM cell_code ORDER BY s2_id LIMIT 1)"
                    )
                    other.execute("UPDATE code_set SET ready_at = clock_timestamp()")
            yield page

    monkeypatch.setattr(code_queries, "code_pages", pages)
    with connect("reader") as conn:
        found = host_matrix(conn, code_set)
        assert (found.codes == found.codes[0]).all() and not isinstance(found.codes, np.memmap)
        assert written() == []
        monkeypatch.setattr(code_queries, "code_pages", original)
        assert isinstance(host_matrix(conn, code_set).codes, np.memmap)


def test_without_space_each_process_holds_its_own(code_set, monkeypatch):
    monkeypatch.setenv("GEOFIX_MIN_FREE_BYTES", str(1 << 60))
    get_settings.cache_clear()
    with connect("reader") as conn:
        found = host_matrix(conn, code_set)
    assert len(found) == N and not isinstance(found.codes, np.memmap) and written() == []


def test_a_small_set_leaves_no_file(code_set, monkeypatch):
    monkeypatch.setattr(module, "SMALL_BYTES", 1 << 30)
    with connect("reader") as conn:
        assert len(host_matrix(conn, code_set)) == N
    assert not folder().exists()
