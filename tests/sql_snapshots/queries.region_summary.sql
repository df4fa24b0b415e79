-- LEVELS
SELECT DISTINCT level FROM geofix.region ORDER BY 1

-- STAMP
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

-- FORGET
DELETE FROM geofix.region_accuracy WHERE evaluation_id = %(evaluation_id)s AND level = %(level)s

-- COUNT
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

-- BOX
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

-- READ
SELECT a.region_id, a.n, a.hits, a.answered, a.median_m
FROM geofix.fitting_summary s
LEFT JOIN geofix.region_accuracy a
  ON a.evaluation_id = s.evaluation_id AND a.level = s.level AND a.distance_m = %(distance_m)s
WHERE s.evaluation = %(name)s AND s.level = %(level)s AND %(distance_m)s = ANY (s.distances_m)
  AND (%(created_at)s::timestamptz IS NULL OR EXISTS (
       SELECT FROM geofix.evaluation e WHERE e.evaluation_id = s.evaluation_id AND e.created_at = %(created_at)s::timestamptz))

-- READ_BOX
SELECT s.west, s.south, s.east, s.north FROM geofix.fitting_summary s
WHERE s.evaluation = %(name)s AND s.level = %(level)s
  AND (%(created_at)s::timestamptz IS NULL OR EXISTS (
       SELECT FROM geofix.evaluation e WHERE e.evaluation_id = s.evaluation_id AND e.created_at = %(created_at)s::timestamptz))

-- WITHOUT
SELECT e.evaluation_id, e.name FROM geofix.evaluation e
WHERE NOT e.config ? 'in_the_making' AND (e.metrics ? 'accuracy_km' AND NOT e.metrics ? 'administrative' OR EXISTS (
    SELECT FROM unnest(%(levels)s::text[]) AS l (level)
    WHERE NOT EXISTS (SELECT FROM geofix.fitting_summary s WHERE s.evaluation_id = e.evaluation_id AND s.level = l.level
                        AND s.distances_m @> %(distances_m)s)))
ORDER BY e.created_at, e.evaluation_id

-- UNFIT
SELECT EXISTS (
    SELECT FROM geofix.evaluation e CROSS JOIN unnest(%(levels)s::text[]) AS l (level)
    WHERE e.name = %(name)s
      AND NOT EXISTS (SELECT FROM geofix.fitting_summary s WHERE s.evaluation_id = e.evaluation_id AND s.level = l.level))

-- LOG_ROWS
SELECT count(*), pg_total_relation_size('geofix.accuracy_change') FROM geofix.accuracy_change

-- HOLD_LOG
LOCK TABLE geofix.accuracy_change, geofix.region_summary IN SHARE ROW EXCLUSIVE MODE NOWAIT

-- FOLD
UPDATE geofix.region_summary s SET changes = CASE WHEN EXISTS (
    SELECT FROM geofix.fitting_summary f WHERE f.evaluation_id = s.evaluation_id AND f.level = s.level) THEN 0 ELSE -1 END

-- EMPTY_LOG
DELETE FROM geofix.accuracy_change
