"""Where the database and the broker are: real servers when their URLs are set, else the embedded ones."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from geofix.database.embedded.bootstrap import DATABASE, ROLES
from geofix.database.embedded.paths import PORT, locate
from geofix.database.embedded.postgres import SUPERUSER
from geofix.errors import UsageError
from geofix.settings import Settings

Role = Literal["owner", "writer", "reader"]


def database_url(settings: Settings, role: Role = "owner") -> str:
    """A `postgresql://` URL for one of the three roles; nothing is connected to.

    With GEOFIX_DATABASE_URL set, writer and reader use GEOFIX_WRITER_URL and GEOFIX_READER_URL, else the
    same server under their own name and without the owner's password (libpq then asks PGPASSFILE).

    Raises:
        UsageError: A URL cannot be read, or the role is unknown.
    """
    if role not in ROLES:
        raise UsageError(f"Unknown database role {role!r}.", hint=f"Roles: {', '.join(ROLES)}.")
    own = {"owner": settings.database_url, "writer": settings.writer_url, "reader": settings.reader_url}[role]
    if own is not None:
        return to_url(_parse(own.get_secret_value()))
    if settings.database_url is None:
        return embedded_url(settings, ROLES[role])
    shared = _parse(settings.database_url.get_secret_value())
    shared.pop("password", None)
    return to_url(shared | {"user": ROLES[role]})


def broker_url(settings: Settings) -> str:
    """The Celery broker's URL: GEOFIX_BROKER_URL, or the embedded Redis on its Unix socket."""
    if settings.broker_url is not None:
        return settings.broker_url.get_secret_value()
    return f"redis+socket://{quote(str(locate(settings).redis_socket))}?virtual_host=0"


def admin_url(settings: Settings, database: str = "postgres") -> str:
    """The superuser's URL of the embedded server."""
    return embedded_url(settings, SUPERUSER, database)


def embedded_url(settings: Settings, user: str, database: str = DATABASE) -> str:
    """A URL of the embedded server for a role and a database of any name."""
    paths = locate(settings)
    return to_url({"user": user, "dbname": database, "host": str(paths.run), "port": str(PORT)})


def to_url(parts: dict[str, str]) -> str:
    """Write libpq's parameters as one URL, Unix sockets as `?host=`."""
    rest = {k: str(v) for k, v in parts.items() if v is not None}
    user, password = rest.pop("user", ""), rest.pop("password", "")
    database = rest.pop("dbname", "")
    where = ""
    if rest.get("host") and not {"/", ",", "@"} & set(rest["host"]):
        host = rest.pop("host")
        where = f"[{host}]" if ":" in host else host
        where += f":{rest.pop('port')}" if "port" in rest else ""
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    query = urlencode(rest, quote_via=quote)
    question = f"?{query}" if query else ""
    return f"postgresql://{f'{login}@' if login else ''}{where}/{quote(database, safe='')}{question}"


def without_secret(url: str) -> str:
    """The same URL with its password, and any password among its parameters, written as ***."""
    hidden = re.sub(r"(?<=://)([^:/?#]*):[^/?#]*@", r"\1:***@", url, count=1)
    return re.sub(r"([?&][^=&]*password=)[^&]*", r"\1***", hidden, flags=re.IGNORECASE)


def _parse(url: str) -> dict[str, str]:
    """Read a URL or a libpq `key=value` string; SQLAlchemy's `postgresql+psycopg://` is taken too."""
    scheme, colon, rest = url.partition("://")
    plain = f"{scheme.partition('+')[0]}://{rest}" if colon else url
    try:
        return {k: str(v) for k, v in conninfo_to_dict(plain).items() if v is not None}
    except psycopg.ProgrammingError as error:
        raise UsageError(
            f"A database URL cannot be read: {error}.",
            hint="Write postgresql://user:password@host:5432/name into GEOFIX_DATABASE_URL.",
        ) from None
