"""The test run's own servers: one embedded cluster per worker, a migrated template, one database per test."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from geofix.database import cluster
from geofix.database.embedded import bootstrap, broker
from geofix.database.embedded.paths import locate
from geofix.database.migrate import migrate
from geofix.database.urls import Role, admin_url, embedded_url
from geofix.errors import GeofixError
from geofix.settings import Settings

TEMPLATE = "geofix_template"
PREFIX = "geofix-test-"

# Test data may die with the machine; real homes keep fsync on.
FAST = """\
fsync = off
synchronous_commit = off
full_page_writes = off
shared_buffers = 64MB
max_connections = 80
"""

# Run in a process of its own: python -c UP HOME
UP = """
import sys
from geofix.database import cluster
from geofix.settings import Settings
values = {"home": sys.argv[1], "database_url": None, "broker_url": None, "min_free_bytes": 0}
state = cluster.start(Settings(_env_file=None, **values))
print(state.database.state, state.broker.state, *state.changed)
"""

CREATE_COPY = "CREATE DATABASE {name} TEMPLATE {template} OWNER {owner} STRATEGY = {strategy}"
# CREATE DATABASE ... TEMPLATE copies neither the grants on the database nor its settings.
COPY_GRANTS = """
UPDATE pg_database SET datacl = (SELECT datacl FROM pg_database WHERE datname = %(template)s)
WHERE datname = %(name)s
"""
COPY_SETTINGS = """
INSERT INTO pg_db_role_setting (setdatabase, setrole, setconfig)
SELECT (SELECT oid FROM pg_database WHERE datname = %(name)s), setrole, setconfig
FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = %(template)s)
"""
DROP = "DROP DATABASE IF EXISTS {name} WITH (FORCE)"


@dataclass(frozen=True)
class Database:
    """A database of one test."""

    settings: Settings
    name: str

    def url(self, role: Role = "owner") -> str:
        """Its URL for one of the three roles."""
        return embedded_url(self.settings, bootstrap.ROLES[role], self.name)

    def connect(self, role: Role = "owner", *, autocommit: bool = False) -> psycopg.Connection:
        """A connection as that role, search_path set; close it or use it in a `with`."""
        conn = psycopg.connect(self.url(role), autocommit=autocommit)
        conn.execute("SET search_path = geofix, public")
        if not autocommit:
            conn.commit()
        return conn


class Servers:
    """An embedded cluster in a folder of its own, with a migrated template made on first use."""

    def __init__(self, home: Path) -> None:
        self.settings = settings_for(home)
        self._template_ready = False

    def start(self) -> None:
        """Start both servers, with durability off."""
        cluster.start(self.settings)
        local = locate(self.settings).data / "local.conf"
        if not local.exists():
            cluster.stop(self.settings)
            local.write_text(FAST)
            local.chmod(0o644)
            cluster.start(self.settings)

    def stop(self) -> None:
        """Stop both servers and remove everything they wrote."""
        remove_home(self.settings)

    def flush_broker(self) -> None:
        """Empty Redis."""
        assert broker.ask(locate(self.settings), "FLUSHALL") == "+OK"

    @contextmanager
    def database(self, *, migrated: bool = True) -> Iterator[Database]:
        """A fresh database with PostGIS and pgvector; with the schema unless `migrated` is off."""
        name = f"test_{os.getpid()}_{secrets.token_hex(4)}"
        with psycopg.connect(admin_url(self.settings), autocommit=True) as admin:
            if migrated:
                self._make_template()
                self._copy_template(admin, name)
            else:
                self._create(admin, name)
            try:
                yield Database(self.settings, name)
            finally:
                # A test may have restarted the server: not by the connection of before.
                with psycopg.connect(admin_url(self.settings), autocommit=True) as now:
                    now.execute(sql.SQL(DROP).format(name=sql.Identifier(name)))

    def _create(self, admin: psycopg.Connection, name: str) -> None:
        bootstrap.create_database(admin, name)
        with psycopg.connect(admin_url(self.settings, name), autocommit=True) as inside:
            bootstrap.create_extensions(inside)

    def _make_template(self) -> None:
        if self._template_ready:
            return
        with psycopg.connect(admin_url(self.settings), autocommit=True) as admin:
            admin.execute(sql.SQL(DROP).format(name=sql.Identifier(TEMPLATE)))
            self._create(admin, TEMPLATE)
        migrate(embedded_url(self.settings, bootstrap.ROLES["owner"], TEMPLATE))
        self._template_ready = True

    def _copy_template(self, admin: psycopg.Connection, name: str) -> None:
        statement = sql.SQL(CREATE_COPY).format(
            name=sql.Identifier(name),
            template=sql.Identifier(TEMPLATE),
            owner=sql.Identifier(bootstrap.ROLES["owner"]),
            strategy=sql.SQL("FILE_COPY"),
        )
        admin.execute(statement)
        admin.execute(COPY_GRANTS, {"name": name, "template": TEMPLATE})
        admin.execute(COPY_SETTINGS, {"name": name, "template": TEMPLATE})


def new_home() -> Path:
    """A folder for servers that every user can enter; pytest's own are 0700 and shut `postgres` out."""
    home = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getuid()}-{os.getpid()}-"))
    home.chmod(0o755)
    return home


def sweep() -> None:
    """Stop and remove servers of test runs that were killed before they could."""
    for home in Path(tempfile.gettempdir()).glob(f"{PREFIX}{os.getuid()}-*-*"):
        pid = home.name.removeprefix(PREFIX).split("-")[1]
        if not Path("/proc", pid).exists():
            Servers(home).stop()


def settings_for(home: Path) -> Settings:
    """Settings of embedded servers in `home`, whatever the environment says."""
    return Settings(
        home=home,
        database_url=None,
        writer_url=None,
        reader_url=None,
        broker_url=None,
        min_free_bytes=0,
        _env_file=None,
    )


def remove_home(settings: Settings) -> None:
    """Stop the servers of a home and remove everything they wrote."""
    paths = locate(settings)
    with suppress(GeofixError):
        cluster.stop(settings)
    for folder in (paths.root, paths.run, paths.home):
        shutil.rmtree(folder, ignore_errors=True)
