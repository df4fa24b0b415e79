"""The same queue over RabbitMQ, given by its URL. Runs where Debian's rabbitmq-server is installed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from job_helpers import Workers, make_table, steps, wait_for, wait_state
from probes import Probe

from geofix.database.cluster import broker_url
from geofix.jobs import broker, service
from geofix.settings import get_settings
from servers import Database

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # the one in sbin changes to another user
pytestmark = pytest.mark.skipif(
    not SERVER.exists(), reason="no RabbitMQ here: apt-get install rabbitmq-server"
)


class Rabbit:
    """A broker of its own below a folder, on free ports of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port, distribution, names = free_ports(3)
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"geofix-{os.getpid()}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "ERL_EPMD_PORT": str(names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "none"),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        with (self._folder / "out").open("ab") as out:
            self._process = subprocess.Popen(
                [SERVER], stdout=out, stderr=out, env=self._environment, start_new_session=True
            )
        wait_for(self._answers, "RabbitMQ", 90)

    def lose(self) -> None:
        """Killed, with all its messages."""
        self.end()
        shutil.rmtree(self._folder / "data")

    def end(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
        for folder in Path("/proc").glob("[0-9]*"):  # Erlang's name server leaves the process group
            with suppress(OSError):
                if f"ERL_EPMD_PORT={self._environment['ERL_EPMD_PORT']}".encode() in (
                    folder / "environ"
                ).read_bytes().split(b"\0"):
                    os.kill(int(folder.name), signal.SIGKILL)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as link:
            link.sendall(b"AMQP\x00\x00\x09\x01")
            link.settimeout(2)
            return bool(link.recv(1))
        return False


def free_ports(count: int) -> list[int]:
    links = [socket.socket() for _ in range(count)]
    for link in links:
        link.bind(("127.0.0.1", 0))
    ports = [int(link.getsockname()[1]) for link in links]
    for link in links:
        link.close()
    return ports


@pytest.fixture
def rabbit(
    db: Database, timing: None, clean_environment: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Rabbit]:
    made = Rabbit(tmp_path)
    clean_environment.setenv("GEOFIX_BROKER_URL", f"amqp://guest:guest@127.0.0.1:{made.port}//")
    get_settings.cache_clear()
    make_table(db)
    try:
        made.start()
        yield made
    finally:
        made.end()
        get_settings.cache_clear()


def test_jobs_run_over_rabbitmq_and_outlive_it(rabbit: Rabbit, db: Database) -> None:
    assert broker_url(get_settings()).startswith("amqp://")
    waiting = [service.submit(Probe(key="rabbit", pause_s=0.02)).job_id for _ in range(30)]
    assert broker.waiting("cpu") == 30 and broker.waiting("interactive") == 0
    workers = Workers()
    try:
        workers.start("all", "interactive,cpu", "1", "beat")
        quick = service.submit(Probe(key="quick"), queue="interactive").job_id
        wait_state(quick, "succeeded")
        wait_state(waiting[0], "succeeded")
        began = time.monotonic()
        rabbit.lose()
        late = service.submit(Probe(key="rabbit")).job_id  # queued while nobody can be told
        rabbit.start()
        for job_id in (*waiting, late):
            wait_state(job_id, "succeeded", seconds=90)
        print(f"RabbitMQ killed and restarted empty: 31 jobs done {time.monotonic() - began:.1f} s after")
    finally:
        workers.end()
    assert steps(db, "rabbit") == [0] * 31 and steps(db, "quick") == [0]
