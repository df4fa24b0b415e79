"""How wrong: the distribution of errors, recall at K, and every error as a line on the map."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from geofix.evaluation.metrics import wilson
from geofix_dashboard import charts, data, maps, theme

if TYPE_CHECKING:
    from geofix_dashboard.views.accuracy_choice import Choice

KS = (1, 5, 10, 100)


def render(choice: Choice) -> None:
    """Draw the curve, the tables and the map of errors."""
    left, right = st.columns([1, 1], gap="large")
    with left:
        theme.section("How many photos are within a distance", "Bands: 95 % Wilson interval at each distance")
        curves = {choice.name: data.quantiles(choice.name, choice.created, choice.focus)}
        if choice.other:
            curves[choice.other] = data.quantiles(choice.other, choice.created, choice.focus)
        if not curves[choice.name][0]:
            theme.empty("No photo lies here.", "Choose another place, or go back to all photos.")
            return
        charts.error_curve({name: curve for name, curve in curves.items() if curve[0]}, choice.threshold_m)
    with right:
        _recall(choice)
        _by_distance(choice)
    _lines(choice)


def _recall(choice: Choice) -> None:
    protocol = choice.row["metrics"].get("protocol") or {}
    radii = tuple(
        sorted({float(r) for r in protocol.get("radii_m") or (50, 100, 200, 1000)} | {choice.threshold_m})
    )
    rows = data.recall(choice.name, choice.created, KS, radii, choice.focus)
    counts = {int(n) for n in rows["n"]}
    told = f", n = {counts.pop():,}" if len(counts) == 1 else ""
    theme.section(
        "Recall at K", f"Percent with one of the first K answers within a distance (95 % interval){told}"
    )
    table = pd.DataFrame(index=[f"first {k}" if k > 1 else "first" for k in KS])
    for radius in radii:
        part = rows[rows["radius_m"] == radius]
        n = int(part["n"].max()) if len(part) else 0
        cells = {
            f"first {row.k}" if row.k > 1 else "first": f"{row.recall:.1f} ({row.low:.0f}–{row.high:.0f})"
            for row in part.itertuples()
        }
        table[theme.radius(radius) if told else f"{theme.radius(radius)}, n = {n:,}"] = pd.Series(cells)
    st.dataframe(table, width="stretch")


def _by_distance(choice: Choice) -> None:
    """The stored split by distance to the nearest training photo, for the whole evaluation."""
    found = choice.row["metrics"].get("by_training_distance") or {}
    rows = [(label, part) for label, part in found.items() if part.get("recall")]
    if not rows:
        return
    theme.section("By distance to the nearest training photo", "First answer, whole evaluation, percent")
    order = {"<25": 0, "25-100": 1, ">100": 2}
    shown = []
    for label, part in sorted(rows, key=lambda item: order.get(item[0], 9)):
        row: dict[str, Any] = {"Training photo": f"{label} m", "n": part["n"]}
        for radius, share in part["recall"].items():
            low, high = wilson(round(share * part["n"] / 100), part["n"])
            row[theme.radius(float(radius))] = f"{share:.1f} ({float(low):.0f}–{float(high):.0f})"
        shown.append(row)
    st.dataframe(pd.DataFrame(shown), hide_index=True, width="stretch")


def _lines(choice: Choice) -> None:
    rows = data.error_lines(choice.name, choice.created, choice.focus)
    theme.section(
        "Every error as a line", "From where the photo was taken (dark) to where it was placed (coloured)"
    )
    if rows.empty:
        theme.empty("No photo was answered.", "There is no line to draw where a localizer gave no answer.")
        return
    # Right and wrong by the threshold; the scale runs over the decades around it.
    most = float(max(rows["error_m"].max(), choice.threshold_m * 10))
    low = math.log(max(choice.threshold_m / 10, 1.0))
    span = max(math.log(most) - low, 0.1)
    rgba = [
        theme.colour((math.log(max(e, 1.0)) - low) / span, theme.CIVIDIS[::-1], 215) for e in rows["error_m"]
    ]
    drawn = rows.assign(rgba=rgba)
    everything = (
        min(rows["true_lon"].min(), rows["lon"].min()),
        min(rows["true_lat"].min(), rows["lat"].min()),
        max(rows["true_lon"].max(), rows["lon"].max()),
        max(rows["true_lat"].max(), rows["lat"].max()),
    )
    maps.draw("error-map", maps.lines(drawn, _tip), tuple(map(float, everything)), height=560, width=960)  # type: ignore[arg-type]
    ticks = [theme.metres(math.exp(low + span * i / 4)) for i in range(5)]
    total = int(rows["photos"].iloc[0])
    theme.legend(
        "Error of the first answer (logarithmic)",
        theme.CIVIDIS[::-1],
        ticks,
        f"{len(rows):,} of {total:,} answered photos drawn · dark dot: truth · coloured dot: answer",
    )


def _tip(row: Any) -> str:
    return maps.tip_of(f"Photo {row.photo_id}", {"error": theme.metres(row.error_m)})
