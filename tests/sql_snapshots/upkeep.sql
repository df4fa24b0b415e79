-- REVISION
SELECT version_num FROM geofix.alembic_version

-- INVALID_INDEXES
SELECT c.oid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('geofix', 'geofix_leaf') AND NOT i.indisvalid ORDER BY 1

-- UNFINISHED
SELECT name FROM geofix.code_set WHERE state IN ('building', 'dropping') ORDER BY 1

-- STALE
SELECT name FROM geofix.code_set WHERE state = 'stale' ORDER BY 1

-- migrate_safely()
SELECT to_regclass('geofix.dataset') IS NOT NULL

-- migrate_safely()
SELECT count(*) FROM geofix.dataset
