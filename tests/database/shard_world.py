"""Four real servers: a database of geofix and three shards; a code set whole, and the same one spread."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from pgvector import HalfVector
from small_world import pointed_at

from geofix.codes.build import CellVectors, publish
from geofix.codes.index import build_index
from geofix.database.embedded.paths import locate
from geofix.database.engine import connect
from geofix.database.migrate import migrate
from geofix.database.queries import codes
from geofix.database.queries.models import find_model
from geofix.database.shard_moves import distribute
from geofix.database.shards import add_shard
from helpers import add_model, random_codes
from servers import new_home, settings_for
from shard_servers import Family, Small

LEVEL, D, N = 13, 16, 1500
NAMES = ["a", "b", "c"]
SEARCH = """
SELECT s2_id, score, method, cells_in_scope
FROM geofix.search_cells(%s, %s, %s, ST_GeomFromEWKB(%s), %s) ORDER BY rank
"""


@dataclass
class ShardWorld:
    """`whole` is a code set on one server, `spread` the same one over the shards."""

    family: Family
    home: Small
    shards: dict[str, Small]
    ids: NDArray[np.int64]

    def publish(self, name: str, *, index: bool = True) -> None:
        """The same codes as a code set of another name, on one server."""
        ids, vectors = random_codes(N, D, level=LEVEL)
        rng = np.random.default_rng(5)
        aerial = rng.random(N) < 0.3
        made = CellVectors(ids, vectors, rng.normal(0, 0.3, N).astype(np.float32), ~aerial, aerial)
        with connect() as conn:
            publish(conn, name, find_model(conn, "m"), "hybrid", LEVEL, made, snapshot_id=None)
            if index:
                build_index(conn, codes.find_code_set(conn, name))


@contextmanager
def shard_world(folder: Path) -> Iterator[ShardWorld]:
    """Start the servers, fill them, and stop them at the end."""
    home = new_home()
    family = Family(home, locate(settings_for(home)).account)
    try:
        world = ShardWorld(
            family, family.add("home"), {name: family.add(name) for name in NAMES}, np.zeros(0, np.int64)
        )
        migrate(world.home.url())
        with pointed_at(world.home, folder):  # type: ignore[arg-type]
            with connect() as conn:
                add_model(conn, "m", D)
                for name, server in world.shards.items():
                    add_shard(conn, name, server.url(), reader_url=server.url("reader"))
            for name in ("whole", "spread"):
                world.publish(name)
            with connect() as conn:
                world.ids = codes.read_codes(conn, codes.find_code_set(conn, "whole"))[0]
                distribute(conn, "spread", NAMES)
        yield world
    finally:
        family.remove()
        shutil.rmtree(home, ignore_errors=True)


def asked(n: int) -> NDArray[np.float32]:
    """Unit vectors (n, D) to ask with."""
    made = np.random.default_rng(9).normal(size=(n, D)).astype(np.float32)
    unit: NDArray[np.float32] = made / np.linalg.norm(made, axis=1, keepdims=True)
    return unit


def answers(conn, code_set, queries, k=10, region=None, exact_below=10_000):
    """Rows of `search_cells` for each query."""
    ewkb = None if region is None else shapely.to_wkb(shapely.set_srid(region, 4326), include_srid=True)
    return [
        conn.execute(SEARCH, (HalfVector(q.astype(np.float16)), k, code_set, ewkb, exact_below)).fetchall()
        for q in queries
    ]
