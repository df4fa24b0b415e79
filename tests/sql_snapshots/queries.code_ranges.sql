-- TRAINING_CELLS
SELECT geofix.s2_parent(p.s2_id, {level}), count(*)
FROM geofix.snapshot_photo s JOIN geofix.photo_record p USING (photo_id)
WHERE s.snapshot_id = {snapshot_id} AND s.split = 'train' AND {within}
  AND EXISTS (SELECT FROM geofix.photo_embedding e WHERE e.model_id = {model_id} AND e.photo_id = s.photo_id)
GROUP BY 1 ORDER BY 1

-- TRAINING_PHOTOS
SELECT p.s2_id, e.embedding FROM geofix.photo_record p JOIN geofix.photo_embedding e USING (photo_id)
JOIN geofix.snapshot_photo s USING (photo_id)
WHERE e.model_id = {model_id} AND s.snapshot_id = {snapshot_id} AND s.split = 'train'
  AND {within} ORDER BY p.photo_id

-- NEWEST_TILE
SELECT max(aerial_tile_id) FROM geofix.aerial_embedding WHERE model_id = %(model_id)s

-- TILE_CELLS
SELECT t.s2_id, count(*)
FROM geofix.aerial_tile t JOIN geofix.aerial_embedding e USING (aerial_tile_id)
WHERE e.model_id = {model_id} AND t.level = {level} AND ({newest}::bigint IS NULL OR t.aerial_tile_id <= {newest})
  AND ({datasets}::text[] IS NULL
       OR t.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY ({datasets}::text[])))
  AND {within}
 GROUP BY 1 ORDER BY 1

-- TILES_WITHIN
SELECT t.s2_id, e.embedding
FROM geofix.aerial_tile t JOIN geofix.aerial_embedding e USING (aerial_tile_id)
WHERE e.model_id = {model_id} AND t.level = {level} AND ({newest}::bigint IS NULL OR t.aerial_tile_id <= {newest})
  AND ({datasets}::text[] IS NULL
       OR t.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY ({datasets}::text[])))
  AND {within}
 ORDER BY t.aerial_tile_id

-- PROTOTYPES_WITHIN
SELECT s2_id, embedding FROM geofix.prototype WHERE model_id = {model_id} AND {within} ORDER BY s2_id

-- CREATE_MAKING
CREATE TABLE {making} (
  s2_id bigint CONSTRAINT {key} PRIMARY KEY,
  code public.halfvec NOT NULL,
  has_prototype boolean NOT NULL,
  has_aerial boolean NOT NULL
) WITH (autovacuum_enabled = false)

-- MAKING_EXISTS
SELECT to_regclass(%(making)s) IS NOT NULL
  AND obj_description(to_regclass(%(making)s), 'pg_class') IS DISTINCT FROM 'complete'

-- FORGET
DELETE FROM {making} WHERE s2_id BETWEEN {first} AND {last}

-- ANALYZE_MAKING
ANALYZE {making}

-- NO_SORT
SELECT set_config('enable_sort', %(value)s, true)

-- ASSEMBLE
INSERT INTO {leaf} (code_set_id, s2_id, code, has_prototype, has_aerial)
SELECT {code_set_id}, s2_id, code, has_prototype, has_aerial FROM {making} ORDER BY s2_id

-- DROP_MAKING
DROP TABLE IF EXISTS {making}

-- LOCK_TIMEOUT
SELECT current_setting('lock_timeout'), set_config('lock_timeout', %(value)s, true)

-- UNFINISHED
SELECT c.relname, greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid) FROM pg_class c
WHERE c.relnamespace = 'geofix_leaf'::regnamespace AND starts_with(c.relname, 'cell_code_making_')
  AND c.relkind = 'r' AND (obj_description(c.oid, 'pg_class') = 'complete' OR NOT EXISTS (
    SELECT FROM geofix.job j WHERE c.relname = 'cell_code_making_' || replace(j.job_id::text, '-', '')
      AND (j.state IN ('queued', 'running', 'lost', 'paused') OR j.finished_at > now() - %(grace)s::interval)))
ORDER BY 1
