"""A town with photos, tiles and prototypes of made-up vectors: what codes of any recipe are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geofix.database.engine import connect
from geofix.database.queries.models import add_embeddings, find_model
from geofix.database.queries.prototypes import store_prototypes
from geofix.ingest.photos import ingest_photos
from geofix.snapshots.build import build_snapshot, stored_snapshot
from geofix.spatial import s2
from helpers import add_model

DIMENSION, LEVEL, PROTOTYPE_LEVEL = 16, 15, 14
WEST, SOUTH, EAST, NORTH = 7.4, 47.4, 7.44, 47.43
TILE = """
INSERT INTO aerial_tile (dataset_id, level, s2_id, captured_at, side_m, coverage, aerial_raster_ids)
SELECT dataset_id, %s, s2_id, day, 300, 1, '{}'
FROM dataset, unnest(%s::bigint[], %s::date[]) AS t (s2_id, day) WHERE name = 'd'
RETURNING aerial_tile_id, s2_id
"""


def grid(level: int, west: float = WEST, east: float = EAST) -> np.ndarray:
    """All cells with a centre in the town."""
    lon, lat = np.meshgrid(np.linspace(west, east, 200), np.linspace(SOUTH, NORTH, 200))
    return np.unique(s2.cell_at(lon.ravel(), lat.ravel(), level))


def fill(folder: Path) -> Path:
    """Photos in all of the town, prototypes in its west, tiles (some cells with two) in its east."""
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(WEST, EAST, 700), rng.uniform(SOUTH, NORTH, 700)
    lines = [f"{i}.jpg,{lat[i]:.6f},{lon[i]:.6f}" for i in range(len(lon))]
    table = folder / "photos.csv"
    table.write_text("\n".join(["image_path,lat,lon", *lines]))
    learned, seen = grid(PROTOTYPE_LEVEL, east=WEST + 0.025), grid(LEVEL, west=EAST - 0.025)
    with connect() as conn:
        ingest_photos(conn, folder, dataset="d", metadata=table, positions_only=True)
        conn.execute("UPDATE photo_record SET uri = 'file:///nowhere/' || source_key")
        build_snapshot(conn, ["d"], folder / "snapshot", test=0.1, val=0.2, block_level=14, buffer_m=0)
        add_model(conn, "m", DIMENSION)
        frozen = stored_snapshot(conn, folder / "snapshot").snapshot_id
        conn.execute("UPDATE model SET snapshot_id = %s", (frozen,))
        model = find_model(conn, "m")
        photos = conn.execute("SELECT photo_id, s2_id FROM photo_record ORDER BY 1").fetchall()
        cells = s2.parent(np.array([row[1] for row in photos]), LEVEL).tolist()
        own = [unit(look(cell) + 0.15 * rng.normal(size=DIMENSION)) for cell in cells]
        keys = [row[0] for row in photos]
        add_embeddings(conn, "photo_embedding", model.model_id, zip(keys, own, strict=True))
        vectors = np.stack([unit(sum(look(c) for c in s2.children(cell))) for cell in learned])
        photos_of = np.ones(len(learned), np.int32)
        store_prototypes(conn, model.model_id, learned, vectors, photos_of)
        twice = [*seen.tolist(), *seen[::3].tolist()]
        days = ["2020-05-01"] * len(seen) + ["2021-05-01"] * (len(twice) - len(seen))
        tiles = conn.execute(TILE, (LEVEL, twice, days)).fetchall()
        above = [(tile, unit(look(cell) + 0.2 * rng.normal(size=DIMENSION))) for tile, cell in tiles]
        add_embeddings(conn, "aerial_embedding", model.model_id, above)
    return folder / "snapshot"


def look(cell: int) -> np.ndarray:
    """What a cell looks like."""
    return unit(np.random.default_rng(int(cell)).normal(size=DIMENSION))


def unit(vector: np.ndarray) -> np.ndarray:
    """The same direction."""
    return vector / np.linalg.norm(vector)
