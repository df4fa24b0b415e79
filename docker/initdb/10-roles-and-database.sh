#!/usr/bin/env bash
# What only a superuser can make, the same as the embedded server gets: three roles, the database, extensions.
# Passwords reach psql through its environment, never through a command line that `ps` shows.
set -euo pipefail

for name in GEOFIX_OWNER_PASSWORD GEOFIX_WRITER_PASSWORD GEOFIX_READER_PASSWORD; do
  [[ -n ${!name:-} ]] || { echo "$name is not set: the role would have no password" >&2; exit 1; }
done

psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\getenv owner_password GEOFIX_OWNER_PASSWORD
\getenv writer_password GEOFIX_WRITER_PASSWORD
\getenv reader_password GEOFIX_READER_PASSWORD
-- A failing CREATE ROLE must not put a password into the server's log.
SET log_min_error_statement = panic;
CREATE ROLE geofix_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
  PASSWORD :'owner_password';
CREATE ROLE geofix_writer LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
  PASSWORD :'writer_password';
CREATE ROLE geofix_reader LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
  PASSWORD :'reader_password';
CREATE DATABASE geofix OWNER geofix_owner TEMPLATE template0 ENCODING 'UTF8';
ALTER DATABASE geofix SET search_path = geofix, public;
\connect geofix
CREATE EXTENSION IF NOT EXISTS postgis SCHEMA public;
CREATE EXTENSION IF NOT EXISTS vector SCHEMA public;
-- For code sets over several servers (docs/sharding.md).
CREATE EXTENSION IF NOT EXISTS postgres_fdw SCHEMA public;
GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO geofix_owner;
-- Large objects and logical messages are ways to write that PostgreSQL grants to everyone.
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
END $$;
SQL
