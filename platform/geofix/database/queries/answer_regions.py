"""Administrative accuracy: whether the first answer lies in the region of the photo, level by level.

An answer gets its region as a photo gets one: the one it lies in, the smallest where regions overlap, else the nearest
(`photo_regions`). A perfect answer is right, at a coast too.
"""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb

from geofix.database.engine import Connection
from geofix.database.queries import photo_regions

REGIONS = "answer_region"
CREATE = """
CREATE TEMP TABLE IF NOT EXISTS first_answer (photo_id int8 PRIMARY KEY, place int8 NOT NULL, geom geometry NOT NULL)
ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS answer_region (
    photo_id int8 NOT NULL, level text NOT NULL, region_id int8 NOT NULL, distance_m real NOT NULL, PRIMARY KEY (photo_id, level)
) ON COMMIT DELETE ROWS;
TRUNCATE first_answer, answer_region
"""
# Levels that say something about these photos.
LEVELS = """
SELECT l.level FROM (SELECT DISTINCT level FROM geofix.region) AS l
WHERE EXISTS (
    SELECT FROM geofix.evaluation_photo ep JOIN geofix.photo_region pr ON pr.photo_id = ep.photo_id AND pr.level = l.level
    WHERE ep.evaluation_id = %(evaluation_id)s)
ORDER BY l.level
"""
# Many answers are the centre of one cell: each place is looked up once, under the id of one of its photos.
FILL = """
INSERT INTO first_answer (photo_id, place, geom)
SELECT r.photo_id, min(r.photo_id) OVER (PARTITION BY r.geom), r.geom
FROM geofix.prediction r WHERE r.evaluation_id = %(evaluation_id)s AND r.rank = 1
"""
ANALYZE_ANSWERS = "ANALYZE first_answer"
EACH_PLACE = "INSERT INTO region_todo SELECT photo_id, geom FROM first_answer WHERE place = photo_id"
ANALYZE_REGIONS = "ANALYZE answer_region"
COUNT = """
SELECT count(*) FILTER (WHERE pr.region_id IS NOT NULL AND (a.photo_id IS NOT NULL OR e.missing_policy = 'wrong')),
       count(*) FILTER (WHERE pr.region_id = ar.region_id),
       count(*) FILTER (WHERE pr.region_id IS NULL)
FROM geofix.evaluation e
JOIN geofix.evaluation_photo ep USING (evaluation_id)
LEFT JOIN geofix.photo_region pr ON pr.photo_id = ep.photo_id AND pr.level = %(level)s
LEFT JOIN first_answer a ON a.photo_id = ep.photo_id
LEFT JOIN answer_region ar ON ar.photo_id = a.place AND ar.level = %(level)s
WHERE e.evaluation_id = %(evaluation_id)s
"""
SET = """
UPDATE geofix.evaluation SET metrics = metrics || jsonb_build_object('administrative', %(administrative)s::jsonb)
WHERE evaluation_id = %(evaluation_id)s
"""


def count(conn: Connection, evaluation_id: int) -> dict[str, dict[str, Any]]:
    """Photos, those answered in their own region, and percent, for every level of which one of them has a region.

    A few seconds for 100,000 places and a level; the caller commits, since it takes temporary tables.

    Returns:
        As `evaluation.administrative.administrative_accuracy`: {level: {n, hits, percent, unlabelled}}.
    """
    asked = {"evaluation_id": evaluation_id}
    levels = [str(row[0]) for row in conn.execute(LEVELS, asked)]
    if not levels:
        return {}
    conn.execute(CREATE, prepare=False)
    conn.execute(FILL, asked)
    conn.execute(ANALYZE_ANSWERS)
    found = {}
    # Countries first, and always before admin-1, which looks at them.
    wanted = {*levels, *(["country"] if "admin1" in levels else [])}
    for level in sorted(wanted, key=lambda name: (name != "country", name)):
        conn.execute(photo_regions.CREATE_TODO, prepare=False)
        conn.execute(EACH_PLACE)
        photo_regions.assign_places(conn, level, REGIONS)
        conn.execute(ANALYZE_REGIONS)
        row = conn.execute(COUNT, {**asked, "level": level}).fetchone()
        assert row is not None
        n, hits, unlabelled = row
        found[level] = {
            "n": n,
            "hits": hits,
            "percent": 100.0 * hits / n if n else None,
            "unlabelled": unlabelled,
        }
    return {level: found[level] for level in levels}


def write(conn: Connection, evaluation_id: int) -> None:
    """Count anew and store it with the other metrics; the caller commits."""
    conn.execute(SET, {"evaluation_id": evaluation_id, "administrative": Jsonb(count(conn, evaluation_id))})
