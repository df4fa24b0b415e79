"""Connections to other servers: read an address, try a login, come back after the server restarted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from geofix.database.engine import Connection
from geofix.database.queries import shards as queries
from geofix.database.queries.shards import Shard
from geofix.errors import BadInputError, ServiceError, TransientError, UsageError
from geofix.log import get_logger

CONNECT_S = 5
# A session ends within a second of its client: what a killed process began is rolled back, its locks are free. What it
# committed has reached the disk, whatever the server is set to.
SESSION = "-c client_connection_check_interval=1000 -c synchronous_commit=on"
_ADDRESS = (
    "host",
    "hostaddr",
    "port",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcrl",
    "sslsni",
    "channel_binding",
)
_log = get_logger(__name__)
T = TypeVar("T")


def read_url(url: str, password_file: Path | None) -> dict[str, str]:
    """Connection parameters of a URL.

    Args:
        url: postgresql://user@host:port/name, with or without a password.
        password_file: In the form of libpq's passfile, mode 0600; unset: PGPASSFILE, PGPASSWORD.

    Raises:
        UsageError: The URL cannot be read or names no host, user or database.
        BadInputError: There is no such password file.
    """
    try:
        parts = {key: str(value) for key, value in conninfo_to_dict(url).items() if value is not None}
    except psycopg.ProgrammingError:  # its message would repeat the password
        raise UsageError(
            "The URL of the shard cannot be read.", hint="Write postgresql://geofix_owner@host:5432/geofix."
        ) from None
    missing = [
        key
        for key in ("host", "user", "dbname")
        if not parts.get(key) and not (key == "host" and parts.get("hostaddr"))
    ]
    if missing:
        raise UsageError(
            f"The URL of the shard names no {' and no '.join(missing)}.",
            hint="Write postgresql://geofix_owner@host:5432/geofix.",
        )
    if password_file is not None:
        if not password_file.is_file():
            raise BadInputError(
                f"No password file at {password_file}.",
                hint="Write host:port:database:user:password into it.",
            )
        parts["passfile"] = str(password_file.absolute())
    return parts


def address(parts: dict[str, str]) -> str:
    """Host, port and database, for people."""
    return f"{parts.get('host') or parts.get('hostaddr')}:{parts.get('port', '5432')}/{parts['dbname']}"


def server_options(parts: dict[str, str], ef_search: int) -> dict[str, str]:
    """Options of the foreign server: where it is, and how postgres_fdw is to use it.

    Settings of this server never reach another, so those of the search travel as options of its sessions.
    """
    return {
        **{key: parts[key] for key in _ADDRESS if key in parts},
        "connect_timeout": parts.get("connect_timeout", str(CONNECT_S)),
        "options": f"-c hnsw.iterative_scan=strict_order -c hnsw.ef_search={ef_search} {SESSION}",
        "extensions": "vector,postgis",
        "async_capable": "true",
        "parallel_commit": "true",
        "batch_size": "1000",
        "fetch_size": "2000",
    }


@contextmanager
def opened(parts: dict[str, str], what: str) -> Iterator[Connection]:
    """A connection to a shard; the caller commits, an exception rolls back.

    Raises:
        ServiceError: It does not answer or refuses the login; the message names no password.
    """
    known = {key: value for key, value in parts.items() if key in {*_ADDRESS, "user", "password", "passfile"}}
    timeout = parts.get("connect_timeout", str(CONNECT_S))
    try:
        conn = psycopg.connect(make_conninfo("", **known, connect_timeout=timeout, options=SESSION))
    except psycopg.OperationalError as error:
        said = " ".join(str(error).split())
        for secret in filter(None, [parts.get("password")]):
            said = said.replace(secret, "***")
        raise ServiceError(
            f"{what} ({address(parts)}) does not let {parts.get('user')} in: {said}.",
            hint="Is the server up? Ask `geofix shards check`.",
        ) from None
    try:
        yield conn
    finally:
        conn.close()


def password_of(conn: Connection, what: str) -> str:
    """The password that a connection was made with.

    Raises:
        UsageError: The server asked for none: postgres_fdw lets no ordinary role in that way.
    """
    if not conn.pgconn.used_password:
        raise UsageError(
            f"{what} asked {conn.info.user} for no password.",
            hint="Set scram-sha-256 for this login in its pg_hba.conf: postgres_fdw refuses servers without.",
        )
    return conn.info.password


class Link:
    """One server that pieces are written to, this one or a shard; it is waited for when it goes away."""

    def __init__(self, parts: dict[str, str], name: str, *, wait_s: float, schema: str) -> None:
        self.parts, self.name, self.wait_s, self.schema = parts, name, wait_s, schema
        self._conn: Connection | None = None

    @classmethod
    def to_shard(cls, conn: Connection, shard: Shard, *, wait_s: float) -> Link:
        """A link by the owner's login of a shard.

        Raises:
            ServiceError: The foreign server has no such mapping.
        """
        parts = queries.login(conn, shard)
        if parts is None:
            raise ServiceError(
                f"Shard {shard.name} has no user mapping of the owner.",
                hint="Remove the shard and add it again.",
            )
        return cls(parts, f"Shard {shard.name}", wait_s=wait_s, schema=queries.REMOTE_SCHEMA)

    def run(self, work: Callable[[Connection, bool], T]) -> T:
        """Do `work` in one transaction; when the server goes away, wait for it and do it again.

        Args:
            work: Takes the connection and whether an earlier attempt may have been committed unseen.

        Raises:
            TransientError: The server stayed away for `wait_s` seconds.
        """
        again, until = False, time.monotonic() + self.wait_s
        while True:
            try:
                conn = self._connected()
                result = work(conn, again)
                conn.commit()
                return result
            except psycopg.errors.QueryCanceled:
                raise
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                lost = self._conn is None or self._conn.closed
                self.close()
                if not lost:
                    raise
                if time.monotonic() > until:
                    said = " ".join(str(error).split())
                    raise TransientError(
                        f"{self.name} ({address(self.parts)}) does not answer: {said}.",
                        hint="Start it, then run the same command again: it goes on where it was.",
                    ) from None
                _log.info("waiting for a server", server=self.name)
                again = True
                time.sleep(0.5)
            except BaseException:
                self.close()
                raise

    def cancel(self) -> None:
        """Stop what runs there, from another thread."""
        conn = self._conn
        if conn is not None and not conn.closed:
            try:
                conn.cancel()
            except psycopg.Error as error:
                _log.debug("cancel failed", server=self.name, reason=str(error))

    def close(self) -> None:
        """Close the connection; `run` opens another."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _connected(self) -> Connection:
        if self._conn is None or self._conn.closed:
            self._conn = None
            known: dict[str, Any] = {
                key: value for key, value in self.parts.items() if key in {*_ADDRESS, "user", "password"}
            }
            self._conn = psycopg.connect(
                make_conninfo(
                    "", **known, connect_timeout=CONNECT_S, options=f"{SESSION} -c search_path=public"
                )
            )
        return self._conn
