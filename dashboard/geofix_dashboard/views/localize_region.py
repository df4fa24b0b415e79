"""Where a photo can have been taken: everywhere, a region, drawn or marked on a map, or a polygon given."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pydeck as pdk
import shapely
import streamlit as st

from geofix.database.engine import connect
from geofix.errors import GeofixError
from geofix.ingest.region_text import region_ewkb
from geofix.spatial import s2
from geofix_dashboard import data, drawing, maps, place_data, theme

KINDS = {"all": "Everywhere", "region": "Region", "free": "Draw", "draw": "Cells", "file": "Polygon"}
MOST_VERTICES = 20_000
MAP = "localize-region-map"


def choose(code_set: str) -> tuple[str | None, str]:
    """The prior region as a job takes it (LEVEL:CODE or WKT; None: everywhere) and in words."""
    kind = st.segmented_control(
        "Search", list(KINDS), format_func=KINDS.__getitem__, default="all", key="localize_within"
    )
    if kind == "region":
        return _listed()
    if kind == "free":
        return _drawn(code_set)
    if kind == "draw":
        return _marked(code_set)
    if kind == "file":
        return _given()
    return None, "everywhere"


def _listed() -> tuple[str | None, str]:
    """A loaded region, countries first."""
    options: dict[str, str] = {}
    for level in data.table("region_levels")["level"]:
        for row in data.table("regions", level).itertuples():
            options[f"{level}:{row.code}"] = f"{row.name} · {level} ({row.photos:,} photos)"
    if not options:
        theme.empty(
            "No region was loaded.",
            "Load countries or your own polygons once; they can then be chosen here.",
            "geofix ingest regions FILE --level country --code-field CODE --name-field NAME",
        )
        return None, "everywhere"
    code = st.selectbox("Inside", list(options), format_func=options.__getitem__, key="localize_region")
    return code, options[code]


def blocks_told(rows: pd.DataFrame) -> str:
    """What is drawn of a code set: its blocks, or cells of a coarser level that hold them."""
    total = int(rows["blocks"].sum())
    if total == len(rows):
        return f"{total:,} blocks with codes"
    return f"{len(rows):,} cells of level {int(rows['level'].iloc[0])} with {total:,} blocks of codes"


def _drawn(code_set: str) -> tuple[str | None, str]:
    """Areas drawn on a map of the code set's blocks."""
    rows = place_data.blocks(code_set)
    try:
        shape = drawing.areas(f"localize-drawing-{code_set}", rows)
        shape = None if shape is None else parse(shapely.to_wkt(shape, rounding_precision=6))
    except GeofixError as error:
        st.error(str(error), icon=":material/error:")
        return None, "everywhere"
    theme.key_of(
        [("rgb(213,94,0)", "drawn"), ("rgb(33,145,140)", blocks_told(rows))],
        "hold and draw, or click corner by corner and the first one again; the wheel zooms",
    )
    if shape is None:
        st.caption(":material/info: Nothing is drawn: the whole code set is searched.")
        return None, "everywhere"
    st.caption(f":material/draw: {area_km2(shape):,.1f} km² drawn; the search stays inside.")
    return shapely.to_wkt(shape, rounding_precision=6), "the drawn area"


def area_km2(shape: shapely.Geometry) -> float:
    """Area on the WGS 84 ellipsoid in square kilometres."""
    from pyproj import Geod

    return abs(float(Geod(ellps="WGS84").geometry_area_perimeter(shape)[0])) / 1e6


def _marked(code_set: str) -> tuple[str | None, str]:
    """Cells that were clicked on a map of the code set's blocks."""
    rows = place_data.blocks(code_set)
    bounds = maps.bounds_of(rows)
    key = f"{MAP}-{code_set}"
    chosen = marked(st.session_state.get(key))
    state: dict[str, list[str]] = {"codes": chosen}
    layers = maps.areas(
        rows,
        lambda row: [213, 94, 0, 170] if row.code in state["codes"] else theme.colour(0.5, alpha=70),
        lambda row: maps.tip_of(f"Cell {row.code}", {"codes": f"{row.cells:,}"}),
        bounds,
    )
    maps.draw(key, layers, bounds, height=300, width=340, trace=False, on_select=_nothing, several=True)
    theme.key_of(
        [("rgb(213,94,0)", f"{len(chosen)} marked"), ("rgb(33,145,140)", blocks_told(rows))],
        "click to mark, again to take back",
    )
    if not chosen:
        st.caption(":material/info: Nothing is marked: the whole code set is searched.")
        return None, "everywhere"
    shape = shapely.union_all(s2.polygon(s2.from_token(np.array(chosen))))
    return shapely.to_wkt(shape, rounding_precision=7), f"{len(chosen)} marked cells"


def marked(state: object) -> list[str]:
    """Tokens of the cells a map's selection holds."""
    try:
        objects = state["selection"]["objects"].get("areas", [])  # type: ignore[index]
    except (KeyError, TypeError):
        return []
    return sorted({str(item.get("properties", item)["code"]) for item in objects})


def _nothing() -> None:
    """Selections are read from the session's state."""


def _given() -> tuple[str | None, str]:
    """A polygon from a file or text, repaired, shown on a map before it is used."""
    file = st.file_uploader(
        "GeoJSON file", type=["geojson", "json"], max_upload_size=5, key="localize_polygon"
    )
    text = st.text_area("or GeoJSON / WKT", key="localize_wkt", height=90, placeholder="POLYGON((...))")
    content = file.getvalue().decode("utf-8", "replace") if file is not None else text
    if not content.strip():
        return None, "everywhere"
    try:
        shape = parse(content)
    except GeofixError as error:
        st.error(str(error), icon=":material/error:")
        return None, "everywhere"
    if (note := wide(shape)) is not None:
        st.warning(note, icon=":material/360:")
    west, south, east, north = shape.bounds
    feature = {
        "type": "Feature",
        "geometry": shapely.geometry.mapping(shape),
        "properties": {"tip": "Prior region"},
    }
    layers: list[pdk.Layer] = [maps.shapes([feature], (west, south, east, north), 340)]
    maps.draw("localize-given-map", layers, (west, south, east, north), height=260, width=340)
    return shapely.to_wkt(shape, rounding_precision=7), "the given polygon"


def wide(shape: shapely.Geometry) -> str | None:
    """What to say of a part of more than 180 degrees: it may have been meant to cross the 180th meridian."""
    spans = [float(part.bounds[2] - part.bounds[0]) for part in shapely.get_parts(shape)]
    if not spans or max(spans) <= 180:
        return None
    return (
        f"A part of this polygon spans {max(spans):g} degrees of longitude. If it is to cross the 180th "
        "meridian, write it with longitudes beyond 180 (179 to 181), or as one part on each side."
    )


def parse(content: str) -> shapely.Geometry:
    """Polygons in EPSG:4326 from GeoJSON or WKT: repaired, beyond 180 degrees wrapped, holes kept.

    Raises:
        BadInputError: No polygon, or more than 20,000 vertices.
    """
    from geofix.errors import BadInputError

    stripped = content.strip()
    with connect("reader") as conn:
        if not stripped.startswith("{"):
            if not stripped.upper().startswith(
                ("POLYGON", "MULTIPOLYGON", "GEOMETRYCOLLECTION", "SRID=4326;")
            ):
                raise BadInputError("This is neither GeoJSON nor a WKT polygon.", hint="Begin with POLYGON((")
            ewkb = region_ewkb(conn, stripped)
        else:
            try:
                json.loads(stripped)
            except (ValueError, RecursionError) as error:
                raise BadInputError(f"The GeoJSON cannot be read: {error}.") from None
            with tempfile.TemporaryDirectory(prefix="geofix-region-") as folder:
                path = Path(folder) / "region.geojson"
                path.write_text(stripped, encoding="utf-8")
                try:
                    ewkb = region_ewkb(conn, str(path))
                except BadInputError as error:
                    raise BadInputError(
                        error.message.replace(str(path), "The GeoJSON"), hint=error.hint
                    ) from None
    shape = shapely.from_wkb(ewkb)
    vertices = int(shapely.get_num_coordinates(shape))
    if vertices > MOST_VERTICES:
        raise BadInputError(
            f"The polygon has {vertices:,} vertices, more than {MOST_VERTICES:,}.",
            hint="Simplify it, or load it with `geofix ingest regions`.",
        )
    return shape
