"""Partitions, a part of the data page: how the earth is cut into classes, and how many photos each has."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from geofix.database.engine import connect
from geofix.database.queries import dashboard_partitions
from geofix_dashboard import data, links, maps, theme

TABLE, TIME = "partitions-table", "YYYY-MM-DD HH:mm"
_MOST = 500  # classes in the table


@data.cached
def partition_rows() -> pd.DataFrame:
    """Partitions."""
    with connect("reader") as conn:
        return dashboard_partitions.partitions(conn)


@data.kept(20, "Drawing classes …")
def class_rows(name: str, tolerance: float) -> pd.DataFrame:
    """Classes of a partition with outlines for a map."""
    with connect("reader") as conn:
        return dashboard_partitions.partition_classes(conn, name, tolerance, limit=maps.MAX_FEATURES)


@data.kept(20, "Drawing classes …")
def class_cells(name: str) -> pd.DataFrame:
    """Cells that hold the classes of a partition of too many for a map."""
    with connect("reader") as conn:
        return dashboard_partitions.partition_cells(conn, name, limit=maps.MAX_FEATURES)


def render() -> None:
    """Draw the part: all partitions, then one of them as a map and a table."""
    rows = partition_rows()
    if rows.empty:
        theme.empty(
            "No partition is stored.",
            "A partition cuts the earth into classes, so that a classifier can name one as its answer.",
            "geofix partitions build NAME --rule adaptive --dataset NAME",
        )
        return
    theme.section(
        "Partitions", "Photos are those that a class was made from. Choose a row to see its classes"
    )
    names = list(rows["name"])
    _table(rows, names)
    name = str(links.choose("partition", "Partition", names))
    _one(rows[rows["name"] == name].iloc[0])


def limits(parameters: dict[str, Any]) -> str:
    """In words how many photos a class may have by its rule."""
    least, most = parameters.get("tau_min"), parameters.get("tau_max")
    parts = [
        f"more than {least:,}" if isinstance(least, int) else "",
        f"at most {most:,}" if isinstance(most, int) else "",
    ]
    return ", ".join(part for part in parts if part) or "–"


def extent(row: Any) -> str:
    """The box around all classes: west to east, south to north."""
    return f"{_degrees(row.west, 'W', 'E')} – {_degrees(row.east, 'W', 'E')}, " + (
        f"{_degrees(row.south, 'S', 'N')} – {_degrees(row.north, 'S', 'N')}"
    )


def _degrees(value: float, below: str, above: str) -> str:
    return f"{abs(value):.1f}° {below if value < 0 else above}"


def _levels(row: Any) -> str:
    if isinstance(row.region_level, str):
        return row.region_level
    if pd.isna(row.min_level):
        return "–"
    low, high = int(row.min_level), int(row.max_level)
    return str(low) if low == high else f"{low}–{high}"


def _table(rows: pd.DataFrame, names: list[str]) -> None:
    number = st.column_config.NumberColumn
    st.dataframe(
        pd.DataFrame(
            {
                "name": rows["name"],
                "rule": rows["kind"],
                "classes": rows["classes"],
                "photos": rows["photos"],
                "least": rows["least"],
                "middle": rows["middle"],
                "most": rows["most"],
                "limits": [limits(value) for value in rows["parameters"]],
                "levels": [_levels(row) for row in rows.itertuples()],
                "extent": [extent(row) for row in rows.itertuples()],
                "made": rows["created_at"],
            }
        ),
        key=TABLE,
        hide_index=True,
        width="stretch",
        height=theme.table_height(len(rows), 300),
        on_select=lambda: _row_chosen(names),
        selection_mode="single-row",
        column_config={
            "name": "Partition",
            "rule": "Rule",
            "classes": number("Classes", format="localized"),
            "photos": number("Photos", format="localized"),
            "least": number("Fewest in a class", format="localized"),
            "middle": number("Median", format="localized"),
            "most": number("Most", format="localized"),
            "limits": st.column_config.TextColumn("Photos allowed", help="Per class, by the rule"),
            "levels": st.column_config.TextColumn("Levels", help="S2 levels of the cells, or of the regions"),
            "extent": st.column_config.TextColumn("Extent", help="The box around all classes"),
            "made": st.column_config.DatetimeColumn("Made", format=TIME),
        },
    )


def _row_chosen(names: list[str]) -> None:
    picked = st.session_state[TABLE]["selection"]["rows"]
    if picked:
        st.session_state["url_partition"] = names[picked[0]]
        links.put("partition", names[picked[0]])


def _one(row: pd.Series) -> None:
    bounds = (float(row["west"]), float(row["south"]), float(row["east"]), float(row["north"]))
    classes = class_rows(str(row["name"]), maps.tolerance_of(bounds))
    spread = (int(row["least"]), int(row["most"]))
    if isinstance(row["stale_reason"], str):
        st.warning(f"It should be made again: {row['stale_reason']}", icon=":material/update:")
    left, right = st.columns([1, 1], gap="large")
    with left:
        if int(classes["classes"].iloc[0]) > len(classes):
            _cells(class_cells(str(row["name"])), bounds)
        else:
            _map(classes, bounds, *spread)
    with right:
        _classes(classes)
        _facts(row)


def fill(least: int, most: int) -> Callable[[Any], list[int]]:
    """Colour by the logarithm of a class's photos, from the fewest to the most of any class."""
    wide = math.log(most / least) or 1.0

    def of(row: Any) -> list[int]:
        return theme.colour(1.0 if least == most else math.log(row.photos / least) / wide)

    return of


def _map(classes: pd.DataFrame, bounds: maps.Bounds, least: int, most: int) -> None:
    theme.section("Classes on the map", "By the photos they were made from")
    maps.draw("partition-map", maps.areas(classes, fill(least, most), tip, bounds), bounds, trace=False)
    total, shown = int(classes["classes"].iloc[0]), int(classes["shape"].notna().sum())
    notes = [
        f"{total:,} classes drawn" if shown == total else f"{shown:,} of {total:,} classes drawn",
        f"n = {int(classes['photos'].sum()):,} photos",
        "dots: classes too small to be seen",
    ]
    theme.legend("Photos per class (logarithmic)", theme.VIRIDIS, _ticks(least, most), " · ".join(notes))


def _cells(cells: pd.DataFrame, bounds: maps.Bounds) -> None:
    """A map of cells that hold the classes, where these are too many to be drawn each."""
    level, classes = int(cells["level"].iloc[0]), int(cells["classes"].sum())
    theme.section("Where the classes are", f"S2 cells of level {level}, by the photos of the classes in them")
    least, most = int(cells["photos"].min()), int(cells["photos"].max())

    def told(row: Any) -> str:
        return maps.tip_of(f"Cell {row.code}", {"classes": f"{row.classes:,}", "photos": f"{row.photos:,}"})

    maps.draw("partition-map", maps.areas(cells, fill(least, most), told, bounds), bounds, trace=False)
    notes = f"{len(cells):,} cells hold the {classes:,} classes · n = {int(cells['photos'].sum()):,} photos"
    theme.legend("Photos per cell (logarithmic)", theme.VIRIDIS, _ticks(least, most), notes)


def _ticks(least: int, most: int) -> list[str]:
    return [f"{round(least * (most / least) ** (i / 4)):,}" for i in range(5)]


def tip(row: Any) -> str:
    """Tooltip of a class."""
    parent = {} if pd.isna(row.parent_class) else {"in coarser class": f"{int(row.parent_class)}"}
    answer = f"{row.mean_lat:.3f}, {row.mean_lon:.3f}"
    facts = {"photos": f"{row.photos:,}", "answers with": answer}
    return maps.tip_of(str(row.code), {**facts, **parent})


def _classes(classes: pd.DataFrame) -> None:
    theme.section("Fullest classes", "A class answers with the mean position of its photos")
    shown = classes.head(_MOST)[["class", "code", "photos", "mean_lat", "mean_lon"]]
    number = st.column_config.NumberColumn
    st.dataframe(
        shown,
        hide_index=True,
        width="stretch",
        height=theme.table_height(len(shown), 300),
        column_config={
            "class": number("Class", format="plain"),
            "code": "Cell or region",
            "photos": number("Photos", format="localized"),
            "mean_lat": number("Latitude", format="%.4f"),
            "mean_lon": number("Longitude", format="%.4f"),
        },
    )


def _facts(row: pd.Series) -> None:
    snapshot = row["snapshot"] if isinstance(row["snapshot"], str) else "all photos of the data sets"
    facts = [
        ("Made from", ", ".join(row["datasets"]) or "–", snapshot),
        (
            "Nested in",
            row["coarser"] if isinstance(row["coarser"], str) else "–",
            "every class has one parent there",
        ),
        ("Intersection of", ", ".join(row["sets"]) or "–", ""),
        ("Parameters", "", ", ".join(f"{key} {value}" for key, value in row["parameters"].items()) or "–"),
        ("Polygons", "", f"geofix partitions export {row['name']} --out {row['name']}.gpkg"),
    ]
    theme.facts([fact for fact in facts if fact[1] != "–"])
