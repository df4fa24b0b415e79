"""Positions, countries and photos for the benchmarks of regions and accuracy: real if there, else made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geofix.database.bulk import copy_rows
from geofix.database.queries import photos, regions
from geofix.ingest.regions import ingest_regions
from geofix.spatial import s2

Floats = NDArray[np.float64]
COUNTRIES = "ne_10m_admin_0_world.geojson.gz"
PLACE_STAGE = """
CREATE TEMP TABLE place_stage (
  key int8 NOT NULL, s2_id int8 NOT NULL, lon float8 NOT NULL, lat float8 NOT NULL) ON COMMIT DROP
"""
PHOTOS = """
INSERT INTO photo_record (dataset_id, source_key, s2_id, geom)
SELECT %(dataset)s, 'photo ' || key, s2_id, ST_SetSRID(ST_MakePoint(lon, lat), 4326)
FROM place_stage ORDER BY key
"""


def positions(data: Path, count: int) -> tuple[Floats, Floats, str]:
    """Longitudes and latitudes, and where they come from.

    Real photo positions first, then real places, in a fixed random order; without the shared data, points
    around 2,000 made towns.
    """
    rng = np.random.default_rng(7)
    files = [data / "points" / name for name in ("photo_points.parquet", "places_1M.parquet")]
    if all(file.exists() for file in files):
        frames = [pd.read_parquet(file, columns=["lon_e6", "lat_e6"]) for file in files]
        mixed = pd.concat([frame.sample(frac=1.0, random_state=7) for frame in frames])
        if count <= len(mixed):
            taken = mixed.iloc[:count].sample(frac=1.0, random_state=8)
            real = min(count, len(frames[0]))
            told = f"{real:,} real photo positions and {count - real:,} real places"
            return taken["lon_e6"].to_numpy() / 1e6, taken["lat_e6"].to_numpy() / 1e6, told
    towns = 2_000
    lon0, lat0 = rng.uniform(-175, 175, towns), np.degrees(np.arcsin(rng.uniform(-0.8, 0.9, towns)))
    town = rng.integers(0, towns, count)
    lon = np.clip(lon0[town] + rng.normal(0, 0.2, count), -180, 180)
    return lon, lat0[town] + rng.normal(0, 0.2, count), f"{count:,} made points around {towns:,} towns"


def countries(conn: Any, data: Path) -> str:
    """Load countries through the product; says which."""
    if (data / "boundaries" / COUNTRIES).exists():
        found = ingest_regions(
            conn,
            data / "boundaries" / COUNTRIES,
            level="country",
            code_field="iso_a3,adm0_a3",
            name_field="name",
            dataset="countries",
        )
        told = f"{found.loaded} countries of Natural Earth at 1:10 million"
    else:
        told = _made_countries(conn)
    conn.commit()
    row = conn.execute("SELECT sum(ST_NPoints(geom)) FROM region").fetchone()
    return f"{told} ({row[0]:,} vertices)"


def _made_countries(conn: Any) -> str:
    """A board of 12 x 8 countries with crooked borders, sea between every second column."""
    dataset = photos.ensure_dataset(conn, "countries", licence=None, attribution=None, source_uri=None)[0]
    conn.execute("UPDATE dataset SET kind = 'regions' WHERE dataset_id = %s", (dataset,))
    rows = []
    for i in range(12):
        for j in range(8):
            west, south = -175.0 + 29 * i, -60.0 + 17 * j
            box = shapely.segmentize(shapely.box(west, south, west + (29, 25)[i % 2], south + 17), 0.05)
            shape = shapely.transform(box, _bent)
            ewkb = shapely.to_wkb(shapely.set_srid(shapely.MultiPolygon([shape]), 4326), include_srid=True)
            rows.append((len(rows), f"{chr(65 + i)}{chr(65 + j)}", f"Land {i}.{j}", None, ewkb))
    regions.merge_regions(conn, dataset, "country", rows)
    return f"{len(rows)} made countries"


def _bent(points: Floats) -> Floats:
    x, y = points.T
    bend = [0.2 * np.sin(3 * v) + 0.05 * np.sin(17 * v) + 0.01 * np.sin(97 * v) for v in (y, x)]
    return np.column_stack([x + bend[0], y + bend[1]])


def photo_rows(conn: Any, lon: Floats, lat: Floats) -> int:
    """Photos without files at these positions in one data set; returns its id. No region is given yet."""
    dataset = photos.ensure_dataset(
        conn, "photos", licence=None, attribution=None, source_uri="for a benchmark"
    )[0]
    conn.execute(PLACE_STAGE)
    columns = {"key": "int8", "s2_id": "int8", "lon": "float8", "lat": "float8"}
    arrays = (np.arange(len(lon)), s2.cell_at(lon, lat), lon, lat)
    copy_rows(conn, "place_stage", columns, zip(*(array.tolist() for array in arrays), strict=True))
    conn.execute(PHOTOS, {"dataset": dataset})
    conn.commit()
    conn.execute("ANALYZE photo_record")
    conn.commit()
    return dataset
