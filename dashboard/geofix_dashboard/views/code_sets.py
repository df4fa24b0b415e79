"""Code sets: compared, each with its parameters, recall over time and evaluations; marked and dropped."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from geofix.errors import GeofixError
from geofix.evaluation.metrics import wilson
from geofix_dashboard import access, actions, charts, data, links, theme
from geofix_dashboard.views import model_parts

TIME = "YYYY-MM-DD HH:mm"


def render() -> None:
    """Draw the code sets: compared, then one of them."""
    rows = model_parts.code_set_rows()
    if rows.empty:
        theme.empty(
            "No code set was built yet.",
            "A code set holds one code per cell, made by one model with one recipe; searches read it.",
            "geofix codes build --model NAME --code-set CODES --snapshot DIR",
            "geofix codes index --code-set CODES",
        )
        return
    theme.section(
        "Compare", "Choose a row to see all of it. Recall: share of the exact best k the index finds"
    )
    names = list(rows["name"])
    st.dataframe(
        compared(rows),
        key="code-sets-table",
        hide_index=True,
        width="stretch",
        height=theme.table_height(len(rows), 400),
        on_select=lambda: model_parts.open_row("code-sets-table", "code_set", names),
        selection_mode="single-row",
        column_config=_columns(),
    )
    asked = links.get("code_set")
    name = str(asked if asked in names else names[0])
    _code_set(rows[rows["name"] == name].iloc[0])


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per code set; every share with the n it rests on."""
    return pd.DataFrame(
        {
            "name": rows["name"],
            "state": [theme.state_mark(state) for state in rows["state"]],
            "recipe": rows["recipe"],
            "level": rows["level"],
            "cells": rows["cells"],
            "within": [within_text(row) for row in rows.itertuples()],
            "recall": [recall_text(row) for row in rows.itertuples()],
            "index": [index_text(value) for value in rows["index_parameters"]],
            "size": [theme.size(value) for value in rows["bytes"]],
            "prototypes": rows["with_prototype"],
            "aerial": rows["with_aerial"],
            "kappa": [_number(value) for value in rows["kappa"]],
            "model": rows["model"],
            "created": rows["created_at"],
        }
    )


def _columns() -> dict[str, Any]:
    number = st.column_config.NumberColumn
    return {
        "name": "Code set",
        "state": "State",
        "model": "Model",
        "recipe": "Recipe",
        "level": number("Level", format="%d"),
        "cells": number("Cells", format="localized"),
        "prototypes": number("With prototype", format="localized"),
        "aerial": number("With aerial", format="localized"),
        "kappa": st.column_config.TextColumn("κ", help="Weight of the prototype in a hybrid"),
        "size": "Size",
        "index": "Index",
        "recall": st.column_config.TextColumn("Recall (n)", width=150),
        "within": st.column_config.TextColumn(
            "Within 200 m (95 %, n)",
            help="Newest evaluation with these codes, on test_seen where there is one",
        ),
        "created": st.column_config.DatetimeColumn("Built", format=TIME),
    }


def index_text(parameters: dict[str, Any]) -> str:
    """An index in a few letters."""
    if not parameters:
        return "none: exact"
    method = str(parameters.get("method", "hnsw")).upper()
    return f"{method} m {parameters.get('m')}, ef {parameters.get('ef_construction')}"


def recall_text(row: Any) -> str:
    """The last recall check with its number of queries."""
    if pd.isna(row.recall):
        return "–"
    return f"{100 * row.recall:.1f} % @{int(row.recall_k)} (n = {int(row.recall_queries):,})"


def within_text(row: Any) -> str:
    """The newest evaluation within 200 m with its interval."""
    if pd.isna(row.recall_200m_percent) or not row.evaluation_n:
        return "–"
    n = int(row.evaluation_n)
    low, high = wilson(round(float(row.recall_200m_percent) * n / 100), n)
    return f"{row.recall_200m_percent:.1f} % ({float(low):.0f}–{float(high):.0f}, n = {n:,})"


def _code_set(row: pd.Series) -> None:
    name = str(row["name"])
    theme.section(
        f"{name} · {theme.state_mark(str(row['state']))}", model_parts.text(row["stale_reason"], "")
    )
    _use(name, str(row["state"]), int(row["cells"]))
    left, right = st.columns([1, 1], gap="large")
    with left:
        calibration = row["calibration"] or {}
        coverage = calibration.get("coverage") or {}
        theme.facts(
            [
                ("Model", str(row["model"]), f"D = {int(row['dimension']) - 2}"),
                ("Recipe", str(row["recipe"]), f"S2 level {row['level']}, {int(row['cells']):,} cells"),
                (
                    "Snapshot",
                    model_parts.text(row["snapshot"], "–"),
                    "first digits of its hash; what it was fitted on",
                ),
                ("Size", theme.size(row["bytes"]), "codes and index on disk"),
                ("Norm M", f"{row['scale']:.4f}", "codes are completed to this norm"),
                (
                    "Temperature",
                    _number(row["temperature"]),
                    f"fitted on n = {calibration.get('queries', 0):,} photos",
                ),
                (
                    "Coverage threshold",
                    _number(coverage.get("threshold")),
                    f"{coverage.get('covered', 0):,} photos inside, {coverage.get('uncovered', 0):,} outside",
                ),
                ("Index", index_text(row["index_parameters"]), _estimate(row["index_parameters"])),
            ]
        )
        with st.expander("Configuration"):
            st.json({"config": row["config"], "calibration": calibration, "index": row["index_parameters"]})
    with right:
        _recall(name)
    model_parts.evaluations(
        model_parts.evaluations_of(name, None), f"geofix evaluate run --code-set {name} --snapshot DIR"
    )


def _number(value: Any) -> str:
    return "–" if value is None or pd.isna(value) else f"{float(value):.4g}"


def _estimate(parameters: dict[str, Any]) -> str:
    known = parameters.get("estimated_bytes")
    return "" if known is None else f"graph estimated at {theme.size(float(known))}"


def _use(name: str, state: str, cells: int) -> None:
    """Mark ready or stale, or drop, for operators; each asks once more."""
    if not access.may_operate():
        return
    columns = st.columns([1, 1, 5])
    if state in ("ready", "stale"):
        other = "stale" if state == "ready" else "ready"
        with columns[0].popover(f"Mark {other}", icon=":material/flag:", width="stretch"):
            told = (
                "Searches still use it, and say that it is stale."
                if other == "stale"
                else "It counts as current."
            )
            st.markdown(told)
            if st.button(f"Yes, mark it {other}", type="primary", key="mark_yes"):
                _do(lambda: actions.mark(name, other))
        with columns[1].popover("Drop", icon=":material/delete:", width="stretch"):
            st.markdown(f"Removes {cells:,} codes and their index for good. Evaluations keep their rows.")
            typed = st.text_input("Type the name of the code set", key="drop_name")
            if st.button("Drop it", type="primary", disabled=typed != name, key="drop_yes"):
                _do(lambda: actions.drop(name))


def _do(action: Any) -> None:
    try:
        action()
    except GeofixError as error:
        st.error(str(error), icon=":material/error:")
        return
    data.forget()
    links.put("code_set", None)
    st.rerun()


def _recall(name: str) -> None:
    theme.section(
        "Recall of the index over time",
        "Against exact search on stored photos; bars: 95 % Wilson, hits counted as independent",
    )
    rows = model_parts.recall_history(name)
    if rows.empty:
        theme.empty(
            "Never measured.",
            "Without an index every search is exact. With one, a check compares both.",
            f"geofix codes index --code-set {name}",
            f"geofix jobs submit recall_check -p code_set={name}",
        )
        return
    charts.recall_points(rows)
    last = rows.iloc[0]
    st.caption(
        f"Last: {100 * last['recall']:.1f} % of the exact best {int(last['k'])}, "
        f"n = {int(last['queries']):,} photos, "
        f"{int(last['cells_in_scope']):,} cells in scope ({last['scope']})"
    )
