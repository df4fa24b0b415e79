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
from geofix.database.queries import dashboard, dashboard_accuracy
from geofix.database.queries.dashboard import Bounds
from geofix.database.queries.dashboard_accuracy import Focus
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


def kept(most: int, spinner: str | bool = False) -> Callable[[Any], Any]:
    """Streamlit's data cache for so many answers, each as long as nothing but jobs is written."""

    def decorate(function: Any) -> Any:
        def asked(held: str, *args: Any) -> Any:  # Streamlit leaves names with an underscore out of the key
            return function(*args)

        asked.__module__, asked.__qualname__ = function.__module__, function.__qualname__
        cache = st.cache_data(ttl=KEEP_S, max_entries=most, show_spinner=spinner)(asked)

        @functools.wraps(function)
        def answered(*args: Any) -> Any:
            return cache(state(), *args)

        return answered

    return decorate


cached = kept(200)


def forget() -> None:
    """Empty every cache, for the retry and refresh buttons."""
    st.cache_data.clear()


@cached
def counts() -> dict[str, int]:
    """How much of everything there is."""
    with connect("reader") as conn:
        return dashboard.counts(conn)


@kept(200, "Counting …")
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
            dashboard.coverage,
            dashboard.photo_cells,
            dashboard.trace,
            dashboard.reject_counts,
            dashboard.rejects,
            dashboard.snapshots,
            dashboard.splits,
        )
    }
    with connect("reader") as conn:
        return functions[name](conn, *args)


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


@cached
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


@cached
def evaluations() -> pd.DataFrame:
    """All evaluations with their metrics."""
    with connect("reader") as conn:
        return dashboard_accuracy.evaluations(conn)


@cached
def evaluation_bounds(name: str, created: str, focus: Focus) -> Bounds | None:
    """The box around the photos of an evaluation; `created` makes a replaced evaluation a new key."""
    with connect("reader") as conn:
        return dashboard_accuracy.bounds(conn, name, focus)


@cached
def overall(name: str, created: str, threshold_m: float, focus: Focus) -> dict[str, float]:
    """Accuracy of an evaluation in a focus."""
    with connect("reader") as conn:
        return dashboard_accuracy.overall(conn, name, threshold_m, focus)


@cached
def by_place(
    name: str, created: str, level: str | int, threshold_m: float, focus: Focus, tolerance: float
) -> pd.DataFrame:
    """Accuracy per region or cell."""
    with connect("reader") as conn:
        return dashboard_accuracy.by_place(conn, name, level, threshold_m, focus, tolerance=tolerance)


@cached
def compare_places(
    name: str, other: str, created: str, level: str | int, threshold_m: float, focus: Focus, tolerance: float
) -> pd.DataFrame:
    """Difference of two evaluations per region or cell."""
    with connect("reader") as conn:
        return dashboard_accuracy.compare_places(
            conn, name, other, level, threshold_m, focus, tolerance=tolerance
        )


@cached
def quantiles(name: str, created: str, focus: Focus) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of photos, 201 shares from 0 to 1, and the error in metres at each."""
    shares = np.linspace(0, 1, 201)
    with connect("reader") as conn:
        n, errors = dashboard_accuracy.quantiles(conn, name, shares.tolist(), focus)
    return n, shares, errors


@cached
def recall(
    name: str, created: str, ks: tuple[int, ...], radii: tuple[float, ...], focus: Focus
) -> pd.DataFrame:
    """Recall at K within radii."""
    with connect("reader") as conn:
        return dashboard_accuracy.recall(conn, name, ks, radii, focus)


@cached
def error_lines(name: str, created: str, focus: Focus) -> pd.DataFrame:
    """Truth and answer of photos."""
    with connect("reader") as conn:
        return dashboard_accuracy.error_lines(conn, name, focus)


@cached
def worst(name: str, created: str, focus: Focus, limit: int, offset: int) -> pd.DataFrame:
    """Photos with the largest errors."""
    with connect("reader") as conn:
        return dashboard_accuracy.worst(conn, name, focus, limit=limit, offset=offset)


@cached
def one_photo(name: str, created: str, photo_id: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One photo of an evaluation as `worst` has it, and its first answers."""
    with connect("reader") as conn:
        found = dashboard_accuracy.worst(conn, name, Focus(), limit=1, offset=0, photo_id=photo_id)
        return found, dashboard_accuracy.answers(conn, name, photo_id)


@cached
def by_bin(
    name: str, created: str, threshold_m: float, focus: Focus, by: str, edges: tuple[float, ...]
) -> pd.DataFrame:
    """Accuracy by distance to training photos, or by their number in the cell."""
    with connect("reader") as conn:
        return dashboard_accuracy.by_bin(conn, name, threshold_m, focus, by=by, edges=edges)


@kept(50, "Comparing photo by photo …")
def difference(name: str, other: str, created: str, threshold_m: float) -> dict[str, Any]:
    """Two evaluations on their common photos, as `geofix evaluate compare` prints it."""
    from geofix.evaluation.service import compare_evaluations

    with connect("reader") as conn:
        return compare_evaluations(conn, name, other, threshold_m=threshold_m)


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
