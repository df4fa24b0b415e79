"""Overview: what is in the database, what runs, and whose data it is."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from geofix.evaluation.metrics import wilson
from geofix.storage import readable_bytes
from geofix_dashboard import accuracy_data, data, maps, theme
from geofix_dashboard.views.coverage import density_fill, density_legend


def render() -> None:
    """Draw the page."""
    theme.header(
        "Overview", "What this database holds, what was made from it, and how well it places photos."
    )
    counts = data.counts()
    _tiles(counts)
    if not counts["photos"]:
        theme.empty(
            "There are no photos yet.",
            "Photos with a position are where everything begins. The demo makes a whole world of its own.",
            "geofix ingest photos FOLDER --dataset NAME",
            "geofix demo",
        )
    left, right = st.columns([1, 1], gap="large")
    with left:
        _map()
    with right:
        _services()
        _models()
    _evaluations()
    _datasets()
    _code_sets()


def _tiles(counts: dict[str, int]) -> None:
    shown = {
        "Photos": "photos",
        "Sequences": "sequences",
        "Snapshots": "snapshots",
        "Aerial tiles": "aerial_tiles",
        "Regions": "regions",
        "Models": "models",
        "Code sets": "code_sets",
        "Evaluations": "evaluations",
    }
    for column, (label, key) in zip(st.columns(len(shown), gap="small"), shown.items(), strict=True):
        column.metric(label, theme.count(counts[key]), border=True)


def _map() -> None:
    theme.section("Where the photos are")
    bounds = data.photo_bounds()
    if bounds is None:
        st.caption("The map appears with the first photos.")
        return
    level = maps.level_for(bounds, cells_across=28, coarsest=4)
    rows = data.photo_cells(level)
    most = int(rows["photos"].max())
    layers = maps.areas(rows, density_fill(rows["photos"], most), _tip, bounds)
    maps.draw("overview-map", layers, bounds, height=400, trace=False)
    density_legend(
        "Photos", most, f"S2 cells of level {level}; n = {int(rows['all_photos'].iloc[0]):,} photos"
    )


def _tip(row: Any) -> str:
    return maps.tip_of(f"Cell {row.code}", {"photos": f"{row.photos:,}"})


def _services() -> None:
    theme.section("Services")
    rows = [(row["service"], row["state"], row["detail"]) for row in data.services()]
    jobs = data.job_states()
    told = ", ".join(f"{row.jobs:,} {row.state}" for row in jobs.itertuples())
    rows.append(("Jobs", "none" if jobs.empty else f"{int(jobs['jobs'].sum()):,}", told or "none submitted"))
    theme.facts(rows)


def _evaluations() -> None:
    theme.section("Evaluations", "Newest first; grey: fewer than 30 photos know their place to 200 m")
    rows = accuracy_data.evaluations()
    if rows.empty:
        theme.empty(
            "Nothing was evaluated yet.",
            "An evaluation lets a localizer answer every photo of a test split.",
            "geofix evaluate run --localizer knn --model MODEL --snapshot DIR --split test_seen",
        )
        return
    eligible = rows["metrics"].map(lambda m: (m.get("eligible") or {}).get("200"))
    n = pd.to_numeric(eligible).fillna(rows["n"]).astype(float)
    share = pd.to_numeric(rows["recall_200m_percent"])
    low, high = wilson((share.fillna(0) * n / 100).round(), n)
    shown = pd.DataFrame(
        {
            "Evaluation": rows["evaluation"],
            "Localizer": rows["localizer"],
            "Split": rows["split"],
            "n": n.astype(int),
            "R@1 200 m %": share,
            "95 %": [theme.interval(a, b) for a, b in zip(low, high, strict=True)],
            "Median m": pd.to_numeric(rows["median_m"]),
            "GeoScore": pd.to_numeric(rows["geoscore"]),
            "Stored": rows["created_at"].map(theme.day),
        }
    ).iloc[::-1]
    number = st.column_config.NumberColumn
    st.dataframe(
        theme.grey_where_few(shown),
        hide_index=True,
        width="stretch",
        height=theme.table_height(len(shown), 400),
        column_config={
            "R@1 200 m %": number(format="%.1f"),
            "Median m": number(format="%.0f"),
            "GeoScore": number(format="%.0f"),
        },
    )


def _datasets() -> None:
    theme.section("Data sets", "Licence and attribution go with everything that is exported")
    rows = data.table("datasets")
    if rows.empty:
        theme.empty(
            "No data set was loaded.",
            "Photos, aerial imagery and regions each come as a named data set.",
            "geofix ingest photos FOLDER --dataset NAME",
            "geofix ingest regions FILE --level country --code-field FIELD --name-field FIELD",
        )
        return
    missing = rows["licence"].isna().sum()
    shown = rows[
        [
            "name",
            "kind",
            "licence",
            "attribution",
            "photos",
            "aerial_tiles",
            "regions",
            "rejects",
            "created_at",
        ]
    ]
    st.dataframe(
        shown,
        hide_index=True,
        width="stretch",
        column_config={
            "name": "Data set",
            "kind": "Kind",
            "licence": "Licence",
            "attribution": st.column_config.TextColumn("Attribution", width="medium"),
            "photos": st.column_config.NumberColumn("Photos", format="localized"),
            "aerial_tiles": st.column_config.NumberColumn("Aerial tiles", format="localized"),
            "regions": st.column_config.NumberColumn("Regions", format="localized"),
            "rejects": st.column_config.NumberColumn("Rejects", format="localized"),
            "created_at": st.column_config.DatetimeColumn("Loaded", format="YYYY-MM-DD HH:mm"),
        },
    )
    if missing:
        st.caption(
            f":material/warning: {missing} data set(s) name no licence: load them again with `--licence`."
        )


def _models() -> None:
    theme.section("Models")
    rows = data.table("models").drop(columns=["kind", "created_at"])
    if rows.empty:
        theme.empty(
            "No model is registered.",
            "A model turns photos and aerial tiles into embeddings.",
            "geofix models register DIR --name NAME",
        )
    else:
        st.dataframe(
            rows,
            hide_index=True,
            width="stretch",
            column_config={
                "name": "Model",
                "kind": "Kind",
                "dimension": "Dimension",
                "weights": "Weights sha256",
                "code_sets": "Code sets",
                "created_at": st.column_config.DatetimeColumn("Registered", format="YYYY-MM-DD HH:mm"),
            },
        )


def _code_sets() -> None:
    theme.section("Code sets")
    rows = data.table("code_sets")
    if rows.empty:
        theme.empty(
            "There is no code set.",
            "A code set holds one vector per cell; photos are searched against it.",
            "geofix codes build --model NAME --code-set NAME",
        )
        return
    shown = rows.drop(columns=["stale_reason", "kappa"]).assign(bytes=rows["bytes"].map(readable_bytes))
    st.dataframe(
        shown,
        hide_index=True,
        width="stretch",
        column_config={
            "name": "Code set",
            "model": "Model",
            "recipe": "Recipe",
            "level": "Level",
            "state": "State",
            "cells": st.column_config.NumberColumn("Cells", format="localized"),
            "with_prototype": "With ground",
            "with_aerial": "With aerial",
            "bytes": "Size",
            "created_at": st.column_config.DatetimeColumn("Built", format="YYYY-MM-DD HH:mm"),
        },
    )
