"""A snapshot on disk with photos of plain colours and imagery whose colours say where a pixel lies."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image
from pyproj import Transformer
from raster_files import centred, ramp, write

from geofix.imagery.raster import describe_raster
from geofix.imagery.transforms import InputTransform
from geofix.snapshots.format import AERIAL_SCHEMA, TILE_SCHEMA, write_snapshot
from geofix.snapshots.reader import Snapshot, load_snapshot
from geofix.spatial import s2
from geofix.spatial.covering import cells_in

LON, LAT, CRS = 9.0, 50.0, "EPSG:25832"  # the zone's central meridian: grid north is north
SIZE_M = 1024
DAYS = (date(2019, 5, 1), date(2022, 5, 1))
PLAIN = InputTransform((32, 32), 1.0, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def photo_table(folder: Path, count: int = 24, *, spread_m: float = 350.0, seed: int = 0) -> pd.DataFrame:
    """Photos of mixed sizes within a square of twice `spread_m`; photo i is (i, 2 i, 3 i) all over."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    x0, y0 = Transformer.from_crs("EPSG:4326", CRS, always_xy=True).transform(LON, LAT)
    east, north = rng.uniform(-spread_m, spread_m, (2, count))
    lon, lat = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True).transform(x0 + east, y0 + north)
    for i in range(count):
        size = ((40, 30), (30, 48), (64, 64))[i % 3]
        Image.new("RGB", size, (i, 2 * i, 3 * i)).save(folder / f"{i}.png")
    return pd.DataFrame(
        {
            "photo_id": np.arange(count) + 100,
            "dataset": "town",
            "lon": lon,
            "lat": lat,
            "s2_id": s2.cell_at(lon, lat),
            "uri": [str(folder / f"{i}.png") for i in range(count)],
            "split": ["val" if i % 6 == 5 else "train" for i in range(count)],
            "unseen": False,
            "split_group": np.arange(count) // 3,
            "block_s2": s2.parent(s2.cell_at(lon, lat), 13),
        }
    )


def imagery(folder: Path) -> tuple[pa.Table, pa.Table]:
    """Two days over the same ground: red is the column, green the row, blue says which day."""
    folder.mkdir(parents=True, exist_ok=True)
    rasters, tiles = [], []
    for number, day in enumerate(DAYS):
        bands = np.repeat(np.repeat(ramp(), 4, axis=1), 4, axis=2)
        bands[2] = 50 + 100 * number
        path = write(folder / f"{number}.tif", bands, CRS, centred(CRS, LON, LAT, 1.0, SIZE_M))
        info = describe_raster(path)
        reading = json.dumps(info.source.to_reading())
        west, south, east, north = info.footprint.bounds
        place = (west, south, east, north)
        rasters.append((number, str(path), "raster", CRS, reading, "ab" * 32, day, "ortho", *place))
        tiles += [(c, 16, 154.0, day, "ortho", [number]) for c in cells_in(info.footprint, 16).tolist()]
    tiles.sort(key=lambda tile: (tile[0], tile[3]))
    return _table(rasters, AERIAL_SCHEMA), _table(tiles, TILE_SCHEMA)


def _table(rows: list[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.Table.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
    )


def snapshot(folder: Path, *, aerial: bool = True, **options: float) -> Snapshot:
    """Photos, and with `aerial` imagery, as a snapshot directory."""
    photos = photo_table(folder / "photos", **options)  # type: ignore[arg-type]
    found = imagery(folder / "imagery") if aerial else None
    write_snapshot(
        folder / "snapshot",
        photos,
        config={},
        sources={"town": {"licence": "CC0-1.0"}},
        aerial=None if found is None else (found[0], [found[1]]),
    )
    return load_snapshot(folder / "snapshot")


def colour_at(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Red and green, 0..1, that the imagery has at positions."""
    forward = Transformer.from_crs("EPSG:4326", CRS, always_xy=True)
    x0, y0 = forward.transform(LON, LAT)
    x, y = forward.transform(lon, lat)
    return np.stack([x - x0 + SIZE_M / 2, y0 - y + SIZE_M / 2], axis=-1) / SIZE_M * 256 / 255
