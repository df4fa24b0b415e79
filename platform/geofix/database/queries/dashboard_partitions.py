"""What the data page shows of partitions: how the earth was cut into classes, with their photos and outlines."""

from __future__ import annotations

import numpy as np
import pandas as pd

from geofix.database.bulk import read_columns
from geofix.database.engine import Connection
from geofix.database.queries.dashboard import fitting_level, frame, with_cell_shapes
from geofix.spatial import s2

PARTITIONS = """
SELECT s.name, s.kind, s.classes, s.photos, c.least, c.middle, c.most, s.cells, s.min_level, s.max_level, s.region_level,
       s.coarser, s.sets, s.datasets, s.snapshot, s.parameters, s.stale_reason, s.created_at,
       public.ST_XMin(c.extent) AS west, public.ST_YMin(c.extent) AS south, public.ST_XMax(c.extent) AS east,
       public.ST_YMax(c.extent) AS north
FROM geofix.partition_summary s
CROSS JOIN LATERAL (
  SELECT min(k.photos) AS least, percentile_disc(0.5) WITHIN GROUP (ORDER BY k.photos) AS middle, max(k.photos) AS most,
         public.ST_Extent(coalesce(k.geom, k.mean_geom)) AS extent
  FROM geofix.partition_class k WHERE k.partition_id = s.partition_id
) AS c
ORDER BY s.created_at DESC, s.partition_id
"""
# The fullest first, so that a limit leaves out those that matter least.
CLASSES = """
SELECT m.class, coalesce(m.s2_token, m.region_code, m.class::text) AS code, m.level, m.photos, m.parent_class,
       m.mean_lon, m.mean_lat, public.ST_AsGeoJSON(public.ST_Simplify(m.geom, %(tolerance)s, true), 5) AS shape,
       count(*) OVER () AS classes
FROM geofix.partition_map m WHERE m.partition = %(name)s ORDER BY m.photos DESC, m.class LIMIT %(limit)s
"""

PLACES = """
SELECT m.mean_lon, m.mean_lat, m.photos::bigint FROM geofix.partition_map m
WHERE m.partition = %(name)s AND m.mean_lon IS NOT NULL AND m.mean_lat IS NOT NULL
"""


def partitions(conn: Connection) -> pd.DataFrame:
    """Partitions, newest first, with the fewest, middle and most photos of a class and the box around all classes."""
    return frame(conn, PARTITIONS)


def partition_classes(conn: Connection, name: str, tolerance: float, *, limit: int = 5000) -> pd.DataFrame:
    """Classes of a partition, those with most photos first; `classes` counts beyond the limit.

    Args:
        conn: Open connection.
        name: The partition.
        tolerance: Simplification of outlines in degrees.
        limit: Classes at most.
    """
    return frame(conn, CLASSES, {"name": name, "tolerance": tolerance, "limit": limit})


def partition_cells(conn: Connection, name: str, *, level: int = 16, limit: int = 5000) -> pd.DataFrame:
    """Classes of a partition by the S2 cell of their mean position: code, photos, classes, level, shape.

    For a map of more classes than one can hold.

    Args:
        conn: Open connection.
        name: The partition.
        level: Finest level of the cells.
        limit: Cells at most; decides the level.
    """
    found = read_columns(conn, PLACES, {"lon": "f8", "lat": "f8", "photos": "i8"}, {"name": name})
    ids = s2.cell_at(found["lon"], found["lat"], level)
    shown = fitting_level(ids, level, limit)
    grouped = pd.Series(found["photos"]).groupby(s2.parent(ids, shown)).agg(photos="sum", classes="count")
    rows = grouped.rename_axis("s2_id").reset_index()
    rows = rows.sort_values(["photos", "s2_id"], ascending=[False, True], ignore_index=True)
    cells = rows["s2_id"].to_numpy(np.int64)
    return with_cell_shapes(rows.assign(code=s2.token(cells), level=shown))
