"""Coverage: photos, aerial tiles and codes per cell, as map and table."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from geofix.errors import GeofixError
from geofix.spatial import s2
from geofix_dashboard import data, links, maps, theme
from geofix_dashboard.views import coverage_needs

SHOWN = {
    "photos": "Photos",
    "aerial": "Aerial tiles",
    "codes": "Kind of code",
    "need": "Need",
}
CODE_COLOURS = {
    "ground and aerial": (34, 168, 132, 220),
    "ground only": (0, 114, 178, 210),
    "aerial only": (230, 159, 0, 220),
    "no code": (154, 167, 177, 120),
}


def render() -> None:
    """Draw the page."""
    theme.header(
        "Coverage", "How many photos and aerial tiles each cell has, and which cells can be an answer."
    )
    if data.photo_bounds() is None and not data.counts()["aerial_tiles"]:
        theme.empty(
            "No cell is covered yet.",
            "Load photos or aerial imagery; the map and the table follow at once.",
            "geofix ingest photos FOLDER --dataset NAME",
            "geofix ingest aerial FILE... --source NAME",
        )
        return
    rows, level, shown, region = _controls()
    _way_back()
    if rows.empty:
        theme.empty(
            "No cell lies in this region.",
            "Choose another region, or load photos for it.",
            "geofix ingest photos FOLDER --dataset NAME",
        )
        return
    _tiles(rows)
    told, drawn = rows[rows["level"] == level], rows[rows["level"] == rows["level"].min()]
    if shown == "need":
        now = pd.Timestamp.now("UTC")
        told, drawn = coverage_needs.with_needs(told, now), coverage_needs.with_needs(drawn, now)
    left, right = st.columns([1, 1], gap="large")
    with left:
        _map(drawn, level, shown)
    with right:
        if shown == "need":
            coverage_needs.table(told)
        else:
            _table(told, region)


def density_fill(counts: pd.Series, most: int) -> list[list[int]]:
    """Colours by the logarithm of counts; grey where one is zero."""
    values = counts.to_numpy(np.float64)
    rgba = theme.colours(np.log(np.maximum(values, 1)) / math.log(max(most, 2)))
    return [colour if value else [154, 167, 177, 90] for colour, value in zip(rgba, values, strict=True)]


def density_legend(label: str, most: int, note: str) -> None:
    """The bar of `density_fill`, logarithmic from 1 to the largest count."""
    theme.legend(f"{label} per cell (logarithmic)", theme.VIRIDIS, density_ticks(most), note)


def density_ticks(most: int) -> list[str]:
    """Counts at equal steps of the logarithm, at most five and no two alike."""
    top = max(most, 2)
    for steps in (4, 3, 2, 1):
        ticks = [round(top ** (i / steps)) for i in range(steps + 1)]
        if len(set(ticks)) == len(ticks):
            break
    return [f"{tick:,}" for tick in ticks]


def density_tip(row: Any) -> str:
    """Tooltip of a cell."""
    years = (
        "–"
        if pd.isna(row.first_captured_at)
        else f"{theme.utc(row.first_captured_at).year}–{theme.utc(row.last_captured_at).year}"
    )
    return maps.tip_of(
        f"Cell {row.code}",
        {
            "photos": f"{row.photos:,}",
            "taken": years,
            "aerial tiles": f"{row.aerial_tiles:,}",
            "code": code_kind(row),
        },
    )


def code_kind(row: Any) -> str:
    """Which views a cell's code was made from."""
    if row.has_prototype and row.has_aerial:
        return "ground and aerial"
    return "ground only" if row.has_prototype else "aerial only" if row.has_aerial else "no code"


def code_kinds(rows: pd.DataFrame) -> list[str]:
    """`code_kind` of every row."""
    ground, aerial = rows["has_prototype"].astype(bool), rows["has_aerial"].astype(bool)
    kinds = ["ground and aerial", "ground only", "aerial only"]
    found: list[str] = np.select([ground & aerial, ground, aerial], kinds, "no code").tolist()
    return found


def _controls() -> tuple[pd.DataFrame, int, str, str]:
    bounds = data.photo_bounds()
    levels = list(range(4, 19))
    usual = 13 if bounds is None else maps.level_for(bounds, cells_across=24, coarsest=4)
    names = list(data.table("region_levels")["level"])
    first, second, third = st.columns([4, 6, 5])
    with first:
        level = int(
            links.choose(
                "level", "S2 level", levels, default=usual, show=lambda x: f"{x} · about {cell_size(x)}"
            )
        )
    with second:
        shown = links.choose("show", "Colour by", list(SHOWN), kind="segments", show=SHOWN.__getitem__)
    with third:
        region = _region(names)
    where = region.split(":", 1) if region != "everywhere" else [None, None]
    rows: pd.DataFrame = data.coverage(level, where[0], where[1], _inside(level))
    return rows.rename(columns={"cell": "code"}), level, str(shown), region


def _inside(level: int) -> str | None:
    """The cell of the URL that the page looks into; None where it is no cell, or holds none of the level."""
    token = links.get("inside")
    try:
        own = None if token is None else int(s2.level(s2.from_token(np.array([token])))[0])
    except (GeofixError, ValueError):
        own = None
    if own is None or own >= level:
        token = None
    links.put("inside", token)
    return token


def _look_inside(token: str | None) -> None:
    """Show the cells in one that was clicked; those of the level itself hold none."""
    if token is not None:
        links.put("inside", token)


def _way_back() -> None:
    token = links.get("inside")
    if token is not None:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button("All cells", icon=":material/public:", on_click=links.put, args=("inside", None))
            st.caption(f"Cells inside {token}")


def _region(names: list[str]) -> str:
    options, labels = ["everywhere"], {"everywhere": "everywhere"}
    for name in names:
        found = data.table("regions", name)
        for row in found.itertuples():
            options.append(f"{name}:{row.code}")
            labels[options[-1]] = f"{row.name} · {name} ({row.photos:,} photos)"
    return str(links.choose("region", "Region", options, show=lambda x: labels[x]))


def cell_size(level: int) -> str:
    """The edge of a cell in words; real edges differ by up to 25 %."""
    return theme.metres(7_842_000 / 2**level).replace(".0 ", " ")


def _tiles(rows: pd.DataFrame) -> None:
    first = rows.iloc[0]
    cells = int(first["cells"])
    facts = (
        ("Cells", theme.count(cells), "Cells with a photo, a tile or a code"),
        ("Photos", f"{int(first['all_photos']):,}", f"in {int(first['photo_cells']):,} cells"),
        ("Aerial tiles", f"{int(first['all_tiles']):,}", f"in {int(first['tile_cells']):,} cells"),
        (
            "Cells with a code",
            f"{int(first['code_cells']):,}",
            f"{100 * int(first['code_cells']) / cells:.0f} % of the cells can be an answer",
        ),
    )
    for column, (label, value, note) in zip(st.columns(4), facts, strict=True):
        column.metric(label, value, help=note, border=True)


def _map(rows: pd.DataFrame, level: int, shown: str) -> None:
    drawn = int(rows["level"].iloc[0])
    more = "" if drawn == level else ". Click one to look inside it, at a finer level"
    theme.section("Map", f"S2 cells of level {drawn}, edges about {cell_size(drawn)}{more}")
    bounds = maps.bounds_of(rows)
    if shown == "codes":
        kinds = [CODE_COLOURS[kind] for kind in code_kinds(rows)]
        layers = maps.areas(rows, kinds, density_tip, bounds)
    elif shown == "need":
        largest = float(rows["need"].max())
        top = rows.iloc[::-1]  # what matters most lies on top
        layers = maps.areas(top, coverage_needs.fill(top["need"], largest), coverage_needs.tip, bounds)
    else:
        column = "photos" if shown == "photos" else "aerial_tiles"
        most = int(rows[column].max())
        layers = maps.areas(rows, density_fill(rows[column], most), density_tip, bounds)
    if drawn == level:
        maps.draw("coverage-map", layers, bounds, trace=False)
        note = f"{len(rows):,} cells drawn"
    else:
        # A map of its own for every cell and level: as long as the key stays, a click stays.
        key = f"coverage-map-{links.get('inside') or 'all'}-{drawn}"
        maps.draw(
            key, layers, bounds, trace=False, on_select=lambda: _look_inside(maps.clicked(key, "areas"))
        )
        total = int(rows["cells"].iloc[0])
        note = f"{len(rows):,} cells of level {drawn} hold the {total:,} of level {level}"
    if shown == "codes":
        items = [(f"rgb{rgba[:3]}", text) for text, rgba in CODE_COLOURS.items()]
        theme.key_of(items, note)
    elif shown == "need":
        coverage_needs.legend(largest, note)
    else:
        density_legend(SHOWN[shown], most, f"{note}; grey: none")


def _table(rows: pd.DataFrame, region: str) -> None:
    total = int(rows["cells"].iloc[0])
    told = "" if len(rows) == total else f"The {len(rows):,} fullest of {total:,} cells. "
    theme.section("Table", f"{told}Click a column's head to sort")
    days = {name: theme.days(rows[name]) for name in ("first_captured_at", "last_captured_at", "last_aerial")}
    shown = rows.assign(code_kind=code_kinds(rows), **days)[
        [
            "code",
            "photos",
            "aerial_tiles",
            "code_kind",
            "first_captured_at",
            "last_captured_at",
            "last_aerial",
        ]
    ]
    st.dataframe(
        shown,
        hide_index=True,
        width="stretch",
        height=theme.table_height(len(shown), maps.HEIGHT),
        column_config={
            "code": "Cell",
            "photos": st.column_config.NumberColumn("Photos", format="localized"),
            "aerial_tiles": st.column_config.NumberColumn("Aerial tiles", format="localized"),
            "code_kind": "Code",
            "first_captured_at": "First photo",
            "last_captured_at": "Last photo",
            "last_aerial": "Last aerial",
        },
    )
    st.download_button(
        "Download as CSV",
        shown.to_csv(index=False).encode(),
        file_name=f"coverage-{region.replace(':', '-')}.csv",
        mime="text/csv",
        icon=":material/download:",
        on_click="ignore",
    )
