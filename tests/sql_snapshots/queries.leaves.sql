-- CREATE_LEAF
CREATE TABLE IF NOT EXISTS {leaf} (
  LIKE geofix.{parent} INCLUDING DEFAULTS,
  CONSTRAINT {parent_check} CHECK ({parent_column} = {parent_id}),
  CONSTRAINT {vector_check} CHECK (public.vector_dims({vector}) = {dimension}
    AND public.l2_norm({vector}) BETWEEN 0.99 AND 1.01)
) WITH (autovacuum_enabled = false, vacuum_index_cleanup = off)

-- UNIQUE_KEY
CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {leaf} ({key})

-- PARENT_INDEX
CREATE INDEX IF NOT EXISTS {index} ON {leaf} ({parent_column}, {key})

-- ATTACH
ALTER TABLE geofix.{parent} ATTACH PARTITION {leaf} FOR VALUES IN ({parent_id})

-- DETACH
ALTER TABLE geofix.{parent} DETACH PARTITION {leaf} CONCURRENTLY

-- FINALIZE
ALTER TABLE geofix.{parent} DETACH PARTITION {leaf} FINALIZE

-- IS_ATTACHED
SELECT inhdetachpending FROM pg_inherits
WHERE inhrelid = to_regclass(%(leaf)s) AND inhparent = to_regclass(%(parent)s)

-- LEAF_EXISTS
SELECT to_regclass(%(leaf)s) IS NOT NULL

-- LOCK_TIMEOUT
SET LOCAL lock_timeout = '5s'

-- ORPHAN_LEAVES
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = 'geofix_leaf'::regnamespace AND c.relkind IN ('r', 'p', 'f')
  AND NOT c.relispartition
  AND NOT starts_with(c.relname, 'cell_code_making_')
  AND NOT EXISTS (SELECT FROM geofix.shard_move m
                  WHERE starts_with(c.relname, format('cell_code_%s_%s_', m.code_set_id, m.generation)))
ORDER BY 1

-- LEAF_BYTES
SELECT pg_total_relation_size(to_regclass(%(leaf)s))

-- index_leaf_keys()
ANALYZE {leaf}

-- drop_leaf()
RESET lock_timeout

-- drop_leaf()
SET lock_timeout = '5s'

-- drop_leaf()
DROP TABLE IF EXISTS {leaf}
