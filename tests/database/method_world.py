"""Towns whose photos, tiles and prototypes are made-up vectors: what a trained model would have embedded.

A place has a hidden vector that changes from prototype cell to prototype cell, and one from code cell to code
cell. Photos see both with noise, prototypes the first, tiles the second: only together do they tell all.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from small_world import COUNTRIES, countries

from geofix.codes.register import register_model
from geofix.database.engine import Connection, connect
from geofix.database.queries.models import ModelRow, add_embeddings
from geofix.ingest.regions import ingest_regions
from geofix.models.create import create_model
from geofix.models.registry import load_model, save_model
from geofix.snapshots.build import build_snapshot, stored_snapshot
from geofix.spatial import s2

D = 32
TOWNS = [(lon, lat) for lat in (47.50, 47.53, 47.60, 47.63) for lon in (7.45, 7.50, 7.55, 7.60)]
ELSEWHERE = (9.20, 45.50)
SEQUENCES, PHOTOS = 4, 10
PROTOTYPE_LEVEL, LEVEL = 15, 16

DATASET = "INSERT INTO dataset (name, kind, licence) VALUES (%s, %s, 'CC0-1.0') RETURNING dataset_id"
SEQUENCE = "INSERT INTO sequence (dataset_id, key) VALUES (%s, %s) RETURNING sequence_id"
PHOTO = """
INSERT INTO photo_record
  (dataset_id, sequence_id, source_key, uri, sha256, s2_id, gps_accuracy_m, captured_at, geom)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, ST_SetSRID(ST_MakePoint(%s, %s), 4326)) RETURNING photo_id
"""
TILE = """
INSERT INTO aerial_tile (dataset_id, level, s2_id, side_m, coverage, aerial_raster_ids)
VALUES (%s, %s, %s, 154, 1, '{}') RETURNING aerial_tile_id
"""


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def hidden(ids, salt=0):
    """The same random unit vector (n, D) for the same cell."""
    ids = np.atleast_1d(ids)
    made = [np.random.default_rng([salt, int(i) & (2**63 - 1)]).normal(size=D) for i in ids]
    return unit(np.array(made))


def seen(leaf, rng, noise, weight=1.0):
    """Embeddings of photos at leaf cells."""
    coarse, fine = hidden(s2.parent(leaf, PROTOTYPE_LEVEL)), hidden(s2.parent(leaf, LEVEL), 1)
    return unit(coarse + weight * fine + noise * unit(rng.normal(size=(len(leaf), D))))


def fill(folder: Path) -> None:
    """Load positions, freeze them, register five models with vectors of everything."""
    rng = np.random.default_rng(5)
    with connect() as conn:
        ingest_regions(
            conn,
            countries(folder / "countries.geojson"),
            level="country",
            code_field="code",
            name_field="name",
            dataset="countries",
        )
        photos = _photos(conn, "streets", TOWNS)
        far = _photos(conn, "elsewhere", [ELSEWHERE])
        _assign(conn)
        tiles = _tiles(conn, [leaf for leaf in photos.values()])
        build_snapshot(conn, ["streets"], folder / "snapshot", aerial=[], test=0.4, val=0.25, seed=2)
        frozen = stored_snapshot(conn, folder / "snapshot")
        rows = conn.execute("SELECT photo_id FROM snapshot_photo WHERE split = 'train'").fetchall()
        train = np.unique(s2.parent(np.array([photos[row[0]] for row in rows]), PROTOTYPE_LEVEL))
        create_model(folder / "start", trunk="mobilenetv3_small_050", size=64, dimension=D, seed=3)
        for name, noise, prototypes, aerial in (
            ("start", 4.0, False, False),
            ("joint", 0.9, True, True),
            ("alone-p", 1.0, True, False),
            ("alone-a", 1.0, False, True),
            ("second", 1.0, True, False),
        ):
            model = _model(conn, folder, name, train if prototypes else None, rng, frozen.sha256)
            _embed(conn, model, {**photos, **far}, tiles if aerial else {}, rng, noise)


def _photos(conn: Connection, dataset: str, towns) -> dict[int, int]:
    """Streets 400 m long, each walked by several sequences: photo id -> leaf."""
    (owner,) = conn.execute(DATASET, (dataset, "photos")).fetchone()
    made = {}
    for t, (town_lon, town_lat) in enumerate(towns):
        for s in range(SEQUENCES):
            (sequence,) = conn.execute(SEQUENCE, (owner, f"{t}-{s}")).fetchone()
            start = datetime(2018 + s, 3, 10, tzinfo=UTC)
            for i in range(PHOTOS):
                key = f"{dataset}/{t}-{s}/{i}.jpg"
                lon, lat = town_lon + (40 * i + 7 * s) / 75_000, town_lat + 9 * s / 111_000
                leaf = int(s2.cell_at(lon, lat))
                accuracy = 400 if (t, s) == (0, 0) else 5
                values = (owner, sequence, key, key, sha256(key.encode()).digest(), leaf, accuracy)
                when = start + timedelta(seconds=20 * i)
                made[conn.execute(PHOTO, (*values, when, lon, lat)).fetchone()[0]] = leaf
    return made


def _assign(conn: Connection) -> None:
    from geofix.database.queries.photo_regions import assign_regions

    assert set(COUNTRIES) == {"CHE", "DEU"}
    assign_regions(conn)


def _tiles(conn: Connection, leaves) -> dict[int, int]:
    """A tile for every cell with photos and for their neighbours: tile id -> cell."""
    (owner,) = conn.execute(DATASET, ("ortho", "aerial")).fetchone()
    cells = np.unique(s2.parent(np.array(leaves), LEVEL))
    cells = np.unique(np.concatenate([cells, s2.neighbors(cells).ravel()]))
    return {
        conn.execute(TILE, (owner, LEVEL, int(cell))).fetchone()[0]: int(cell) for cell in cells[cells != 0]
    }


def _model(conn: Connection, folder: Path, name: str, cells, rng, snapshot: str) -> ModelRow:
    model = load_model(folder / "start")
    model.name = name
    if cells is not None:
        weight = unit(hidden(cells) + 0.5 * unit(rng.normal(size=(len(cells), D)))).astype(np.float32)
        model.tensors = {
            "prototypes.s2_id": torch.from_numpy(cells),
            "prototypes.weight": torch.from_numpy(weight),
            "prototypes.photos": torch.ones(len(cells), dtype=torch.int32),
        }
        model.metadata = {
            "prototype_level": PROTOTYPE_LEVEL,
            "snapshot_sha256": snapshot,
            "terms": ["ground_prototype"],
        }
    if name != "start":
        save_model(model, folder / name)
    return register_model(conn, folder / name, name)


def _embed(conn: Connection, model: ModelRow, photos, tiles, rng, noise: float) -> None:
    leaf = np.array(list(photos.values()))
    vectors = seen(leaf, rng, noise)
    add_embeddings(conn, "photo_embedding", model.model_id, zip(photos, vectors, strict=True))
    if tiles:
        cells = np.array(list(tiles.values()))
        made = unit(hidden(cells, 1) + 0.5 * unit(rng.normal(size=(len(cells), D))))
        add_embeddings(conn, "aerial_embedding", model.model_id, zip(tiles, made, strict=True))
