"""Embedding space: what a model holds to be alike, as colours on a map, and where else looks so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from geofix.database.engine import connect
from geofix.database.queries import dashboard_space
from geofix.database.queries.dashboard import with_cell_shapes
from geofix.spatial import s2
from geofix.spatial.distance import great_circle_m
from geofix_dashboard import data, links, maps, place_data, theme
from geofix_dashboard.space import Components, components, cosine_to

SHOWN = {
    "colours": "Three components as colours",
    "1": "First",
    "2": "Second",
    "3": "Third",
    "like": "Similarity to a cell",
}
ALIKE = 12  # listed
PICTURES = 6
AROUND = 14  # cells to each side of one, in the view around it


def render() -> None:
    """Draw the page."""
    theme.header(
        "Embedding space", "Which places a model holds to be alike, and where else looks like this one."
    )
    rows = spaces()
    if rows.empty:
        theme.empty(
            "There is nothing to look at yet.",
            "Build a code set, or register a model with prototypes; its vectors are drawn here.",
            "geofix codes build --model NAME --code-set CODES --snapshot DIR",
            "geofix demo",
        )
        return
    kind, name, level, cells = _choose(rows)
    frame, vectors, shown_level = vectors_of(kind, name, level, cells)
    cell = _cell(frame)
    first, second = st.columns([3, 2], gap="large")
    with first:
        shown = str(links.choose("show", "Colour by", list(SHOWN), kind="segments", show=SHOWN.__getitem__))
        near_m = AROUND * 7_842_000 / 2**shown_level
        views = {"all": "All cells", "near": f"Around {cell}"}
        view = str(links.choose("zoom", "View", list(views), kind="segments", show=views.__getitem__))
        drawn = _map(frame, vectors, shown, cell, f"{kind}-{name}", near_m if view == "near" else None)
        means = "" if shown_level == level else f", means of {cells:,} of level {level}"
        st.caption(f"{drawn:,} cells of level {shown_level}{means} · D = {vectors.shape[1]}")
    with second:
        _alike(frame, vectors, cell)
    _pictures(frame, vectors, cell)


@data.cached
def spaces() -> pd.DataFrame:
    """What can be looked at."""
    with connect("reader") as conn:
        return dashboard_space.spaces(conn)


@data.kept(8, "Reading vectors …")
def vectors_of(kind: str, name: str, level: int, cells: int) -> tuple[pd.DataFrame, np.ndarray, int]:
    """Cells (code, lon, lat, shape), their mean vectors (n, D), and the level: at most 5,000 of them."""
    read = dashboard_space.code_means if kind == "codes" else dashboard_space.prototype_means
    with connect("reader") as conn:
        shown = level
        if cells > maps.MAX_FEATURES:
            shown = dashboard_space.level_below(conn, kind, name, level, maps.MAX_FEATURES)
        ids, vectors = read(conn, name, shown)
    lon, lat = s2.center(ids)
    cells_shown = pd.DataFrame({"s2_id": ids, "code": s2.token(ids), "lon": lon, "lat": lat})
    return with_cell_shapes(cells_shown), vectors, shown


@st.cache_data(ttl=600, max_entries=8, show_spinner=False)
def components_of(kind_and_name: str, vectors: np.ndarray) -> Components:
    """Principal components of what is drawn."""
    return components(vectors)


def _choose(rows: pd.DataFrame) -> tuple[str, str, int, int]:
    labels = {
        f"{row.kind}:{row.name}": (
            f"{row.kind} · {row.recipe}, level {row.level}, {row.cells:,} cells · {row.name}"
        )
        for row in rows.itertuples(index=False)
    }
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        picked = str(links.choose("of", "Vectors", list(labels), show=labels.__getitem__))
    kind, _, name = picked.partition(":")
    row = rows[(rows["kind"] == kind) & (rows["name"] == name)].iloc[0]
    right.caption(
        "Click a cell of the map: its likes are listed, and **Similarity to a cell** colours by it."
    )
    return kind, name, int(row["level"]), int(row["cells"])


def _cell(frame: pd.DataFrame) -> str:
    asked = links.get("cell")
    return str(asked if asked in set(frame["code"]) else frame["code"].iloc[0])


def _map(
    frame: pd.DataFrame, vectors: np.ndarray, shown: str, cell: str, key: str, near_m: float | None
) -> int:
    """Draw all cells, the view around one of them where `near_m` is given; how many were drawn."""
    found = components_of(f"{key}-{len(frame)}", vectors)
    like = cosine_to(vectors, int(np.flatnonzero((frame["code"] == cell).to_numpy())[0]))
    low, high = float(like.min()), float(np.sort(like)[-2]) if len(like) > 1 else 1.0
    colours = _colours(shown, found, like, low, high)
    rows = frame.assign(fill=pd.Series(colours, index=frame.index, dtype=object), like=like)

    def tip(row: Any) -> str:
        return maps.tip_of(f"Cell {row.code}", {f"cosine to {cell}": f"{row.like:.3f}"})

    if shown == "like":
        rows = rows.sort_values("like")  # the most similar lies on top
    bounds = maps.bounds_of(rows if near_m is None else maps.around(rows, cell, near_m))
    layers = maps.areas(rows, list(rows["fill"]), tip, bounds, chosen=cell)
    # Of one name whatever it is coloured by: the map and the reader's view of it stay, only colours change.
    name = f"space-map-{key}-{cell}-{near_m is None}"
    maps.draw(
        name,
        layers,
        bounds,
        width=640,
        height=560,
        trace=False,
        on_select=lambda: _look_at(maps.clicked(name)),
    )
    _legend(shown, found, low, high, cell)
    return min(len(rows), maps.MAX_FEATURES)


def _colours(shown: str, found: Components, like: np.ndarray, low: float, high: float) -> list[list[int]]:
    if shown == "colours":
        return [[*map(int, row), 225] for row in np.rint(40 + 200 * found.place).astype(int)]
    if shown == "like":
        return theme.colours((like - low) / max(high - low, 1e-9))
    return theme.colours(found.place[:, int(shown) - 1])


def _legend(shown: str, found: Components, low: float, high: float, cell: str) -> None:
    shares = [100 * float(value) for value in found.share]
    if shown == "colours":
        items = [("#d62828", f"first, {shares[0]:.0f} %"), ("#2a9d3a", f"second, {shares[1]:.0f} %")]
        theme.key_of(
            [*items, ("#2a4fd6", f"third, {shares[2]:.0f} %")],
            "of the variance; like colours, like codes. First, Second and Third use one scale for all eyes.",
        )
    elif shown == "like":
        ticks = [f"{low + (high - low) * i / 4:.2f}" for i in range(5)]
        theme.legend(
            f"Cosine similarity to cell {cell}", theme.VIRIDIS, ticks, "the cell itself (1.00) is outlined"
        )
    else:
        note = f"{shares[int(shown) - 1]:.1f} % of the variance; 2nd to 98th percentile"
        theme.legend(f"Component {shown}", theme.VIRIDIS, ["low", "", "high"], note)


def _look_at(cell: str | None) -> None:
    if cell is not None:
        links.put("cell", cell)


def alike(frame: pd.DataFrame, vectors: np.ndarray, cell: str) -> pd.DataFrame:
    """Cells by similarity to one, it left out: code, cosine, away_m, lat, lon."""
    index = int(np.flatnonzero((frame["code"] == cell).to_numpy())[0])
    lon, lat = frame["lon"].to_numpy(float), frame["lat"].to_numpy(float)
    rows = pd.DataFrame(
        {
            "code": frame["code"],
            "cosine": cosine_to(vectors, index),
            "away_m": great_circle_m(lon[index], lat[index], lon, lat),
            "lat": lat,
            "lon": lon,
        }
    )
    others: pd.DataFrame = rows.drop(index=rows.index[index])
    return others.sort_values("cosine", ascending=False, kind="stable")


def _alike(frame: pd.DataFrame, vectors: np.ndarray, cell: str) -> None:
    theme.section(
        "Where else looks like this", f"Cells most similar to {cell}, n = {len(frame) - 1:,} compared"
    )
    rows = alike(frame, vectors, cell)
    if rows.empty:
        theme.empty("There is no other cell.", "Choose a larger code set.")
        return
    shown = rows.head(ALIKE)
    codes = list(shown["code"])
    st.dataframe(
        pd.DataFrame(
            {
                "cell": shown["code"],
                "cosine": shown["cosine"],
                "away": [theme.metres(float(value)) for value in shown["away_m"]],
                "lat": shown["lat"],
                "lon": shown["lon"],
            }
        ),
        key=f"space-table-{cell}",
        hide_index=True,
        width="stretch",
        height=theme.table_height(len(shown), 460),
        on_select=lambda: _row_chosen(codes, cell),
        selection_mode="single-row",
        column_config={
            "cell": "Cell",
            "cosine": st.column_config.NumberColumn("Cosine", format="%.3f"),
            "away": "Away",
            "lat": st.column_config.NumberColumn("Latitude", format="%.4f"),
            "lon": st.column_config.NumberColumn("Longitude", format="%.4f"),
        },
    )
    st.download_button(
        "Download all as CSV",
        rows.to_csv(index=False).encode(),
        file_name=f"similar-to-{cell}.csv",
        mime="text/csv",
        icon=":material/download:",
        on_click="ignore",
    )


def _row_chosen(codes: list[str], cell: str) -> None:
    picked = st.session_state[f"space-table-{cell}"]["selection"]["rows"]
    if picked:
        links.put("cell", codes[picked[0]])


def _pictures(frame: pd.DataFrame, vectors: np.ndarray, cell: str) -> None:
    """Aerial tiles of the cell and of those most like it."""
    rows = alike(frame, vectors, cell).head(PICTURES - 1)
    theme.section("From above", "The newest aerial tile of the cell, then of those most like it")
    titles = [
        (cell, "this cell"),
        *((str(row.code), f"cosine {row.cosine:.3f}") for row in rows.itertuples()),
    ]
    tiles = [place_data.aerial_tiles(code, 1) for code, _ in titles]
    if not any(tiles):
        theme.empty(
            "No aerial tile shows these cells.",
            "Load imagery of the area.",
            "geofix ingest aerial FILE... --source NAME",
        )
        return
    for column, (code, text), found in zip(st.columns(PICTURES), titles, tiles, strict=False):
        with column:
            if not found:
                theme.empty("No tile", "No aerial imagery shows this cell.")
            elif isinstance(found[0]["picture"], str):
                theme.empty("No picture", found[0]["picture"])
            else:
                st.image(found[0]["picture"], width="stretch")
            st.caption(f"**{code}**  \n{text}")
    credit = next((found[0]["credit"] for found in tiles if found), "")
    st.caption(f":material/copyright: {credit}")
