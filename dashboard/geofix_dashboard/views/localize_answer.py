"""An answer on the map: candidates by rank, probability, credible regions, evidence for one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pydeck as pdk
import streamlit as st

from geofix.database.queries.jobs import JobRow
from geofix.localize.kinds import POSITIONS
from geofix_dashboard import answers, links, maps, theme
from geofix_dashboard.views import localize_evidence

LISTED = 10
DECADES = 3.0  # of probability below the largest that the colour scale spans
NEAR_M = 2_000.0
MAP_WIDTH = 700
LABEL_PX = 22.0  # between numbers on the map
MASS_COLOURS = {"50": (213, 94, 0, 255), "90": (19, 42, 58, 255)}


def render(row: JobRow, seen: dict[str, Any]) -> None:
    """Draw the answers of a job: the photo chosen, or all of them fused."""
    found: list[dict[str, Any]] = list((row.result or {}).get("answers", []))
    names = list(seen.get("names") or [f"Photo {i}" for i in range(1, len(found) + 1)])
    index, answer = _chosen(found, names)
    if answer is None:
        return
    if "error" in answer:
        st.error(f"{names[index]}: {answer['error']}", icon=":material/broken_image:")
        return
    rows = answers.candidates(answer)
    _headline(answer, rows, row)
    asked = links.get("cell")
    cell = str(asked if asked in set(rows["code"]) else rows["code"].iloc[0])
    _map(answer, rows, cell)
    _list(rows, cell)
    _downloads(found, names, str(row.job_id))
    previews = seen.get("previews") or []
    localize_evidence.render(rows, cell, previews[index] if index < len(previews) else None)


def _chosen(found: Sequence[dict[str, Any]], names: Sequence[str]) -> tuple[int, dict[str, Any] | None]:
    """The photo to show; `fused` where several photos show one place."""
    if not found:
        theme.empty("There is no answer.", "The job ended without one. Ask again.")
        return 0, None
    if len(found) == 1:
        return 0, found[0]
    options = [*map(str, range(len(found))), "fused"]
    shown = {str(i): name for i, name in enumerate(names)} | {"fused": "All photos as one place"}
    picked = str(links.choose("photo", "Photo", options, kind="segments", show=shown.__getitem__))
    if picked != "fused":
        return int(picked), found[int(picked)]
    good = [answer for answer in found if "error" not in answer]
    fused = answers.fuse(good) if len(good) > 1 else None
    if fused is None:
        theme.empty(
            "These photos cannot be fused.",
            "Two readable photos and a calibrated code set are needed.",
            "geofix codes calibrate --code-set CODES --snapshot DIR",
        )
        return 0, None
    st.caption(
        f":material/join: {len(good)} photos as independent looks at one place; over their listed cells."
    )
    return 0, fused


def _headline(answer: dict[str, Any], rows: pd.DataFrame, row: JobRow) -> None:
    """The best answer in figures, and plainly when it should not be believed."""
    first = rows.iloc[0]
    if answer["in_coverage"] is False:
        st.warning(
            "**Outside coverage.** No searched cell looks like this photo. Read what follows as a guess.",
            icon=":material/wrong_location:",
        )
    search = answer["search"]
    place = f"{answer['position']['lat']:.5f}, {answer['position']['lon']:.5f}"
    kind = answer.get("position_kind", "centre")  # answers of older versions are centres
    region = "no region" if _missing(first["region"]) else first["region"]
    st.markdown(f"**Best position {place}** · {POSITIONS[kind]} · cell `{first['code']}` · {region}")
    if answer.get("position_note"):
        st.caption(f":material/info: {answer['position_note']}")
    cells = st.columns(4)
    cells[0].metric(
        "Its probability",
        _percent(first["probability"]),
        border=True,
        help="Calibrated, over all cells in scope",
    )
    cells[1].metric(
        "Within 200 m",
        _percent(answer.get("confidence_200m")),
        border=True,
        help="Probability of the cells whose centres lie within 200 m of the position",
    )
    for column, mass in zip(cells[2:], ("50", "90"), strict=True):
        region = answer["credible"].get(mass)
        text = "–" if region is None else f"{region['km2']:,.2f} km²"
        note = (
            "Not measured"
            if region is None
            else f"{region['cells']:,} cells hold {mass} % of the probability"
        )
        column.metric(f"{mass} % region", text, border=True, help=note)
    within = row.specification.get("within")
    scope = "everywhere" if not within else (within if len(within) < 40 else "inside the given polygon")
    coverage = {True: "inside coverage", False: "outside coverage", None: "coverage not calibrated"}
    st.caption(
        f"Code set {answer['code_set']} · {search['cells_in_scope']:,} cells searched {scope}, "
        f"{search['method']} · {coverage[answer['in_coverage']]}"
    )


def heat(probability: float, largest: float) -> float:
    """Place on the colour scale, 1 for the largest, 0 three decades below."""
    if not (probability > 0 and largest > 0):
        return 0.0
    return max(0.0, 1 + math.log10(probability / largest) / DECADES)


def _map(answer: dict[str, Any], rows: pd.DataFrame, cell: str) -> None:
    calibrated = rows["probability"].notna().all()
    largest = float(rows["probability"].max()) if calibrated else 0.0
    count = max(len(rows) - 1, 1)

    def fill(row: Any) -> list[int]:
        share = heat(row.probability, largest) if calibrated else 1 - (row.rank - 1) / count
        return theme.colour(share, theme.VIRIDIS, 200)

    def tip(row: Any) -> str:
        facts = {"probability": _percent(row.probability), "region": str(row.region or "none")}
        if not _missing(row.score):
            facts["score"] = f"{row.score:.3f}"
        return maps.tip_of(f"Rank {row.rank} · cell {row.code}", facts)

    theme.section("Where", "Click a cell for its evidence; numbers are the first ranks")
    rank = int(rows.loc[rows["code"] == cell, "rank"].iloc[0])
    views = {"all": "All candidates", "near": f"Around rank {rank}"}
    view = str(links.choose("zoom", "View", list(views), kind="segments", show=views.__getitem__))
    bounds = maps.bounds_of(rows if view == "all" else maps.around(rows, cell, NEAR_M))
    layers = [
        *maps.areas(rows.iloc[::-1], fill, tip, bounds, chosen=cell),  # the best lies on top
        *_credible(answer["credible"]),
        _ranks(rows.head(LISTED), bounds),
    ]
    key = f"localize-map-{cell}-{view}"
    maps.draw(key, layers, bounds, width=MAP_WIDTH, on_select=lambda: _look_at(maps.clicked(key)))
    if calibrated:
        scope = int(answer["search"]["cells_in_scope"])
        steps = [largest * 10 ** (-DECADES * (1 - i / 3)) for i in range(4)]
        theme.legend(
            f"Probability of a cell (logarithmic), the {len(rows):,} best of {scope:,} cells",
            theme.VIRIDIS,
            [_percent(step) for step in steps],
        )
    else:
        theme.legend(
            "Rank of a cell", theme.VIRIDIS, [f"{len(rows):,}", "1"], "no probabilities: not calibrated"
        )
    if answer["credible"]:
        items = [(f"rgb{MASS_COLOURS[mass][:3]}", f"{mass} % credible region") for mass in answer["credible"]]
        theme.key_of(items, "outlines; grey dots: photos in the database")


def _credible(regions: dict[str, Any]) -> list[pdk.Layer]:
    """Outlines of the credible regions, the larger one below."""
    return [
        pdk.Layer(
            "GeoJsonLayer",
            {"type": "Feature", "geometry": regions[mass]["geojson"], "properties": {}},
            id=f"credible-{mass}",
            filled=False,
            stroked=True,
            get_line_color=list(MASS_COLOURS[mass]),
            get_line_width=2 if mass == "90" else 3,
            line_width_units="'pixels'",
        )
        for mass in sorted(regions, reverse=True)
    ]


def _ranks(rows: pd.DataFrame, bounds: maps.Bounds) -> pdk.Layer:
    """Numbers above the first candidates; of those that would cover each other the best alone."""
    free = LABEL_PX / maps.pixels_per_degree(bounds, maps.HEIGHT, MAP_WIDTH)
    points: list[dict[str, Any]] = []
    row: Any
    for row in rows.itertuples():
        if all(max(abs(row.lon - p["at"][0]), abs(row.lat - p["at"][1])) > free for p in points):
            points.append({"at": [row.lon, row.lat], "text": str(row.rank)})
    return pdk.Layer(
        "TextLayer",
        points,
        id="ranks",
        get_position="at",
        get_text="text",
        get_size=13,
        font_weight=700,
        get_color=[19, 42, 58, 255],
        get_pixel_offset=[0, -14],
        background=True,
        get_background_color=[255, 255, 255, 215],
        background_padding=[3, 1],
    )


def _look_at(cell: str | None) -> None:
    if cell is not None:
        links.put("cell", cell)


def _list(rows: pd.DataFrame, cell: str) -> None:
    shown = rows.head(LISTED)
    table = pd.DataFrame(
        {
            "rank": shown["rank"],
            "cell": shown["code"],
            **(
                {}  # not calibrated
                if shown["probability"].isna().all()
                else {"probability": [None if _missing(p) else 100 * p for p in shown["probability"]]}
            ),
            **({} if shown["score"].isna().all() else {"score": shown["score"]}),
            "region": shown["region"],
            "lat": shown["lat"],
            "lon": shown["lon"],
        }
    )
    number = st.column_config.NumberColumn
    codes = list(shown["code"])
    st.dataframe(
        table,
        key=f"localize-table-{cell}",
        hide_index=True,
        width="stretch",
        on_select=lambda: _row_chosen(codes, cell),
        selection_mode="single-row",
        column_config={
            "rank": number("#", format="%d"),
            "cell": "Cell",
            "probability": number("Probability %", format="%.2f"),
            "score": number("Score", format="%.3f"),
            "region": "Region",
            "lat": number("Latitude", format="%.5f"),
            "lon": number("Longitude", format="%.5f"),
        },
    )


def _row_chosen(codes: list[str], cell: str) -> None:
    picked = st.session_state[f"localize-table-{cell}"]["selection"]["rows"]
    if picked:
        links.put("cell", codes[picked[0]])


def _downloads(found: Sequence[dict[str, Any]], names: Sequence[str], job_id: str) -> None:
    first, second = st.columns(2)
    first.download_button(
        "Download as GeoJSON",
        answers.as_geojson(found, names).encode(),
        file_name=f"localize-{job_id[:8]}.geojson",
        mime="application/geo+json",
        icon=":material/download:",
        on_click="ignore",
        width="stretch",
    )
    second.download_button(
        "Download as CSV",
        answers.as_csv(found, names).encode(),
        file_name=f"localize-{job_id[:8]}.csv",
        mime="text/csv",
        icon=":material/download:",
        on_click="ignore",
        width="stretch",
    )


def _missing(value: Any) -> bool:
    return value is None or bool(pd.isna(value))


def _percent(value: Any) -> str:
    if _missing(value):
        return "–"
    share = 100 * float(value)
    return f"{share:.1f} %" if share >= 1 else f"{share:.2g} %"
