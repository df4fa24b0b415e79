"""What models and code sets are shown with: their rows, their evaluations, and the choice of one."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from geofix.database.engine import connect
from geofix.database.queries import dashboard_models
from geofix.evaluation.metrics import wilson
from geofix_dashboard import data, links, theme


@data.cached
def model_rows() -> pd.DataFrame:
    """Models."""
    with connect("reader") as conn:
        return dashboard_models.model_rows(conn)


@data.cached
def code_set_rows() -> pd.DataFrame:
    """Code sets."""
    with connect("reader") as conn:
        return dashboard_models.code_set_rows(conn)


@data.cached
def recall_history(code_set: str | None) -> pd.DataFrame:
    """Recall checks of a code set, or of all."""
    with connect("reader") as conn:
        return dashboard_models.recall_history(conn, code_set)


@data.cached
def evaluations_of(code_set: str | None, model: str | None) -> pd.DataFrame:
    """Evaluations of a code set or a model."""
    with connect("reader") as conn:
        return dashboard_models.evaluations_of(conn, code_set=code_set, model=model)


def text(value: Any, missing: str) -> str:
    """A value of a frame as text, or what stands for it where it is missing (None or NaN)."""
    return missing if value is None or pd.isna(value) else str(value)


def open_row(table: str, parameter: str, names: list[str]) -> None:
    """Put the row that was chosen in a table into the URL."""
    picked = st.session_state[table]["selection"]["rows"]
    if picked:
        links.put(parameter, names[picked[0]])


def evaluations(rows: pd.DataFrame, command: str) -> None:
    """A table of evaluations, or the command that makes one."""
    theme.section("Evaluations", "Percent of photos within a distance, 95 % Wilson interval")
    if rows.empty:
        theme.empty("Never evaluated.", "Let it answer the test photos of a snapshot.", command)
        return
    shown = rows[["evaluation", "localizer", "split", "n"]].copy()
    for metres in (100, 200):
        shown[f"within {metres} m"] = [
            _interval(value, int(n))
            for value, n in zip(rows[f"recall_{metres}m_percent"], rows["n"], strict=True)
        ]
    shown["median error"] = [
        theme.metres(None if pd.isna(value) else float(value)) for value in rows["median_m"]
    ]
    shown["oracle 100 m"] = [
        theme.percent(None if pd.isna(v) else float(v)) for v in rows["oracle_100m_percent"]
    ]
    grey = shown.style.apply(
        lambda row: [f"color: {theme.GREY_TEXT}" if row["n"] < theme.SMALL_N else ""] * len(row), axis=1
    )
    st.dataframe(grey, hide_index=True, width="stretch", height=theme.table_height(len(shown), 360))


def _interval(percent: Any, n: int) -> str:
    if pd.isna(percent) or not n:
        return "–"
    low, high = wilson(round(float(percent) * n / 100), n)
    return f"{float(percent):.1f} ({float(low):.0f}–{float(high):.0f})"
