"""Where new imagery would help most: cells among photos that lack a view, or whose views are old."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from geofix.spatial import s2
from geofix_dashboard import maps, theme

AROUND = 2  # levels up: the cell of about 4 x 4 cells that counts as around
OLD_YEARS = 10.0  # imagery of this age counts like a missing view
FORMULA = (
    "need = log2(1 + photos around) x (missing views / 2 + age / 10 years, at most 1). Around: in the cell "
    "two levels up. Missing: no ground prototype, no aerial code. Age: of the newest photo or tile"
)


def with_needs(rows: pd.DataFrame, now: pd.Timestamp) -> pd.DataFrame:
    """The cells with around, missing (0 to 2 views), age_years (NaN without a date) and need; most first.

    Photos around are those of the cells given, so a cut answer counts only what it holds.
    """
    ids = s2.from_token(rows["code"].to_numpy(str))
    parents = pd.Series(s2.parent(ids, np.maximum(s2.level(ids) - AROUND, 0)), index=rows.index)
    around = rows["photos"].groupby(parents).transform("sum")
    missing = (~rows["has_prototype"].astype(bool)).astype(int) + (~rows["has_aerial"].astype(bool)).astype(
        int
    )
    dates = pd.concat(
        [pd.to_datetime(rows[name], utc=True) for name in ("last_captured_at", "last_aerial")], axis=1
    )
    age = (now - dates.max(axis=1)).dt.total_seconds() / (365.25 * 86_400)
    weight = missing / 2 + (age / OLD_YEARS).clip(0, 1).fillna(0)
    found = rows.assign(around=around, missing=missing, age_years=age, need=np.log2(1 + around) * weight)
    return found.sort_values(["need", "around", "code"], ascending=[False, False, True])


def fill(needs: pd.Series, most: float) -> list[list[int]]:
    """Colours of cells by their need."""
    return theme.colours(needs / max(most, 1e-9))


def tip(row: Any) -> str:
    """Tooltip of a cell."""
    return maps.tip_of(
        f"Cell {row.code}",
        {
            "need": f"{row.need:.2f}",
            "photos around": f"{int(row.around):,}",
            "missing views": f"{int(row.missing)} of 2",
            "age": "–" if pd.isna(row.age_years) else f"{row.age_years:.1f} years",
        },
    )


def legend(most: float, note: str) -> None:
    """The bar of `fill`."""
    theme.legend("Need", theme.VIRIDIS, [f"{most * i / 4:.1f}" for i in range(5)], note)


def table(rows: pd.DataFrame) -> None:
    """The ranking, with a download."""
    theme.section("Ranking", FORMULA)
    shown = rows[["code", "need", "around", "photos", "aerial_tiles", "missing", "age_years"]]
    number = st.column_config.NumberColumn
    st.dataframe(
        shown,
        hide_index=True,
        width="stretch",
        height=theme.table_height(len(shown), maps.HEIGHT),
        column_config={
            "code": "Cell",
            "need": number("Need", format="%.2f"),
            "around": number("Photos around", format="localized"),
            "photos": number("Photos", format="localized"),
            "aerial_tiles": number("Tiles", format="localized"),
            "missing": number("Missing views", format="%d"),
            "age_years": number("Age, years", format="%.1f"),
        },
    )
    st.download_button(
        "Download as CSV",
        shown.to_csv(index=False).encode(),
        file_name="needs.csv",
        mime="text/csv",
        icon=":material/download:",
        on_click="ignore",
    )
