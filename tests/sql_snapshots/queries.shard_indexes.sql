-- UNIQUE_KEY
CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {table} (s2_id)

-- PARENT_KEY
CREATE INDEX IF NOT EXISTS {index} ON {table} (code_set_id, s2_id)

-- HNSW
CREATE INDEX IF NOT EXISTS {index} ON {table} USING hnsw ((code::public.halfvec({dimension})) public.halfvec_ip_ops)
WITH (m = {m}, ef_construction = {ef})

-- DROP_INDEX
DROP INDEX IF EXISTS {index}

-- RENAME_INDEX
ALTER INDEX {index} RENAME TO {name}

-- INDEXES
SELECT count(*) FILTER (WHERE i.indisunique), count(*) FILTER (WHERE a.amname = 'hnsw')
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
WHERE i.indrelid = to_regclass(%(table)s) AND i.indisvalid

-- create_hnsw()
SELECT set_config('maintenance_work_mem', %s, true)
