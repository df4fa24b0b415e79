"""The registry of shards, the foreign servers behind it, and what is asked of a shard itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import sql

from geofix.database.engine import Connection

REMOTE_SCHEMA = "geofix_shard"

# On this server.
WRAPPER = """
SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'postgres_fdw'),
       coalesce((SELECT has_foreign_data_wrapper_privilege(fdwname, 'USAGE') FROM pg_foreign_data_wrapper
                 WHERE fdwname = 'postgres_fdw'), false)
"""
CREATE_SERVER = "CREATE SERVER {server} FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({options})"
CREATE_MAPPING = "CREATE USER MAPPING FOR {role} SERVER {server} OPTIONS (user {user}, password {password})"
DROP_SERVER = "DROP SERVER IF EXISTS {server} CASCADE"
INSERT = """
INSERT INTO geofix.shard (name, server, address, reader, token)
VALUES (%(name)s, %(server)s, %(address)s, %(reader)s, %(token)s) RETURNING shard_id
"""
DELETE = "DELETE FROM geofix.shard WHERE shard_id = %(shard_id)s"
SHARDS = "SELECT shard_id, name, server, address, reader, token FROM geofix.shard ORDER BY name"
LIST = """
SELECT s.name, s.address, s.added_at,
       count(p.code_set_id) FILTER (WHERE p.state = 'live') AS pieces,
       coalesce(sum(p.cells) FILTER (WHERE p.state = 'live'), 0)::bigint AS cells,
       coalesce(sum(p.bytes) FILTER (WHERE p.state = 'live'), 0)::bigint AS bytes,
       coalesce(array_agg(DISTINCT c.name) FILTER (WHERE p.state = 'live'), '{}') AS code_sets
FROM geofix.shard s LEFT JOIN geofix.shard_piece p USING (shard_id) LEFT JOIN geofix.code_set c USING (code_set_id)
GROUP BY s.shard_id ORDER BY s.name
"""
# A role with USAGE on a server sees its own login there. The reader has none, and sees nobody's.
LOGIN = """
SELECT (SELECT jsonb_object_agg(split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)) FROM unnest(f.srvoptions) AS o),
       (SELECT jsonb_object_agg(split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)) FROM unnest(m.umoptions) AS o)
FROM pg_user_mappings m JOIN pg_foreign_server f ON f.oid = m.srvid
WHERE m.srvname = %(server)s AND m.usename = current_user
"""
UNDER_WAY = """
SELECT s.name FROM geofix.shard_move m JOIN geofix.code_set s USING (code_set_id) ORDER BY 1
"""

# On a shard.
REMOTE = """
SELECT current_setting('server_version'), current_setting('server_version_num')::integer / 10000,
       (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
       (SELECT extversion FROM pg_extension WHERE extname = 'postgis')
"""
# Copies of one data directory share the identifier, but no two servers the moment of their start.
IDENTITY = """
SELECT (SELECT system_identifier FROM pg_control_system()), pg_postmaster_start_time()::text, current_database()
"""
HELD = """
SELECT count(*) FROM pg_class c WHERE c.relnamespace = to_regnamespace('geofix_shard') AND c.relkind = 'r'
  AND c.relname <> 'owner_token'
"""
HAS_MARK = "SELECT to_regclass('geofix_shard.owner_token') IS NOT NULL"
MARK = "SELECT token FROM geofix_shard.owner_token"
PREPARE = """
CREATE SCHEMA IF NOT EXISTS geofix_shard;
REVOKE ALL ON SCHEMA geofix_shard FROM PUBLIC;
GRANT USAGE ON SCHEMA geofix_shard TO {reader};
ALTER DEFAULT PRIVILEGES IN SCHEMA geofix_shard GRANT SELECT ON TABLES TO {reader};
CREATE TABLE IF NOT EXISTS geofix_shard.owner_token (token uuid NOT NULL);
LOCK TABLE geofix_shard.owner_token
"""
SET_MARK = "TRUNCATE geofix_shard.owner_token; INSERT INTO geofix_shard.owner_token VALUES ({token})"
FORGET = "DROP SCHEMA IF EXISTS geofix_shard CASCADE"
MAY_WRITE = """
SELECT has_schema_privilege(%(login)s, 'geofix_shard', 'CREATE')
    OR EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = 'geofix_shard'::regnamespace AND c.relkind = 'r'
                 AND has_table_privilege(%(login)s, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE'))
"""


class Shard(NamedTuple):
    """One row of the registry."""

    shard_id: int
    name: str
    server: str
    address: str
    reader: str
    token: UUID


def wrapper_state(conn: Connection) -> tuple[bool, bool]:
    """Whether postgres_fdw is in this database, and whether this role may use it."""
    row = conn.execute(WRAPPER).fetchone()
    assert row is not None
    return bool(row[0]), bool(row[1])


def identity(conn: Connection) -> tuple[Any, ...]:
    """What tells one database from all others that run now."""
    row = conn.execute(IDENTITY).fetchone()
    assert row is not None
    return tuple(row)


def shards(conn: Connection) -> list[Shard]:
    """All shards by name."""
    return [Shard(*row) for row in conn.execute(SHARDS)]


def listed(conn: Connection) -> list[dict[str, Any]]:
    """Shards with what they hold."""
    cursor = conn.execute(LIST)
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def moves_under_way(conn: Connection) -> list[str]:
    """Names of code sets that are being distributed, or whose distribution was interrupted."""
    return [row[0] for row in conn.execute(UNDER_WAY)]


def register(
    conn: Connection,
    values: Mapping[str, Any],
    options: Mapping[str, str],
    logins: Mapping[str, tuple[str, str]],
) -> int:
    """Make the foreign server with its user mappings and enter the shard; the caller commits.

    Args:
        conn: Connection of the owner.
        values: Columns of the registry.
        options: Of the foreign server.
        logins: Local role -> (user, password) on the shard.
    """
    server = sql.Identifier(values["server"])
    written = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(key), sql.Literal(value)) for key, value in options.items()
    )
    conn.execute(sql.SQL(CREATE_SERVER).format(server=server, options=written))
    for role, (user, password) in logins.items():
        conn.execute(
            sql.SQL(CREATE_MAPPING).format(
                role=sql.Identifier(role),
                server=server,
                user=sql.Literal(user),
                password=sql.Literal(password),
            )
        )
    row = conn.execute(INSERT, values).fetchone()
    assert row is not None
    return int(row[0])


def unregister(conn: Connection, shard: Shard) -> None:
    """Take the foreign server, its mappings and the row away; the caller commits."""
    conn.execute(sql.SQL(DROP_SERVER).format(server=sql.Identifier(shard.server)))
    conn.execute(DELETE, {"shard_id": shard.shard_id})


def login(conn: Connection, shard: Shard) -> dict[str, str] | None:
    """Connection parameters of a shard with this role's user and password; None without a mapping."""
    row = conn.execute(LOGIN, {"server": shard.server}).fetchone()
    return None if row is None else {**(row[0] or {}), **(row[1] or {})}


def prepare(conn: Connection, reader: str) -> None:
    """On a shard: the schema, what the reading login may, and the mark, which nobody sets before the caller commits."""
    conn.execute(sql.SQL(PREPARE).format(reader=sql.Identifier(reader)))


def set_token(conn: Connection, token: UUID) -> None:
    """On a prepared shard: whose it is from now on; the caller commits."""
    conn.execute(sql.SQL(SET_MARK).format(token=sql.Literal(str(token))))


def token(conn: Connection) -> UUID | None:
    """On a shard: whose it is."""
    known = conn.execute(HAS_MARK).fetchone()
    row = conn.execute(MARK).fetchone() if known and known[0] else None
    found: UUID | None = row[0] if row else None
    return found


def held(conn: Connection) -> int:
    """On a shard: tables of codes there."""
    row = conn.execute(HELD).fetchone()
    return int(row[0]) if row else 0


def may_write(conn: Connection, login: str) -> bool:
    """On a shard: whether the reading login could change anything."""
    row = conn.execute(MAY_WRITE, {"login": login}).fetchone()
    return bool(row and row[0])


def forget(conn: Connection) -> None:
    """On a shard: remove everything of ours; the caller commits."""
    conn.execute(FORGET)
