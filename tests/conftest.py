"""Fixtures of every test: private servers, a fresh database, the shared real data.

Nothing here runs for a unit test: servers start with the first test that asks for one. Each worker of
pytest-xdist has servers of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from geofix.database import engine
from geofix.settings import Settings, get_settings
from servers import Database, Servers, new_home, sweep


@pytest.fixture(scope="session")
def cluster() -> Iterator[Servers]:
    """PostgreSQL and Redis of this test run; stopped and removed at its end."""
    sweep()
    servers = Servers(new_home())
    try:
        servers.start()
        yield servers
    finally:
        engine.dispose()
        servers.stop()


@pytest.fixture(autouse=True)
def _same_main() -> Iterator[None]:
    """Streamlit runs a page as `__main__` and leaves it there; a process spawned later would run it again."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """No GEOFIX_* or PG* of the caller, no `.env`, and settings read afresh before and after."""
    for name in list(os.environ):
        if name.startswith("PG") or (name.startswith("GEOFIX_") and name != "GEOFIX_SHARED"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GEOFIX_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    get_settings.cache_clear()
    yield monkeypatch
    engine.dispose()
    get_settings.cache_clear()


@pytest.fixture
def db(cluster: Servers, clean_environment: pytest.MonkeyPatch) -> Iterator[Database]:
    """A fresh migrated database, and product code (`geofix.database.engine.connect`) pointed at it."""
    with cluster.database() as database:
        _point_at(clean_environment, database)
        yield database
        engine.dispose()


@pytest.fixture
def empty_db(cluster: Servers, clean_environment: pytest.MonkeyPatch) -> Iterator[Database]:
    """Like `db`, but with the extensions alone: for tests of the migrations."""
    with cluster.database(migrated=False) as database:
        _point_at(clean_environment, database)
        yield database
        engine.dispose()


@pytest.fixture
def broker(cluster: Servers, clean_environment: pytest.MonkeyPatch) -> str:
    """URL of an empty Redis, and product code pointed at it."""
    from geofix.database.cluster import broker_url

    cluster.flush_broker()
    url = broker_url(cluster.settings)
    clean_environment.setenv("GEOFIX_BROKER_URL", url)
    get_settings.cache_clear()
    return url


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the real data; the test is skipped where it is absent."""
    folder = Settings().shared
    folder = folder if folder.is_absolute() else Path(__file__).resolve().parents[1] / folder
    if not (folder / "data").is_dir():
        pytest.skip(
            f"no real data at {folder.resolve()}: set GEOFIX_SHARED to the folder that holds data/ and eval/"
        )
    return folder.resolve()


@pytest.fixture(autouse=True)
def _shared_marker(request: pytest.FixtureRequest) -> None:
    """Skip a test marked `shared` where the real data are absent."""
    if request.node.get_closest_marker("shared"):
        request.getfixturevalue("shared")


def _point_at(monkeypatch: pytest.MonkeyPatch, database: Database) -> None:
    for role, variable in (("owner", "DATABASE"), ("writer", "WRITER"), ("reader", "READER")):
        monkeypatch.setenv(f"GEOFIX_{variable}_URL", database.url(role))  # type: ignore[arg-type]
    get_settings.cache_clear()
