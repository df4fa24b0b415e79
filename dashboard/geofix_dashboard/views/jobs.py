"""Jobs: what waits, runs and has ended; submit, follow, cancel, pause and retry; workers and queues."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from geofix_dashboard import access, job_data, links, theme
from geofix_dashboard.guard import guarded
from geofix_dashboard.views import job_detail, job_submit

VIEWS = {"list": "Jobs", "submit": "Submit", "workers": "Workers and queues"}
STATES = ("queued", "running", "paused", "succeeded", "failed", "cancelled", "lost", "parked")
ANY = "any"
PER_PAGE = 50


def render() -> None:
    """Draw the page."""
    theme.header("Jobs", "What waits, what runs, what came of it, and who does the work.")
    views = [name for name in VIEWS if name != "submit" or access.may_operate()]
    view = str(links.choose("view", "Show", views, kind="segments", show=VIEWS.__getitem__))
    if view == "submit":
        job_submit.render()
    elif view == "workers":
        _workers()
    elif links.get("id"):
        job_detail.render(str(links.get("id")))
    else:
        _jobs()


def _jobs() -> None:
    known = job_data.kinds()
    if not known:
        theme.empty(
            "No job was submitted yet.",
            "Submit one here, if you are an operator, or from the command line.",
            "geofix jobs submit snapshot -p datasets=NAME -p out=DIR",
            "geofix demo",
        )
        return
    first, second, third = st.columns([2, 2, 3])
    with first:
        state = str(links.choose("state", "State", [ANY, *STATES]))
    with second:
        kind = str(links.choose("kind", "Kind", [ANY, *known]))
    with third:
        number = st.number_input("Page", min_value=1, value=1, step=1, key="jobs_page")
    _list(None if state == ANY else state, None if kind == ANY else kind, int(number) - 1)


@st.fragment(run_every=3.0)
@guarded
def _list(state: str | None, kind: str | None, page: int) -> None:
    """Counts and one page of jobs, fresh every three seconds."""
    counts, _, _ = job_data.overview()
    for column, name in zip(
        st.columns(5), ("running", "queued", "succeeded", "failed", "parked"), strict=True
    ):
        column.metric(name.capitalize(), f"{counts.get(name, 0):,}", border=True)
    rows = job_data.recent(state, kind, page * PER_PAGE)
    if rows.empty:
        theme.empty("No job here.", "Choose another state, kind or page.")
        return
    total = int(rows["jobs"].iloc[0])
    theme.section(
        "Newest first",
        f"{page * PER_PAGE + 1:,} to {page * PER_PAGE + len(rows):,} of {total:,}; choose a row to open it",
    )
    shown = pd.DataFrame(
        {
            "job": rows["job_id"].str[:8],
            "kind": rows["kind"],
            "state": [theme.state_mark(item) for item in rows["state"]],
            "progress": [share(row) for row in rows.itertuples()],
            "now": [_now(row) for row in rows.itertuples()],
            "queue": rows["queue"],
            "waited": [theme.duration(value) for value in rows["waited_s"]],
            "ran": [theme.duration(value) for value in rows["ran_s"]],
            "submitted": rows["submitted_at"],
            "error": rows["error"].fillna(""),
        }
    )
    ids = list(rows["job_id"])
    st.dataframe(
        shown,
        key="jobs-table",
        hide_index=True,
        width="stretch",
        height=theme.table_height(len(shown)),
        on_select=lambda: _open(ids),
        selection_mode="single-row",
        column_config={
            "job": "Job",
            "kind": "Kind",
            "state": "State",
            "progress": st.column_config.ProgressColumn(
                "Progress", min_value=0, max_value=100, format="%.0f %%"
            ),
            "now": "At",
            "queue": "Queue",
            "waited": "Waited",
            "ran": "Ran",
            "submitted": st.column_config.DatetimeColumn("Submitted", format="MM-DD HH:mm:ss"),
            "error": "Error",
        },
    )


def share(row: Any) -> float | None:
    """Percent done; None where the total is unknown."""
    if row.state == "succeeded":
        return 100.0
    total = None if pd.isna(row.progress_total) else float(row.progress_total)
    return 100 * min(float(row.progress_done) / total, 1.0) if total else None


def _now(row: Any) -> str:
    parts = f"{int(row.parts):,} parts" if row.parts else ""
    return " · ".join(text for text in (str(row.progress_message or ""), parts) if text)


def _open(ids: list[str]) -> None:
    picked = st.session_state["jobs-table"]["selection"]["rows"]
    if picked:
        links.put("id", ids[picked[0]])


@st.fragment(run_every=5.0)
@guarded
def _workers() -> None:
    """Queues and the processes that serve them, fresh every five seconds."""
    _, queues, workers = job_data.overview()
    alive = [worker for worker in workers if worker["alive"]]
    theme.section("Queues", "What waits and runs, and how long the oldest has waited")
    table = pd.DataFrame(
        {
            "queue": queues["queue"],
            "waiting": queues["queued"],
            "running": queues["running"],
            "oldest": [theme.duration(value) for value in queues["oldest_s"]],
            "workers": [sum(name in worker["queues"] for worker in alive) for name in queues["queue"]],
        }
    )
    st.dataframe(
        table,
        hide_index=True,
        width="stretch",
        column_config={
            "queue": "Queue",
            "waiting": "Waiting",
            "running": "Running",
            "oldest": "Oldest waits",
            "workers": st.column_config.NumberColumn("Workers alive", help="Heard of in the last 90 s"),
        },
    )
    unserved = list(table.loc[(table["waiting"] > 0) & (table["workers"] == 0), "queue"].astype(str))
    if unserved:
        theme.empty(
            f"Nobody serves {', '.join(unserved)}.",
            "Jobs wait there until a worker takes them.",
            f"geofix worker --queues {','.join(unserved)}",
        )
    theme.section("Workers", f"{len(alive):,} alive of {len(workers):,} known")
    if not workers:
        theme.empty("No worker ever ran.", "One process per queue; any number of machines.", "geofix worker")
        return
    st.dataframe(
        pd.DataFrame(
            {
                "name": [worker["name"] for worker in workers],
                "state": [theme.state_mark("alive" if worker["alive"] else "silent") for worker in workers],
                "queues": [", ".join(worker["queues"]) for worker in workers],
                "device": [worker["device"] for worker in workers],
                "job": [str(worker["job_id"])[:8] if worker["job_id"] else "" for worker in workers],
                "version": [worker["software_version"] for worker in workers],
                "started": [worker["started_at"] for worker in workers],
                "seen": [worker["seen_at"] for worker in workers],
            }
        ),
        hide_index=True,
        width="stretch",
        column_config={
            "name": "Worker",
            "state": "State",
            "queues": "Queues",
            "device": "Device",
            "job": "Job",
            "version": "Version",
            "started": st.column_config.DatetimeColumn("Started", format="MM-DD HH:mm:ss"),
            "seen": st.column_config.DatetimeColumn("Last heard", format="MM-DD HH:mm:ss"),
        },
    )
