"""Charts in the product's colours."""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from geofix.evaluation.metrics import wilson
from geofix_dashboard.theme import CATEGORIES


def error_curve(
    curves: Mapping[str, tuple[int, np.ndarray, np.ndarray]], threshold_m: float, height: int = 380
) -> None:
    """Share of photos within a distance, per evaluation, with a pointwise Wilson band, on a log axis.

    Args:
        curves: Label -> (photos, shares from 0 to 1, error in metres at each share; infinite: unanswered).
        threshold_m: Marked by a line.
        height: Pixels.
    """
    parts = []
    for label, (n, shares, errors) in curves.items():
        kept = np.isfinite(errors)
        low, high = wilson(np.round(shares[kept] * n), np.full(kept.sum(), n))
        parts.append(
            pd.DataFrame(
                {
                    "evaluation": f"{label} (n = {n:,})",
                    "error_m": np.maximum(errors[kept], 1.0),
                    "share": 100 * shares[kept],
                    "low": low,
                    "high": high,
                }
            )
        )
    rows = pd.concat(parts)
    x = alt.X(
        "error_m:Q",
        scale=alt.Scale(type="log", nice=False),
        title="error of the first answer, metres (below 1 m drawn at 1 m)",
        axis=alt.Axis(grid=True, gridColor="#edf1f4", format="~s", tickCount=8),
    )
    hue = alt.Color(
        "evaluation:N",
        scale=alt.Scale(domain=list(dict.fromkeys(rows["evaluation"])), range=list(CATEGORIES)),
        legend=alt.Legend(
            orient="top",
            title=None,
            labelLimit=420,
            symbolType="stroke",
            symbolOpacity=1,
            symbolStrokeWidth=3,
        ),
    )
    base = alt.Chart(rows)
    band = base.mark_area(opacity=0.13).encode(
        x=x, y=alt.Y("low:Q", title="photos within that distance, percent"), y2="high:Q", color=hue
    )
    line = base.mark_line(strokeWidth=2.2, interpolate="step-after").encode(
        x=x,
        y=alt.Y("share:Q", scale=alt.Scale(domain=[0, 100])),
        color=hue,
        tooltip=[
            alt.Tooltip("evaluation:N"),
            alt.Tooltip("error_m:Q", format=",.0f", title="within metres"),
            alt.Tooltip("share:Q", format=".1f", title="percent"),
            alt.Tooltip("low:Q", format=".1f", title="95 % from"),
            alt.Tooltip("high:Q", format=".1f", title="to"),
        ],
    )
    mark = (
        alt.Chart(pd.DataFrame({"at": [threshold_m]}))
        .mark_rule(color="#555555", strokeDash=[5, 4])
        .encode(x="at:Q", tooltip=[alt.Tooltip("at:Q", title="threshold, metres")])
    )
    st.altair_chart((band + line + mark).properties(height=height), width="stretch")


def split_bars(rows: pd.DataFrame, height: int = 190) -> None:
    """Photos per split of a snapshot, columns split and photos."""
    order = ["train", "val", "test_seen", "test_unseen"]
    base = alt.Chart(rows).encode(
        y=alt.Y("split:N", sort=order, title=None),
        x=alt.X("photos:Q", title="photos", axis=alt.Axis(grid=True, gridColor="#edf1f4", tickMinStep=1)),
    )
    bars = base.mark_bar(height={"band": 0.62}, color=CATEGORIES[0]).encode(tooltip=["split:N", "photos:Q"])
    text = base.mark_text(align="left", dx=5, color="#45545f").encode(text=alt.Text("photos:Q", format=","))
    st.altair_chart((bars + text).properties(height=height), width="stretch")
