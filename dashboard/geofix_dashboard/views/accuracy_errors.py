"""How wrong: the distribution of errors, recall at K, and every error as a line on the map."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from geofix_dashboard import accuracy_data, charts, maps, theme
from geofix_dashboard.meanwhile import meanwhile

if TYPE_CHECKING:
    from geofix_dashboard.views.accuracy_choice import Choice

KS = (1, 5, 10, 100)  # of the table; of the curves:
CURVE_KS = (1, 2, 5, 10, 20, 50, 100)
CURVE_RADII_M = (50.0, 100.0, 200.0, 1000.0)
DISTANCES_M = (25.0, 100.0, 500.0)
PHOTOS = (1.0, 5.0, 20.0)


def render(choice: Choice) -> None:
    """Draw the curve, the tables and the map of errors."""
    with meanwhile(wait=False) as pool:  # what is read early is cached; the page asks for it where it stands
        pool.submit(_recalled, choice)
        for row in _alike(choice):
            pool.submit(_share, row, choice)
        pool.submit(_drawn_lines, choice)
        _draw(choice)


def _draw(choice: Choice) -> None:
    left, right = st.columns([1, 1], gap="large")
    with left:
        theme.section("How many photos are within a distance", "Bands: 95 % Wilson interval at each distance")
        curves = {choice.name: accuracy_data.quantiles(choice.name, choice.created, choice.focus)}
        if choice.other:
            curves[choice.other] = accuracy_data.quantiles(choice.other, choice.created, choice.focus)
        if not curves[choice.name][0]:
            theme.empty("No photo lies here.", "Choose another place, or go back to all photos.")
            return
        charts.error_curve({name: curve for name, curve in curves.items() if curve[0]}, choice.threshold_m)
    with right:
        _recall(choice)
    _splits(choice)
    _lines(choice)


def _radii(choice: Choice) -> list[float]:
    """Distances of the table: those of the protocol and the chosen one."""
    protocol = choice.row["metrics"].get("protocol") or {}
    return sorted({float(r) for r in protocol.get("radii_m") or CURVE_RADII_M} | {choice.threshold_m})


def _recalled(choice: Choice) -> pd.DataFrame:
    """Recall at every K and distance of this page, in one query."""
    radii = tuple(sorted({*_radii(choice), *CURVE_RADII_M}))
    rows: pd.DataFrame = accuracy_data.recall(choice.name, choice.created, CURVE_KS, radii, choice.focus)
    return rows


def _recall(choice: Choice) -> None:
    radii = _radii(choice)
    rows = _recalled(choice)
    rows = rows[rows["k"].isin(KS) & rows["radius_m"].isin(radii)]
    counts = {int(n) for n in rows["n"]}
    told = f", n = {counts.pop():,}" if len(counts) == 1 else ""
    theme.section(
        "Recall at K", f"Percent with one of the first K answers within a distance (95 % interval){told}"
    )
    table = pd.DataFrame(index=[f"first {k}" if k > 1 else "first" for k in KS])
    for radius in radii:
        part: Any = rows[rows["radius_m"] == radius]
        n = int(part["n"].max()) if len(part) else 0
        cells = {
            f"first {row.k}" if row.k > 1 else "first": f"{row.recall:.1f} ({row.low:.0f}–{row.high:.0f})"
            for row in part.itertuples()
        }
        table[theme.radius(radius) if told else f"{theme.radius(radius)}, n = {n:,}"] = pd.Series(cells)
    st.dataframe(table, width="stretch")


def _splits(choice: Choice) -> None:
    """Accuracy by what training has seen near the photo, and recall at K as curves."""
    first, second, third = st.columns(3, gap="large")
    near = theme.radius(choice.threshold_m)
    with first:
        theme.section("By distance to the nearest training photo", f"Within {near}, 95 % Wilson interval")
        names = ["under 25 m", "25 to 100 m", "100 to 500 m", "500 m and more"]
        _bins(choice, "distance", DISTANCES_M, names)
    with second:
        theme.section("By training photos in its cell", f"Within {near}, 95 % Wilson interval")
        _bins(choice, "photos", PHOTOS, ["none", "1 to 4", "5 to 19", "20 and more"])
    with third:
        theme.section("Seen and unseen", f"Same localizer on other splits, within {near}")
        _other_splits(choice)
    theme.section("Recall by number of answers", "Percent with one of the first K answers within a distance")
    rows = _recalled(choice)
    rows = rows[rows["radius_m"].isin({*CURVE_RADII_M, choice.threshold_m})]
    charts.recall_curves(rows.assign(within=[theme.radius(radius) for radius in rows["radius_m"]]))


def _bins(choice: Choice, by: str, edges: tuple[float, ...], names: list[str]) -> None:
    rows = accuracy_data.by_bin(choice.name, choice.created, choice.threshold_m, choice.focus, by, edges)
    labels = ["unknown" if pd.isna(bin_) else names[int(bin_)] for bin_ in rows["bin"]]
    charts.share_bars(rows.assign(label=labels), [*names, "unknown"])


def _alike(choice: Choice) -> list[Any]:
    """The evaluations that differ from this one in the split alone, one of each split."""
    every = accuracy_data.evaluations()
    alike = every[["localizer", "model", "code_set", "snapshot_id", "level"]].astype(str)
    own = alike[every["evaluation"] == choice.name].iloc[0]
    same = every[(alike == own).all(axis=1)]
    return list(same.drop_duplicates("split", keep="last").itertuples())


def _share(row: Any, choice: Choice) -> dict[str, Any]:
    """The share of one evaluation where this page looks."""
    found = accuracy_data.overall(row.evaluation, str(row.created_at), choice.threshold_m, choice.focus)
    return {"label": f"{row.split}", **found}


def _other_splits(choice: Choice) -> None:
    rows = [share for share in (_share(row, choice) for row in _alike(choice)) if share["n"]]
    if len(rows) < 2:
        theme.empty(
            "Only one split was evaluated.",
            "Seen and unseen cells are compared once both splits are.",
            f"geofix evaluate run --localizer {choice.row['localizer']} --snapshot DIR --split test_unseen",
        )
        return
    charts.share_bars(pd.DataFrame(rows), ["train", "val", "test_seen", "test_unseen"])


def _drawn_lines(choice: Choice) -> Any:
    return accuracy_data.error_lines(choice.name, choice.created, choice.focus)


def _lines(choice: Choice) -> None:
    rows = _drawn_lines(choice)
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
