"""What pages read: query functions as the reader role, cached by their arguments until something is written.

The server is asked once a minute whether anything was. A cached frame is shared by all users and keyed by
that answer and the arguments alone, so nothing here depends on who asks. The connection pool is the one of
`geofix.database.engine` for this process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from geofix.database.engine import connect
from geofix.database.queries import dashboard, dashboard_coverage
from geofix.database.queries.dashboard import Bounds
from geofix.database.queries.workers import list_workers
from geofix.errors import GeofixError

TTL_S = 60
KEEP_S = 3600
_OUTLINES_AROUND = 2.0  # outlines are fetched this many map widths beyond the map


@st.cache_data(ttl=TTL_S, show_spinner=False)
def state() -> str:
    """What the database holds, jobs apart, as a text that changes with it; looked at once a minute."""
    with connect("reader") as conn:
        return dashboard.state(conn)


def kept(most: int, spinner: str | bool = False, *, shared: bool = False) -> Callable[[Any], Any]:
    """Streamlit's data cache for so many answers, each as long as nothing but jobs is written.

    A shared answer is the same object for everyone, not a copy: for large ones that nobody can change.
    """
    store = st.cache_resource if shared else st.cache_data

    def decorate(function: Any) -> Any:
        def asked(held: str, *args: Any) -> Any:  # Streamlit leaves names with an underscore out of the key
            return function(*args)

        asked.__module__, asked.__qualname__ = function.__module__, function.__qualname__
        cache = store(ttl=KEEP_S, max_entries=most, show_spinner=spinner)(asked)

        @functools.wraps(function)
        def answered(*args: Any) -> Any:
            return cache(state(), *args)

        return answered

    return decorate


cached = kept(200)


def forget() -> None:
    """Empty every cache, for the retry and refresh buttons."""
    st.cache_data.clear()
    st.cache_resource.clear()


@cached
def counts() -> dict[str, int]:
    """How much of everything there is."""
    with connect("reader") as conn:
        return dashboard.counts(conn)


@kept(60, "Counting …")
def table(name: str, *args: Any) -> pd.DataFrame:
    """A table of `queries.dashboard` by the name of its function."""
    functions = {
        function.__name__: function
        for function in (
            dashboard.datasets,
            dashboard.models,
            dashboard.code_sets,
            dashboard.region_levels,
            dashboard.regions,
            dashboard.trace,
            dashboard.reject_counts,
            dashboard.rejects,
            dashboard.snapshots,
            dashboard.splits,
        )
    }
    with connect("reader") as conn:
        return functions[name](conn, *args)


@kept(30, "Counting …", shared=True)
def coverage(level: int, region_level: str | None, region_code: str | None, cell: str | None) -> pd.DataFrame:
    """Photos, aerial tiles and kinds of code per cell; nobody may change it."""
    with connect("reader") as conn:
        return dashboard_coverage.coverage(conn, level, region_level, region_code, cell)


@kept(10, "Counting …", shared=True)
def photo_cells(level: int) -> pd.DataFrame:
    """Photos per cell; nobody may change it."""
    with connect("reader") as conn:
        return dashboard_coverage.photo_cells(conn, level)


@st.cache_data(ttl=TTL_S, show_spinner=False)
def job_states() -> pd.DataFrame:
    """Jobs counted by state."""
    with connect("reader") as conn:
        return dashboard.job_states(conn)


@cached
def photo_bounds() -> Bounds | None:
    """The box around all photos."""
    with connect("reader") as conn:
        return dashboard.photo_bounds(conn)


@kept(40)
def outlines(level: str, bounds: Bounds) -> pd.DataFrame:
    """Outlines of a level of regions around a box."""
    west, south, east, north = bounds
    dx = max(east - west, 0.01) * _OUTLINES_AROUND
    dy = max(north - south, 0.01) * _OUTLINES_AROUND
    box = (max(-180.0, west - dx), max(-90.0, south - dy), min(180.0, east + dx), min(90.0, north + dy))
    with connect("reader") as conn:
        return dashboard.outlines(conn, level, box)


@st.cache_data(ttl=TTL_S, show_spinner=False)
def workers() -> list[dict[str, Any]]:
    """Worker processes by their heartbeat."""
    with connect("reader") as conn:
        return list_workers(conn)


@st.cache_data(ttl=15, show_spinner=False)
def services() -> list[dict[str, str]]:
    """State of database, broker and workers as rows (service, state, detail)."""
    from geofix.database import cluster
    from geofix.database.versions import check_versions

    with connect("reader") as conn:
        checks = check_versions(conn)
    good = all(check.ok for check in checks)
    detail = ", ".join(f"{check.name} {check.found}" for check in checks)
    rows = [{"service": "Database", "state": "running" if good else "not ready", "detail": detail}]
    try:
        broker = cluster.status().broker
        parts = [f"Redis {broker.version}" if broker.version else "", broker.message, broker.managed]
        note = ", ".join(part for part in parts if part)
        rows.append({"service": "Broker", "state": str(broker.state), "detail": note})
    except GeofixError as error:
        rows.append({"service": "Broker", "state": "unknown", "detail": str(error)})
    known = workers()
    alive = sum(bool(worker["alive"]) for worker in known)
    queues = sorted({queue for worker in known if worker["alive"] for queue in worker["queues"]})
    rows.append(
        {
            "service": "Workers",
            "state": f"{alive} alive" if alive else "none",
            "detail": f"queues {', '.join(queues)}" if queues else "start one with `geofix worker`",
        }
    )
    return rows


@st.cache_data(ttl=600, max_entries=64, show_spinner=False)
def picture(uri: str | None, max_side: int = 480) -> np.ndarray | str:
    """Upright pixels (h, w, 3) of a photo on this machine's disk, or in words why there are none."""
    from pathlib import Path

    from geofix.imagery.photo import BadPhoto, decode_photo

    if uri is None:
        return "This photo was loaded as a position only."
    if "://" in uri and not uri.startswith("file://"):
        return "The pixels are in remote storage, which this page does not read."
    try:
        return decode_photo(Path(uri.removeprefix("file://")), max_side=max_side)
    except BadPhoto as error:
        return {"missing_file": "The file is no longer there."}.get(error.reason, str(error))
