-- SIZE
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('geofix', 'geofix_leaf') AND c.relkind = 'r'

-- FOREIGN_LEAVES
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('geofix', 'geofix_leaf') AND c.relkind = 'f' ORDER BY 1

-- HAS_SCHEMA
SELECT to_regnamespace('geofix') IS NOT NULL AND to_regclass('geofix.dataset') IS NOT NULL

-- backup()
SELECT srvname FROM pg_foreign_server ORDER BY 1
