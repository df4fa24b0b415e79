-- ROLE_EXISTS
SELECT 1 FROM pg_roles WHERE rolname = %(name)s

-- CREATE_ROLE
CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS

-- DATABASE_EXISTS
SELECT 1 FROM pg_database WHERE datname = %(name)s

-- CREATE_DATABASE
CREATE DATABASE {database} OWNER {owner} TEMPLATE template0 ENCODING 'UTF8'

-- SET_SEARCH_PATH
ALTER DATABASE {database} SET search_path = geofix, public

-- AVAILABLE
SELECT name, default_version FROM pg_available_extensions WHERE name = ANY(%(names)s)

-- INSTALLED
SELECT extname, extversion FROM pg_extension WHERE extname = ANY(%(names)s)

-- CREATE_EXTENSION
CREATE EXTENSION {extension} SCHEMA public

-- REVOKE_WRITERS
DO $$
DECLARE routine regprocedure;
BEGIN
  FOR routine IN
    SELECT oid FROM pg_catalog.pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace
      AND (proname LIKE 'lo\_%' OR proname IN ('loread', 'lowrite', 'pg_logical_emit_message'))
      AND has_function_privilege('public', oid, 'EXECUTE')
  LOOP
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', routine);
  END LOOP;
END $$

-- WRAPPER_AVAILABLE
SELECT 1 FROM pg_available_extensions WHERE name = 'postgres_fdw'

-- CREATE_WRAPPER
CREATE EXTENSION IF NOT EXISTS postgres_fdw SCHEMA public

-- GRANT_WRAPPER
GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {owner}

-- UPDATE_EXTENSION
ALTER EXTENSION {extension} UPDATE
