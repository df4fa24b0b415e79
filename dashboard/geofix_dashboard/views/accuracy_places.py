"""Accuracy by region or cell: choropleth map and sortable table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from geofix_dashboard import accuracy_data, maps, theme
from geofix_dashboard.views.accuracy_choice import look_inside, show, steps

MANY_M = 1e6  # medians are told in kilometres from here on

if TYPE_CHECKING:
    from geofix_dashboard.views.accuracy_choice import Choice

MAP, TABLE = "accuracy-map", "accuracy-table"


def render(choice: Choice) -> None:
    """Draw map and table."""
    rows = accuracy_data.by_place(
        choice.name,
        choice.created,
        choice.level,
        choice.threshold_m,
        choice.focus,
        maps.tolerance_of(choice.bounds),
    )
    if rows.empty:
        theme.empty(
            "No photo counts here.",
            "None lies in the chosen place, or each knows its own position worse than the distance. "
            "Choose a larger distance, or go back to all photos.",
        )
        return
    left, right = st.columns([1, 1], gap="large")
    with left:
        # A map of its own for every place: as long as the key stays, a click stays and fades the rest.
        key = f"{MAP}-{choice.place or 'all'}"
        way = steps(choice.place)
        chosen = way[-1][1] if way else None
        drawn, level = rows, choice.level
        if int(rows["places"].iloc[0]) > len(rows):
            drawn, level = accuracy_data.by_wider_cell(
                choice.name, choice.created, choice.level, choice.threshold_m, choice.focus
            )
        told = "" if level == choice.level else f"S2 cells of level {level}. "
        theme.section("Map", f"{told}Click a place to look inside it")
        layers = maps.areas(
            drawn, fill(drawn), lambda row: tip(row, choice.threshold_m), choice.bounds, chosen=chosen
        )
        outline = choice.level if isinstance(choice.level, str) else "country"
        maps.draw(
            key,
            layers,
            choice.bounds,
            outline_level=outline,
            on_select=lambda: look_inside(maps.clicked(key), level),
        )
        _legend(drawn, level, choice, int(rows["places"].iloc[0]))
    with right:
        total = int(rows["places"].iloc[0])
        told = "" if total == len(rows) else f"The {len(rows):,} fullest of {total:,} places. "
        theme.section("Table", f"{told}Grey: fewer than {theme.SMALL_N} photos. Choose a row to look inside")
        _table(rows, choice)


def fill(rows: pd.DataFrame) -> list[list[int]]:
    """Colours of places by their share; pale below 30 photos."""
    return theme.colours(
        rows["accuracy"] / 100, theme.VIRIDIS, np.where(rows["n"] >= theme.SMALL_N, 230, 120)
    )


def tip(row: Any, threshold_m: float) -> str:
    """Tooltip of a place."""
    return maps.tip_of(
        str(row.place),
        {
            "photos": f"{row.n:,}",
            f"within {theme.radius(threshold_m)}": theme.percent(row.accuracy),
            "95 %": theme.interval(row.low, row.high),
            "median error": theme.metres(row.median_m),
        },
    )


def _legend(rows: pd.DataFrame, level: str | int, choice: Choice, total: int) -> None:
    few = int((rows["n"] < theme.SMALL_N).sum())
    without = int(rows["shape"].isna().sum())
    notes = [
        f"{total:,} places"
        if level == choice.level
        else f"{len(rows):,} S2 cells of level {level} for all {total:,} places",
        f"n = {int(rows['n'].sum()):,} photos",
        f"pale: under {theme.SMALL_N} photos ({few:,} places)",
        "dots: photos in the database",
    ]
    if without:
        notes.append("photos outside every region are in the table alone")
    theme.legend(
        f"Photos answered within {theme.radius(choice.threshold_m)}",
        theme.VIRIDIS,
        [f"{x} %" for x in range(0, 101, 20)],
        " · ".join(notes),
    )


def _table(rows: pd.DataFrame, choice: Choice) -> None:
    medians = rows["median_m"].to_numpy(np.float64)
    far = choice.threshold_m >= 1000 or bool((np.isfinite(medians) & (medians >= MANY_M)).any())
    shown = rows[["place", "n", "accuracy", "low", "high"]].assign(
        median=rows["median_m"] / (1000 if far else 1)
    )
    number = st.column_config.NumberColumn
    st.dataframe(
        theme.grey_where_few(shown),
        key=f"{TABLE}-{choice.place or 'all'}",
        hide_index=True,
        width="stretch",
        height=theme.table_height(len(shown), maps.HEIGHT),
        on_select=lambda: _row_chosen(list(rows["code"]), choice),
        selection_mode="single-row",
        column_config={
            "place": "Place" if isinstance(choice.level, str) else "Cell",
            "n": number("n", format="localized"),
            "accuracy": number("Within %", format="%.1f"),
            "low": number("95 % from", format="%.1f"),
            "high": number("to", format="%.1f"),
            "median": number("Median km" if far else "Median m", format="%.1f" if far else "%.0f"),
        },
    )
    left, right = st.columns(2)
    right.button(
        "Photos here, worst first",
        icon=":material/photo_library:",
        width="stretch",
        on_click=show,
        args=("photos",),
    )
    left.download_button(
        "Download as CSV",
        rows.drop(columns=["shape", "places"]).to_csv(index=False).encode(),
        file_name=f"accuracy-{choice.name}-{choice.level}-{choice.threshold_m:g}m.csv",
        mime="text/csv",
        icon=":material/download:",
        on_click="ignore",
        width="stretch",
    )


def _row_chosen(codes: list[str], choice: Choice) -> None:
    picked = st.session_state[f"{TABLE}-{choice.place or 'all'}"]["selection"]["rows"]
    look_inside(codes[picked[0]] if picked else None, choice.level)
