"""Files of what maps draw: their addresses, and how long they are there, with Streamlit's own manager."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import Any

import pydeck as pdk
import pytest
from streamlit.runtime.media_file_manager import MediaFileManager
from streamlit.runtime.memory_media_file_storage import MemoryMediaFileStorage
from streamlit.runtime.scriptrunner import add_script_run_ctx

from geofix_dashboard import beside


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Server:
    """A manager of files with sessions that draw, run again and end, as Streamlit's do."""

    def __init__(self) -> None:
        self.files = MediaFileManager(MemoryMediaFileStorage("/media"))

    def draw(self, session: str, *documents: bytes) -> list[str]:
        """One run of a page: forget what was drawn, draw, remove what nobody shows."""
        self.begin(session)
        urls = self.put(session, *documents)
        self.files.remove_orphaned_files()
        return urls

    def begin(self, session: str) -> None:
        self.files.clear_session_refs(session)

    def put(self, session: str, *documents: bytes) -> list[str]:
        urls: list[str] = []
        thread = threading.Thread(
            target=lambda: urls.extend(beside.address(item, f"map/{i}") for i, item in enumerate(documents))
        )
        visitor: Any = SimpleNamespace(session_id=session)
        add_script_run_ctx(thread, visitor)
        thread.start()
        thread.join()
        return urls

    def read(self, url: str) -> bytes | None:
        found = self.files.read_file(url.removeprefix("media/").removesuffix(".json"))
        return None if found is None else found.content

    def held(self) -> tuple[int, int]:
        """Files, and sessions that refer to one."""
        return len(self.files._file_metadata), len(self.files._files_by_session_and_coord)


@pytest.fixture
def server(monkeypatch) -> Server:
    made = Server()
    monkeypatch.setattr(beside.runtime, "get_instance", lambda: SimpleNamespace(media_file_mgr=made.files))
    return made


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """The time of what is held, which tests let pass."""
    made = Clock()
    monkeypatch.setattr(beside, "_recent", beside.Recent(clock=made))
    return made


def test_large_data_is_a_file_named_by_its_whole_content(server, clock):
    layers = [pdk.Layer("ScatterplotLayer", [[i, value] for i in range(200_000)], id="a") for value in (1, 2)]
    middle = [i if i != 70_000 else -1 for i in range(200_000)]
    layers.append(pdk.Layer("ScatterplotLayer", [[i, 1] for i in middle], id="a"))
    assert beside.put("map", pdk.Layer("ScatterplotLayer", [[1, 2]], id="b")).data == [[1, 2]]
    addresses = [beside.put("map", layer).data for layer in layers]
    assert len(set(addresses)) == 3 and addresses[0].startswith("media/")
    assert json.loads(server.read(addresses[2]))[70_000] == [-1, 1]


def test_a_file_is_there_until_the_browser_has_asked(server, clock):
    """Two visitors; the one's page runs again before its browser asked, the other's ends in between."""
    (first,) = server.draw("one", b"first")
    server.begin("one")
    (other,) = server.draw("two", b"other")
    assert server.read(first) == b"first" and server.read(other) == b"other"
    (second,) = server.put("one", b"second")
    server.files.remove_orphaned_files()
    clock.now += beside.KEPT_S - 1
    server.draw("two")
    assert [server.read(url) for url in (first, other, second)] == [b"first", b"other", b"second"]


def test_a_file_that_nobody_shows_is_gone_after_the_time(server, clock):
    (first,) = server.draw("one", b"first")
    (second,) = server.draw("one", b"second")
    clock.now += beside.KEPT_S
    beside._recent.sweep()
    assert server.read(first) is None and server.read(second) == b"second"  # the page still shows it
    assert server.held() == (1, 1)
    server.draw("one")
    assert server.read(second) is None and server.held() == (0, 0)


def test_a_file_goes_in_time_though_nobody_draws_any_more(server):
    before = set(threading.enumerate())
    beside.Recent(seconds=0.0).hold(server.files, b"first", "name")
    timers = set(threading.enumerate()) - before
    assert all(timer.daemon for timer in timers)
    for timer in timers:
        timer.join(30)
    assert server.held() == (0, 0)


def test_drawn_again_a_file_stays_longer(server, clock):
    (url,) = server.draw("one", b"first")
    clock.now += beside.KEPT_S - 1
    assert server.draw("one", b"first") == [url]
    clock.now += beside.KEPT_S - 1
    server.draw("one")
    beside._recent.sweep()
    assert server.read(url) == b"first" and server.held() == (1, 1)


@pytest.mark.parametrize("bounds", [{"most": 2}, {"most_bytes": 11}])
def test_only_so_much_is_held(server, clock, monkeypatch, bounds):
    monkeypatch.setattr(beside, "_recent", beside.Recent(clock=clock, **bounds))
    urls = server.draw("one", b"11111", b"22222", b"33333")
    server.draw("one")
    assert [server.read(url) for url in urls] == [None, b"22222", b"33333"] and server.held() == (2, 2)
    (large,) = server.draw("one", b"4" * 100)
    server.draw("one")
    kept = server.held()
    assert server.read(large) is not None and kept == ((1, 1) if "most_bytes" in bounds else (2, 2))


def test_an_address_is_the_same_in_this_process_and_not_known_from_the_content(server, clock, monkeypatch):
    (url,) = server.draw("one", b"known")
    assert server.draw("two", b"known") == [url]
    monkeypatch.setattr(beside, "_SALT", b"another process")
    assert server.draw("two", b"known") != [url]
