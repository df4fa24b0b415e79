"""A database with a small world that tests read, and an empty one; the product is pointed at either."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from filled_database import World, fill
from page_tests import SENT

sys.path.insert(0, str(Path(__file__).parents[1] / "database"))  # the small world, whose photos are embedded

import small_world
from small_world import SmallWorld

from geofix.database import engine
from geofix.settings import get_settings
from geofix_dashboard import beside, data
from servers import Database, Servers, new_home


@pytest.fixture(autouse=True)
def on_this_machine() -> Iterator[None]:
    """The dashboard listens where the command line puts it by default: everyone operates."""
    st.config.set_option("server.address", "localhost")
    yield
    st.config.set_option("server.address", None)


@pytest.fixture(autouse=True)
def sent_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What maps send beside the page can be read in `page_tests.SENT`."""
    address = beside.address

    def noted(document: bytes, place: str) -> str:
        url = address(document, place)
        SENT[url] = document
        return url

    monkeypatch.setattr(beside, "address", noted)


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
    data.forget()
    yield world
    data.forget()


STRICT = (
    "UPDATE evaluation SET comparison = '<'",
    "UPDATE evaluation SET missing_policy = 'drop' WHERE name = 'first'",
    "UPDATE photo_record SET gps_accuracy_m = photo_id %% 7 * 40"
    " WHERE photo_id %% 2 = 0 AND photo_id <> %(photo)s",
    "UPDATE prediction SET error_m = 200 WHERE photo_id = %(photo)s AND rank = 1",
)


@pytest.fixture
def strict(filled: World) -> Iterator[World]:
    """The filled database under other rules: `<`, one evaluation drops, positions known to 0 to 240 m.

    The first answer of both evaluations to photo 3 is 200 m away.
    """
    photo = int(filled.photo_ids[3])
    with filled.database.connect() as conn:
        before = conn.execute(
            "SELECT evaluation_id, error_m FROM prediction WHERE photo_id = %s AND rank = 1", (photo,)
        ).fetchall()
        for statement in STRICT:
            conn.execute(statement, {"photo": photo})
        conn.commit()
    data.forget()
    yield filled
    with filled.database.connect() as conn:
        conn.execute("UPDATE evaluation SET comparison = '<=', missing_policy = 'wrong'")
        conn.execute("UPDATE photo_record SET gps_accuracy_m = NULL")
        with conn.cursor() as cursor:
            cursor.executemany(
                "UPDATE prediction SET error_m = %s WHERE evaluation_id = %s AND photo_id = %s AND rank = 1",
                [(error, evaluation, photo) for evaluation, error in before],
            )
        conn.commit()


@pytest.fixture
def blank(db: Database) -> Iterator[Database]:
    """The product pointed at a migrated database that holds nothing, the page's caches empty."""
    data.forget()
    yield db
    data.forget()


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
        data.forget()
        yield embedded
        data.forget()
