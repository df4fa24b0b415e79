"""Charts in the product's colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st
from altair.utils import schemapi

from geofix.evaluation.metrics import wilson
from geofix_dashboard.theme import CATEGORIES, GREY_TEXT, SMALL_N, STATE_COLOURS

CHECKED = False  # held against the schema of Vega-Lite, which takes longer than all else on a page
schemapi.disable_debug_mode()  # nor while they are put together


class _Unchecked:
    """A chart that is written without a look at the schema."""

    def __init__(self, chart: alt.TopLevelMixin) -> None:
        self._chart = chart

    def to_dict(self) -> dict[str, Any]:
        """The chart as Vega-Lite reads it."""
        return dict(self._chart.to_dict(validate=False))


def draw(chart: alt.Chart | alt.LayerChart) -> None:
    """Draw a chart as wide as its place."""
    drawn: Any = chart if CHECKED else _Unchecked(chart)
    st.altair_chart(drawn, width="stretch")


def _pale_where(column: str, pale: str) -> alt.Color:
    """One colour, another one where a column is true; Altair takes ten times as long over a condition."""
    scale = alt.Scale(domain=[False, True], range=[CATEGORIES[0], pale])
    return alt.Color(f"{column}:N", scale=scale, legend=None)


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
    draw((band + line + mark).properties(height=height))


def split_bars(rows: pd.DataFrame, height: int = 190) -> None:
    """Photos per split of a snapshot, columns split and photos."""
    order = ["train", "val", "test_seen", "test_unseen"]
    base = alt.Chart(rows).encode(
        y=alt.Y("split:N", sort=order, title=None),
        x=alt.X("photos:Q", title="photos", axis=alt.Axis(grid=True, gridColor="#edf1f4", tickMinStep=1)),
    )
    bars = base.mark_bar(height={"band": 0.62}, color=CATEGORIES[0]).encode(tooltip=["split:N", "photos:Q"])
    text = base.mark_text(align="left", dx=5, color="#45545f").encode(text=alt.Text("photos:Q", format=","))
    draw((bars + text).properties(height=height))


def part_bars(parts: Mapping[str, float], total: float, height: int = 170) -> None:
    """What a score is made of: one bar per part from zero, its value beside it, the sum in the title."""
    rows = pd.DataFrame({"part": list(parts), "value": list(parts.values())})
    rows["right"] = rows["value"].clip(lower=0)
    order = list(parts)
    base = alt.Chart(rows).encode(
        y=alt.Y("part:N", sort=order, title=None, axis=alt.Axis(labelLimit=180)),
        x=alt.X(
            "value:Q", title=f"part of the score {total:.3f}", axis=alt.Axis(grid=True, gridColor="#edf1f4")
        ),
    )
    hue = alt.Color("part:N", scale=alt.Scale(domain=order, range=list(CATEGORIES[:3])), legend=None)
    bars = base.mark_bar(height={"band": 0.6}).encode(
        color=hue, tooltip=["part:N", alt.Tooltip("value:Q", format=".4f")]
    )
    text = base.mark_text(align="left", dx=4, color="#45545f").encode(
        x=alt.X("right:Q"), text=alt.Text("value:Q", format="+.3f")
    )
    draw((bars + text).properties(height=height))


def curves(rows: pd.DataFrame, series: str, unit: str, height: int = 300) -> None:
    """Lines by epoch: columns epoch, value and the name of the series."""
    names = list(dict.fromkeys(rows[series]))
    shown = names[: len(CATEGORIES)] if len(names) > len(CATEGORIES) else names
    chart = (
        alt.Chart(rows[rows[series].isin(shown)])
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=22))
        .encode(
            x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, grid=False)),
            y=alt.Y("value:Q", title=unit, axis=alt.Axis(grid=True, gridColor="#edf1f4")),
            color=alt.Color(
                f"{series}:N",
                scale=alt.Scale(domain=shown, range=list(CATEGORIES)),
                legend=alt.Legend(orient="top", title=None, columns=4),
            ),
            tooltip=["epoch:Q", f"{series}:N", alt.Tooltip("value:Q", format=".4g")],
        )
    )
    draw(chart.properties(height=height))


def stage_seconds(stages: list[tuple[str, float, bool]]) -> None:
    """How long each stage took, in its order; skipped ones pale."""
    rows = pd.DataFrame(stages, columns=["stage", "seconds", "skipped"])
    base = alt.Chart(rows).encode(
        y=alt.Y(
            "stage:N", sort=list(rows["stage"]), title=None, axis=alt.Axis(labelLimit=260, labelOverlap=False)
        ),
        x=alt.X("seconds:Q", title="seconds", axis=alt.Axis(grid=True, gridColor="#edf1f4")),
    )
    bars = base.mark_bar(height={"band": 0.62}).encode(
        color=_pale_where("skipped", "#c9d3da"),
        tooltip=["stage:N", "seconds:Q", "skipped:N"],
    )
    text = base.mark_text(align="left", dx=4, color="#45545f").encode(
        text=alt.Text("seconds:Q", format=",.1f")
    )
    draw((bars + text).properties(height=max(80, 22 * len(rows))))


def stage_times(rows: pd.DataFrame) -> None:
    """When each stage ran, columns stage, state, from, to; nothing where none has begun."""
    if rows.empty:
        return
    states = list(STATE_COLOURS)
    chart = (
        alt.Chart(rows)
        .mark_bar(height={"band": 0.62})
        .encode(
            y=alt.Y(
                "stage:N",
                sort=list(rows["stage"]),
                title=None,
                axis=alt.Axis(labelLimit=260, labelOverlap=False),
            ),
            x=alt.X("from:T", title=None, axis=alt.Axis(format="%H:%M:%S", grid=True, gridColor="#edf1f4")),
            x2="to:T",
            color=alt.Color(
                "state:N",
                scale=alt.Scale(domain=states, range=[STATE_COLOURS[state][0] for state in states]),
                legend=alt.Legend(orient="top", title=None, values=sorted(set(rows["state"]))),
            ),
            tooltip=[
                "stage:N",
                "state:N",
                alt.Tooltip("from:T", format="%H:%M:%S"),
                alt.Tooltip("to:T", format="%H:%M:%S"),
            ],
        )
    )
    draw(chart.properties(height=max(90, 24 * len(rows) + 40)))


def recall_points(rows: pd.DataFrame, height: int = 260) -> None:
    """Recall checks over time, Wilson bars over queries times k: columns checked_at, recall, k, queries."""
    n = (rows["queries"] * rows["k"]).to_numpy(float)
    low, high = wilson(np.round(rows["recall"].to_numpy(float) * n), n)
    drawn = rows.assign(percent=100 * rows["recall"], low=low, high=high)
    floor = float(min(90.0, np.floor(np.min(low))))
    y = alt.Y("percent:Q", title="recall, percent", scale=alt.Scale(domain=[floor, 100]))
    base = alt.Chart(drawn).encode(x=alt.X("checked_at:T", title=None, axis=alt.Axis(format="%m-%d %H:%M")))
    bars = base.mark_rule(color=CATEGORIES[0], opacity=0.5, strokeWidth=2).encode(
        y=alt.Y("low:Q", title="recall, percent", scale=alt.Scale(domain=[floor, 100])), y2="high:Q"
    )
    line = base.mark_line(color=CATEGORIES[0], opacity=0.4).encode(y=y)
    points = base.mark_point(color=CATEGORIES[0], filled=True, size=60).encode(
        y=y,
        tooltip=[
            alt.Tooltip("checked_at:T", title="checked", format="%Y-%m-%d %H:%M"),
            alt.Tooltip("percent:Q", format=".2f"),
            alt.Tooltip("low:Q", format=".2f", title="95 % from"),
            alt.Tooltip("high:Q", format=".2f", title="to"),
            "k:Q",
            "queries:Q",
        ],
    )
    draw((bars + line + points).properties(height=height))


def share_bars(rows: pd.DataFrame, order: list[str], height: int = 210) -> None:
    """Shares with their interval and n: columns label, n, accuracy, low, high; pale where n is small."""
    drawn = rows[["label", "n", "accuracy", "low", "high"]].assign(
        text=[f"{share:.0f} %, n = {int(n):,}" for share, n in zip(rows["accuracy"], rows["n"], strict=True)],
        few=rows["n"] < SMALL_N,
    )
    base = alt.Chart(drawn).encode(
        y=alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=140, labelOverlap=False))
    )
    x = alt.X("accuracy:Q", title="percent", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=5))
    tips = [
        "label:N",
        alt.Tooltip("accuracy:Q", format=".1f", title="percent"),
        alt.Tooltip("low:Q", format=".1f", title="95 % from"),
        alt.Tooltip("high:Q", format=".1f", title="to"),
        alt.Tooltip("n:Q", format=","),
    ]
    hue = _pale_where("few", GREY_TEXT)
    rule = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title="percent"), x2="high:Q", color=hue)
    point = base.mark_point(filled=True, size=70, opacity=1).encode(x=x, color=hue, tooltip=tips)
    text = base.mark_text(align="left", dx=2, dy=-11, fontSize=11, color="#45545f").encode(
        x=alt.XValue(0),  # type: ignore[no-untyped-call]
        text="text:N",
    )
    draw((rule + point + text).properties(height=height))
    if bool(drawn["few"].any()):
        st.caption(f"Grey: fewer than {SMALL_N} photos.")


def recall_curves(rows: pd.DataFrame, height: int = 300) -> None:
    """Recall over K on a log axis with Wilson bands: columns k, radius_m, within, recall, low, high, n."""
    names = list(dict.fromkeys(rows.sort_values("radius_m")["within"]))
    hue = alt.Color(
        "within:N",
        scale=alt.Scale(domain=names, range=list(CATEGORIES)),
        legend=alt.Legend(
            orient="top", title="within", symbolType="stroke", symbolOpacity=1, symbolStrokeWidth=3
        ),
    )
    x = alt.X(
        "k:Q",
        title="first K answers",
        scale=alt.Scale(type="log", domain=[1, 100]),
        axis=alt.Axis(values=sorted({int(k) for k in rows["k"]}), format="d"),
    )
    base = alt.Chart(rows)
    band = base.mark_area(opacity=0.12).encode(
        x=x, y=alt.Y("low:Q", title="percent", scale=alt.Scale(domain=[0, 100])), y2="high:Q", color=hue
    )
    line = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=30)).encode(
        x=x,
        y=alt.Y("recall:Q", title="percent"),
        color=hue,
        tooltip=[
            alt.Tooltip("within:N"),
            alt.Tooltip("k:Q", title="K"),
            alt.Tooltip("recall:Q", format=".1f", title="percent"),
            alt.Tooltip("low:Q", format=".1f", title="95 % from"),
            alt.Tooltip("high:Q", format=".1f", title="to"),
            alt.Tooltip("n:Q", format=","),
        ],
    )
    draw((band + line).properties(height=height))
