"""Fills a database for benchmarks/dashboard.py: towns of photos, codes and evaluations, at a size asked for.

Places come from NumPy with one seed; rows are copied or made by INSERT ... SELECT, through the product's own
query functions where it has one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from PIL import Image
from rasterio.transform import from_bounds

from geofix.codes.build import CellVectors, publish
from geofix.database.bulk import copy_rows, read_columns, vector_rows
from geofix.database.engine import Connection
from geofix.database.queries import cells, evaluations, leaves, models, photos, prototypes, regions, snapshots
from geofix.evaluation.protocols import EvaluationProtocol
from geofix.evaluation.run import measure
from geofix.spatial import s2
from geofix.spatial.distance import great_circle_m

WEST, SOUTH, EAST, NORTH = -10.0, 36.0, 30.0, 60.0
COUNTRIES, PARTS = (5, 4), 4  # countries across and up; parts across and up of each
TOWN_LEVEL, CELL_LEVEL, TOWN_CELLS = 12, 16, 250
RANKS = 10
PER_SEQUENCE = 20
PICTURES = 40
SPLITS = {"test_seen": 0.8, "test_unseen": 0.2}
LOCALIZERS = {"cellcode": 90.0, "knn": 260.0}  # mean error in metres of half the photos
PHOTO_STAGE = """
CREATE TEMP TABLE photo_stage (
  key int8 PRIMARY KEY, sequence int8 NOT NULL, s2_id int8 NOT NULL, taken float8 NOT NULL,
  picture int4 NOT NULL, lon float8 NOT NULL, lat float8 NOT NULL) ON COMMIT DROP
"""
SEQUENCES = """
INSERT INTO sequence (dataset_id, key)
SELECT %(dataset)s, 'walk ' || sequence FROM photo_stage GROUP BY sequence ORDER BY sequence
"""
PHOTOS = """
INSERT INTO photo_record (dataset_id, sequence_id, source_key, uri, width, height, s2_id, captured_at,
                          heading_deg, author, geom)
SELECT %(dataset)s, s.sequence_id, 'photo ' || p.key, %(folder)s || '/' || p.picture || '.jpg', 1280, 960,
       p.s2_id, to_timestamp(p.taken), p.key %% 360, 'walker ' || p.sequence %% 100,
       ST_SetSRID(ST_MakePoint(p.lon, p.lat), 4326)
FROM photo_stage p JOIN sequence s ON s.dataset_id = %(dataset)s AND s.key = 'walk ' || p.sequence
ORDER BY p.key
"""
RASTER = """
INSERT INTO aerial_raster (dataset_id, uri, kind, crs, width, height, bands, dtype, gsd_m, captured_at, geom)
VALUES (%(dataset)s, %(uri)s, 'raster', 'EPSG:4326', %(side)s, %(side)s, 3, 'uint8', 4, '2023-07-01',
        ST_Multi(ST_MakeEnvelope(%(west)s, %(south)s, %(east)s, %(north)s, 4326))) RETURNING aerial_raster_id
"""
TILES = """
INSERT INTO aerial_tile (dataset_id, level, s2_id, captured_at, side_m, coverage, aerial_raster_ids)
SELECT %(dataset)s, 16, cell, '2023-07-01', 154, 1, ARRAY[raster]
FROM unnest(%(cells)s::int8[], %(rasters)s::int8[]) AS t (cell, raster) ORDER BY cell
"""
VECTOR_POOL = (
    "CREATE TEMP TABLE vector_pool (vector_id int8 PRIMARY KEY, vector halfvec NOT NULL) ON COMMIT DROP"
)
# Embeddings are drawn from a pool: what they are makes no page faster or slower, how many there are does.
EMBEDDINGS = {
    "photo_embedding": """
INSERT INTO geofix_leaf.photo_embedding_{model} (model_id, photo_id, embedding)
SELECT %(model)s, photo_id, vector FROM photo_record JOIN vector_pool ON vector_id = photo_id %% 997
ORDER BY s2_id
""",
    "aerial_embedding": """
INSERT INTO geofix_leaf.aerial_embedding_{model} (model_id, aerial_tile_id, embedding)
SELECT %(model)s, aerial_tile_id, vector
FROM aerial_tile JOIN vector_pool ON vector_id = aerial_tile_id %% 997
ORDER BY s2_id
""",
}
REJECTS = """
INSERT INTO reject (dataset_id, kind, source_key, reason, detail)
SELECT %(dataset)s, 'photo', 'broken ' || i,
       (ARRAY['no_gps', 'truncated', 'too_small', 'not_an_image'])[1 + i %% 4],
       'broken ' || i || ' cannot be used' FROM generate_series(1, 5000) AS i
"""
RECALL = """
INSERT INTO recall_check (code_set_id, k, queries, ef_search, scope, cells_in_scope, recall, checked_at)
SELECT code_set_id, 10, 500, 200, 'everywhere', cells, 0.95 + 0.04 * sin(i), now() - i * interval '1 day'
FROM code_set CROSS JOIN generate_series(1, 30) AS i
"""
ANALYZE = "ANALYZE"
ANALYZE_ANSWERS = "ANALYZE evaluation_photo, prediction"


@dataclass(frozen=True)
class Size:
    """How much there is to be."""

    photos: int
    cells: int
    predictions: int
    jobs: int
    dimension: int = 128


@dataclass(frozen=True)
class Places:
    """Cells (c,) of level 16 in towns, and photos (n,) in them: leaf id, position, town and sequence."""

    cells: np.ndarray
    leaf: np.ndarray
    lon: np.ndarray
    lat: np.ndarray
    town: np.ndarray
    sequence: np.ndarray


def fill(conn: Connection, size: Size, folder: Path, say: Callable[[str], None]) -> None:
    """Fill an empty database; committed in steps."""
    rng = np.random.default_rng(5)
    places = _places(size, rng)
    say(f"{len(places.leaf):,} photos in {len(places.cells):,} cells are placed")
    _regions(conn)
    dataset = _photos(conn, places, folder, rng)
    conn.commit()
    say("photos are stored")
    assigned = photos.assign_regions(conn)
    conn.commit()
    say(f"regions are given to photos: {sum(counts.inside for counts in assigned.values()):,} rows")
    _aerial(conn, places, folder)
    for level in (CELL_LEVEL, CELL_LEVEL - 1):
        cells.refresh_cells(conn, level)
    conn.execute(REJECTS, {"dataset": dataset})
    conn.commit()
    say("tiles and cells are stored")
    ids = read_columns(conn, "SELECT photo_id FROM photo_record ORDER BY photo_id", {"photo_id": "i8"})
    split = _split(len(places.leaf), places, size, rng)
    snapshot = _snapshot(conn, ids["photo_id"], split, folder)
    model = _codes(conn, places, size, snapshot, rng)
    conn.commit()
    say("embeddings, prototypes and codes are stored")
    for localizer, error_m in LOCALIZERS.items():
        for name in SPLITS:
            asked = split == name
            _evaluation(conn, localizer, name, error_m, model, snapshot, ids["photo_id"], asked, places, rng)
            conn.commit()
            say(f"{localizer} on {name}: {RANKS * int(asked.sum()):,} predictions are stored")
    conn.execute(RECALL)
    conn.commit()
    conn.execute(ANALYZE)
    conn.commit()


def _places(size: Size, rng: np.random.Generator) -> Places:
    """Towns of neighbouring cells, and photos in their cells: a few cells hold most."""
    towns = -(-size.cells // TOWN_CELLS)
    found = np.empty(0, np.int64)
    while len(found) < towns:
        lon = rng.uniform(WEST + 0.5, EAST - 0.5, 2 * towns)
        lat = rng.uniform(SOUTH + 0.5, NORTH - 0.5, 2 * towns)
        found = np.unique(np.concatenate([found, s2.cell_at(lon, lat, TOWN_LEVEL)]))
    found = np.sort(rng.permutation(found)[:towns])
    town_bit, bit = 1 << (2 * (30 - TOWN_LEVEL)), 1 << (2 * (30 - CELL_LEVEL))
    steps = 2 * bit * np.arange(TOWN_CELLS, dtype=np.int64)
    inside = (found[:, None] - town_bit + bit + steps).ravel()[: size.cells]
    weight = rng.lognormal(0.0, 1.0, len(inside))
    # Every cell has a photo, as long as there are enough.
    chosen = rng.choice(len(inside), max(size.photos - len(inside), 0), p=weight / weight.sum())
    chosen = np.sort(np.concatenate([np.arange(len(inside))[: size.photos], chosen]))
    leaf = inside[chosen] - (bit - 1) + 2 * rng.integers(0, bit, len(chosen))
    sequence = np.arange(len(leaf)) // PER_SEQUENCE
    order = np.argsort(rng.permutation(sequence[-1] + 1)[sequence], kind="stable")  # walks come as they come
    leaf = leaf[order]
    lon, lat = s2.center(leaf)
    return Places(inside, leaf, lon, lat, chosen[order] // TOWN_CELLS, sequence[order])


def _warped(shape: shapely.Geometry) -> bytes:
    """A box with borders as crooked as real ones, neighbours still touching; EWKB."""
    shape = shapely.segmentize(shape, 0.02)

    def moved(points: np.ndarray) -> np.ndarray:
        x, y = points.T
        bend = [0.08 * np.sin(3 * v) + 0.02 * np.sin(17 * v) + 0.003 * np.sin(97 * v) for v in (y, x)]
        return np.column_stack([x + bend[0], y + bend[1]])

    return shapely.to_wkb(
        shapely.set_srid(shapely.MultiPolygon([shapely.transform(shape, moved)]), 4326), include_srid=True
    )


def _regions(conn: Connection) -> None:
    dataset = photos.ensure_dataset(conn, "borders", licence="CC0", attribution=None, source_uri=None)[0]
    conn.execute("UPDATE dataset SET kind = 'regions' WHERE dataset_id = %s", (dataset,))
    across, up = COUNTRIES
    for level, parts in (("country", 1), ("admin1", PARTS)):
        wide, high = (EAST - WEST) / across / parts, (NORTH - SOUTH) / up / parts
        rows = []
        for i in range(across * parts):
            for j in range(up * parts):
                west, south = WEST + i * wide, SOUTH + j * high
                country = f"{chr(65 + i // parts)}{chr(65 + j // parts)}"
                code = country if level == "country" else f"{country}-{i % parts}{j % parts}"
                name = f"Land {code}" if level == "country" else f"County {code}"
                shape = _warped(shapely.box(west, south, west + wide, south + high))
                rows.append((len(rows), code, name, None, shape))
        regions.merge_regions(conn, dataset, level, rows)


def _photos(conn: Connection, places: Places, folder: Path, rng: np.random.Generator) -> int:
    dataset = photos.ensure_dataset(
        conn, "walks", licence="CC BY 4.0", attribution="Walkers", source_uri="made for the benchmark"
    )[0]
    n = len(places.leaf)
    folder.mkdir(parents=True, exist_ok=True)
    small = rng.integers(0, 255, (PICTURES, 12, 16, 3), np.uint8)
    for k, pixels in enumerate(small):
        Image.fromarray(pixels).resize((1280, 960)).save(folder / f"{k}.jpg")
    conn.execute(PHOTO_STAGE)
    days = rng.integers(0, 15 * 365, places.sequence.max() + 1)[places.sequence]
    taken = 1_262_304_000.0 + 86_400.0 * days + 30.0 * (np.arange(n) % PER_SEQUENCE)
    arrays = (np.arange(n), places.sequence, places.leaf, taken, np.arange(n) % PICTURES)
    rows = zip(*(array.tolist() for array in (*arrays, places.lon, places.lat)), strict=True)
    columns = {"key": "int8", "sequence": "int8", "s2_id": "int8", "taken": "float8", "picture": "int4"}
    copy_rows(conn, "photo_stage", {**columns, "lon": "float8", "lat": "float8"}, rows)
    conn.execute(SEQUENCES, {"dataset": dataset})
    conn.execute(PHOTOS, {"dataset": dataset, "folder": str(folder)})
    return dataset


def _aerial(conn: Connection, places: Places, folder: Path) -> None:
    """One picture of every town at about 4 m a pixel, and a tile of every cell."""
    dataset = photos.ensure_dataset(
        conn, "ortho", licence="CC0", attribution="Office", source_uri="made for the benchmark"
    )[0]
    conn.execute("UPDATE dataset SET kind = 'aerial' WHERE dataset_id = %s", (dataset,))
    side = 768
    rng = np.random.default_rng(6)
    rasters = []
    for town in range(-(-len(places.cells) // TOWN_CELLS)):
        corners = s2.corners(places.cells[town * TOWN_CELLS : (town + 1) * TOWN_CELLS])
        west, south = corners.reshape(-1, 2).min(axis=0) - 0.001
        east, north = corners.reshape(-1, 2).max(axis=0) + 0.001
        pixels = np.asarray(
            Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8)).resize((side, side)), np.uint8
        )
        path = folder / f"town{town}.tif"
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=side,
            height=side,
            count=3,
            dtype="uint8",
            crs="EPSG:4326",
            transform=from_bounds(west, south, east, north, side, side),
            compress="jpeg",
            tiled=True,
            photometric="ycbcr",
        ) as made:
            made.write(pixels.transpose(2, 0, 1))
        box = {"west": float(west), "south": float(south), "east": float(east), "north": float(north)}
        row = conn.execute(RASTER, {"dataset": dataset, "uri": str(path), "side": side, **box}).fetchone()
        assert row is not None
        rasters.append(int(row[0]))
    of_cell = np.array(rasters)[np.arange(len(places.cells)) // TOWN_CELLS]
    conn.execute(TILES, {"dataset": dataset, "cells": places.cells.tolist(), "rasters": of_cell.tolist()})


def _split(n: int, places: Places, size: Size, rng: np.random.Generator) -> np.ndarray:
    """Split of every photo: unseen towns apart; as many test photos as the predictions need."""
    asked = size.predictions // (len(LOCALIZERS) * RANKS)
    split = np.full(n, "train", dtype=object)
    unseen = places.town % 10 == 0
    for name, pool in (("test_seen", ~unseen), ("test_unseen", unseen)):
        most = np.flatnonzero(pool)
        split[rng.permutation(most)[: min(round(SPLITS[name] * asked), len(most))]] = name
    rest = np.flatnonzero((split == "train") & ~unseen)
    split[rng.permutation(rest)[: n // 50]] = "val"
    return split


def _snapshot(conn: Connection, ids: np.ndarray, split: np.ndarray, folder: Path) -> int:
    names, counts = np.unique(split.astype(str), return_counts=True)
    return snapshots.store_snapshot(
        conn,
        uri=str(folder / "snapshot"),
        sha256="ab" * 32,
        config={"datasets": ["walks"], "buffer_m": 200.0, "level": 15},
        counts=dict(zip(names.tolist(), counts.tolist(), strict=True)),
        splits=zip(ids.tolist(), split.tolist(), strict=True),
    )


def _unit(rng: np.random.Generator, n: int, dimension: int) -> np.ndarray:
    vectors = rng.standard_normal((n, dimension), np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _codes(conn: Connection, places: Places, size: Size, snapshot: int, rng: np.random.Generator) -> int:
    """A model with embeddings and prototypes, and two code sets: hybrid (level 16), cellmean (level 15)."""
    d = size.dimension
    values: dict[str, Any] = {"kind": "encoder", "dimension": d, "directory_uri": "nowhere", "config": {}}
    values |= {"weights_sha256": "0" * 64, "input_transform": {}, "snapshot_id": snapshot, "metrics": {}}
    model_id = models.insert_model(conn, {**values, "name": "street"})
    models.insert_model(conn, {**values, "name": "street-before", "weights_sha256": "1" * 64})
    conn.execute(VECTOR_POOL)
    columns = {"vector_id": "int8", "vector": "halfvec"}
    copy_rows(conn, "vector_pool", columns, vector_rows(np.arange(997), _unit(rng, 997, d)))
    for parent, statement in EMBEDDINGS.items():
        leaves.create_leaf(conn, parent, model_id, d)  # type: ignore[arg-type]
        conn.execute(statement.format(model=model_id), {"model": model_id})
        leaves.index_leaf_keys(conn, parent, model_id)  # type: ignore[arg-type]
        leaves.attach_leaf(conn, parent, model_id)  # type: ignore[arg-type]
    coarse = np.unique(s2.parent(places.cells, CELL_LEVEL - 1))
    seen = rng.integers(1, 40, len(coarse), dtype=np.int32)
    prototypes.store_prototypes(conn, model_id, coarse, _unit(rng, len(coarse), d), seen)
    model = models.find_model(conn, "street")
    for name, recipe, level, ids in (
        ("street-cellmean", "cellmean", CELL_LEVEL - 1, coarse),
        ("street-hybrid", "hybrid", CELL_LEVEL, places.cells),
    ):
        n = len(ids)
        some = rng.random(n) < (0.8 if recipe == "hybrid" else 0.0)
        made = CellVectors(ids, _unit(rng, n, d), np.zeros(n, np.float32), np.ones(n, bool), some)
        publish(conn, name, model, recipe, level, made, snapshot_id=snapshot)
    return model_id


def _evaluation(
    conn: Connection,
    localizer: str,
    split: str,
    mean_m: float,
    model: int,
    snapshot: int,
    ids: np.ndarray,
    asked: np.ndarray,
    places: Places,
    rng: np.random.Generator,
) -> None:
    """Ten answers per photo: half near the truth, half anywhere; one photo in a hundred unanswered."""
    name, protocol = f"{localizer}-{split}", EvaluationProtocol()
    n = int(asked.sum())
    codes = conn.execute("SELECT code_set_id FROM code_set WHERE name = 'street-hybrid'").fetchone()
    assert codes is not None
    values = {
        "name": name,
        "localizer": localizer,
        "model_id": model,
        "code_set_id": codes[0] if localizer == "cellcode" else None,
        "snapshot_id": snapshot,
        "split": split,
        "level": CELL_LEVEL,
        "search_method": "exact",
        "region": None,
        "radius_km": protocol.radius_km,
        "comparison": protocol.comparison,
        "missing_policy": protocol.missing,
        "n": n,
        "config": {"protocol": protocol.as_record()},
        "software_version": "0.1.0",
    }
    evaluation_id = evaluations.insert_evaluation(conn, values, replace=False)
    lon, lat, photo = places.lon[asked], places.lat[asked], ids[asked]
    evaluations.store_photos(conn, evaluation_id, photo, rng.exponential(120, n), rng.poisson(6, n))
    away = rng.exponential(mean_m / 111_195, (n, RANKS)) * np.linspace(1, 4, RANKS)
    turn = rng.uniform(0, 2 * np.pi, (n, RANKS))
    wild = rng.random((n, RANKS)) < np.where(np.arange(RANKS) == 0, 0.5, 0.8)
    other = rng.integers(0, len(places.cells), (n, RANKS))
    far_lon, far_lat = s2.center(places.cells)
    answer_lat = np.where(wild, far_lat[other], lat[:, None] + away * np.sin(turn))
    answer_lon = np.where(
        wild, far_lon[other], lon[:, None] + away * np.cos(turn) / np.cos(np.radians(lat[:, None]))
    )
    error = great_circle_m(lon[:, None], lat[:, None], answer_lon, answer_lat)
    cell = s2.cell_at(answer_lon.ravel(), answer_lat.ravel(), CELL_LEVEL).reshape(n, RANKS)
    missing = rng.random(n) < 0.01
    cell[missing], error[missing] = 0, np.nan
    score = np.sort(rng.random((n, RANKS)))[:, ::-1]
    chance = score / score.sum(axis=1, keepdims=True)
    evaluations.store_predictions(
        conn,
        evaluations.prediction_rows(evaluation_id, photo, cell, answer_lon, answer_lat, score, chance, error),
    )
    conn.execute(ANALYZE_ANSWERS)  # the planner would loop over rows that it takes for few
    measure(conn, name)
