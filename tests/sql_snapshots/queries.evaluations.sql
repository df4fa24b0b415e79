-- FIND
SELECT * FROM geofix.evaluation WHERE name = %(name)s

-- LIST
SELECT * FROM geofix.evaluation_summary ORDER BY created_at, evaluation_id

-- WITH_DATASETS
SELECT e.evaluation_id, e.name AS evaluation, e.localizer, e.split, m.name AS model, e.n, e.metrics, asked.datasets
FROM geofix.evaluation e
LEFT JOIN geofix.model m USING (model_id)
CROSS JOIN LATERAL (
    SELECT array_agg(DISTINCT d.name ORDER BY d.name) AS datasets
    FROM geofix.evaluation_photo ep JOIN geofix.photo_record p USING (photo_id) JOIN geofix.dataset d USING (dataset_id)
    WHERE ep.evaluation_id = e.evaluation_id
) asked
WHERE NOT e.config ? 'in_the_making' AND e.metrics ? 'accuracy_km' AND asked.datasets IS NOT NULL
ORDER BY e.created_at, e.evaluation_id

-- DELETE
DELETE FROM geofix.evaluation WHERE name = %(name)s

-- INSERT
INSERT INTO geofix.evaluation (name, localizer, model_id, code_set_id, snapshot_id, split, level, search_method, region_geom,
                               radius_km, comparison, missing_policy, n, config, software_version)
VALUES (%(name)s, %(localizer)s, %(model_id)s, %(code_set_id)s, %(snapshot_id)s, %(split)s, %(level)s, %(search_method)s,
        public.ST_GeomFromEWKB(%(region)s), %(radius_km)s, %(comparison)s, %(missing_policy)s, %(n)s, %(config)s,
        %(software_version)s)
RETURNING evaluation_id

-- SPANS
SELECT min(s2_id), max(s2_id), count(*) FROM (
    SELECT p.s2_id, (rank() OVER (ORDER BY p.s2_id) - 1) / %(size)s AS part
    FROM geofix.snapshot_photo s JOIN geofix.photo_record p USING (photo_id)
    WHERE s.snapshot_id = %(snapshot_id)s AND s.split = %(split)s
      AND (%(model_id)s::bigint IS NULL OR EXISTS (
          SELECT 1 FROM geofix.photo_embedding e WHERE e.model_id = %(model_id)s AND e.photo_id = s.photo_id))
) asked GROUP BY part ORDER BY part

-- FORGET_SPAN
DELETE FROM geofix.prediction r USING geofix.photo_record p
WHERE r.evaluation_id = %(evaluation_id)s AND p.photo_id = r.photo_id AND p.s2_id BETWEEN %(first)s AND %(last)s

-- MADE_WITH
SELECT config ->> 'codes' FROM geofix.evaluation WHERE evaluation_id = %(evaluation_id)s

-- LET_GO
UPDATE geofix.evaluation e SET code_set_id = NULL
WHERE e.evaluation_id = %(evaluation_id)s AND e.config ? 'codes' AND e.code_set_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM unnest(%(held)s::text[]) AS h (codes) WHERE h.codes = e.config ->> 'codes')

-- HOLD_CODES
SELECT s.code_set_id || '-' || to_char(ready_at AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS') FROM geofix.code_set s
WHERE s.code_set_id = (SELECT e.code_set_id FROM geofix.evaluation e WHERE e.evaluation_id = %(evaluation_id)s)
FOR SHARE OF s SKIP LOCKED

-- RENAME
UPDATE geofix.evaluation SET name = %(name)s, config = config - 'in_the_making' WHERE evaluation_id = %(evaluation_id)s

-- REGION_LEVELS
SELECT DISTINCT level FROM geofix.region ORDER BY 1

-- SET_METRICS
UPDATE geofix.evaluation SET metrics = %(metrics)s, n = %(n)s WHERE evaluation_id = %(evaluation_id)s

-- ERRORS
SELECT ep.photo_id, coalesce(r.rank, 1::smallint), coalesce(r.error_m, 'NaN') FROM geofix.evaluation_photo ep
LEFT JOIN geofix.prediction r ON r.evaluation_id = ep.evaluation_id AND r.photo_id = ep.photo_id
WHERE ep.evaluation_id = %(evaluation_id)s

-- FIRST_ERRORS
SELECT ep.photo_id, coalesce(r.error_m, 'NaN') FROM geofix.evaluation_photo ep
LEFT JOIN geofix.prediction r ON r.evaluation_id = ep.evaluation_id AND r.photo_id = ep.photo_id AND r.rank = 1
WHERE ep.evaluation_id = %(evaluation_id)s ORDER BY ep.photo_id

-- ORIGINS
SELECT ep.photo_id, coalesce(p.sequence_id::float8, 'NaN'), p.s2_id, coalesce(p.gps_accuracy_m, 0)::float8
FROM geofix.evaluation_photo ep JOIN geofix.photo_record p USING (photo_id)
WHERE ep.evaluation_id = %(evaluation_id)s ORDER BY ep.photo_id

-- TRUTH
SELECT ep.photo_id, public.ST_X(p.geom) AS lon, public.ST_Y(p.geom) AS lat, p.gps_accuracy_m, p.sequence_id, p.s2_id,
       ep.nearest_training_m, ep.training_photos_in_cell
FROM geofix.evaluation_photo ep JOIN geofix.photo_record p USING (photo_id)
WHERE ep.evaluation_id = %(evaluation_id)s ORDER BY ep.photo_id

-- BY_REGION
SELECT region_code, region_name, n, hits, accuracy, low, high, median_m FROM geofix.accuracy_by_region(%(name)s, %(level)s, %(threshold_m)s)

-- BY_CELL
SELECT s2_token, n, hits, accuracy, low, high, median_m FROM geofix.accuracy_by_cell(%(name)s, %(level)s, %(threshold_m)s)

-- ERROR_LINES
SELECT public.ST_X(true_geom), public.ST_Y(true_geom), public.ST_X(geom), public.ST_Y(geom), error_m
FROM geofix.prediction_top1 WHERE evaluation = %(name)s ORDER BY photo_id
