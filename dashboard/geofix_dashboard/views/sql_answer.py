"""What can be done with an answer of the SQL page: take it away, chart it, ask the planner."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import streamlit as st

from geofix.database.queries.dashboard_examples import EXPLAIN
from geofix.database.sandbox import ask
from geofix.settings import get_settings
from geofix_dashboard import charts, theme

MARKS = {"bar": "Bars", "line": "Line", "point": "Points"}
MOST_MARKS = 5_000


def downloads(rows: pd.DataFrame, plain: pd.DataFrame, shapes: Sequence[Any] | None) -> None:
    """Buttons for CSV, Parquet and, where there are shapes, GeoJSON.

    Args:
        rows: All columns, geometry as WKT.
        plain: The columns without geometry.
        shapes: Geometry of each row in EPSG:4326, or None where the answer has none.
    """
    first, second, third = st.columns(3)
    _button(first, "CSV", lambda: rows.to_csv(index=False).encode(), "csv", "text/csv")
    _button(second, "Parquet", lambda: parquet(rows), "parquet", "application/vnd.apache.parquet")
    if shapes is None:
        third.button(
            "Download as GeoJSON", disabled=True, width="stretch", help="The answer has no geometry."
        )
    else:
        _button(third, "GeoJSON", lambda: geojson(plain, shapes).encode(), "geojson", "application/geo+json")


def _button(place: Any, name: str, content: Callable[[], bytes], suffix: str, mime: str) -> None:
    """A download that is made when it is asked for.

    A click must not run the page again: the new run drops what the button was to make.
    """
    place.download_button(
        f"Download as {name}",
        content,
        file_name=f"answer.{suffix}",
        mime=mime,
        icon=":material/download:",
        on_click="ignore",
        width="stretch",
    )


def parquet(rows: pd.DataFrame) -> bytes:
    """The rows as Parquet; columns of mixed kinds become text."""
    out = io.BytesIO()
    mixed = {
        name: rows[name].map(lambda value: None if value is None else str(value))
        for name in rows.columns
        if rows[name].dtype == object
    }
    rows.assign(**mixed).to_parquet(out, index=False)
    return out.getvalue()


def geojson(plain: pd.DataFrame, shapes: Sequence[Any]) -> str:
    """The rows as features, a row without a shape that has a place with a null geometry.

    Heights are left out of a shape that lacks one: GeoJSON has no word for it.
    """
    import shapely

    located, whole = finite(shapes), finite(shapes, heights=True)
    features = []
    for i, facts in enumerate(plain.to_dict("records")):
        shape = shapes[i] if located[i] else None
        if shape is not None and not whole[i]:
            shape = shapely.force_2d(shape)
        geometry = None if shape is None else shapely.geometry.mapping(shape)
        properties = {str(key): _value(value) for key, value in facts.items()}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    return json.dumps({"type": "FeatureCollection", "features": features}, allow_nan=False)


def finite(shapes: Sequence[Any], *, heights: bool = False) -> list[bool]:
    """Of which shapes (None: none) every coordinate, with or without heights, is a finite number."""
    import shapely

    coordinates, of = shapely.get_coordinates(shapes, include_z=True, return_index=True)
    strange = ~np.isfinite(coordinates[:, :2]).all(axis=1)
    if heights:
        strange |= shapely.has_z(shapes)[of] & ~np.isfinite(coordinates[:, 2])
    found = np.ones(len(shapes), np.bool_)
    found[of[strange]] = False
    return [bool(one) for one in found]


def _value(value: Any) -> Any:
    if value is None or (not isinstance(value, list | dict) and pd.isna(value)):
        return None
    if isinstance(value, bool | int | float | str):
        return value
    return value.item() if hasattr(value, "item") else str(value)


def chart(plain: pd.DataFrame) -> None:
    """Two columns of the answer against each other."""
    numbers = _numeric(plain)
    if not numbers or len(plain.columns) < 2:
        theme.empty("Nothing to chart.", "A chart needs a column of numbers and another column.")
        return
    first, second, third = st.columns(3)
    y = str(first.selectbox("Up", numbers, key="sql_chart_y"))
    others = [str(name) for name in plain.columns if name != y]
    x = str(second.selectbox("Across", others, key="sql_chart_x"))
    mark = third.segmented_control(
        "As", list(MARKS), default="bar", format_func=MARKS.__getitem__, key="sql_chart"
    )
    shown = plain[[x, y]].head(MOST_MARKS).copy()
    shown[y] = pd.to_numeric(shown[y], errors="coerce")
    shown.columns = pd.Index(["x", "y"])  # names of others may hold what Vega reads as a path
    kind: Literal["Q", "N"] = "Q" if x in numbers and mark != "bar" else "N"
    across, up = charts.field("x", kind, title=x), charts.field("y", "Q", title=y)
    spec = charts.layer(
        {
            "type": mark or "bar",
            "color": theme.CATEGORIES[0],
            **({"filled": True} if mark == "point" else {}),
        },
        x={**across, "sort": None},
        y={**up, "axis": {"grid": True, "gridColor": "#edf1f4"}},
        tooltip=[across, up],
    )
    charts.draw({**spec, "height": 340}, shown)
    if len(plain) > MOST_MARKS:
        st.caption(f"The first {MOST_MARKS:,} of {len(plain):,} rows are drawn.")


def _numeric(plain: pd.DataFrame) -> list[str]:
    found = []
    for name in plain.columns:
        values = plain[name].dropna()
        if len(values) and pd.to_numeric(values, errors="coerce").notna().all() and values.dtype != bool:
            found.append(str(name))
    return found


def plan(statement: str) -> str:
    """How the server would run a statement, without running it.

    Raises:
        UsageError: It is not a single statement that reads, or it cannot be planned.
    """
    with ask(EXPLAIN + statement, get_settings(), max_rows=1000) as found:
        return "\n".join(str(row[0]) for batch in found.batches() for row in batch)
