"""What only a superuser can put into the embedded cluster: roles, the database and its extensions."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from geofix.errors import ServiceError

Connection = psycopg.Connection[Any]

DATABASE = "geofix"
ROLES = {"owner": "geofix_owner", "writer": "geofix_writer", "reader": "geofix_reader"}
EXTENSIONS = ("postgis", "vector")

ROLE_EXISTS = "SELECT 1 FROM pg_roles WHERE rolname = %(name)s"
CREATE_ROLE = "CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
DATABASE_EXISTS = "SELECT 1 FROM pg_database WHERE datname = %(name)s"
CREATE_DATABASE = "CREATE DATABASE {database} OWNER {owner} TEMPLATE template0 ENCODING 'UTF8'"
SET_SEARCH_PATH = "ALTER DATABASE {database} SET search_path = geofix, public"
AVAILABLE = "SELECT name, default_version FROM pg_available_extensions WHERE name = ANY(%(names)s)"
INSTALLED = "SELECT extname, extversion FROM pg_extension WHERE extname = ANY(%(names)s)"
CREATE_EXTENSION = "CREATE EXTENSION {extension} SCHEMA public"
# With these anybody could fill the disk: large objects are tables of their own, beside every grant on ours, and a
# logical message goes straight into the write-ahead log. PostgreSQL grants them to PUBLIC in every new database.
REVOKE_WRITERS = """
DO $$
DECLARE routine regprocedure;
BEGIN
  FOR routine IN
    SELECT oid FROM pg_catalog.pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace
      AND (proname LIKE 'lo\\_%' OR proname IN ('loread', 'lowrite', 'pg_logical_emit_message'))
      AND has_function_privilege('public', oid, 'EXECUTE')
  LOOP
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', routine);
  END LOOP;
END $$
"""
# For code sets over several servers; part of PostgreSQL, though some systems package it apart. Whoever may use it can
# make servers, but no mapping without a password: that stays with superusers.
WRAPPER_AVAILABLE = "SELECT 1 FROM pg_available_extensions WHERE name = 'postgres_fdw'"
CREATE_WRAPPER = "CREATE EXTENSION IF NOT EXISTS postgres_fdw SCHEMA public"
GRANT_WRAPPER = "GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {owner}"
UPDATE_EXTENSION = "ALTER EXTENSION {extension} UPDATE"


def create_roles(conn: Connection) -> None:
    """Create the three LOGIN roles that do not exist yet; `conn` is a superuser's."""
    for name in ROLES.values():
        if conn.execute(ROLE_EXISTS, {"name": name}).fetchone() is None:
            conn.execute(sql.SQL(CREATE_ROLE).format(role=sql.Identifier(name)))


def create_database(conn: Connection, name: str = DATABASE) -> bool:
    """Create an empty database of the owner role; False when it exists. `conn` is in autocommit mode."""
    if conn.execute(DATABASE_EXISTS, {"name": name}).fetchone() is not None:
        return False
    names = {"database": sql.Identifier(name), "owner": sql.Identifier(ROLES["owner"])}
    conn.execute(sql.SQL(CREATE_DATABASE).format(**names))
    conn.execute(sql.SQL(SET_SEARCH_PATH).format(**names))
    return True


def create_extensions(conn: Connection) -> None:
    """Create PostGIS and pgvector in the database of `conn` (a superuser's), or bring them up to date.

    Functions that let everybody write past the grants are taken from PUBLIC here too: only a superuser can.

    Raises:
        ServiceError: The server has no such extension installed.
    """
    names = {"names": list(EXTENSIONS)}
    available: dict[str, str] = dict(conn.execute(AVAILABLE, names).fetchall())
    installed: dict[str, str] = dict(conn.execute(INSTALLED, names).fetchall())
    missing = [name for name in EXTENSIONS if name not in available]
    if missing:
        version = conn.info.server_version // 10000
        raise ServiceError(
            f"PostgreSQL {version} has no extension {' and '.join(missing)}.",
            hint="Run `scripts/setup`, which installs or builds it, then `geofix up`.",
        )
    for name in EXTENSIONS:
        if installed.get(name) == available[name]:
            continue
        command = UPDATE_EXTENSION if name in installed else CREATE_EXTENSION
        conn.execute(sql.SQL(command).format(extension=sql.Identifier(name)))
    if conn.execute(WRAPPER_AVAILABLE).fetchone() is not None:
        conn.execute(CREATE_WRAPPER)
        conn.execute(sql.SQL(GRANT_WRAPPER).format(owner=sql.Identifier(ROLES["owner"])))
    conn.execute(REVOKE_WRITERS)
