"""Homes of embedded servers that a test may treat badly; the database tests proper share `cluster`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from shard_world import ShardWorld, shard_world
from small_world import SmallWorld, fill, pointed_at

from geofix.settings import Settings
from servers import Servers, new_home, remove_home, settings_for


@pytest.fixture(scope="module")
def one_home() -> Iterator[Settings]:
    """A home that the tests of one module share; each starts it for itself."""
    settings = settings_for(new_home())
    try:
        yield settings
    finally:
        remove_home(settings)


@pytest.fixture
def make_home() -> Iterator[Callable[[str], Settings]]:
    """Makes homes by name, not started; all are stopped and removed."""
    base = new_home()
    made: list[Settings] = []

    def make(name: str) -> Settings:
        made.append(settings_for(base / name))
        return made[-1]

    try:
        yield make
    finally:
        for settings in made:
            remove_home(settings)
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="session")
def small_database(cluster: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallWorld]:
    """The small world, filled once; who changes it, changes it back."""
    pytest.importorskip("timm", reason="needs the extra `train`")
    folder = tmp_path_factory.mktemp("small")
    with cluster.database() as database:
        with pointed_at(database, folder / "home"):
            fill(folder)
        yield SmallWorld(database, folder)


@pytest.fixture
def small(small_database: SmallWorld) -> Iterator[SmallWorld]:
    """The small world, and product code pointed at it."""
    with pointed_at(small_database.database, small_database.folder / "home"):
        yield small_database


@pytest.fixture(scope="session")
def shard_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShardWorld]:
    """A database and three shards, filled once; who changes them, changes them back."""
    with shard_world(tmp_path_factory.mktemp("shards") / "home") as world:
        yield world


@pytest.fixture
def shards(shard_servers: ShardWorld, tmp_path: Path) -> Iterator[ShardWorld]:
    """The shards, and product code pointed at their database."""
    with pointed_at(shard_servers.home, tmp_path / "home"):  # type: ignore[arg-type]
        yield shard_servers
