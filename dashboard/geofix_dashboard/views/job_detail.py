"""One job: progress, buttons, its parts, curves of a training, log, parameters and result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from geofix.database.queries.jobs import JobRow
from geofix.errors import GeofixError
from geofix_dashboard import access, actions, charts, job_data, links, place_data, theme
from geofix_dashboard.guard import guarded

OPEN = ("queued", "running", "lost", "paused")
BAD = ("failed", "cancelled", "parked")
MOST_STAGES = 60  # drawn in the graph


def render(job_id: str) -> None:
    """Draw a job, fresh every two seconds until it has ended."""
    row = place_data.job(job_id)
    if st.button("All jobs", icon=":material/arrow_back:"):
        links.put("id", None)
        st.rerun()
    if row is None:
        theme.empty("There is no such job.", "It was removed, or the address is wrong.", "geofix jobs list")
        return
    if row.is_finished:
        _job(job_id)
    else:
        st.fragment(run_every=2.0)(guarded(_live))(job_id)


def _live(job_id: str) -> None:
    row = place_data.job(job_id)
    if row is None or row.is_finished:
        st.rerun()
    _job(job_id)


def _job(job_id: str) -> None:
    row = place_data.job(job_id)
    if row is None:
        return
    _head(row)
    _buttons(row)
    _parts(row)
    _curves(row)
    left, right = st.columns([3, 2], gap="large")
    with left:
        _log(row)
    with right:
        theme.section("Parameters")
        st.json({key: value for key, value in row.specification.items() if value is not None}, expanded=2)
        if row.result:
            theme.section("Result")
            st.json(row.result, expanded=1)


def _head(row: JobRow) -> None:
    theme.section(f"{row.kind} · {theme.state_mark(row.state)}", f"Job {row.job_id}")
    total = row.progress_total or 0
    done = 1.0 if row.state == "succeeded" else min(row.progress_done / total, 1.0) if total else 0.0
    count = f"{row.progress_done:,} of {total:,} {row.progress_unit}" if total else ""
    st.progress(done, text=" · ".join(text for text in (count, row.progress_message) if text) or row.state)
    now = pd.Timestamp.now("UTC")
    waited = ((row.started_at or row.finished_at or now) - row.submitted_at).total_seconds()
    ran = None if row.started_at is None else ((row.finished_at or now) - row.started_at).total_seconds()
    facts = (
        ("Queue", row.queue),
        ("Waited", theme.duration(waited)),
        ("Ran", theme.duration(ran)),
        ("Attempts", f"{row.attempts} of {row.max_attempts}"),
        ("Worker", row.lease_owner or "–"),
    )
    for column, (label, value) in zip(st.columns([1, 1, 1, 1, 2]), facts, strict=True):
        column.metric(label, value, border=True)
    st.caption(f"Submitted {row.submitted_at:%Y-%m-%d %H:%M:%S} by {row.submitted_by}")
    if row.cancel_requested and not row.is_finished:
        st.caption(":material/hourglass_top: Cancel was asked for; it stops at its next step.")
    if row.error:
        st.error(row.error, icon=":material/error:")


def _buttons(row: JobRow) -> None:
    """What may be done with the job, for who may do it."""
    job_id = str(row.job_id)
    columns = st.columns([1, 1, 1, 4])
    if row.state in OPEN and actions.may_cancel(job_id):
        with columns[0].popover("Cancel", icon=":material/cancel:", width="stretch"):
            st.markdown("Cancel this job? What it has committed stays.")
            if st.button("Yes, cancel it", type="primary", key="job_cancel"):
                _do(actions.cancel, job_id)
    if not access.may_operate():
        return
    if row.state == "paused":
        if columns[1].button("Resume", icon=":material/play_arrow:", width="stretch", key="job_resume"):
            _do(actions.resume, job_id)
    elif row.state in OPEN:
        if columns[1].button("Pause", icon=":material/pause:", width="stretch", key="job_pause"):
            _do(actions.pause, job_id)
    elif row.state in BAD and columns[0].button(
        "Retry", icon=":material/replay:", width="stretch", key="job_retry"
    ):
        _do(actions.retry, job_id)


def _do(action: Callable[[str], JobRow], job_id: str) -> None:
    try:
        action(job_id)
    except GeofixError as error:
        st.error(str(error), icon=":material/error:")
        return
    st.rerun()


def _parts(row: JobRow) -> None:
    """Stages of a pipeline as a graph and as bars in time; stages of a run as bars."""
    rows = job_data.parts(row.job_id)
    if not rows.empty:
        total = int(rows["parts"].iloc[0])
        theme.section("Stages" if row.kind == "pipeline" else "Parts", f"{total:,} jobs of this job")
        if len(rows) <= MOST_STAGES and any(rows["depends_on"].map(len)):
            st.graphviz_chart(graph(rows), width="stretch")
        charts.stage_times(_timed(rows))
        _table(rows)
        return
    stages = (row.result or {}).get("stages")
    if isinstance(stages, list) and stages and "seconds" in stages[0]:
        theme.section(
            "Stages", f"{len(stages):,} stages; seconds each took, pale: skipped because nothing changed"
        )
        charts.stage_seconds(
            [(str(item["stage"]), float(item["seconds"]), bool(item["skipped"])) for item in stages]
        )


def graph(rows: pd.DataFrame) -> str:
    """The stages and what each waits for, in Graphviz' language; names are quoted."""
    lines = [
        'digraph { rankdir=LR; bgcolor="transparent";',
        'node [shape=box style="rounded,filled" fontsize=11 fontname="sans-serif"];',
    ]
    row: Any
    for row in rows.itertuples():
        label = _quoted(f"{_name(row)}\n{row.state}")
        fill, ink = theme.STATE_COLOURS.get(str(row.state), ("#eef2f4", "#1b2733"))
        lines.append(f'{_quoted(row.job_id)} [label={label} fillcolor="{fill}" fontcolor="{ink}"];')
    known = set(rows["job_id"])
    for row in rows.itertuples():
        lines += [
            f"{_quoted(before)} -> {_quoted(row.job_id)};" for before in row.depends_on if before in known
        ]
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    """A text as Graphviz' own string: no quotes and backslashes of others, line ends kept."""
    plain = str(text).replace("\\", "/").replace('"', "'").replace("\n", "\\n")
    return f'"{plain}"'


def _name(row: Any) -> str:
    return str(row.name) if isinstance(row.name, str) else f"{row.kind} {str(row.job_id)[:8]}"


def _timed(rows: pd.DataFrame) -> pd.DataFrame:
    begun = rows[rows["started_at"].notna()]
    return pd.DataFrame(
        {
            "stage": [_name(row) for row in begun.itertuples()],
            "state": begun["state"],
            "from": begun["started_at"],
            "to": begun["finished_at"].fillna(pd.Timestamp.now("UTC")),
        }
    )


def _table(rows: pd.DataFrame) -> None:
    shown = pd.DataFrame(
        {
            "stage": [_name(row) for row in rows.itertuples()],
            "job": rows["job_id"].str[:8],
            "kind": rows["kind"],
            "state": [theme.state_mark(state) for state in rows["state"]],
            "at": rows["progress_message"],
            "attempts": rows["attempts"],
            "error": rows["error"],
        }
    )
    ids = list(rows["job_id"])
    st.dataframe(
        shown,
        key="parts-table",
        hide_index=True,
        width="stretch",
        height=theme.table_height(len(shown), 360),
        on_select=lambda: _open(ids),
        selection_mode="single-row",
    )


def _open(ids: list[str]) -> None:
    picked = st.session_state["parts-table"]["selection"]["rows"]
    if picked:
        links.put("id", ids[picked[0]])


def _curves(row: JobRow) -> None:
    """Losses and validation by epoch where the job trains something."""
    if row.kind not in (*job_data.TRAININGS, "run"):
        return
    losses = job_data.losses(row.job_id)
    measured = job_data.validation({"kind": row.kind, **row.specification}, row.result)
    if losses.empty and measured.empty:
        if row.kind in job_data.TRAININGS and not row.is_finished:
            theme.section("Loss curves", "They begin with the first epoch")
        return
    left, right = st.columns(2, gap="large")
    with left:
        theme.section(
            "Loss by epoch", "GP: ground to prototype, GA: ground to aerial, AP: aerial to prototype"
        )
        if losses.empty:
            theme.empty(
                "No loss was reported.", "Trainings report one line per epoch; older logs are removed."
            )
        else:
            charts.curves(losses, "term", "loss")
    with right:
        theme.section("Validation by epoch", "Percent of validation photos answered within a distance")
        if measured.empty:
            theme.empty(
                "No validation can be read.",
                "The training's folder is on another machine, or no epoch was measured yet.",
            )
        else:
            _validation(measured)


def _validation(measured: pd.DataFrame) -> None:
    """One line per localizer at the distance chosen."""
    parts = measured["measure"].str.rpartition(".")
    rows = measured.assign(localizer=parts[0], metres=pd.to_numeric(parts[2], errors="coerce")).dropna()
    radii = sorted({float(value) for value in rows["metres"]})
    if not radii:
        charts.curves(measured, "measure", "value")
        return
    radius = st.segmented_control(
        "Within",
        radii,
        default=radii[-1],
        format_func=theme.radius,
        key="job_radius",
        label_visibility="collapsed",
    )
    charts.curves(rows[rows["metres"] == (radius or radii[-1])], "localizer", "percent", height=262)


def _log(row: JobRow) -> None:
    theme.section("Log", "The newest 300 lines")
    progress = st.toggle("With progress", key="job_log_progress")
    rows = job_data.log(row.job_id, progress)
    if rows.empty:
        theme.empty("Nothing was logged.", "Lines appear here as the job goes on.")
        return
    lines = [_line(item) for item in rows.itertuples()]
    st.code("\n".join(lines), language=None, height=360)


def _line(event: Any) -> str:
    rest = {
        key: value for key, value in (event.data or {}).items() if key not in ("level", "module", "traceback")
    }
    trace = f"\n{event.data['traceback']}" if (event.data or {}).get("traceback") else ""
    values = " ".join(f"{key}={value}" for key, value in rest.items())
    return f"{event.at:%H:%M:%S} {event.kind:8} {event.message} {values}".rstrip() + trace
