"""The SQL page's history: kept per person, private, bounded, and gone when asked."""

from __future__ import annotations

import stat
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import streamlit as st
from page_tests import page, text_of, well
from streamlit.testing.v1 import AppTest

from geofix.settings import get_settings
from geofix_dashboard import history
from geofix_dashboard.history import Entry

pytestmark = pytest.mark.usefixtures("clean_environment")


def entry(statement: str, at: float | None = None) -> Entry:
    return Entry(statement, 3, 0.25, time.time() if at is None else at)


def statements(person: str) -> list[str]:
    return [item.statement for item in history.read(person)]


def test_each_person_has_statements_of_their_own():
    history.remember("anna@example.org", entry("SELECT 1"))
    history.remember("anna@example.org", entry("SELECT 'ü'\n, 2"))
    history.remember("anna@example.org", entry("SELECT 1"))
    history.remember("../../etc", entry("SELECT 3"))
    assert statements("anna@example.org") == ["SELECT 1", "SELECT 'ü'\n, 2"]
    assert statements("../../etc") == ["SELECT 3"] and statements("bob@example.org") == []
    folder = get_settings().home_dir / "dashboard" / "history"
    files = [path for path in get_settings().home_dir.rglob("*") if path.is_file()]
    assert files and all(path.parent == folder for path in files)
    assert not any("anna" in path.name for path in files)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*.jsonl")} == {0o600}
    history.forget("anna@example.org")
    history.forget("nobody@example.org")
    assert statements("anna@example.org") == [] and statements("../../etc") == ["SELECT 3"]


def test_it_is_bounded_in_number_length_and_age(clean_environment):
    for number in range(history.KEPT + 5):
        history.remember("a", entry(f"SELECT {number}"))
    assert len(statements("a")) == history.KEPT and statements("a")[0] == f"SELECT {history.KEPT + 4}"
    history.remember("a", entry("SELECT '" + "x" * history.LONGEST + "'"))
    assert statements("a")[0] == f"SELECT {history.KEPT + 4}"
    history.remember("b", entry("SELECT 'old'", at=time.time() - 200 * 24 * 3600))
    assert statements("b") == []
    clean_environment.setenv("GEOFIX_KEEP_QUERIES_DAYS", "0")
    get_settings.cache_clear()
    assert statements("b") == ["SELECT 'old'"]


def test_lines_that_are_none_are_left_out():
    history.remember("a", entry("SELECT 1"))
    (path,) = (get_settings().home_dir / "dashboard" / "history").glob("*.jsonl")
    path.write_text('{"statement": 1}\nnot json\n[]\n' + path.read_text() + '{"statement": "cut o')
    assert statements("a") == ["SELECT 1"]


def test_two_sessions_at_once_lose_nothing():
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: history.remember("a", entry(f"SELECT {n}")), range(40)))
    assert sorted(statements("a")) == sorted(f"SELECT {n}" for n in range(40))


def run(test: AppTest, statement: str) -> AppTest:
    test.text_area(key="sql_text").set_value(statement)
    return well(test.button[0].click().run())


def codes(test: AppTest) -> list[str]:
    return [item.value for item in test.code]


def test_the_next_session_of_this_machine_finds_it_and_can_forget_it(filled):
    run(well(page("sql")), "SELECT 41 + 1 AS answer")
    test = well(page("sql"))
    assert "SELECT 41 + 1 AS answer" in codes(test) and "1 rows in" in text_of(test)
    well(test.button(key="history-0").click().run())
    assert test.text_area(key="sql_text").value == "SELECT 41 + 1 AS answer"
    well(test.button(key="history_forget").click().run())
    assert codes(test) == [] and codes(well(page("sql"))) == []


def test_strangers_share_no_history(filled):
    st.config.set_option("server.address", "0.0.0.0")
    test = run(well(page("sql")), "SELECT 'mine' AS secret")
    assert "SELECT 'mine' AS secret" in codes(test) and "they go with it" in text_of(test)
    assert codes(well(page("sql"))) == []
    assert not (get_settings().home_dir / "dashboard").exists()
    well(test.button(key="history_forget").click().run())
    assert codes(test) == []


def test_an_answer_is_shown_although_it_cannot_be_remembered(filled):
    home = get_settings().home_dir
    home.mkdir(parents=True, exist_ok=True)
    (home / "dashboard").write_text("in the way")
    assert "1 rows" in text_of(run(well(page("sql")), "SELECT 1 AS one"))
