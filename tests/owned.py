"""A small database in which everything that can be derived from photos and tiles has been derived."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import Result
from typer.testing import CliRunner

from geofix.codes.build import CellVectors, build_code_set, publish
from geofix.database.engine import Connection, connect
from geofix.database.queries.cells import refresh_cells
from geofix.database.queries.models import add_embeddings, find_model
from geofix.database.queries.photos import ensure_dataset
from geofix.database.queries.snapshots import find_snapshot, store_snapshot
from geofix.evaluation.run import Request, run_evaluation
from geofix.localizers.base import Candidates
from geofix.settings import get_settings
from geofix.spatial import s2
from helpers import add_model, random_codes

LEVEL = 15
SPLITS = ("train", "val", "test_seen", "test_unseen")

PHOTOS = """
INSERT INTO photo_record (dataset_id, sequence_id, source_key, uri, sha256, s2_id, geom, captured_at)
SELECT %(dataset_id)s, %(sequence_id)s, 'p' || n, %(folder)s || '/p' || n || '.jpg',
       sha256(%(name)s || n::text::bytea), s2_cell_at(x, 47, 30), ST_SetSRID(ST_MakePoint(x, 47), 4326),
       timestamptz '2020-01-01' + n * interval '1 day'
FROM (SELECT n, %(west)s + n / 500.0 AS x FROM generate_series(1, %(n)s) AS n) AS p ORDER BY n
RETURNING photo_id
"""
REGION = """
WITH d AS (INSERT INTO dataset (name, kind) VALUES ('lands', 'regions') RETURNING dataset_id),
r AS (INSERT INTO region (dataset_id, level, code, name, area_km2, geom)
      SELECT dataset_id, 'country', 'AA', 'Aland', 1, ST_Multi(ST_MakeEnvelope(0, 40, 20, 50, 4326)) FROM d
      RETURNING region_id)
INSERT INTO photo_region (photo_id, level, region_id, distance_m)
SELECT photo_id, 'country', region_id, 0 FROM photo_record, r
"""
TILES = """
WITH d AS (INSERT INTO dataset (name, kind, licence) VALUES ('ortho', 'aerial', 'CC0') RETURNING dataset_id),
r AS (INSERT INTO aerial_raster (dataset_id, uri, kind, crs, gsd_m, geom)
      SELECT dataset_id, '/nowhere/ortho.tif', 'raster', 'EPSG:3035', 1,
             ST_Multi(ST_MakeEnvelope(8, 46, 9, 48, 4326)) FROM d RETURNING aerial_raster_id, dataset_id)
INSERT INTO aerial_tile (dataset_id, level, s2_id, side_m, coverage, aerial_raster_ids)
SELECT DISTINCT r.dataset_id, 15, s2_parent(s2_id, 15), 300, 1, ARRAY[aerial_raster_id]
FROM photo_record CROSS JOIN r WHERE photo_record.dataset_id = %(photos_of)s RETURNING aerial_tile_id
"""
PHOTO_TABLES = {
    "photo_record": "SELECT photo_id FROM photo_record",
    "photo_embedding": "SELECT photo_id FROM photo_embedding",
    "prediction": "SELECT photo_id FROM prediction",
    "evaluation_photo": "SELECT photo_id FROM evaluation_photo",
    "snapshot_photo": "SELECT photo_id FROM snapshot_photo",
    "photo_region": "SELECT photo_id FROM photo_region",
}


class Fixed:
    """Answers every photo with the same place."""

    name = "fixed"

    def localize(self, embeddings: Any, k: int, ranges: Any = None) -> Candidates:
        """One candidate for each photo."""
        n = len(embeddings)
        lon, lat = np.full((n, 1), 8.0), np.full((n, 1), 47.0)
        return Candidates(s2.cell_at(lon.ravel(), lat.ravel(), 15)[:, None], lon, lat, np.ones((n, 1)))


@dataclass
class World:
    """Two photo data sets of forty photos, a snapshot of both, two models, code sets and an evaluation."""

    a: list[int]
    b: list[int]
    snapshot_id: int
    folder: Path

    def split_of(self, photo_id: int) -> str:
        return SPLITS[(self.a + self.b).index(photo_id) % 4]


def add_photos(conn: Connection, name: str, west: float, folder: Path, n: int = 40) -> list[int]:
    dataset_id, _ = ensure_dataset(conn, name, licence="CC0", attribution=name, source_uri=None)
    row = conn.execute(
        "INSERT INTO sequence (dataset_id, key) VALUES (%s, 's') RETURNING sequence_id", (dataset_id,)
    ).fetchone()
    assert row is not None
    values = {"dataset_id": dataset_id, "sequence_id": row[0], "folder": str(folder), "west": west, "n": n}
    return [item[0] for item in conn.execute(PHOTOS, {**values, "name": name.encode()})]


def embed(conn: Connection, table: Any, model: str, ids: list[int]) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(len(ids), 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = zip(ids, vectors, strict=True)
    assert add_embeddings(conn, table, find_model(conn, model).model_id, rows) == len(ids)


def make_world() -> World:
    """Load it into the database that `connect` reaches."""
    folder = get_settings().home_dir / "photos"
    with connect() as conn:
        a, b = add_photos(conn, "a", 8.0, folder), add_photos(conn, "b", 12.0, folder)
        conn.execute(REGION)
        splits = [(photo, SPLITS[i % 4]) for i, photo in enumerate(a + b)]
        counts = {name: 20 for name in SPLITS}
        snapshot_id = store_snapshot(
            conn, uri="/nowhere/snap", sha256="s" * 64, config={}, counts=counts, splits=splits
        )
        for model in ("m1", "m2"):
            add_model(conn, model, 8)
            embed(conn, "photo_embedding", model, a + b)
        conn.execute("UPDATE model SET snapshot_id = %s WHERE name = 'm2'", (snapshot_id,))
        first = conn.execute("SELECT dataset_id FROM dataset WHERE name = 'a'").fetchone()
        assert first is not None
        tiles = [row[0] for row in conn.execute(TILES, {"photos_of": first[0]})]
        embed(conn, "aerial_embedding", "m1", tiles)
        build_code_set(
            conn,
            name="means",
            model=find_model(conn, "m1"),
            recipe="cellmean",
            level=LEVEL,
            snapshot_id=snapshot_id,
        )
        build_code_set(conn, name="tiles", model=find_model(conn, "m1"), recipe="aerial", level=LEVEL)
        ids, vectors = random_codes(30, 8, level=LEVEL)
        elsewhere = CellVectors(ids, vectors, 0 * vectors[:, 0], vectors[:, 0] < 9, vectors[:, 0] < 9)
        publish(conn, "prototypes", find_model(conn, "m2"), "prototype", LEVEL, elsewhere, snapshot_id=None)
        publish(conn, "elsewhere", find_model(conn, "m1"), "aerial", LEVEL, elsewhere, snapshot_id=None)
        refresh_cells(conn, 12)
        refresh_cells(conn, LEVEL)
        evaluate(conn)
    return World(a, b, snapshot_id, folder)


def evaluate(conn: Connection) -> None:
    snapshot = find_snapshot(conn, "s" * 64)
    request = Request(name="e", localizer=Fixed(), split="test_seen", level=LEVEL)
    assert run_evaluation(conn, request, find_model(conn, "m1"), snapshot)["n"] == 20


def photos_in(conn: Connection) -> dict[str, set[int]]:
    return {table: {row[0] for row in conn.execute(query)} for table, query in PHOTO_TABLES.items()}


def states(conn: Connection) -> dict[str, str]:
    return dict(conn.execute("SELECT name, state FROM code_set").fetchall())


def run(app: Any, *arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))
