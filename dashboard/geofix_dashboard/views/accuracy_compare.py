"""A against B on the same photos: the difference with its interval, and where each gains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from geofix.errors import BadInputError
from geofix_dashboard import accuracy_data, maps, theme
from geofix_dashboard.meanwhile import meanwhile

if TYPE_CHECKING:
    from geofix_dashboard.views.accuracy_choice import Choice


def render(choice: Choice) -> None:
    """Draw the difference, its map and its table."""
    if choice.other is None:
        theme.empty(
            "Compare with which evaluation?",
            "Choose a second one above. If there is only one, judge another localizer on the same split.",
            "geofix evaluate run --localizer cellmean --model NAME --snapshot DIR --split test_seen",
        )
        return
    try:
        found, rows = _compared(choice, choice.other)
    except BadInputError as error:
        theme.empty(
            error.message,
            error.hint,
            "geofix evaluate run --localizer cellmean --model NAME --snapshot DIR "
            f"--split {choice.row['split']}",
        )
        return
    _summary(choice, found)
    if rows.empty:
        theme.empty("No common photo lies here.", "Choose another place, or go back to all photos.")
        return
    left, right = st.columns([1, 1], gap="large")
    with left:
        _map(rows, choice)
    with right:
        _table(rows, choice)


def _compared(choice: Choice, other: str) -> tuple[dict[str, Any], pd.DataFrame]:
    """The difference on all common photos and, counted at the same time, by place."""
    with st.spinner("Comparing photo by photo …"), meanwhile(1) as pool:
        found = pool.submit(accuracy_data.difference, choice.name, other, choice.created, choice.threshold_m)
        rows = accuracy_data.compare_places(
            choice.name,
            other,
            choice.created,
            choice.level,
            choice.threshold_m,
            choice.focus,
            maps.tolerance_of(choice.bounds),
        )
        return found.result(), rows


def _summary(choice: Choice, found: dict[str, Any]) -> None:
    (share,) = found["recall"].values()
    median = found["median_m"]
    near = f"within {theme.radius(choice.threshold_m)}"
    theme.section(
        f"{choice.name} minus {choice.other}",
        f"All {found['n']:,} common photos that count; "
        f"bootstrap over {found['groups']:,} groups taken together",
    )
    cells = st.columns(5)
    cells[0].metric(f"Difference {near}", f"{share['difference']:+.1f} points", border=True)
    cells[1].metric(
        "95 % interval",
        f"{share['low']:+.1f} to {share['high']:+.1f}",
        help="Paired cluster bootstrap",
        border=True,
    )
    cells[2].metric(
        "Gains", f"{share['only_a']:,}", help=f"Photos only {choice.name} puts {near}", border=True
    )
    cells[3].metric(
        "Losses", f"{share['only_b']:,}", help=f"Photos only {choice.other} puts {near}", border=True
    )
    if median:
        cells[4].metric(
            "Median error",
            f"{median['difference']:+,.0f} m",
            help=f"95 % from {median['low']:+,.0f} to {median['high']:+,.0f} m, n = {median['n']:,}",
            border=True,
        )
    if found["left_out"]:
        st.caption(
            f":material/info: {found['left_out']:,} more common photos do not count: each knows its own "
            f"position worse than {theme.radius(choice.threshold_m)}, or has no answer where an evaluation "
            "drops those."
        )
    if share["low"] <= 0 <= share["high"]:
        st.caption(":material/info: The interval holds zero: these photos do not tell the two apart.")


def _map(rows: pd.DataFrame, choice: Choice) -> None:
    theme.section("Gains and losses", "Blue: the first is better; orange: the second is")
    total = int(rows["places"].iloc[0])
    told = f"{total:,} places"
    if total > len(rows) and choice.other is not None:
        rows, level = accuracy_data.compare_wider_cells(
            choice.name, choice.other, choice.created, choice.level, choice.threshold_m, choice.focus
        )
        told = f"{len(rows):,} S2 cells of level {level} for all {total:,} places"
    layers = maps.areas(rows, fill(rows), tip, choice.bounds)
    outline = choice.level if isinstance(choice.level, str) else "country"
    maps.draw("compare-map", layers, choice.bounds, outline_level=outline)
    theme.legend(
        "Difference in percent points",
        theme.DIVERGING,
        ["−100", "−50", "0", "+50", "+100"],
        f"{told} · n = {int(rows['n'].sum()):,} photos · pale: under {theme.SMALL_N} photos",
    )


def fill(rows: pd.DataFrame) -> list[list[int]]:
    """Colours of places by their difference; pale below 30 photos."""
    opaque = np.where(rows["n"] >= theme.SMALL_N, 235, 150)
    return theme.colours((rows["difference"] + 100) / 200, theme.DIVERGING, opaque)


def tip(row: Any) -> str:
    """Tooltip of a place."""
    return maps.tip_of(
        str(row.place),
        {
            "photos": f"{row.n:,}",
            "first": theme.percent(row.accuracy_a),
            "second": theme.percent(row.accuracy_b),
            "difference": f"{row.difference:+.1f} points",
            "95 %": f"{row.low:+.1f} to {row.high:+.1f}",
            "gains, losses": f"{row.gains:,}, {row.losses:,}",
        },
    )


def _table(rows: pd.DataFrame, choice: Choice) -> None:
    total = int(rows["places"].iloc[0])
    few = "" if total == len(rows) else f"The {len(rows):,} fullest of {total:,} places. "
    theme.section(
        "Table", f"{few}A: the first, B: the second; + A alone is right, − B alone. Grey: under 30 photos"
    )
    shown = rows[["place", "n", "gains", "losses", "accuracy_a", "accuracy_b", "difference"]].assign(
        interval=[f"{low:+.0f} to {high:+.0f}" for low, high in zip(rows["low"], rows["high"], strict=True)]
    )
    number = st.column_config.NumberColumn
    st.dataframe(
        theme.grey_where_few(shown),
        hide_index=True,
        width="stretch",
        height=theme.table_height(len(shown), maps.HEIGHT),
        column_config={
            "place": "Place" if isinstance(choice.level, str) else "Cell",
            "n": number("n", format="localized"),
            "gains": "+",
            "losses": "−",
            "accuracy_a": number("A %", format="%.1f"),
            "accuracy_b": number("B %", format="%.1f"),
            "difference": number("A − B", format="%+.1f"),
            "interval": st.column_config.TextColumn("95 %", help="Paired difference, Agresti and Min (2005)"),
        },
    )
