-- FOUND
SELECT current_setting('server_version_num')::int / 10000,
       current_setting('server_version'),
       (SELECT extversion FROM pg_extension WHERE extname = 'postgis'),
       (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
       to_regclass('geofix.alembic_version') IS NOT NULL

-- REVISION
SELECT version_num FROM geofix.alembic_version

-- _extension()
CREATE EXTENSION {ame}

-- _extension()
ALTER EXTENSION {ame} UPDATE
