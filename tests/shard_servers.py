"""Small PostgreSQL servers beside the test run's own: shards, a streaming replica."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from geofix.database.embedded import bootstrap
from geofix.database.embedded.binaries import find_postgres
from geofix.database.embedded.processes import Account, processes_in, run_as, wait_gone
from geofix.database.urls import to_url
from geofix.errors import GeofixError
from geofix.settings import Settings

# Every login needs a password, as on a real server: postgres_fdw lets no ordinary role in without one.
HBA = "local all postgres trust\nlocal all all scram-sha-256\nlocal replication all trust\n"
CONF = """\
listen_addresses = ''
unix_socket_directories = '{run}'
port = 5432
max_connections = 40
shared_buffers = 32MB
session_preload_libraries = 'vector'
fsync = off
full_page_writes = off
max_wal_size = 128MB
wal_level = replica
max_wal_senders = 4
hot_standby = on
maintenance_work_mem = 64MB
jit = off
"""
SET_PASSWORD = "ALTER ROLE {role} PASSWORD {password}"


@dataclass
class Small:
    """One server in a folder of its own; roles and passwords are those of its family."""

    folder: Path
    binaries: Path
    account: Account
    passwords: dict[str, str] = field(repr=False)

    @property
    def data(self) -> Path:
        """Data directory."""
        return self.folder / "data"

    def url(self, role: str = "owner", *, password: bool = True, database: str = "geofix") -> str:
        """URL of one of the three roles, or of the superuser."""
        user = bootstrap.ROLES.get(role, role)
        parts = {"user": user, "dbname": database, "host": str(self.folder), "port": "5432"}
        return to_url(
            parts | ({"password": self.passwords[user]} if password and user in self.passwords else {})
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        conf = self.data / "postgresql.auto.conf"
        text = conf.read_text()
        if "unix_socket_directories" not in text or str(self.folder) not in text:
            self._write(conf, text + CONF.format(run=self.folder))
        self._write(self.data / "pg_hba.conf", HBA)
        log = self.folder / "log"
        run_as(
            self.account, [self.binaries / "pg_ctl", "start", "-D", self.data, "-l", log, "-w", "-t", "60"]
        )

    def stop(self, mode: str = "fast") -> None:
        """Stop it."""
        run_as(
            self.account, [self.binaries / "pg_ctl", "stop", "-D", self.data, "-m", mode, "-w", "-t", "60"]
        )

    def kill(self) -> None:
        """End it as a power cut would: every process at once, nothing written."""
        for pid in processes_in(self.data, ("postgres",)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_gone(self.data, ("postgres",), 10)
        # Its pid may live on as a zombie, which a new server would take for another one.
        for left in (self.data / "postmaster.pid", self.folder / ".s.PGSQL.5432.lock"):
            left.unlink(missing_ok=True)

    def remove(self) -> None:
        """Stop it and remove what it wrote."""
        with suppress(GeofixError):
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o600)
        self.own(path)

    def own(self, path: Path) -> None:
        """Give a file to the servers' user."""
        if not self.account.is_caller:
            os.chown(path, self.account.uid, self.account.gid)


class Family:
    """Servers that are copies of one data directory, made once."""

    def __init__(self, home: Path, account: Account) -> None:
        self.home = home
        self.account = account
        self.binaries = find_postgres(Settings(_env_file=None)).folder
        self.passwords = {name: secrets.token_urlsafe(12) for name in bootstrap.ROLES.values()}
        self.members: list[Small] = []
        self._seed: Small | None = None

    def add(self, name: str) -> Small:
        """A further server, running, with the three roles and an empty database with the extensions."""
        made = self._member(name)
        shutil.copytree(self._seeded().data, made.data)
        for path in (made.data, *made.data.rglob("*")):
            made.own(path)
        made.data.chmod(0o700)
        made.start()
        return made

    def replica(self, primary: Small, name: str) -> Small:
        """A streaming replica of a server of this family, running."""
        made = self._member(name)
        run_as(
            self.account,
            [self.binaries / "pg_basebackup", "-D", made.data, "-R", "-X", "stream", "-c", "fast",
             "-d", primary.url("postgres", database="postgres")],
        )  # fmt: skip
        made.start()
        return made

    def remove(self) -> None:
        """Stop and remove them all."""
        for member in self.members:
            member.remove()

    def _member(self, name: str) -> Small:
        made = Small(self.home / name, self.binaries, self.account, self.passwords)
        made.folder.mkdir(mode=0o711)
        made.own(made.folder)
        self.members.append(made)
        return made

    def _seeded(self) -> Small:
        """The stopped server that the others are copied from."""
        if self._seed is None:
            seed = self._member("seed")
            command = [
                self.binaries / "initdb", "-D", seed.data, "-U", "postgres", "--encoding=UTF8",
                "--locale=C.UTF-8", "--auth-local=trust", "--auth-host=reject", "--no-sync",
            ]  # fmt: skip
            run_as(self.account, command)
            seed.start()
            with psycopg.connect(seed.url("postgres", database="postgres"), autocommit=True) as conn:
                bootstrap.create_roles(conn)
                for role, password in self.passwords.items():
                    conn.execute(
                        sql.SQL(SET_PASSWORD).format(
                            role=sql.Identifier(role), password=sql.Literal(password)
                        )
                    )
                bootstrap.create_database(conn)
            with psycopg.connect(seed.url("postgres"), autocommit=True) as conn:
                bootstrap.create_extensions(conn)
            seed.stop()
            self._seed = seed
        return self._seed
