"""What is read while the page counts: waited for where its answer is, left alone where nobody wants it."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pandas as pd
import pytest

from geofix_dashboard.meanwhile import meanwhile
from geofix_dashboard.views import accuracy_errors


@pytest.mark.parametrize("wait", [True, False])
def test_the_block_waits_for_what_has_begun_only_where_it_is_to(wait):
    begun, free = threading.Event(), threading.Event()

    def read() -> bool:
        begun.set()
        return free.wait(30)

    with meanwhile(1, wait=wait) as pool:
        first, second = pool.submit(read), pool.submit(read)
        assert begun.wait(30)
        if wait:
            threading.Timer(0.1, free.set).start()
    assert first.done() is wait and second.cancelled()
    free.set()
    assert first.result(30)


def test_leaving_errors_waits_for_no_read_and_begins_none(monkeypatch):
    free, begun, ended = threading.Event(), threading.Semaphore(0), []
    shared = []

    def reading(*_):
        begun.release()
        ended.append(free.wait(5))
        return {"n": 0}

    def overall(name, *_):
        shared.append(name)
        return reading()

    same = dict.fromkeys(("localizer", "model", "code_set", "snapshot_id", "level"), "x")
    names = ["a", "b", "c"]
    rows = pd.DataFrame([{**same, "evaluation": x, "split": x, "created_at": "2026-11-21"} for x in names])
    for name, function in (("recall", reading), ("error_lines", reading), ("overall", overall)):
        monkeypatch.setattr(accuracy_errors.accuracy_data, name, function)
    monkeypatch.setattr(accuracy_errors.accuracy_data, "evaluations", lambda: rows)
    monkeypatch.setattr(accuracy_errors, "_draw", lambda _: [begun.acquire(timeout=30) for _ in range(2)])
    before = set(threading.enumerate())
    choice = SimpleNamespace(name="a", created="", row={"metrics": {}}, threshold_m=200.0, focus=None)
    accuracy_errors.render(choice)
    assert ended == [] and shared == ["a"]
    free.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
    assert ended == [True, True] and shared == ["a"]
