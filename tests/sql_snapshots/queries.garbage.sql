-- LOCK
SELECT pg_try_advisory_lock(hashtext('geofix.gc'))

-- UNLOCK
SELECT pg_advisory_unlock(hashtext('geofix.gc'))

-- UNFINISHED
SELECT name, state, coalesce(pg_total_relation_size(to_regclass('geofix_leaf.cell_code_' || code_set_id)), 0)
FROM geofix.code_set
WHERE state = 'dropping' OR (state = 'building' AND created_at < now() - %(grace)s::interval) ORDER BY name

-- UNFINISHED_EVALUATIONS
SELECT e.evaluation_id, e.name, e.n FROM geofix.evaluation e
WHERE e.config ? 'in_the_making' AND e.created_at < now() - %(grace)s::interval
  AND NOT EXISTS (SELECT FROM geofix.job j WHERE j.job_id::text = e.config ->> 'in_the_making'
                    AND j.state IN ('queued', 'running', 'lost', 'paused')) ORDER BY e.name

-- DELETE_EVALUATION
DELETE FROM geofix.evaluation WHERE evaluation_id = %(evaluation_id)s

-- LEAVES
SELECT c.relname, c.relkind = 'f', c.relispartition, pg_total_relation_size(c.oid)
FROM pg_class c
WHERE c.relnamespace = 'geofix_leaf'::regnamespace AND c.relkind IN ('r', 'p', 'f')
  AND NOT starts_with(c.relname, 'cell_code_making_')
  AND NOT EXISTS (SELECT FROM geofix.shard_move m
                  WHERE starts_with(c.relname, format('cell_code_%s_%s_', m.code_set_id, m.generation))) ORDER BY 1

-- MODEL_IDS
SELECT model_id FROM geofix.model

-- CODE_SET_IDS
SELECT code_set_id FROM geofix.code_set

-- DROP_TABLE
DROP TABLE IF EXISTS {leaf}

-- DROP_FOREIGN
DROP FOREIGN TABLE IF EXISTS {leaf}

-- LOST_EMBEDDINGS['photo_embedding']
SELECT e.model_id, count(*), coalesce(sum(pg_column_size(e.embedding)), 0)::bigint FROM geofix.photo_embedding e
WHERE NOT EXISTS (SELECT FROM geofix.photo_record p WHERE p.photo_id = e.photo_id) GROUP BY 1 ORDER BY 1

-- LOST_EMBEDDINGS['aerial_embedding']
SELECT e.model_id, count(*), coalesce(sum(pg_column_size(e.embedding)), 0)::bigint FROM geofix.aerial_embedding e
WHERE NOT EXISTS (SELECT FROM geofix.aerial_tile t WHERE t.aerial_tile_id = e.aerial_tile_id) GROUP BY 1 ORDER BY 1

-- DELETE_LOST['photo_embedding']
DELETE FROM geofix.photo_embedding e
WHERE NOT EXISTS (SELECT FROM geofix.photo_record p WHERE p.photo_id = e.photo_id)

-- DELETE_LOST['aerial_embedding']
DELETE FROM geofix.aerial_embedding e
WHERE NOT EXISTS (SELECT FROM geofix.aerial_tile t WHERE t.aerial_tile_id = e.aerial_tile_id)

-- DATED['query']
SELECT count(*), coalesce(sum(pg_column_size(q)), 0)::bigint FROM geofix.query q WHERE q.asked_at < now() - %(age)s::interval

-- DATED['audit']
SELECT count(*), coalesce(sum(pg_column_size(a)), 0)::bigint FROM geofix.audit a WHERE a.at < now() - %(age)s::interval

-- DATED['job_event']
SELECT count(*), coalesce(sum(pg_column_size(e)), 0)::bigint FROM geofix.job_event e
JOIN geofix.job j USING (job_id)
WHERE j.state IN ('succeeded', 'failed', 'cancelled', 'parked') AND greatest(j.finished_at, e.at) < now() - %(age)s::interval

-- DELETE_DATED['query']
DELETE FROM geofix.query WHERE asked_at < now() - %(age)s::interval

-- DELETE_DATED['audit']
DELETE FROM geofix.audit WHERE at < now() - %(age)s::interval

-- DELETE_DATED['job_event']
DELETE FROM geofix.job_event e USING geofix.job j
WHERE j.job_id = e.job_id AND j.state IN ('succeeded', 'failed', 'cancelled', 'parked')
  AND greatest(j.finished_at, e.at) < now() - %(age)s::interval

-- BLOATED
SELECT c.relname, s.n_dead_tup, pg_total_relation_size(c.oid) FROM pg_class c
JOIN pg_stat_all_tables s ON s.relid = c.oid
WHERE c.relnamespace = 'geofix_leaf'::regnamespace AND c.relkind = 'r' AND s.n_dead_tup > 0
  AND NOT starts_with(c.relname, 'cell_code_making_')
  AND NOT EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am a ON a.oid = x.relam
                  WHERE i.indrelid = c.oid AND a.amname = 'hnsw')
ORDER BY 1

-- VACUUM
VACUUM (ANALYZE, INDEX_CLEANUP ON) {leaf}

-- SIZE
SELECT pg_total_relation_size(to_regclass(%(leaf)s))
