"""What the localize page shows beside an answer: code sets to ask, photos near a place, aerial tiles of a cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from geofix.database.engine import Connection
from geofix.database.queries.dashboard import fitting_level, frame, with_cell_shapes
from geofix.spatial import s2

SEARCHABLE_SETS = """
SELECT s.name, m.name AS model, s.recipe, s.level, s.state, s.stale_reason, s.cells, s.with_prototype, s.with_aerial,
       s.calibration ? 'coverage' AS calibrated, s.created_at
FROM geofix.code_set s JOIN geofix.model m USING (model_id)
WHERE s.state IN ('ready', 'stale')
ORDER BY array_position(ARRAY['hybrid', 'prototype', 'cellmean', 'aerial'], s.recipe), s.created_at DESC
"""
BLOCKS = """
SELECT b.s2_id, b.cells FROM geofix.cell_block b JOIN geofix.code_set s USING (code_set_id)
WHERE s.name = %(code_set)s ORDER BY b.s2_id
"""
NEAR_PHOTOS = """
SELECT p.photo_id, p.source_key, p.uri, p.captured_at, p.heading_deg, public.ST_X(p.geom) AS lon, public.ST_Y(p.geom) AS lat,
       public.ST_DistanceSphere(p.geom, at.geom) AS distance_m, d.name AS dataset,
       coalesce(p.licence, d.licence) AS licence, coalesce(p.author, d.attribution) AS attribution
FROM (SELECT public.ST_SetSRID(public.ST_MakePoint(%(lon)s, %(lat)s), 4326) AS geom) AS at
CROSS JOIN LATERAL (
  SELECT * FROM geofix.photo_record o ORDER BY o.geom OPERATOR(public.<->) at.geom LIMIT %(limit)s
) AS p
JOIN geofix.dataset d USING (dataset_id)
ORDER BY distance_m
"""
# The cell's own tile, a finer one inside it, or the coarser one that holds it; newest first.
CELL_TILES = """
SELECT t.aerial_tile_id, t.level, t.s2_id, t.captured_at, t.side_m, t.coverage, d.name AS dataset, d.licence, d.attribution,
       (SELECT jsonb_agg(jsonb_build_object('uri', r.uri, 'kind', r.kind, 'crs', r.crs, 'reading', r.reading)
                         ORDER BY array_position(t.aerial_raster_ids, r.aerial_raster_id))
        FROM geofix.aerial_raster r WHERE r.aerial_raster_id = ANY (t.aerial_raster_ids)) AS rasters
FROM geofix.aerial_tile t JOIN geofix.dataset d USING (dataset_id)
WHERE t.s2_id = ANY (%(holding)s) OR t.s2_id BETWEEN %(lo)s AND %(hi)s
ORDER BY (t.s2_id = %(cell)s) DESC, t.level DESC, t.captured_at DESC NULLS LAST LIMIT %(limit)s
"""


def searchable_sets(conn: Connection) -> pd.DataFrame:
    """Code sets that can be asked, hybrids first, newest first."""
    return frame(conn, SEARCHABLE_SETS)


def blocks(conn: Connection, code_set: str, *, limit: int = 2000) -> pd.DataFrame:
    """Coarse blocks of a code set: code, cells, blocks, level, shape; parents of a level that fits where they are many."""
    rows = frame(conn, BLOCKS, {"code_set": code_set})
    ids = rows["s2_id"].to_numpy(np.int64)
    if not len(ids):
        return with_cell_shapes(rows.assign(code="", blocks=0, level=0))
    level = fitting_level(ids, int(s2.level(ids).min()), limit)
    if len(ids) > limit:
        ids = s2.parent(ids, level)
    rows = rows["cells"].groupby(ids).agg(cells="sum", blocks="count").rename_axis("s2_id").reset_index()
    ids = rows["s2_id"].to_numpy(np.int64)
    return with_cell_shapes(rows.assign(code=s2.token(ids), level=s2.level(ids)))


def near_photos(conn: Connection, lon: float, lat: float, *, limit: int = 4) -> pd.DataFrame:
    """Photos nearest to a position, with distance in metres on the sphere."""
    return frame(conn, NEAR_PHOTOS, {"lon": lon, "lat": lat, "limit": limit})


def cell_tiles(conn: Connection, token: str, *, limit: int = 3) -> pd.DataFrame:
    """Aerial tiles that show a cell, with the rasters they are cut from.

    Raises:
        BadInputError: The text is not the token of a cell.
    """
    cell = s2.from_token(np.array([token]))
    lo, hi = s2.range_of(cell)
    own = int(s2.level(cell)[0])
    holding = [int(s2.parent(cell, level)[0]) for level in range(max(own - 6, 0), own + 1)]
    values: dict[str, Any] = {
        "cell": int(cell[0]),
        "lo": int(lo[0]),
        "hi": int(hi[0]),
        "holding": holding,
        "limit": limit,
    }
    return frame(conn, CELL_TILES, values)
