"""A small world in a database: three countries, photos, two evaluations, a code set, rejects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from pgvector.psycopg import register_vector
from PIL import Image

from geofix.codes.build import CellVectors, publish
from geofix.database.queries import evaluations, photos, regions, snapshots
from geofix.database.queries.models import find_model
from geofix.evaluation.protocols import EvaluationProtocol
from geofix.evaluation.run import measure
from geofix.partitions.adaptive import nested_partitions
from geofix.partitions.store import store_partitions
from geofix.spatial import s2
from geofix.spatial.distance import great_circle_m
from helpers import add_model, random_codes
from servers import Database

COUNTRIES = {"AR": ("Arland", 0.0, 60), "BE": ("Belmark", 2.0, 40), "CO": ("<b>Cosse & Co</b>", 4.0, 10)}
OUTSIDE = 5  # photos farther than 25 km from every country
PHOTO = """
INSERT INTO photo_record (dataset_id, sequence_id, source_key, uri, s2_id, captured_at, geom)
VALUES (%(dataset)s, %(sequence)s, %(key)s, %(uri)s, s2_cell_at(%(lon)s, %(lat)s, 30), '2024-05-01T10:00Z',
        ST_SetSRID(ST_MakePoint(%(lon)s, %(lat)s), 4326)) RETURNING photo_id
"""


@dataclass(frozen=True)
class World:
    """What was put in: photo ids (n,), country code or None of each, errors (n, 3) of both evaluations."""

    database: Database
    photo_ids: np.ndarray
    country: list[str | None]
    errors: dict[str, np.ndarray]


def fill(database: Database, folder: Path) -> World:
    rng = np.random.default_rng(3)
    with database.connect() as conn:
        register_vector(conn)
        source = photos.ensure_dataset(
            conn,
            "walks",
            licence="CC BY 4.0",
            attribution="A <script>alert(1)</script> walker",
            source_uri="here",
        )[0]
        borders = conn.execute(
            "INSERT INTO dataset (name, kind) VALUES ('borders', 'regions') RETURNING dataset_id"
        ).fetchone()[0]
        rows = []
        for order, (code, (name, west, _)) in enumerate(COUNTRIES.items()):
            shape = shapely.set_srid(shapely.MultiPolygon([shapely.box(west, 45, west + 1.8, 46.5)]), 4326)
            rows.append((order, code, name, None, shapely.to_wkb(shape, include_srid=True)))
        regions.merge_regions(conn, borders, "country", rows)
        ids, lonlat, country = add_photos(conn, source, rng, folder)
        photos.assign_regions(conn)
        add_tiles(conn, lonlat)
        conn.execute(
            "INSERT INTO reject (dataset_id, kind, source_key, reason, detail) VALUES"
            " (%(d)s, 'photo', 'a.jpg', 'no_gps', 'a.jpg has no position'),"
            " (%(d)s, 'photo', 'b.jpg', 'truncated', 'b.jpg ends too early')",
            {"d": source},
        )
        model = add_model(conn, "tiny", 8)
        snapshot = snapshots.store_snapshot(
            conn,
            uri=str(folder),
            sha256="ab" * 32,
            config={"datasets": ["walks"], "buffer_m": 200.0},
            counts={"train": len(ids) // 2},
            splits=[(int(i), "train" if k % 2 else "test_seen") for k, i in enumerate(ids)],
        )
        errors = {
            name: add_evaluation(conn, name, scale, model, snapshot, ids, lonlat, rng)
            for name, scale in (("first", 150.0), ("second", 400.0))
        }
        cells, vectors = random_codes(50, 8, level=13, bounds=(0.0, 45.0, 5.8, 46.5))
        bias, both = np.zeros(50, np.float32), np.ones(50, bool)
        publish(
            conn,
            "codes",
            find_model(conn, "tiny"),
            "hybrid",
            13,
            CellVectors(cells, vectors, bias, both, np.arange(50) % 2 == 0),
            snapshot_id=None,
        )
        half = nested_partitions("halves", lonlat[:, 0], lonlat[:, 1], tau_min=2, tau_max=(60, 15))
        store_partitions(conn, half, dataset_ids=[source])
        conn.commit()
    return World(database, ids, country, errors)


def add_photos(conn, dataset, rng, folder):
    """Photos of three countries and some far outside; two have pixels on disk, the third has lost them."""
    sequences = [
        conn.execute(
            "INSERT INTO sequence (dataset_id, key) VALUES (%s, %s) RETURNING sequence_id", (dataset, f"s{k}")
        ).fetchone()[0]
        for k in range(12)
    ]
    uris = []
    for k, colour in enumerate(((200, 60, 40), (40, 60, 200))):
        path = folder / f"photo{k}.jpg"
        Image.new("RGB", (96, 64), colour).save(path)
        uris.append(str(path))
    uris.append(str(folder / "lost.jpg"))
    places = [
        (west + rng.uniform(0.1, 1.7), rng.uniform(45.1, 46.4), code)
        for code, (_, west, n) in COUNTRIES.items()
        for _ in range(n)
    ]
    places += [(9.0 + 0.01 * k, 45.5, None) for k in range(OUTSIDE)]
    ids = [
        conn.execute(
            PHOTO,
            {
                "dataset": dataset,
                "sequence": sequences[k % 12],
                "key": f"p{k:03}.jpg",
                "uri": uris[k] if k < len(uris) else None,
                "lon": lon,
                "lat": lat,
            },
        ).fetchone()[0]
        for k, (lon, lat, _) in enumerate(places)
    ]
    lonlat = np.array([place[:2] for place in places])
    return np.array(ids), lonlat, [place[2] for place in places]


def add_tiles(conn, lonlat):
    source = conn.execute(
        "INSERT INTO dataset (name, kind, licence, attribution) VALUES ('ortho', 'aerial', 'CC0', 'Office')"
        " RETURNING dataset_id"
    ).fetchone()[0]
    cells = np.unique(s2.cell_at(lonlat[:20, 0], lonlat[:20, 1], 16))
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO aerial_tile (dataset_id, level, s2_id, captured_at, side_m, coverage,"
            " aerial_raster_ids) VALUES (%s, 16, %s, '2023-07-01', 154, 1, '{}')",
            [(source, int(cell)) for cell in cells],
        )


def add_evaluation(conn, name, scale, model, snapshot, ids, lonlat, rng):
    """Three answers per photo at exponential distances, none for the last photo. Errors (n, 3), else NaN."""
    protocol = EvaluationProtocol()
    evaluation_id = evaluations.insert_evaluation(
        conn,
        {
            "name": name,
            "localizer": "knn",
            "model_id": model,
            "code_set_id": None,
            "snapshot_id": snapshot,
            "split": "test_seen",
            "level": 13,
            "search_method": "exact",
            "region": None,
            "radius_km": protocol.radius_km,
            "comparison": protocol.comparison,
            "missing_policy": protocol.missing,
            "n": len(ids),
            "config": {"protocol": protocol.as_record()},
            "software_version": "0.1.0",
        },
        replace=False,
    )
    n = len(ids)
    evaluations.store_photos(conn, evaluation_id, ids, rng.uniform(5, 150, n), rng.integers(0, 9, n))
    away = rng.exponential(scale / 111_195, (n, 3))
    lat = lonlat[:, 1:] + away
    lon = np.broadcast_to(lonlat[:, :1], lat.shape).copy()
    error = great_circle_m(lonlat[:, :1], lonlat[:, 1:], lon, lat)
    cell = s2.cell_at(lon, lat, 13)
    cell[-1], error[-1] = 0, np.nan
    score = np.sort(rng.random((n, 3)))[:, ::-1]
    evaluations.store_predictions(
        conn, evaluations.prediction_rows(evaluation_id, ids, cell, lon, lat, score, None, error)
    )
    measure(conn, name)
    return error
