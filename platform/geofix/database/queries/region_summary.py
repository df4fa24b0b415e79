"""Accuracy by region at the distances most asked for, written with every evaluation and read instead of counted.

What is written is what `region_counts` says, and a summary is read while it fits (`fitting_summary`): a statement that
changes answers, regions of photos or their positions is noted by triggers (`305_region_summaries.sql`). The reader of one
that does not fit, or was never written, counts from rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from geofix.database.engine import Connection
from geofix.database.queries import answer_regions
from geofix.database.queries.change_log import ChangeLog
from geofix.database.queries.dashboard import Bounds, frame

DISTANCES_M = (25, 50, 100, 200, 500, 1_000, 25_000, 200_000, 750_000, 2_500_000)
"""Metres within which an answer counts."""

EVERYWHERE = ""
"""The level of all photos together: no region is of it."""

LEVELS = "SELECT DISTINCT level FROM geofix.region ORDER BY 1"
# Before anything is counted: what changes meanwhile makes it unfit.
STAMP = """
INSERT INTO geofix.region_summary (evaluation_id, level, distances_m, comparison, missing_policy, changes, first_photo_id,
                                   last_photo_id)
SELECT e.evaluation_id, %(level)s, %(distances_m)s, e.comparison, e.missing_policy,
       geofix.accuracy_changes(e.evaluation_id, %(level)s, asked.first_id, asked.last_id), asked.first_id, asked.last_id
FROM geofix.evaluation e
CROSS JOIN LATERAL (
    SELECT min(ep.photo_id) AS first_id, max(ep.photo_id) AS last_id
    FROM geofix.evaluation_photo ep WHERE ep.evaluation_id = e.evaluation_id
) AS asked
WHERE e.evaluation_id = %(evaluation_id)s
ON CONFLICT (evaluation_id, level) DO UPDATE SET
    distances_m = excluded.distances_m, comparison = excluded.comparison, missing_policy = excluded.missing_policy,
    changes = excluded.changes, first_photo_id = excluded.first_photo_id, last_photo_id = excluded.last_photo_id,
    written_at = now()
"""
FORGET = "DELETE FROM geofix.region_accuracy WHERE evaluation_id = %(evaluation_id)s AND level = %(level)s"
# Distances that leave out the same photos, those of a poor position, are counted together.
COUNT = """
INSERT INTO geofix.region_accuracy (evaluation_id, level, distance_m, region_id, n, hits, answered, median_m)
WITH poor AS MATERIALIZED (
    SELECT p.gps_accuracy_m FROM geofix.evaluation_photo ep JOIN geofix.photo_record p USING (photo_id)
    WHERE ep.evaluation_id = %(evaluation_id)s AND p.gps_accuracy_m > %(least_m)s
), alike AS (
    SELECT min(distance_m) AS known_m, array_agg(distance_m) AS distances_m
    FROM (
        SELECT d AS distance_m, (SELECT count(*) FROM poor WHERE gps_accuracy_m > d) AS left_out
        FROM unnest(%(distances_m)s::float8[]) AS d
    ) AS asked GROUP BY left_out
)
SELECT %(evaluation_id)s, %(level)s, c.distance_m, c.region_id, c.n, c.hits, c.answered, c.median_m
FROM alike CROSS JOIN LATERAL geofix.region_counts(%(evaluation_id)s, %(level)s, alike.known_m, alike.distances_m) AS c
"""
# The photos of the dashboard's ASKED.
BOX = """
UPDATE geofix.region_summary s SET west = box.west, south = box.south, east = box.east, north = box.north
FROM (
    SELECT min(public.ST_X(p.geom)) AS west, min(public.ST_Y(p.geom)) AS south, max(public.ST_X(p.geom)) AS east,
           max(public.ST_Y(p.geom)) AS north
    FROM geofix.evaluation e
    JOIN geofix.evaluation_photo ep USING (evaluation_id)
    JOIN geofix.photo_record p ON p.photo_id = ep.photo_id
    LEFT JOIN geofix.prediction r ON r.evaluation_id = ep.evaluation_id AND r.photo_id = ep.photo_id AND r.rank = 1
    WHERE e.evaluation_id = %(evaluation_id)s AND (r.photo_id IS NOT NULL OR e.missing_policy = 'wrong')
) AS box
WHERE s.evaluation_id = %(evaluation_id)s AND s.level = %(level)s
"""
# One row of nothing where no photo counts; none where there is no summary, or none that fits.
READ = """
SELECT a.region_id, a.n, a.hits, a.answered, a.median_m
FROM geofix.fitting_summary s
LEFT JOIN geofix.region_accuracy a
  ON a.evaluation_id = s.evaluation_id AND a.level = s.level AND a.distance_m = %(distance_m)s
WHERE s.evaluation = %(name)s AND s.level = %(level)s AND %(distance_m)s = ANY (s.distances_m)
  AND (%(created_at)s::timestamptz IS NULL OR EXISTS (
       SELECT FROM geofix.evaluation e WHERE e.evaluation_id = s.evaluation_id AND e.created_at = %(created_at)s::timestamptz))
"""
READ_BOX = """
SELECT s.west, s.south, s.east, s.north FROM geofix.fitting_summary s
WHERE s.evaluation = %(name)s AND s.level = %(level)s
  AND (%(created_at)s::timestamptz IS NULL OR EXISTS (
       SELECT FROM geofix.evaluation e WHERE e.evaluation_id = s.evaluation_id AND e.created_at = %(created_at)s::timestamptz))
"""
WITHOUT = """
SELECT e.evaluation_id, e.name FROM geofix.evaluation e
WHERE NOT e.config ? 'in_the_making' AND (e.metrics ? 'accuracy_km' AND NOT e.metrics ? 'administrative' OR EXISTS (
    SELECT FROM unnest(%(levels)s::text[]) AS l (level)
    WHERE NOT EXISTS (SELECT FROM geofix.fitting_summary s WHERE s.evaluation_id = e.evaluation_id AND s.level = l.level
                        AND s.distances_m @> %(distances_m)s)))
ORDER BY e.created_at, e.evaluation_id
"""
UNFIT = """
SELECT EXISTS (
    SELECT FROM geofix.evaluation e CROSS JOIN unnest(%(levels)s::text[]) AS l (level)
    WHERE e.name = %(name)s
      AND NOT EXISTS (SELECT FROM geofix.fitting_summary s WHERE s.evaluation_id = e.evaluation_id AND s.level = l.level))
"""
LOG_ROWS = "SELECT count(*), pg_total_relation_size('geofix.accuracy_change') FROM geofix.accuracy_change"
# Whoever is writing into the log, or has counted it for a summary, is to end first; else it is left for another time.
HOLD_LOG = "LOCK TABLE geofix.accuracy_change, geofix.region_summary IN SHARE ROW EXCLUSIVE MODE NOWAIT"
FOLD = """
UPDATE geofix.region_summary s SET changes = CASE WHEN EXISTS (
    SELECT FROM geofix.fitting_summary f WHERE f.evaluation_id = s.evaluation_id AND f.level = s.level) THEN 0 ELSE -1 END
"""
EMPTY_LOG = "DELETE FROM geofix.accuracy_change"
log = ChangeLog(LOG_ROWS, HOLD_LOG, FOLD, EMPTY_LOG)


@dataclass(frozen=True, slots=True)
class Box:
    """Of the photos that count, in degrees; `bounds` is None where none does."""

    bounds: Bounds | None


def write(conn: Connection, evaluation_id: int) -> None:
    """Count an evaluation at every level of regions and over all photos, in place of what was written before.

    About a second for a million answers and each level; the caller commits.
    """
    distances = [float(distance) for distance in DISTANCES_M]
    for level in _levels(conn):
        values = {"evaluation_id": evaluation_id, "level": level, "distances_m": distances}
        conn.execute(STAMP, values)
        conn.execute(FORGET, values)
        conn.execute(COUNT, {**values, "least_m": min(distances)})
    conn.execute(BOX, {"evaluation_id": evaluation_id, "level": EVERYWHERE})


def write_lacking(conn: Connection) -> list[str]:
    """Write the summary of every complete evaluation that has none that fits; their names. The caller commits.

    With it goes administrative accuracy, which is counted from the same rows.
    """
    distances = [float(distance) for distance in DISTANCES_M]
    lacking = conn.execute(WITHOUT, {"levels": _levels(conn), "distances_m": distances}).fetchall()
    for evaluation_id, _ in lacking:
        write(conn, int(evaluation_id))
        answer_regions.write(conn, int(evaluation_id))
    return [str(name) for _, name in lacking]


def fits(conn: Connection, name: str) -> bool:
    """Whether answers, regions of photos and positions are those that an evaluation was counted from, at every level."""
    row = conn.execute(UNFIT, {"name": name, "levels": _levels(conn)}).fetchone()
    return row is not None and not row[0]


def read(
    conn: Connection, name: str, level: str, distance_m: float, *, created_at: str | None = None
) -> pd.DataFrame | None:
    """What accuracy by region is at a distance, as `accuracy_by_region` would count it now.

    Columns: region_id (0: outside every region), n, hits, answered, median_m (infinite where half are unanswered).

    Args:
        conn: Open connection.
        name: The evaluation.
        level: Level of regions, or `EVERYWHERE`.
        distance_m: An answer counts within this many metres.
        created_at: The moment at which the evaluation was stored, with its offset; None: whichever has the name now.

    Returns:
        None where there is no summary that fits, it is of other distances, or another evaluation has the name.
    """
    values = {"name": name, "level": level, "distance_m": float(distance_m), "created_at": created_at}
    rows = frame(conn, READ, values)
    if rows.empty:
        return None
    whole = dict.fromkeys(("region_id", "n", "hits", "answered"), "int64")
    return rows.dropna(subset=["region_id"]).astype({**whole, "median_m": "float64"})


def read_box(conn: Connection, name: str, *, created_at: str | None = None) -> Box | None:
    """The box around the photos that count; None where `read` has none."""
    values = {"name": name, "level": EVERYWHERE, "created_at": created_at}
    row = conn.execute(READ_BOX, values).fetchone()
    if row is None:
        return None
    west, south, east, north = row
    return Box(None if west is None else (float(west), float(south), float(east), float(north)))


def _levels(conn: Connection) -> list[str]:
    return [EVERYWHERE, *(row[0] for row in conn.execute(LEVELS))]
