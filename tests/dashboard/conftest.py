"""A database with a small world that tests read, and an empty one; the product is pointed at either."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from filled_database import World, fill

sys.path.insert(0, str(Path(__file__).parents[1] / "database"))  # the small world, whose photos are embedded

import small_world
from small_world import SmallWorld

from geofix.database import engine
from geofix.settings import get_settings
from servers import Database, Servers, new_home


@pytest.fixture(autouse=True)
def on_this_machine() -> Iterator[None]:
    """The dashboard listens where the command line puts it by default: everyone operates."""
    st.config.set_option("server.address", "localhost")
    yield
    st.config.set_option("server.address", None)


@pytest.fixture(scope="session")
def world(cluster: Servers) -> Iterator[World]:
    """The filled database of this test run; tests only read it."""
    folder = new_home()
    with cluster.database() as database:
        try:
            yield fill(database, folder)
        finally:
            engine.dispose()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def filled(world: World, clean_environment: pytest.MonkeyPatch) -> Iterator[World]:
    """The product pointed at the filled database, the page's caches empty."""
    for role, variable in (("owner", "DATABASE"), ("writer", "WRITER"), ("reader", "READER")):
        clean_environment.setenv(f"GEOFIX_{variable}_URL", world.database.url(role))
    get_settings.cache_clear()
    st.cache_data.clear()
    yield world
    st.cache_data.clear()


@pytest.fixture
def blank(db: Database) -> Iterator[Database]:
    """The product pointed at a migrated database that holds nothing, the page's caches empty."""
    st.cache_data.clear()
    yield db
    st.cache_data.clear()


@pytest.fixture(scope="session")
def embedded(cluster: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallWorld]:
    """Eight towns with embedded photos, calibrated codes, and what the page tests add to it."""
    pytest.importorskip("timm", reason="needs the extra `train`")
    folder = tmp_path_factory.mktemp("towns")
    with cluster.database() as database:
        with small_world.pointed_at(database, folder / "home"):
            small_world.fill(folder)
        yield SmallWorld(database, folder)


@pytest.fixture
def towns(embedded: SmallWorld) -> Iterator[SmallWorld]:
    """The product pointed at the eight towns, the page's caches empty; no broker answers."""
    with small_world.pointed_at(embedded.database, embedded.folder / "home"):
        st.cache_data.clear()
        yield embedded
        st.cache_data.clear()
