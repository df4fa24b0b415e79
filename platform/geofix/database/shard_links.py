"""Connections to other servers: read an address, try a login, come back after the server restarted."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from geofix.database.engine import Connection
from geofix.database.queries import shards as queries
from geofix.database.queries.shards import Shard
from geofix.errors import BadInputError, ServiceError, TransientError, UsageError
from geofix.log import get_logger

CONNECT_S = 5
# A host that vanishes says nothing. Asked every 2 s after 5 s of silence, it counts as gone after three answers that
# did not come; what was sent and not received, after 10 s.
_PATIENCE = {
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
# A session ends within a second of its client: what a killed process began is rolled back, its locks are free. What it
# committed has reached the disk, whatever the server is set to.
SESSION = (
    "-c client_connection_check_interval=1000 -c synchronous_commit=on -c tcp_keepalives_idle=5 "
    "-c tcp_keepalives_interval=2 -c tcp_keepalives_count=3 -c tcp_user_timeout=10000"
)
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
    "connect_timeout",
    "keepalives",
    *_PATIENCE,
)
# What a server says that is up and will not let this login in, however long it is waited for. Others are in the
# language of that server and are waited for.
_REFUSED = re.compile(
    r"authentication failed|no pg_hba\.conf entry|pg_hba\.conf rejects|role .* does not exist|database .* does not exist|"
    r"not permitted to log in|permission denied for database|no password supplied|certificate|does not support SSL"
)
_MOST_LOSSES = 5  # of one piece of work: it may be what ends the server
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
        **_reached(parts),
        "options": f"-c hnsw.iterative_scan=strict_order -c hnsw.ef_search={ef_search} {SESSION}",
        "extensions": "vector,postgis",
        "async_capable": "true",
        "parallel_commit": "true",
        "batch_size": "1000",
        "fetch_size": "2000",
    }


def _reached(parts: dict[str, str]) -> dict[str, str]:
    """Where a server is, and how soon it counts as gone; what the URL says of that comes first."""
    known = {key: parts[key] for key in _ADDRESS if key in parts}
    return {"connect_timeout": str(CONNECT_S), **_PATIENCE, **known}


@contextmanager
def opened(parts: dict[str, str], what: str) -> Iterator[Connection]:
    """A connection to a shard; the caller commits, an exception rolls back.

    Raises:
        ServiceError: It does not answer or refuses the login; the message names no password.
    """
    known: dict[str, Any] = {key: parts[key] for key in ("user", "password", "passfile") if key in parts}
    try:
        conn = psycopg.connect(make_conninfo("", **known, **_reached(parts), options=SESSION))
    except psycopg.OperationalError as error:
        said = _said(error)
        for secret in filter(None, [parts.get("password")]):
            said = said.replace(secret, "***")
        refused = _REFUSED.search(said) is not None
        raise ServiceError(
            f"{what} ({address(parts)}) {_not_let_in(parts) if refused else 'does not answer'}: {said}.",
            hint="Mend the login." if refused else "Is the server up, and may this host reach it there?",
        ) from None
    try:
        yield conn
    finally:
        conn.close()


def _said(error: psycopg.Error) -> str:
    """A server's message on one line, without what ends the sentence."""
    return " ".join(str(error).split()).rstrip(".?")


def _not_let_in(parts: dict[str, str]) -> str:
    return f"does not let {parts.get('user')} in"


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


def require_token(remote: Connection, token: UUID, what: str) -> None:
    """Refuse a shard that is not this database's.

    Raises:
        ServiceError: Another database's token stands there, or none.
    """
    if queries.token(remote) != token:
        raise ServiceError(
            f"{what} belongs to another database: its token differs.",
            hint="Is it a new server at the same address, or was it added elsewhere? `geofix shards list` shows where it is.",
        )


class Link:
    """One server that pieces are written to, this one or a shard; it is waited for when it goes away."""

    def __init__(
        self, parts: dict[str, str], name: str, *, wait_s: float, schema: str, token: UUID | None = None
    ) -> None:
        self.parts, self.name, self.wait_s, self.schema, self.token = parts, name, wait_s, schema, token
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
        return cls(
            parts, f"Shard {shard.name}", wait_s=wait_s, schema=queries.REMOTE_SCHEMA, token=shard.token
        )

    def run(self, work: Callable[[Connection, bool], T]) -> T:
        """Do `work` in one transaction; when the server goes away, wait for it and do it again.

        Args:
            work: Takes the connection and whether an earlier attempt may have been committed unseen.

        Raises:
            TransientError: The server stayed away for `wait_s` seconds since it was lost, or went away again and again.
            ServiceError: It refuses the login, or belongs to another database.
        """
        again, losses, until = False, 0, float("inf")
        while True:
            connected = False
            try:
                conn = self._connected()
                connected, until = True, float("inf")
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
                said = _said(error)
                if not connected and _REFUSED.search(said):
                    raise ServiceError(
                        f"{self.name} ({address(self.parts)}) {_not_let_in(self.parts)}: {said}.",
                        hint="Mend the login or its user mapping, then run the same command again.",
                    ) from None
                losses += connected
                until = min(until, time.monotonic() + self.wait_s)
                if time.monotonic() > until or losses > _MOST_LOSSES:
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
                key: self.parts[key] for key in ("user", "password") if key in self.parts
            }
            self._conn = psycopg.connect(
                make_conninfo("", **known, **_reached(self.parts), options=f"{SESSION} -c search_path=public")
            )
            if self.token is not None:
                require_token(self._conn, self.token, self.name)
                self._conn.commit()
        return self._conn
