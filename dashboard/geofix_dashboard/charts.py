"""Charts in the product's colours.

They are written as the browser reads them, in Vega-Lite. Altair, which writes the same from Python's objects,
takes about 30 ms for each; a test holds every chart against its schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
import streamlit as st

from geofix.evaluation.metrics import wilson
from geofix_dashboard.theme import CATEGORIES, GREY_TEXT, SMALL_N, STATE_COLOURS

Spec = dict[str, Any]  # Vega-Lite, or a part of it
_GRID = {"grid": True, "gridColor": "#edf1f4"}
_TEXT = "#45545f"
_PERCENT = {"domain": [0, 100]}
_LINES = {"symbolType": "stroke", "symbolOpacity": 1, "symbolStrokeWidth": 3}  # of a legend
_NO_TITLE: Spec = {"title": None}
_TYPES = {"Q": "quantitative", "N": "nominal", "T": "temporal"}


def draw(spec: Spec, data: pd.DataFrame, **others: pd.DataFrame) -> None:
    """Draw a chart as wide as its place.

    Args:
        spec: Vega-Lite without data.
        data: What its marks show, unless
        others: a layer names one of these as `{"data": {"name": ...}}`.
    """
    whole = {"data": {"name": "rows"}, **spec, "datasets": {"rows": data, **others}}
    st.vega_lite_chart(spec=whole, width="stretch")


def field(name: str, kind: Literal["Q", "N", "T"], **more: Any) -> Spec:
    """A channel that is a column of numbers (Q), names (N) or moments (T), with more of its properties."""
    return {"field": name, "type": _TYPES[kind], **more}


def layer(mark: Spec, **channels: Any) -> Spec:
    """A mark with its channels."""
    return {"mark": mark, "encoding": channels}


def _number(name: str, title: str, format: str) -> Spec:
    """A number of a tooltip."""
    return field(name, "Q", title=title, format=format)


def _hue(column: str, names: list[str], **legend: Any) -> Spec:
    return field(column, "N", scale={"domain": names, "range": list(CATEGORIES)}, legend=legend)


def _pale_where(column: str, pale: str) -> Spec:
    """One colour, another one where a column is true."""
    return field(column, "N", scale={"domain": [False, True], "range": [CATEGORIES[0], pale]}, legend=None)


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
    x = field(
        "error_m",
        "Q",
        scale={"type": "log", "nice": False},
        title="error of the first answer, metres (below 1 m drawn at 1 m)",
        axis={**_GRID, "format": "~s", "tickCount": 8},
    )
    names = list(dict.fromkeys(rows["evaluation"]))
    hue = _hue("evaluation", names, orient="top", title=None, labelLimit=420, **_LINES)
    lowest = field("low", "Q", title="photos within that distance, percent")
    tips = [
        field("evaluation", "N"),
        _number("error_m", "within metres", ",.0f"),
        _number("share", "percent", ".1f"),
        _number("low", "95 % from", ".1f"),
        _number("high", "to", ".1f"),
    ]
    share = field("share", "Q", scale=_PERCENT)
    line = {"type": "line", "strokeWidth": 2.2, "interpolate": "step-after"}
    rule = {"type": "rule", "color": "#555555", "strokeDash": [5, 4]}
    at = field("at", "Q")
    mark = layer(rule, x=at, tooltip=[{**at, "title": "threshold, metres"}])
    layers = [
        layer({"type": "area", "opacity": 0.13}, x=x, y=lowest, y2={"field": "high"}, color=hue),
        layer(line, x=x, y=share, color=hue, tooltip=tips),
        {"data": {"name": "threshold"}, **mark},
    ]
    draw({"layer": layers, "height": height}, rows, threshold=pd.DataFrame({"at": [threshold_m]}))


def split_bars(rows: pd.DataFrame, height: int = 190) -> None:
    """Photos per split of a snapshot, columns split and photos."""
    photos = field("photos", "Q")
    shared = {
        "y": field("split", "N", sort=["train", "val", "test_seen", "test_unseen"], title=None),
        "x": {**photos, "title": "photos", "axis": {**_GRID, "tickMinStep": 1}},
    }
    bar = {"type": "bar", "height": {"band": 0.62}, "color": CATEGORIES[0]}
    text = {"type": "text", "align": "left", "dx": 5, "color": _TEXT}
    layers = [
        layer(bar, tooltip=[field("split", "N"), photos], **shared),
        layer(text, text={**photos, "format": ","}, **shared),
    ]
    draw({"layer": layers, "height": height}, rows)


def part_bars(parts: Mapping[str, float], total: float, height: int = 170) -> None:
    """What a score is made of: one bar per part from zero, its value beside it, the sum in the title."""
    rows = pd.DataFrame({"part": list(parts), "value": list(parts.values())})
    rows["right"] = rows["value"].clip(lower=0)
    order = list(parts)
    y = field("part", "N", sort=order, title=None, axis={"labelLimit": 180})
    x = field("value", "Q", title=f"part of the score {total:.3f}", axis=_GRID)
    hue = field("part", "N", scale={"domain": order, "range": list(CATEGORIES[:3])}, legend=None)
    tips = [field("part", "N"), field("value", "Q", format=".4f")]
    text = {"type": "text", "align": "left", "dx": 4, "color": _TEXT}
    layers = [
        layer({"type": "bar", "height": {"band": 0.6}}, x=x, y=y, color=hue, tooltip=tips),
        layer(text, x=field("right", "Q"), y=y, text=field("value", "Q", format="+.3f")),
    ]
    draw({"layer": layers, "height": height}, rows)


def curves(rows: pd.DataFrame, series: str, unit: str, height: int = 300) -> None:
    """Lines by epoch: columns epoch, value and the name of the series."""
    names = list(dict.fromkeys(rows[series]))
    shown = names[: len(CATEGORIES)] if len(names) > len(CATEGORIES) else names
    epoch = field("epoch", "Q")
    spec = layer(
        {"type": "line", "strokeWidth": 2, "point": {"size": 22}},
        x={**epoch, "title": "epoch", "axis": {"tickMinStep": 1, "grid": False}},
        y=field("value", "Q", title=unit, axis=_GRID),
        color=_hue(series, shown, orient="top", title=None, columns=4),
        tooltip=[epoch, field(series, "N"), field("value", "Q", format=".4g")],
    )
    draw({**spec, "height": height}, rows[rows[series].isin(shown)])


def stage_seconds(stages: list[tuple[str, float, bool]]) -> None:
    """How long each stage took, in its order; skipped ones pale."""
    rows = pd.DataFrame(stages, columns=["stage", "seconds", "skipped"])
    stage, seconds = field("stage", "N"), field("seconds", "Q")
    shared = {
        "y": {
            **stage,
            "sort": list(rows["stage"]),
            "title": None,
            "axis": {"labelLimit": 260, "labelOverlap": False},
        },
        "x": {**seconds, "title": "seconds", "axis": _GRID},
    }
    text = {"type": "text", "align": "left", "dx": 4, "color": _TEXT}
    layers = [
        layer(
            {"type": "bar", "height": {"band": 0.62}},
            color=_pale_where("skipped", "#c9d3da"),
            tooltip=[stage, seconds, field("skipped", "N")],
            **shared,
        ),
        layer(text, text={**seconds, "format": ",.1f"}, **shared),
    ]
    draw({"layer": layers, "height": max(80, 22 * len(rows))}, rows)


def stage_times(rows: pd.DataFrame) -> None:
    """When each stage ran, columns stage, state, from, to; nothing where none has begun."""
    if rows.empty:
        return
    states = list(STATE_COLOURS)
    fills = [STATE_COLOURS[state][0] for state in states]
    stage, state = field("stage", "N"), field("state", "N")
    begun, ended = field("from", "T"), field("to", "T")
    axis = {"labelLimit": 260, "labelOverlap": False}
    spec = layer(
        {"type": "bar", "height": {"band": 0.62}},
        y={**stage, "sort": list(rows["stage"]), "title": None, "axis": axis},
        x={**begun, "title": None, "axis": {**_GRID, "format": "%H:%M:%S"}},
        x2={"field": "to"},
        color={
            **state,
            "scale": {"domain": states, "range": fills},
            "legend": {"orient": "top", "title": None, "values": sorted(set(rows["state"]))},
        },
        tooltip=[stage, state, *({**moment, "format": "%H:%M:%S"} for moment in (begun, ended))],
    )
    draw({**spec, "height": max(90, 24 * len(rows) + 40)}, rows)


def recall_points(rows: pd.DataFrame, height: int = 260) -> None:
    """Recall checks over time, Wilson bars over queries times k: columns checked_at, recall, k, queries."""
    n = (rows["queries"] * rows["k"]).to_numpy(float)
    low, high = wilson(np.round(rows["recall"].to_numpy(float) * n), n)
    drawn = rows.assign(percent=100 * rows["recall"], low=low, high=high)
    up = {"title": "recall, percent", "scale": {"domain": [float(min(90.0, np.floor(np.min(low)))), 100]}}
    x = field("checked_at", "T", title=None, axis={"format": "%m-%d %H:%M"})
    y = field("percent", "Q", **up)
    tips = [
        field("checked_at", "T", title="checked", format="%Y-%m-%d %H:%M"),
        field("percent", "Q", format=".2f"),
        _number("low", "95 % from", ".2f"),
        _number("high", "to", ".2f"),
        field("k", "Q"),
        field("queries", "Q"),
    ]
    colour = {"color": CATEGORIES[0]}
    layers = [
        layer(
            {"type": "rule", "opacity": 0.5, "strokeWidth": 2, **colour},
            x=x,
            y=field("low", "Q", **up),
            y2={"field": "high"},
        ),
        layer({"type": "line", "opacity": 0.4, **colour}, x=x, y=y),
        layer({"type": "point", "filled": True, "size": 60, **colour}, x=x, y=y, tooltip=tips),
    ]
    draw({"layer": layers, "height": height}, drawn)


def share_bars(rows: pd.DataFrame, order: list[str], height: int = 210) -> None:
    """Shares with their interval and n: columns label, n, accuracy, low, high; pale where n is small."""
    drawn = rows[["label", "n", "accuracy", "low", "high"]].assign(
        text=[f"{share:.0f} %, n = {int(n):,}" for share, n in zip(rows["accuracy"], rows["n"], strict=True)],
        few=rows["n"] < SMALL_N,
    )
    y = field("label", "N", sort=order, title=None, axis={"labelLimit": 140, "labelOverlap": False})
    x = field("accuracy", "Q", title="percent", scale=_PERCENT, axis={"tickCount": 5})
    tips = [
        field("label", "N"),
        _number("accuracy", "percent", ".1f"),
        _number("low", "95 % from", ".1f"),
        _number("high", "to", ".1f"),
        field("n", "Q", format=","),
    ]
    hue = _pale_where("few", GREY_TEXT)
    low = field("low", "Q", title="percent")
    text = {"type": "text", "align": "left", "dx": 2, "dy": -11, "fontSize": 11, "color": _TEXT}
    layers = [
        layer({"type": "rule", "strokeWidth": 2}, x=low, x2={"field": "high"}, y=y, color=hue),
        layer({"type": "point", "filled": True, "size": 70, "opacity": 1}, x=x, y=y, color=hue, tooltip=tips),
        layer(text, x={"value": 0}, y=y, text=field("text", "N")),
    ]
    draw({"layer": layers, "height": height}, drawn)
    if bool(drawn["few"].any()):
        st.caption(f"Grey: fewer than {SMALL_N} photos.")


def recall_curves(rows: pd.DataFrame, height: int = 300) -> None:
    """Recall over K on a log axis with Wilson bands: columns k, radius_m, within, recall, low, high, n."""
    names = list(dict.fromkeys(rows.sort_values("radius_m")["within"]))
    hue = _hue("within", names, orient="top", title="within", **_LINES)
    x = field(
        "k",
        "Q",
        title="first K answers",
        scale={"type": "log", "domain": [1, 100]},
        axis={"values": sorted({int(k) for k in rows["k"]}), "format": "d"},
    )
    tips = [
        field("within", "N"),
        field("k", "Q", title="K"),
        _number("recall", "percent", ".1f"),
        _number("low", "95 % from", ".1f"),
        _number("high", "to", ".1f"),
        field("n", "Q", format=","),
    ]
    low = field("low", "Q", title="percent", scale=_PERCENT)
    line = {"type": "line", "strokeWidth": 2, "point": {"size": 30}}
    layers = [
        layer({"type": "area", "opacity": 0.12}, x=x, y=low, y2={"field": "high"}, color=hue),
        layer(line, x=x, y=field("recall", "Q", title="percent"), color=hue, tooltip=tips),
    ]
    draw({"layer": layers, "height": height}, rows)
