-- CREATE
CREATE TEMP TABLE IF NOT EXISTS first_answer (photo_id int8 PRIMARY KEY, place int8 NOT NULL, geom geometry NOT NULL)
ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS answer_region (
    photo_id int8 NOT NULL, level text NOT NULL, region_id int8 NOT NULL, distance_m real NOT NULL, PRIMARY KEY (photo_id, level)
) ON COMMIT DELETE ROWS;
TRUNCATE first_answer, answer_region

-- LEVELS
SELECT l.level FROM (SELECT DISTINCT level FROM geofix.region) AS l
WHERE EXISTS (
    SELECT FROM geofix.evaluation_photo ep JOIN geofix.photo_region pr ON pr.photo_id = ep.photo_id AND pr.level = l.level
    WHERE ep.evaluation_id = %(evaluation_id)s)
ORDER BY l.level

-- FILL
INSERT INTO first_answer (photo_id, place, geom)
SELECT r.photo_id, min(r.photo_id) OVER (PARTITION BY r.geom), r.geom
FROM geofix.prediction r WHERE r.evaluation_id = %(evaluation_id)s AND r.rank = 1

-- ANALYZE_ANSWERS
ANALYZE first_answer

-- EACH_PLACE
INSERT INTO region_todo SELECT photo_id, geom FROM first_answer WHERE place = photo_id

-- ANALYZE_REGIONS
ANALYZE answer_region

-- COUNT
SELECT count(*) FILTER (WHERE pr.region_id IS NOT NULL AND (a.photo_id IS NOT NULL OR e.missing_policy = 'wrong')),
       count(*) FILTER (WHERE pr.region_id = ar.region_id),
       count(*) FILTER (WHERE pr.region_id IS NULL)
FROM geofix.evaluation e
JOIN geofix.evaluation_photo ep USING (evaluation_id)
LEFT JOIN geofix.photo_region pr ON pr.photo_id = ep.photo_id AND pr.level = %(level)s
LEFT JOIN first_answer a ON a.photo_id = ep.photo_id
LEFT JOIN answer_region ar ON ar.photo_id = a.place AND ar.level = %(level)s
WHERE e.evaluation_id = %(evaluation_id)s

-- SET
UPDATE geofix.evaluation SET metrics = metrics || jsonb_build_object('administrative', %(administrative)s::jsonb)
WHERE evaluation_id = %(evaluation_id)s
