"""What speaks for one candidate: its aerial view, the photos taken nearest to it, the parts of its score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from geofix_dashboard import charts, data, place_data, theme


def render(rows: pd.DataFrame, cell: str, photo: np.ndarray | None) -> None:
    """Draw the evidence for a candidate beside the photo that was asked about."""
    row = rows[rows["code"] == cell].iloc[0]
    theme.section(
        f"Evidence for rank {row['rank']}",
        f"Cell {cell} at {row['lat']:.5f}, {row['lon']:.5f}; your photo, then what is known of the cell",
    )
    first, second, third = st.columns([1, 1, 1.2], gap="medium")
    with first:
        if photo is None:
            theme.empty("The photo is not kept.", "It was removed when the answer was there.")
        else:
            st.image(photo, caption="The photo asked about", width="stretch")
    with second:
        _tiles(cell)
    with third:
        _parts(row)
    _photos(float(row["lon"]), float(row["lat"]))


def _tiles(cell: str) -> None:
    tiles = place_data.aerial_tiles(cell)
    if not tiles:
        theme.empty(
            "No aerial tile shows this cell.",
            "Load aerial imagery of the area and embed it.",
            "geofix ingest aerial FILE... --source NAME",
        )
        return
    options = list(range(len(tiles)))
    chosen = 0
    if len(tiles) > 1:
        chosen = (
            st.segmented_control(
                "Aerial tile",
                options,
                default=0,
                format_func=lambda i: theme.day(tiles[i]["captured_at"]),
                key=f"tile-{cell}",
                label_visibility="collapsed",
            )
            or 0
        )
    tile = tiles[chosen]
    if isinstance(tile["picture"], str):
        theme.empty("No picture", tile["picture"])
    else:
        st.image(tile["picture"], width="stretch")
    other = "" if tile["token"] == cell else f", of cell {tile['token']} (level {tile['level']})"
    st.caption(f"Aerial tile, {theme.metres(tile['side_m'])} wide, {theme.day(tile['captured_at'])}{other}")
    st.caption(f":material/copyright: {tile['credit']}")


def _parts(row: pd.Series) -> None:
    parts = row.get("parts")
    if not isinstance(parts, dict):
        theme.empty(
            "The parts of this score were not computed.",
            "They are known for the first 20 candidates of a single photo.",
        )
        return
    named = {
        "prototype": "ground prototype",
        "aerial": "aerial tile",
        "bias": "bias of a missing view",
    }
    charts.part_bars({named[key]: float(parts[key]) for key in named}, float(sum(parts.values())))
    st.caption(
        "Parts of the score: how much the cell's ground code and its aerial view each agree with the photo."
    )


def _photos(lon: float, lat: float) -> None:
    rows = place_data.near_photos(lon, lat)
    theme.section("Nearest reference photos", "By distance from the middle of the cell")
    if rows.empty:
        theme.empty(
            "The database holds no photo.", "Load some.", "geofix ingest photos FOLDER --dataset NAME"
        )
        return
    for column, near in zip(st.columns(4), rows.itertuples(), strict=False):
        with column:
            _photo(near)


def _photo(near: Any) -> None:
    picture = data.picture(None if pd.isna(near.uri) else near.uri)
    if isinstance(picture, str):
        theme.empty("No picture", picture)
    else:
        st.image(picture, width="stretch")
    st.caption(
        f"**{theme.metres(near.distance_m)}** away · {theme.day(near.captured_at)}  \n`{near.source_key}`"
    )
    credit = ", ".join(
        str(text) for text in (near.dataset, near.attribution, near.licence) if not pd.isna(text)
    )
    st.caption(f":material/copyright: {credit}")
