-- WRAPPER
SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'postgres_fdw'),
       coalesce((SELECT has_foreign_data_wrapper_privilege(fdwname, 'USAGE') FROM pg_foreign_data_wrapper
                 WHERE fdwname = 'postgres_fdw'), false)

-- CREATE_SERVER
CREATE SERVER {server} FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({options})

-- CREATE_MAPPING
CREATE USER MAPPING FOR {role} SERVER {server} OPTIONS (user {user}, password {password})

-- DROP_SERVER
DROP SERVER IF EXISTS {server} CASCADE

-- INSERT
INSERT INTO geofix.shard (name, server, address, reader, token)
VALUES (%(name)s, %(server)s, %(address)s, %(reader)s, %(token)s) RETURNING shard_id

-- DELETE
DELETE FROM geofix.shard WHERE shard_id = %(shard_id)s

-- SHARDS
SELECT shard_id, name, server, address, reader, token FROM geofix.shard ORDER BY name

-- LIST
SELECT s.name, s.address, s.added_at,
       count(p.code_set_id) FILTER (WHERE p.state = 'live') AS pieces,
       coalesce(sum(p.cells) FILTER (WHERE p.state = 'live'), 0)::bigint AS cells,
       coalesce(sum(p.bytes) FILTER (WHERE p.state = 'live'), 0)::bigint AS bytes,
       coalesce(array_agg(DISTINCT c.name) FILTER (WHERE p.state = 'live'), '{}') AS code_sets
FROM geofix.shard s LEFT JOIN geofix.shard_piece p USING (shard_id) LEFT JOIN geofix.code_set c USING (code_set_id)
GROUP BY s.shard_id ORDER BY s.name

-- LOGIN
SELECT (SELECT jsonb_object_agg(split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)) FROM unnest(f.srvoptions) AS o),
       (SELECT jsonb_object_agg(split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)) FROM unnest(m.umoptions) AS o)
FROM pg_user_mappings m JOIN pg_foreign_server f ON f.oid = m.srvid
WHERE m.srvname = %(server)s AND m.usename = current_user

-- UNDER_WAY
SELECT s.name FROM geofix.shard_move m JOIN geofix.code_set s USING (code_set_id) ORDER BY 1

-- REMOTE
SELECT current_setting('server_version'), current_setting('server_version_num')::integer / 10000,
       (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
       (SELECT extversion FROM pg_extension WHERE extname = 'postgis')

-- IDENTITY
SELECT (SELECT system_identifier FROM pg_control_system()), pg_postmaster_start_time()::text, current_database()

-- HELD
SELECT count(*) FROM pg_class c WHERE c.relnamespace = to_regnamespace('geofix_shard') AND c.relkind = 'r'
  AND c.relname <> 'owner_token'

-- HAS_MARK
SELECT to_regclass('geofix_shard.owner_token') IS NOT NULL

-- MARK
SELECT token FROM geofix_shard.owner_token

-- PREPARE
CREATE SCHEMA IF NOT EXISTS geofix_shard;
REVOKE ALL ON SCHEMA geofix_shard FROM PUBLIC;
GRANT USAGE ON SCHEMA geofix_shard TO {reader};
ALTER DEFAULT PRIVILEGES IN SCHEMA geofix_shard GRANT SELECT ON TABLES TO {reader};
CREATE TABLE IF NOT EXISTS geofix_shard.owner_token (token uuid NOT NULL);
LOCK TABLE geofix_shard.owner_token

-- SET_MARK
TRUNCATE geofix_shard.owner_token; INSERT INTO geofix_shard.owner_token VALUES ({token})

-- FORGET
DROP SCHEMA IF EXISTS geofix_shard CASCADE

-- MAY_WRITE
SELECT has_schema_privilege(%(login)s, 'geofix_shard', 'CREATE')
    OR EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = 'geofix_shard'::regnamespace AND c.relkind = 'r'
                 AND has_table_privilege(%(login)s, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE'))
