-- SIZE
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('geofix', 'geofix_leaf') AND c.relkind = 'r'

-- FOREIGN_LEAVES
SELECT c.relname, s.srvname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_foreign_table t ON t.ftrelid = c.oid JOIN pg_foreign_server s ON s.oid = t.ftserver
WHERE n.nspname IN ('geofix', 'geofix_leaf') ORDER BY 1

-- HAS_PIECES
SELECT to_regclass('geofix.shard_piece') IS NOT NULL

-- FOREIGN_SIZE
SELECT coalesce(sum(bytes), 0)::bigint FROM geofix.shard_piece WHERE state = 'live' AND shard_id IS NOT NULL

-- HAS_SCHEMA
SELECT to_regnamespace('geofix') IS NOT NULL AND to_regclass('geofix.dataset') IS NOT NULL
