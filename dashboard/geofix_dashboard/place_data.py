"""What the localize page reads: code sets, jobs, photos near a place and pictures of aerial tiles."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import streamlit as st

from geofix.database.engine import connect
from geofix.database.queries import dashboard_localize, jobs
from geofix.database.queries.jobs import JobRow
from geofix.errors import GeofixError
from geofix.spatial import s2
from geofix_dashboard.data import cached

TILE_PX = 320
GROUND = (230, 237, 242)  # where there is no imagery


@cached
def searchable_sets() -> pd.DataFrame:
    """Code sets that can be asked."""
    with connect("reader") as conn:
        return dashboard_localize.searchable_sets(conn)


@cached
def blocks(code_set: str) -> pd.DataFrame:
    """Coarse blocks of a code set."""
    with connect("reader") as conn:
        return dashboard_localize.blocks(conn, code_set)


@cached
def near_photos(lon: float, lat: float) -> pd.DataFrame:
    """Photos nearest to a place."""
    with connect("reader") as conn:
        return dashboard_localize.near_photos(conn, lon, lat)


def job(job_id: str) -> JobRow | None:
    """The job of an id, as it is now; None where there is none."""
    try:
        key = UUID(job_id)
    except ValueError:
        return None
    with connect("reader") as conn:
        return jobs.find_job(conn, key)


@st.cache_data(ttl=600, max_entries=64, show_spinner=False)
def aerial_tiles(token: str, most: int = 3) -> list[dict[str, Any]]:
    """Newest aerial tiles of a cell: date, credit, and picture (h, w, 3) or the reason why there is none."""
    with connect("reader") as conn:
        rows = dashboard_localize.cell_tiles(conn, token, limit=most)
    return [
        {
            "token": str(s2.token(np.array([row["s2_id"]], np.int64))[0]),
            "level": int(row["level"]),
            "captured_at": row["captured_at"],
            "side_m": float(row["side_m"]),
            "credit": ", ".join(str(row[key]) for key in ("dataset", "attribution", "licence") if row[key]),
            "picture": _cut(row),
        }
        for row in rows.to_dict("records")
    ]


def _cut(row: dict[Any, Any]) -> np.ndarray | str:
    from geofix.imagery.raster import read_square
    from geofix.imagery.sources import RasterSource

    lon, lat = s2.center(np.array([row["s2_id"]], np.int64))
    sources = [
        RasterSource.from_row(item["uri"], item["kind"], item["crs"], item["reading"])
        for item in row["rasters"] or []
    ]
    if any("://" in source.uri and not source.uri.startswith("file://") for source in sources):
        return "The imagery is in remote storage, which this page does not read."
    try:
        pixels, valid = read_square(sources, float(lon[0]), float(lat[0]), float(row["side_m"]), TILE_PX)
    except GeofixError as error:
        return str(error)
    if not valid.any():
        return "The imagery holds no pixel there any more."
    return np.where(valid[..., None], pixels, np.array(GROUND, np.uint8))
