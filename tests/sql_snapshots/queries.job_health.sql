-- EXISTS
SELECT to_regclass('geofix.queue_status') IS NOT NULL

-- QUEUES
SELECT * FROM geofix.queue_status ORDER BY queue

-- PERIOD
SELECT floor(extract(epoch FROM clock_timestamp()) / %(every_s)s)::bigint

-- KNOWN_KEYS
SELECT idempotency_key FROM geofix.job WHERE idempotency_key = ANY (%(keys)s)

-- INDEXED_CODE_SETS
SELECT c.code_set_id, c.name FROM geofix.code_set c
WHERE c.state = 'ready' AND c.index_parameters <> '{}'::jsonb
  AND EXISTS (SELECT 1 FROM geofix.photo_embedding e WHERE e.model_id = c.model_id)
ORDER BY c.code_set_id
