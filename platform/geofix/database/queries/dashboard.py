"""What the dashboard shows of sources and coverage: counts, data sets, cells, outlines, rejects, snapshots.

Everything is aggregated by the server and bounded by a limit, so a page costs the browser the same whether
the database holds a thousand photos or ten million. Shapes leave as GeoJSON text, simplified for the screen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geofix.database.engine import Connection
from geofix.spatial import s2
from geofix.spatial.covering import cover

Bounds = tuple[float, float, float, float]  # west, south, east, north in degrees
_WIDE_DEG = 20.0  # a wider box has few cells of the level it is drawn with: all are walked through

COUNTS = """
SELECT (SELECT count(*) FROM geofix.photo_record) AS photos,
       (SELECT count(*) FROM geofix.sequence) AS sequences,
       (SELECT count(*) FROM geofix.dataset) AS datasets,
       (SELECT count(*) FROM geofix.region) AS regions,
       (SELECT count(*) FROM geofix.aerial_raster) AS rasters,
       (SELECT count(*) FROM geofix.aerial_tile) AS aerial_tiles,
       (SELECT count(*) FROM geofix.model) AS models,
       (SELECT count(*) FROM geofix.code_set) AS code_sets,
       (SELECT count(*) FROM geofix.snapshot) AS snapshots,
       (SELECT count(*) FROM geofix.evaluation) AS evaluations,
       (SELECT count(*) FROM geofix.reject) AS rejects
"""
DATASETS = """
SELECT d.name, d.kind, d.licence, d.attribution, d.source_uri, d.created_at,
       coalesce(p.n, 0) AS photos, p.first_captured_at, p.last_captured_at, coalesce(s.n, 0) AS sequences,
       coalesce(r.n, 0) AS rasters, coalesce(t.n, 0) AS aerial_tiles, coalesce(g.n, 0) AS regions, coalesce(x.n, 0) AS rejects
FROM geofix.dataset d
LEFT JOIN (SELECT dataset_id, count(*) AS n, min(captured_at) AS first_captured_at, max(captured_at) AS last_captured_at
           FROM geofix.photo_record GROUP BY 1) p USING (dataset_id)
LEFT JOIN (SELECT dataset_id, count(*) AS n FROM geofix.sequence GROUP BY 1) s USING (dataset_id)
LEFT JOIN (SELECT dataset_id, count(*) AS n FROM geofix.aerial_raster GROUP BY 1) r USING (dataset_id)
LEFT JOIN (SELECT dataset_id, count(*) AS n FROM geofix.aerial_tile GROUP BY 1) t USING (dataset_id)
LEFT JOIN (SELECT dataset_id, count(*) AS n FROM geofix.region GROUP BY 1) g USING (dataset_id)
LEFT JOIN (SELECT dataset_id, count(*) AS n FROM geofix.reject GROUP BY 1) x USING (dataset_id)
ORDER BY d.kind DESC, d.name
"""
MODELS = """
SELECT m.name, m.kind, m.dimension, left(m.weights_sha256, 12) AS weights, count(c.code_set_id) AS code_sets, m.created_at
FROM geofix.model m LEFT JOIN geofix.code_set c USING (model_id) GROUP BY m.model_id ORDER BY m.created_at
"""
CODE_SETS = """
SELECT c.name, m.name AS model, c.recipe, c.level, c.state, c.stale_reason, c.cells, c.with_prototype, c.with_aerial,
       c.kappa, c.bytes, c.created_at
FROM geofix.code_set c JOIN geofix.model m USING (model_id) ORDER BY c.created_at
"""
# What was written since the server counts, and the files of the tables: another value when something was. The tables of
# running jobs are left out, which change all the time. Where nothing is counted, every moment is another state.
STATE = """
SELECT CASE current_setting('track_counts')
       WHEN 'on' THEN md5(string_agg(concat_ws(' ', relid, n_tup_ins, n_tup_upd, n_tup_del, pg_relation_filenode(relid)), ','
                                     ORDER BY relid))
       ELSE clock_timestamp()::text END
FROM pg_stat_user_tables
WHERE schemaname IN ('geofix', 'geofix_leaf') AND relname NOT IN ('job', 'job_event', 'worker', 'audit', 'query', 'stage_run')
"""
JOBS = "SELECT state, count(*) AS jobs, max(submitted_at) AS newest FROM geofix.job GROUP BY 1 ORDER BY 1"
# The photo nearest to each edge of the map of the world, by the spatial index: four rows are read, not all of them.
PHOTO_BOUNDS = """
SELECT public.ST_X(w.geom), public.ST_Y(s.geom), public.ST_X(e.geom), public.ST_Y(n.geom)
FROM (SELECT geom FROM geofix.photo_record
      ORDER BY geom OPERATOR(public.<->) 'SRID=4326;LINESTRING(-180 -90,-180 90)'::public.geometry LIMIT 1) AS w,
     (SELECT geom FROM geofix.photo_record
      ORDER BY geom OPERATOR(public.<->) 'SRID=4326;LINESTRING(-180 -90,180 -90)'::public.geometry LIMIT 1) AS s,
     (SELECT geom FROM geofix.photo_record
      ORDER BY geom OPERATOR(public.<->) 'SRID=4326;LINESTRING(180 -90,180 90)'::public.geometry LIMIT 1) AS e,
     (SELECT geom FROM geofix.photo_record
      ORDER BY geom OPERATOR(public.<->) 'SRID=4326;LINESTRING(-180 90,180 90)'::public.geometry LIMIT 1) AS n
"""
# Cut first, then simplified: the tolerance is in degrees and far below a pixel.
OUTLINES = """
SELECT code, name, public.ST_AsGeoJSON(cut, 5) AS shape
FROM (SELECT code, name, area_km2,
             public.ST_Simplify(public.ST_ClipByBox2D(geom, box.b), %(tolerance)s, true) AS cut
      FROM geofix.region CROSS JOIN (SELECT public.ST_MakeEnvelope(%(west)s, %(south)s, %(east)s, %(north)s, 4326) AS b) AS box
      WHERE level = %(level)s AND geom OPERATOR(public.&&) box.b) AS c
WHERE NOT public.ST_IsEmpty(cut) ORDER BY area_km2 DESC LIMIT %(limit)s
"""
REGION_LEVELS = """
SELECT level, count(*) AS regions, count(repaired) AS repaired, sum(area_km2) AS area_km2 FROM geofix.region
GROUP BY level ORDER BY sum(area_km2) / count(*) DESC, level
"""
REGIONS = """
SELECT r.level, r.code, r.name, d.name AS dataset, p.n AS photos, r.area_km2, r.repaired
FROM geofix.region r JOIN geofix.dataset d USING (dataset_id)
CROSS JOIN LATERAL (SELECT count(*) AS n FROM geofix.photo_region pr WHERE pr.region_id = r.region_id) AS p
WHERE r.level = %(level)s ORDER BY photos DESC, r.name LIMIT %(limit)s
"""
# One photo per fine cell: where photos are, without drawing each of them. From one cell the index leads to the first
# photo beyond it, so what is read grows with the cells. A range that ends inside a cell may show it twice.
TRACE = """
WITH RECURSIVE walk AS (
  SELECT f.s2_id, f.geom, r.hi
  FROM unnest(%(lo)s::bigint[], %(hi)s::bigint[]) AS r (lo, hi)
  CROSS JOIN LATERAL (SELECT p.s2_id, p.geom FROM geofix.photo_record p
                      WHERE p.s2_id BETWEEN r.lo AND r.hi ORDER BY p.s2_id LIMIT 1) AS f
  UNION ALL
  SELECT f.s2_id, f.geom, w.hi
  FROM walk w
  CROSS JOIN LATERAL (SELECT p.s2_id, p.geom FROM geofix.photo_record p
                      WHERE p.s2_id > (w.s2_id | (2 * %(bit)s::bigint - 1)) AND p.s2_id <= w.hi
                      ORDER BY p.s2_id LIMIT 1) AS f
)
SELECT public.ST_X(geom) AS lon, public.ST_Y(geom) AS lat FROM walk
WHERE geom OPERATOR(public.&&) public.ST_MakeEnvelope(%(west)s, %(south)s, %(east)s, %(north)s, 4326)
LIMIT %(limit)s
"""
REJECT_COUNTS = """
SELECT d.name AS dataset, r.kind, r.reason, count(*) AS rejects, min(r.source_key) AS example, max(r.seen_at) AS last_seen
FROM geofix.reject r JOIN geofix.dataset d USING (dataset_id)
GROUP BY 1, 2, 3 ORDER BY rejects DESC, 1, 2, 3
"""
REJECTS = """
SELECT d.name AS dataset, r.kind, r.reason, r.source_key, r.detail, r.seen_at
FROM geofix.reject r JOIN geofix.dataset d USING (dataset_id)
WHERE (%(dataset)s::text IS NULL OR d.name = %(dataset)s) AND (%(reason)s::text IS NULL OR r.reason = %(reason)s)
ORDER BY r.seen_at DESC, r.reject_id DESC LIMIT %(limit)s
"""
SNAPSHOTS = """
SELECT s.snapshot_id, left(s.sha256, 12) AS sha256, s.uri, s.config, s.counts, s.created_at,
       (SELECT count(*) FROM geofix.model m WHERE m.snapshot_id = s.snapshot_id) AS models,
       (SELECT count(*) FROM geofix.evaluation e WHERE e.snapshot_id = s.snapshot_id) AS evaluations
FROM geofix.snapshot s ORDER BY s.created_at DESC
"""
# As they were counted when the snapshot was stored.
SPLITS = """
SELECT split, photos, sequences, cells_l15, blocks_l13 FROM geofix.snapshot_split WHERE snapshot_id = %(snapshot_id)s
ORDER BY array_position(ARRAY['train', 'val', 'test_seen', 'test_unseen'], split)
"""


def frame(conn: Connection, statement: str, values: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Rows of a statement with its column names; an empty answer keeps its columns."""
    with conn.cursor() as cursor:
        cursor.execute(statement, values)
        names = [item.name for item in cursor.description or []]
        return pd.DataFrame(cursor.fetchall(), columns=names)


def with_cell_shapes(rows: pd.DataFrame) -> pd.DataFrame:
    """The frame with its column s2_id turned into shape, the cell's outline as GeoJSON text.

    Straight lines between the four corners: an edge of level 4, at most 640 km long, bends away from its line
    by less than 8 km * tan(latitude), and one half as long by a quarter of that.
    """
    corners = s2.corners(rows["s2_id"].to_numpy(np.int64))
    # A cell across the 180th meridian is drawn in one piece beyond it.
    across = np.ptp(corners[:, :, 0], axis=1) > 180
    corners[across, :, 0] = np.where(
        corners[across, :, 0] < 0, corners[across, :, 0] + 360, corners[across, :, 0]
    )
    rings = np.concatenate([corners, corners[:, :1]], axis=1).round(7).tolist()
    written = json.dumps(rings)[3:-3].split("]], [[") if rings else []  # all at once: a fifth of the time
    texts = [f'{{"type": "Polygon", "coordinates": [[[{ring}]]]}}' for ring in written]
    return rows.drop(columns="s2_id").assign(shape=pd.Series(texts, index=rows.index, dtype=object))


def fitting_level(ids: NDArray[np.int64], level: int, most: int) -> int:
    """The finest S2 level, at most `level`, at which ids of that level or finer have at most so many parents."""
    while level > 0 and len(np.unique(s2.parent(ids, level))) > most:
        level -= 1
    return level


def bit_of(level: int) -> int:
    """The trailing one of the ids of a level."""
    return 1 << (2 * (30 - level))


def counts(conn: Connection) -> dict[str, int]:
    """How much of everything there is."""
    row = frame(conn, COUNTS).iloc[0]
    return {str(name): int(value) for name, value in row.items()}


def datasets(conn: Connection) -> pd.DataFrame:
    """Data sets with licence, attribution and what was loaded and rejected."""
    return frame(conn, DATASETS)


def models(conn: Connection) -> pd.DataFrame:
    """Models with the first digits of their weights' hash and their number of code sets."""
    return frame(conn, MODELS)


def code_sets(conn: Connection) -> pd.DataFrame:
    """Code sets with what their cells were made from, and their size in bytes."""
    return frame(conn, CODE_SETS)


def job_states(conn: Connection) -> pd.DataFrame:
    """Jobs counted by state."""
    return frame(conn, JOBS)


def state(conn: Connection) -> str:
    """A text that is another one after anything but jobs and queries was written, within seconds."""
    row = conn.execute(STATE).fetchone()
    return "" if row is None else str(row[0])


def photo_bounds(conn: Connection) -> Bounds | None:
    """West, south, east, north of all photos in degrees; None when there are none."""
    row = conn.execute(PHOTO_BOUNDS).fetchone()
    return None if row is None else (float(row[0]), float(row[1]), float(row[2]), float(row[3]))


def outlines(conn: Connection, level: str, bounds: Bounds, *, limit: int = 500) -> pd.DataFrame:
    """Regions of a level cut to a box, columns code, name, shape (GeoJSON).

    Simplified by a thousandth of the box's longer side, about a pixel of a map of that width.
    """
    west, south, east, north = bounds
    values = {"level": level, "west": west, "south": south, "east": east, "north": north, "limit": limit}
    return frame(conn, OUTLINES, {**values, "tolerance": max(east - west, north - south) / 1000})


def region_levels(conn: Connection) -> pd.DataFrame:
    """Levels of regions, coarsest first, with their number and how many were repaired."""
    return frame(conn, REGION_LEVELS)


def regions(conn: Connection, level: str, *, limit: int = 2000) -> pd.DataFrame:
    """Regions of a level with their photos, most photographed first."""
    return frame(conn, REGIONS, {"level": level, "limit": limit})


def trace(conn: Connection, level: int, bounds: Bounds, *, limit: int = 3000) -> pd.DataFrame:
    """Positions (lon, lat) of one photo per S2 cell of a level, inside a box."""
    west, south, east, north = bounds
    if east - west > _WIDE_DEG or north - south > _WIDE_DEG:
        ranges = np.array([[np.iinfo(np.int64).min, np.iinfo(np.int64).max]])
    else:
        ranges = cover(shapely.box(max(west, -180.0), south, min(east, 180.0), north), max_level=level)
    values = {"west": west, "south": south, "east": east, "north": north, "limit": limit}
    lo, hi = ranges[:, 0].tolist(), ranges[:, 1].tolist()
    return frame(conn, TRACE, {**values, "lo": lo, "hi": hi, "bit": bit_of(level)})


def reject_counts(conn: Connection) -> pd.DataFrame:
    """Rejects by data set, kind and reason, with one example each."""
    return frame(conn, REJECT_COUNTS)


def rejects(conn: Connection, dataset: str | None, reason: str | None, *, limit: int = 500) -> pd.DataFrame:
    """Newest rejects with their detail."""
    return frame(conn, REJECTS, {"dataset": dataset, "reason": reason, "limit": limit})


def snapshots(conn: Connection) -> pd.DataFrame:
    """Snapshots, newest first, with configuration and counts as dictionaries."""
    return frame(conn, SNAPSHOTS)


def splits(conn: Connection, snapshot_id: int) -> pd.DataFrame:
    """Photos, sequences, cells and blocks of every split of a snapshot, when it was stored."""
    return frame(conn, SPLITS, {"snapshot_id": snapshot_id})
