"""What the accuracy page shows: shares by place, errors, answers and the comparison of two evaluations.

A focus narrows every query to one region or one S2 cell by the true position of the photo. All shares are percent
and come with the photos they rest on and a Wilson interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from geofix.database.engine import Connection
from geofix.database.queries.dashboard import Bounds, frame, with_cell_shapes

_FOCUS = """
    (%(lo)s::bigint IS NULL OR p.s2_id BETWEEN %(lo)s AND %(hi)s)
    AND (%(region_code)s::text IS NULL OR EXISTS (
      SELECT FROM geofix.photo_region fr JOIN geofix.region fg USING (region_id)
      WHERE fr.photo_id = p.photo_id AND fr.level = %(region_level)s AND fg.code = %(region_code)s))
"""
_HITS = (
    """
hit AS (
  SELECT p.* FROM geofix.evaluation_hits(%(name)s, %(threshold_m)s) AS p
  WHERE """
    + _FOCUS
    + ")"
)
_ASKED_FROM = (
    """
  FROM geofix.evaluation e
  JOIN geofix.evaluation_photo ep USING (evaluation_id)
  JOIN geofix.photo_record p ON p.photo_id = ep.photo_id
  LEFT JOIN geofix.prediction r ON r.evaluation_id = ep.evaluation_id AND r.photo_id = ep.photo_id AND r.rank = 1
  WHERE e.evaluation_id = geofix.evaluation_id(%(name)s) AND (r.photo_id IS NOT NULL OR e.missing_policy = 'wrong') AND """
    + _FOCUS
    + ")"
)
_ASKED = (
    """
asked AS (
  SELECT ep.photo_id, p.geom AS true_geom, r.geom, r.error_m, r.score, r.probability, ep.nearest_training_m,
         ep.training_photos_in_cell"""
    + _ASKED_FROM
)
EVALUATIONS = """
SELECT s.*, e.metrics, e.snapshot_id FROM geofix.evaluation_summary s JOIN geofix.evaluation e USING (evaluation_id)
ORDER BY s.created_at
"""
BOUNDS = (
    """
SELECT public.ST_XMin(b), public.ST_YMin(b), public.ST_XMax(b), public.ST_YMax(b)
FROM (SELECT public.ST_Extent(p.geom) AS b FROM geofix.evaluation_photo ep JOIN geofix.photo_record p USING (photo_id)
      WHERE ep.evaluation_id = geofix.evaluation_id(%(name)s) AND """
    + _FOCUS
    + ") AS e WHERE b IS NOT NULL"
)
OVERALL = (
    "WITH "
    + _HITS
    + """
SELECT c.n, c.hits, 100::float8 * c.hits / nullif(c.n, 0) AS accuracy, w.low, w.high, c.median_m, c.answered
FROM (SELECT count(*) AS n, count(*) FILTER (WHERE hit) AS hits, count(error_m) AS answered,
             percentile_cont(0.5) WITHIN GROUP (ORDER BY coalesce(error_m, 'Infinity'::float8)) AS median_m
      FROM hit) AS c
CROSS JOIN LATERAL geofix.wilson(c.hits, c.n) AS w
"""
)
BY_REGION = (
    "WITH "
    + _HITS
    + """, counted AS (
  SELECT pr.region_id, count(*) AS n, count(*) FILTER (WHERE h.hit) AS hits,
         percentile_cont(0.5) WITHIN GROUP (ORDER BY coalesce(h.error_m, 'Infinity'::float8)) AS median_m
  FROM hit h LEFT JOIN geofix.photo_region pr ON pr.photo_id = h.photo_id AND pr.level = %(level)s
  GROUP BY pr.region_id
)
SELECT coalesce(r.code, '-') AS code, coalesce(r.name, 'outside every region') AS place, c.n, c.hits,
       100::float8 * c.hits / c.n AS accuracy, w.low, w.high, c.median_m, count(*) OVER () AS places,
       public.ST_AsGeoJSON(public.ST_Simplify(r.geom, %(tolerance)s, true), 5) AS shape
FROM counted c LEFT JOIN geofix.region r USING (region_id) CROSS JOIN LATERAL geofix.wilson(c.hits, c.n) AS w
ORDER BY c.n DESC, 1 LIMIT %(limit)s
"""
)
BY_CELL = (
    "WITH "
    + _HITS
    + """, counted AS (
  SELECT geofix.s2_parent(s2_id, %(level)s) AS s2_id, count(*) AS n, count(*) FILTER (WHERE hit) AS hits,
         percentile_cont(0.5) WITHIN GROUP (ORDER BY coalesce(error_m, 'Infinity'::float8)) AS median_m
  FROM hit GROUP BY 1
)
SELECT geofix.s2_token(s2_id) AS code, geofix.s2_token(s2_id) AS place, c.n, c.hits, 100::float8 * c.hits / c.n AS accuracy,
       w.low, w.high, c.median_m, count(*) OVER () AS places, s2_id
FROM counted c CROSS JOIN LATERAL geofix.wilson(c.hits, c.n) AS w
ORDER BY c.n DESC, 1 LIMIT %(limit)s
"""
)
QUANTILES = (
    "WITH "
    + _ASKED
    + """
SELECT count(*), percentile_disc(%(shares)s::float8[]) WITHIN GROUP (ORDER BY coalesce(error_m, 'Infinity'::float8))
FROM asked
"""
)
# The rank of the first answer within each radius. Only answers within the largest one are looked at: most ranks are far
# away. Photos with a coarser position stay out.
RECALL = (
    """
WITH asked AS (
  SELECT ep.photo_id, coalesce(p.gps_accuracy_m, 0) AS gps_m"""
    + _ASKED_FROM
    + """, known AS (
  SELECT gps_m, count(*) AS n FROM asked GROUP BY 1
), total AS (
  SELECT rs.radius_m, sum(w.n)::bigint AS n
  FROM known w JOIN unnest(%(radii)s::float8[]) AS rs(radius_m) ON w.gps_m <= rs.radius_m GROUP BY 1
), first AS (
  SELECT r.photo_id, rs.radius_m, min(r.rank) AS rank
  FROM geofix.evaluation e JOIN geofix.prediction r USING (evaluation_id)
  JOIN unnest(%(radii)s::float8[]) AS rs(radius_m)
    ON CASE e.comparison WHEN '<' THEN r.error_m < rs.radius_m ELSE r.error_m <= rs.radius_m END
  WHERE e.evaluation_id = geofix.evaluation_id(%(name)s)
    AND r.error_m <= (SELECT max(m.radius_m) FROM unnest(%(radii)s::float8[]) AS m(radius_m))
  GROUP BY 1, 2
), found AS (
  SELECT f.rank, f.radius_m, count(*) AS photos
  FROM first f JOIN asked a ON a.photo_id = f.photo_id AND a.gps_m <= f.radius_m GROUP BY 1, 2
), counted AS (
  SELECT ks.k, t.radius_m, t.n, coalesce(sum(f.photos), 0)::bigint AS hits
  FROM total t CROSS JOIN unnest(%(ks)s::integer[]) AS ks(k)
  LEFT JOIN found f ON f.radius_m = t.radius_m AND f.rank <= ks.k GROUP BY 1, 2, 3
)
SELECT c.k, c.radius_m, c.n, c.hits, 100::float8 * c.hits / c.n AS recall, w.low, w.high
FROM counted c CROSS JOIN LATERAL geofix.wilson(c.hits, c.n) AS w ORDER BY 1, 2
"""
)
# A fixed pseudo-random choice, so that a large evaluation keeps its shape and a rerun its picture.
ERROR_LINES = (
    "WITH "
    + _ASKED
    + """
SELECT photo_id, public.ST_X(true_geom) AS true_lon, public.ST_Y(true_geom) AS true_lat, public.ST_X(geom) AS lon,
       public.ST_Y(geom) AS lat, error_m, count(*) OVER () AS photos
FROM asked WHERE geom IS NOT NULL ORDER BY hashint8(photo_id), photo_id LIMIT %(limit)s
"""
)
WORST = (
    "WITH "
    + _ASKED
    + """, picked AS (
  SELECT *, count(*) OVER () AS photos FROM asked WHERE %(photo_id)s::bigint IS NULL OR photo_id = %(photo_id)s
  ORDER BY error_m DESC NULLS FIRST, photo_id LIMIT %(limit)s OFFSET %(offset)s
)
SELECT a.photo_id, a.photos, d.name AS dataset, p.source_key, p.uri, p.captured_at, p.heading_deg, a.error_m, a.score,
       a.probability, a.nearest_training_m, a.training_photos_in_cell, public.ST_X(a.true_geom) AS true_lon,
       public.ST_Y(a.true_geom) AS true_lat, public.ST_X(a.geom) AS lon, public.ST_Y(a.geom) AS lat,
       coalesce(p.licence, d.licence) AS licence, coalesce(p.author, d.attribution) AS attribution,
       near.uri AS near_uri, near.source_key AS near_key, near.distance_m AS near_m
FROM picked a
JOIN geofix.photo_record p USING (photo_id)
JOIN geofix.dataset d USING (dataset_id)
LEFT JOIN LATERAL (
  SELECT o.uri, o.source_key, public.ST_DistanceSphere(o.geom, a.geom) AS distance_m FROM geofix.photo_record o
  WHERE o.uri IS NOT NULL AND o.photo_id <> a.photo_id AND a.geom IS NOT NULL
  ORDER BY o.geom OPERATOR(public.<->) a.geom LIMIT 1
) AS near ON true
ORDER BY a.error_m DESC NULLS FIRST, a.photo_id
"""
)
ANSWERS = """
SELECT r.rank, geofix.s2_token(r.s2_id) AS code, public.ST_X(r.geom) AS lon, public.ST_Y(r.geom) AS lat, r.score, r.probability,
       r.error_m
FROM geofix.prediction r
WHERE r.evaluation_id = geofix.evaluation_id(%(name)s) AND r.photo_id = %(photo_id)s ORDER BY r.rank LIMIT %(limit)s
"""
# Bins between edges, the last one open above; photos of which the quantity is unknown come last.
BY_BIN = (
    "WITH "
    + _HITS
    + """, binned AS (
  SELECT h.hit, h.error_m, width_bucket(CASE %(by)s WHEN 'distance' THEN ep.nearest_training_m::float8
                                        ELSE ep.training_photos_in_cell::float8 END, %(edges)s::float8[]) AS bin
  FROM hit h
  JOIN geofix.evaluation_photo ep ON ep.photo_id = h.photo_id AND ep.evaluation_id = geofix.evaluation_id(%(name)s)
), counted AS (
  SELECT bin, count(*) AS n, count(*) FILTER (WHERE hit) AS hits,
         percentile_cont(0.5) WITHIN GROUP (ORDER BY coalesce(error_m, 'Infinity'::float8)) AS median_m
  FROM binned GROUP BY 1
)
SELECT c.bin, c.n, c.hits, 100::float8 * c.hits / c.n AS accuracy, w.low, w.high, c.median_m
FROM counted c CROSS JOIN LATERAL geofix.wilson(c.hits, c.n) AS w ORDER BY c.bin NULLS LAST
"""
)
# Rows of `evaluation_hits` of both, on the photos of both; written out, since two calls would look up every photo twice.
_HIT = """coalesce(CASE e{0}.comparison WHEN '<' THEN r{0}.error_m < %(threshold_m)s ELSE r{0}.error_m <= %(threshold_m)s END,
                  false) AS hit_{0}"""
_FIRST = "geofix.prediction r{0} ON r{0}.evaluation_id = {0}.evaluation_id AND r{0}.photo_id = {0}.photo_id AND r{0}.rank = 1"
_PAIRS = (
    f"""
pair AS (
  SELECT p.photo_id, p.s2_id, {_HIT.format("a")}, {_HIT.format("b")}
  FROM geofix.evaluation ea
  JOIN geofix.evaluation_photo a ON a.evaluation_id = ea.evaluation_id
  CROSS JOIN geofix.evaluation eb
  JOIN geofix.evaluation_photo b ON b.evaluation_id = eb.evaluation_id AND b.photo_id = a.photo_id
  JOIN geofix.photo_record p ON p.photo_id = a.photo_id
  LEFT JOIN {_FIRST.format("a")}
  LEFT JOIN {_FIRST.format("b")}
  WHERE ea.evaluation_id = geofix.evaluation_id(%(name)s) AND eb.evaluation_id = geofix.evaluation_id(%(other)s)
    AND (ra.photo_id IS NOT NULL OR ea.missing_policy = 'wrong') AND (rb.photo_id IS NOT NULL OR eb.missing_policy = 'wrong')
    AND coalesce(p.gps_accuracy_m, 0) <= %(threshold_m)s AND """
    + _FOCUS
    + ")"
)
# Interval of a paired difference: Agresti and Min, Statistics in Medicine 24 (2005), half a photo added to each cell.
_DIFFERENCE = """
SELECT code, place, n, gains, losses, 100::float8 * hits_a / n AS accuracy_a, 100::float8 * hits_b / n AS accuracy_b,
       100::float8 * (gains - losses) / n AS difference,
       100 * greatest(-1, (gains - losses - 1.959963984540054 * sqrt(gains + losses + 1 - (gains - losses)::float8 ^ 2 / (n + 2))) / (n + 2)) AS low,
       100 * least(1, (gains - losses + 1.959963984540054 * sqrt(gains + losses + 1 - (gains - losses)::float8 ^ 2 / (n + 2))) / (n + 2)) AS high,
       count(*) OVER () AS places"""
_TALLY = """count(*) AS n, count(*) FILTER (WHERE hit_a) AS hits_a, count(*) FILTER (WHERE hit_b) AS hits_b,
         count(*) FILTER (WHERE hit_a AND NOT hit_b) AS gains, count(*) FILTER (WHERE hit_b AND NOT hit_a) AS losses"""
COMPARE_CELLS = f"""
WITH {_PAIRS}, counted AS (
  SELECT geofix.s2_parent(s2_id, %(level)s) AS s2_id, {_TALLY} FROM pair GROUP BY 1
), shown AS (
  SELECT *, geofix.s2_token(s2_id) AS code, geofix.s2_token(s2_id) AS place FROM counted
)
{_DIFFERENCE}, s2_id FROM shown ORDER BY n DESC, code LIMIT %(limit)s
"""
COMPARE_REGIONS = f"""
WITH {_PAIRS}, counted AS (
  SELECT pr.region_id, {_TALLY}
  FROM pair LEFT JOIN geofix.photo_region pr ON pr.photo_id = pair.photo_id AND pr.level = %(level)s GROUP BY 1
), shown AS (
  SELECT c.*, coalesce(r.code, '-') AS code, coalesce(r.name, 'outside every region') AS place,
         public.ST_AsGeoJSON(public.ST_Simplify(r.geom, %(tolerance)s, true), 5) AS shape
  FROM counted c LEFT JOIN geofix.region r USING (region_id)
)
{_DIFFERENCE}, shape FROM shown ORDER BY n DESC, code LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Focus:
    """A region or a range of leaf cells (S2 ids of level 30, both ends inclusive); empty: everywhere."""

    region_level: str | None = None
    region_code: str | None = None
    lo: int | None = None
    hi: int | None = None

    def values(self) -> dict[str, Any]:
        """Parameters of every statement here."""
        return {
            "region_level": self.region_level,
            "region_code": self.region_code,
            "lo": self.lo,
            "hi": self.hi,
        }


def evaluations(conn: Connection) -> pd.DataFrame:
    """Summaries with the metrics document, oldest first."""
    return frame(conn, EVALUATIONS)


def bounds(conn: Connection, name: str, focus: Focus) -> Bounds | None:
    """West, south, east, north in degrees of the photos that were asked; None where there is none."""
    row = conn.execute(BOUNDS, {"name": name, **focus.values()}).fetchone()
    return None if row is None else (float(row[0]), float(row[1]), float(row[2]), float(row[3]))


def overall(conn: Connection, name: str, threshold_m: float, focus: Focus) -> dict[str, float]:
    """n, hits, accuracy with its interval in percent, median_m (infinite without answers), answered."""
    row = frame(conn, OVERALL, {"name": name, "threshold_m": threshold_m, **focus.values()}).iloc[0]
    return {str(key): float("nan") if pd.isna(value) else float(value) for key, value in row.items()}


def by_place(
    conn: Connection,
    name: str,
    level: str | int,
    threshold_m: float,
    focus: Focus,
    *,
    tolerance: float,
    limit: int = 5000,
) -> pd.DataFrame:
    """Accuracy per region of a level (its name) or S2 cell of a level (its number), fullest first.

    Args:
        conn: Open connection.
        name: The evaluation.
        level: A level of regions, or an S2 level.
        threshold_m: An answer counts within this many metres.
        focus: Only photos in there.
        tolerance: Simplification of region outlines in degrees.
        limit: Places at most; the column `places` counts all.
    """
    values = {
        "name": name,
        "threshold_m": threshold_m,
        "level": level,
        "tolerance": tolerance,
        "limit": limit,
        **focus.values(),
    }
    if isinstance(level, int):
        return with_cell_shapes(frame(conn, BY_CELL, values))
    return frame(conn, BY_REGION, values)


def quantiles(
    conn: Connection, name: str, shares: Sequence[float], focus: Focus
) -> tuple[int, np.ndarray[Any, np.dtype[np.float64]]]:
    """Number of photos, and the error in metres below which each share lies; infinite where unanswered."""
    row = conn.execute(
        QUANTILES, {"name": name, "shares": [float(s) for s in shares], **focus.values()}
    ).fetchone()
    assert row is not None
    return int(row[0]), np.array(row[1] if row[1] is not None else [], np.float64)


def recall(
    conn: Connection, name: str, ks: Sequence[int], radii_m: Sequence[float], focus: Focus
) -> pd.DataFrame:
    """Share of photos with one of the first K answers within each radius: k, radius_m, n, hits, recall, low, high."""
    return frame(
        conn, RECALL, {"name": name, "ks": list(ks), "radii": [float(r) for r in radii_m], **focus.values()}
    )


def error_lines(conn: Connection, name: str, focus: Focus, *, limit: int = 2000) -> pd.DataFrame:
    """Truth and first answer of photos, a fixed random choice; `photos` counts all."""
    return frame(conn, ERROR_LINES, {"name": name, "limit": limit, **focus.values()})


def worst(
    conn: Connection, name: str, focus: Focus, *, limit: int, offset: int, photo_id: int | None = None
) -> pd.DataFrame:
    """Photos with the largest errors (unanswered first), and the photo nearest to the answered place; or one photo."""
    values = {"name": name, "limit": limit, "offset": offset, "photo_id": photo_id, **focus.values()}
    return frame(conn, WORST, values)


def answers(conn: Connection, name: str, photo_id: int, *, limit: int = 20) -> pd.DataFrame:
    """The first answers to one photo, by rank, with their error in metres."""
    return frame(conn, ANSWERS, {"name": name, "photo_id": photo_id, "limit": limit})


def by_bin(
    conn: Connection, name: str, threshold_m: float, focus: Focus, *, by: str, edges: Sequence[float]
) -> pd.DataFrame:
    """Accuracy by a quantity of the photo in bins [edge, next edge); bin 0 lies below the first edge.

    Args:
        conn: Open connection.
        name: The evaluation.
        threshold_m: An answer counts within this many metres.
        focus: Only photos in there.
        by: `distance` to the nearest training photo in metres, or `photos`: training photos in the same cell.
        edges: Ascending.
    """
    values = {"name": name, "threshold_m": threshold_m, "by": by, "edges": list(edges), **focus.values()}
    return frame(conn, BY_BIN, values)


def compare_places(
    conn: Connection,
    name: str,
    other: str,
    level: str | int,
    threshold_m: float,
    focus: Focus,
    *,
    tolerance: float,
    limit: int = 5000,
) -> pd.DataFrame:
    """Accuracy of one evaluation minus another per place, on their common photos; gains are right in the first alone."""
    values = {
        "name": name,
        "other": other,
        "threshold_m": threshold_m,
        "level": level,
        "tolerance": tolerance,
        "limit": limit,
        **focus.values(),
    }
    if isinstance(level, int):
        return with_cell_shapes(frame(conn, COMPARE_CELLS, values))
    return frame(conn, COMPARE_REGIONS, values)
