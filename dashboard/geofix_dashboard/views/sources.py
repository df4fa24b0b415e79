"""Data: data sets, rejects with their reasons, snapshots with their splits, regions, partitions."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from geofix_dashboard import charts, data, links, theme
from geofix_dashboard.views import partitions

PARTS = {
    "datasets": "Data sets",
    "rejects": "Rejects",
    "snapshots": "Snapshots",
    "regions": "Regions",
    "partitions": "Partitions",
}
TIME = "YYYY-MM-DD HH:mm"
SPLITS = ("train", "val", "test_seen", "test_unseen")


def render() -> None:
    """Draw the page."""
    theme.header(
        "Data",
        "What was loaded, what was turned away and why, and how it was split and cut into classes.",
    )
    part = links.choose("part", "Show", list(PARTS), kind="segments", show=PARTS.__getitem__)
    draw = {
        "datasets": _datasets,
        "rejects": _rejects,
        "snapshots": _snapshots,
        "regions": _regions,
        "partitions": partitions.render,
    }
    draw[str(part)]()


def _datasets() -> None:
    rows = data.table("datasets")
    if rows.empty:
        theme.empty(
            "No data set was loaded.",
            "Photos come with EXIF positions or a metadata file, aerial imagery as GeoTIFF or XYZ tiles.",
            "geofix ingest photos FOLDER --dataset NAME --licence TEXT --attribution TEXT",
            "geofix ingest aerial FILE... --source NAME",
        )
        return
    for row in rows.itertuples():
        _card(row)


def _card(row: Any) -> None:
    with st.container(border=True):
        left, right = st.columns([3, 4], gap="medium")
        with left:
            st.markdown(f"#### {_plain(row.name)}")
            st.caption(f"{row.kind} · loaded {theme.minute(row.created_at)}")
            st.markdown(
                f"**Licence** {_plain(row.licence) or ':material/warning: none given'}  \n"
                f"**Attribution** {_plain(row.attribution) or ':material/warning: none given'}"
            )
            st.caption(f"Source {_plain(row.source_uri) or '–'}")
        with right:
            facts = {
                "photos": (("Photos", row.photos), ("Sequences", row.sequences), ("Rejects", row.rejects)),
                "aerial": (
                    ("Rasters", row.rasters),
                    ("Aerial tiles", row.aerial_tiles),
                    ("Rejects", row.rejects),
                ),
                "regions": (("Regions", row.regions), ("Rejects", row.rejects)),
            }[str(row.kind)]
            for column, (label, value) in zip(st.columns(3), facts, strict=False):
                column.metric(label, f"{value:,}", border=True)
            if not pd.isna(row.first_captured_at):
                st.caption(f"taken {theme.day(row.first_captured_at)} to {theme.day(row.last_captured_at)}")


def _rejects() -> None:
    rows = data.table("reject_counts")
    if rows.empty:
        theme.empty(
            "Nothing was rejected.",
            "A file that cannot be used lands here with its reason while the rest of its data set loads.",
            "geofix ingest photos FOLDER --dataset NAME",
        )
        return
    theme.section("By reason", f"n = {int(rows['rejects'].sum()):,} rejects")
    st.dataframe(
        rows,
        hide_index=True,
        width="stretch",
        column_config={
            "dataset": "Data set",
            "kind": "Kind",
            "reason": "Reason",
            "rejects": st.column_config.NumberColumn("Rejects", format="localized"),
            "example": "Example",
            "last_seen": st.column_config.DatetimeColumn("Last seen", format=TIME),
        },
    )
    theme.section("One by one", "The newest 500")
    left, right, _ = st.columns([2, 2, 3])
    with left:
        dataset = links.choose("dataset", "Data set", ["all", *sorted(set(rows["dataset"]))])
    with right:
        reason = links.choose("reason", "Reason", ["all", *sorted(set(rows["reason"]))])
    picked = [None if value == "all" else value for value in (dataset, reason)]
    st.dataframe(
        data.table("rejects", *picked),
        hide_index=True,
        width="stretch",
        column_config={
            "dataset": "Data set",
            "kind": "Kind",
            "reason": "Reason",
            "source_key": "File or record",
            "detail": st.column_config.TextColumn("Detail", width="large"),
            "seen_at": st.column_config.DatetimeColumn("Seen", format=TIME),
        },
    )


def _snapshots() -> None:
    rows = data.table("snapshots")
    if rows.empty:
        theme.empty(
            "No snapshot was built.",
            "A snapshot freezes which photos train and which test, with a buffer between them.",
            "geofix snapshot build --dataset NAME --out DIR",
        )
        return
    labels = {row.sha256: f"{row.sha256} · {theme.minute(row.created_at)}" for row in rows.itertuples()}
    name = links.choose("snapshot", "Snapshot", list(labels), show=labels.__getitem__)
    row = rows[rows["sha256"] == name].iloc[0]
    splits = _splits(row)
    left, right = st.columns([1, 1], gap="large")
    with left:
        theme.section("Photos per split", f"n = {int(splits['photos'].sum()):,} photos")
        charts.split_bars(splits)
        st.dataframe(
            splits,
            hide_index=True,
            width="stretch",
            column_config={
                "split": "Split",
                "photos": st.column_config.NumberColumn("Photos", format="localized"),
                "sequences": st.column_config.NumberColumn("Sequences", format="localized"),
                "cells_l15": st.column_config.NumberColumn("Cells (level 15)", format="localized"),
                "blocks_l13": st.column_config.NumberColumn("Blocks (level 13)", format="localized"),
            },
        )
    with right:
        theme.section("How it was split")
        config = {key: value for key, value in dict(row["config"]).items()}
        shown = pd.DataFrame({"Setting": list(config), "Value": [_text(value) for value in config.values()]})
        st.dataframe(shown, hide_index=True, width="stretch")
        st.caption(
            f"{int(row['models'])} models and {int(row['evaluations'])} evaluations rest on it. "
            f"Files: `{row['uri']}`"
        )


def _splits(row: pd.Series) -> pd.DataFrame:
    """What the splits held when the snapshot was stored; photos alone where that was not counted."""
    counted: pd.DataFrame = data.table("splits", int(row["snapshot_id"]))
    if len(counted):
        return counted
    frozen = {split: int(row["counts"].get(split, 0)) for split in SPLITS}
    return pd.DataFrame([(split, n) for split, n in frozen.items() if n], columns=["split", "photos"])


def _regions() -> None:
    levels = data.table("region_levels")
    if levels.empty:
        theme.empty(
            "No region was loaded.",
            "Countries and admin-1 outlines give photos a country, maps a background, and accuracy by place.",
            "geofix ingest regions FILE --level country --code-field FIELD --name-field FIELD",
        )
        return
    names = list(levels["level"])
    told = dict(zip(names, levels["regions"], strict=True))
    level = links.choose("regions", "Level", names, kind="segments", show=lambda x: f"{x} ({told[x]:,})")
    rows = data.table("regions", level)
    repaired = int(levels.set_index("level").loc[level, "repaired"])
    theme.section(str(level), f"n = {told[level]:,} regions, {repaired:,} repaired on loading")
    st.dataframe(
        rows.drop(columns="level").fillna({"repaired": ""}).round({"area_km2": 0}),
        hide_index=True,
        width="stretch",
        height=520,
        column_config={
            "code": "Code",
            "name": "Name",
            "dataset": "Data set",
            "photos": st.column_config.NumberColumn("Photos", format="localized"),
            "area_km2": st.column_config.NumberColumn("Area km²", format="localized"),
            "repaired": "Repaired",
        },
    )


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _plain(text: Any) -> str:
    """A name as it is, its marks not read as Markdown or HTML."""
    marks = "\\`*_{}[]()<>#+-!|$:~"
    return "".join(f"\\{sign}" if sign in marks else sign for sign in text) if isinstance(text, str) else ""
