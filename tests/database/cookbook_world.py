"""A small world for the cookbook: two countries, six towns, loaded and judged by the product itself."""

from __future__ import annotations

import csv
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from PIL import Image
from psycopg.types.json import Jsonb
from rasterio.transform import from_origin

from geofix.codes.build import build_code_set
from geofix.codes.index import build_index, recall_with_photos
from geofix.codes.means import cell_means
from geofix.codes.refresh import refresh_region
from geofix.database.engine import Connection, connect
from geofix.database.queries import jobs
from geofix.database.queries.cells import refresh_cells
from geofix.database.queries.codes import find_code_set
from geofix.database.queries.embed_work import Work, work_pages
from geofix.database.queries.models import (
    ModelRow,
    add_embeddings,
    find_model,
    read_split_embeddings,
)
from geofix.database.queries.prototypes import store_prototypes
from geofix.database.queries.snapshots import snapshot_photos
from geofix.evaluation.service import evaluate
from geofix.ingest.aerial import ingest_aerial
from geofix.ingest.aerial_tiles import register_tiles
from geofix.ingest.photos import ingest_photos
from geofix.ingest.regions import ingest_regions
from geofix.localize.calibrate import calibrate_code_set
from geofix.snapshots.build import build_snapshot, stored_snapshot
from geofix.spatial import s2
from helpers import add_model

D = 24
COUNTRIES = {"CHE": ("Switzerland", 47.40, 47.56), "DEU": ("Germany", 47.56, 47.70)}
TOWNS = [(lon, lat) for lat in (47.50, 47.60) for lon in (7.45, 7.55, 7.65)]
SEQUENCES, PHOTOS = 4, 10


def fill(folder: Path) -> None:
    """Load, embed, build and evaluate in the database that the settings name."""
    with connect() as conn:
        _regions(conn, folder)
        _photos(conn, folder)
        _aerial(conn, folder)
        add_model(conn, "mnv2", D)
        model = find_model(conn, "mnv2")
        _embed(conn, model)
        snapshot = folder / "snapshot"
        build_snapshot(conn, ["streets"], snapshot, test=0.3, val=0.2, seed=1)
        frozen = stored_snapshot(conn, snapshot).snapshot_id
        _prototypes(conn, model, frozen)
        for name, recipe, of in (
            ("streets-l16", "cellmean", frozen),
            ("streets-aerial", "aerial", None),
            ("streets-hybrid", "hybrid", frozen),
        ):
            build_code_set(
                conn, name=name, model=model, recipe=recipe, level=16, snapshot_id=of, upsample="bilinear"
            )
        calibrate_code_set(conn, find_code_set(conn, "streets-l16"), frozen)
        build_index(conn, find_code_set(conn, "streets-l16"), m=8, ef_construction=32, parallel=0)
    with connect() as conn:
        refresh_region(conn, "streets-hybrid", shapely.to_wkb(_around(TOWNS[0]), include_srid=True))
    with connect() as conn:
        recall_with_photos(conn, find_code_set(conn, "streets-l16"), limit=20)
        shared: dict[str, Any] = {"snapshot": snapshot, "split": "test_seen", "k": 20}
        evaluate(conn, localizer="cellmean", code_set="streets-l16", name="streets-cellmean", **shared)
        evaluate(conn, localizer="knn", model="mnv2", name="streets-knn", **shared)
        for level in (13, 16):
            refresh_cells(conn, level)
        _jobs(conn)


def _regions(conn: Connection, folder: Path) -> None:
    for level in ("country", "admin1"):
        features = []
        for code, (name, south, north) in COUNTRIES.items():
            for part, (west, east) in {"W": (7.40, 7.60), "E": (7.60, 7.80)}.items():
                properties = {"code": code if level == "country" else f"{code}-{part}", "name": name}
                shape = shapely.box(west, south, east, north)
                features.append(
                    {"type": "Feature", "properties": properties, "geometry": shapely.geometry.mapping(shape)}
                )
        path = folder / f"{level}.geojson"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        ingest_regions(
            conn, path, level=level, code_field="code", name_field="name", dataset=level, licence="CC0-1.0"
        )


def _photos(conn: Connection, folder: Path) -> None:
    """Tiny JPEGs on streets 250 m long, each photographed by several sequences; two rows are bad."""
    root = folder / "photos"
    rng = np.random.default_rng(3)
    rows = []
    for t, (town_lon, town_lat) in enumerate(TOWNS):
        for s in range(SEQUENCES):
            start = datetime(2018 + s, 3 * s + 2, 10, 9, tzinfo=UTC)
            (root / f"town{t}" / f"s{s}").mkdir(parents=True)
            for i in range(PHOTOS):
                key = f"town{t}/s{s}/{i:02d}.jpg"
                Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(root / key)
                rows.append(
                    {
                        "image_path": key,
                        "lon": town_lon + (25 * i + rng.normal(0, 3)) / 75_000,
                        "lat": town_lat + (6 * s + rng.normal(0, 3)) / 111_000,
                        "captured_at": (start + timedelta(seconds=20 * i)).isoformat(),
                        "sequence": f"town{t}-s{s}",
                        "heading_deg": 90,
                        "gps_accuracy_m": 400 if (t, s) == (0, 0) else 8,
                        "author": f"walker {s}",
                    }
                )
    bad = {"captured_at": "2020-01-01", "sequence": "bad"}
    rows.append({**bad, "image_path": "town0/s0/00.jpg", "lon": 7.45, "lat": 47.5})
    rows.append({**bad, "image_path": "town9/lost.jpg", "lon": 7.5, "lat": 47.5})
    metadata = root / "metadata.csv"
    with metadata.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    ingest_photos(
        conn,
        root,
        dataset="streets",
        metadata=metadata,
        licence="CC-BY-4.0",
        attribution="The walkers",
        workers=1,
    )


def _aerial(conn: Connection, folder: Path) -> None:
    """Orthophotos of two of the towns, of two dates."""
    for t, day in ((0, date(2019, 6, 1)), (4, date(2022, 6, 1))):
        lon, lat = TOWNS[t]
        path = folder / f"ortho{t}.tif"
        size, pixel = 128, 1e-4
        pixels = np.random.default_rng(t).integers(1, 255, (3, size, size), dtype=np.uint8)
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=size,
            height=size,
            count=3,
            dtype="uint8",
            crs="EPSG:4326",
            transform=from_origin(lon - size * pixel / 2, lat + size * pixel / 2, pixel, pixel),
        ) as raster:
            raster.write(pixels)
        ingest_aerial(conn, [path], source="ortho", captured_at=day, licence="CC0-1.0")
    register_tiles(conn, source="ortho", level=16)


def _embed(conn: Connection, model: ModelRow) -> None:
    """Embeddings that say where a photo is within some 100 m, with noise: random Fourier features."""
    rng = np.random.default_rng(8)
    frequency, phase = rng.normal(0, 1 / 150, (2, D)), rng.uniform(0, 2 * np.pi, D)

    def unit(lon: Any, lat: Any, noise: float) -> Any:
        metres = np.column_stack([np.asarray(lon) * 75_000, np.asarray(lat) * 111_000])
        vectors = np.cos(metres @ frequency + phase) + rng.normal(0, noise, (len(metres), D))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    photos = conn.execute("SELECT photo_id, ST_X(geom), ST_Y(geom) FROM photo_record ORDER BY 1").fetchall()
    vectors = unit([p[1] for p in photos], [p[2] for p in photos], 0.7)
    add_embeddings(conn, "photo_embedding", model.model_id, zip((p[0] for p in photos), vectors, strict=True))
    tiles = [tile for page in work_pages(conn, Work(model.model_id, "aerial")) for tile in page]
    vectors = unit(*s2.center(np.array([tile[1] for tile in tiles])), 0.4)
    add_embeddings(
        conn, "aerial_embedding", model.model_id, zip((tile[0] for tile in tiles), vectors, strict=True)
    )


def _prototypes(conn: Connection, model: ModelRow, snapshot_id: int) -> None:
    """What training would leave: near the means of the training photos, in all towns but the first."""
    photo_ids, vectors = read_split_embeddings(conn, model, snapshot_id, ["train"])
    photos = snapshot_photos(conn, snapshot_id, ["train"]).set_index("photo_id").loc[photo_ids]
    ids, means, counts = cell_means(vectors, photos.s2_id.to_numpy(np.int64), 15)
    means = means + np.random.default_rng(9).normal(0, 0.03, means.shape)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    keep = ~shapely.intersects_xy(_around(TOWNS[0]), *s2.center(ids))
    store_prototypes(conn, model.model_id, ids[keep], means[keep], counts[keep].astype(np.int32))


def _around(town: tuple[float, float]) -> shapely.Polygon:
    """A town with its outskirts."""
    return shapely.set_srid(shapely.box(town[0] - 0.02, town[1] - 0.02, town[0] + 0.02, town[1] + 0.02), 4326)


def _jobs(conn: Connection) -> None:
    """One job that runs and one that waits."""
    for kind in ("embed", "evaluate"):
        values = {
            "job_id": None,
            "kind": kind,
            "queue": "cpu",
            "specification": Jsonb({"kind": kind}),
            "specification_version": 1,
            "idempotency_key": None,
            "parent_job_id": None,
            "depends_on": [],
            "max_attempts": 3,
            "is_container": False,
            "chunk": None,
            "size": None,
            "progress_total": None,
            "progress_unit": "photos",
            "result": None,
        }
        job_id = jobs.insert_job(conn, values)
        if kind == "embed" and job_id is not None:
            claimed = jobs.claim(conn, job_id, "cookbook", 600.0)
            assert claimed is not None
            progress = {"done": 120, "total": 240, "unit": "photos", "message": "embedding"}
            jobs.renew(conn, job_id, claimed.fencing_token, 600.0, progress)
