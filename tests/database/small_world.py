"""Eight towns photographed along their streets, and embedded by a tiny seeded encoder."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio.transform import from_origin

from geofix.database import engine
from geofix.database.engine import Connection, connect
from geofix.settings import Settings, get_settings
from servers import Database

TOWNS = [(lon, lat) for lat in (47.50, 47.60) for lon in (7.45, 7.55, 7.65, 7.75)]
SEQUENCES, PHOTOS = 3, 6
COUNTRIES = {"CHE": ("Switzerland", 47.40, 47.56), "DEU": ("Germany", 47.56, 47.70)}
LEVEL = 16
DIMENSION = 32


@dataclass(frozen=True)
class SmallWorld:
    """A filled database and the folder its pictures are in."""

    database: Database
    folder: Path

    @property
    def snapshot(self) -> Path:
        """Its snapshot."""
        return self.folder / "snapshot"

    def photo(self, town: int = 0, sequence: int = 0, number: int = 0) -> Path:
        """One of its photos."""
        return self.folder / "photos" / f"{town}-{sequence}" / f"{number}.jpg"


@contextmanager
def pointed_at(database: Database, home: Path) -> Iterator[pytest.MonkeyPatch]:
    """Product code uses this database and this home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(Settings.model_config, "env_file", None)
        patch.setenv("GEOFIX_HOME", str(home))
        patch.setenv("GEOFIX_WORKERS", "1")
        for role, variable in (("owner", "DATABASE"), ("writer", "WRITER"), ("reader", "READER")):
            patch.setenv(f"GEOFIX_{variable}_URL", database.url(role))  # type: ignore[arg-type]
        get_settings.cache_clear()
        try:
            yield patch
        finally:
            engine.dispose()
    get_settings.cache_clear()


def photos(root: Path, towns: int = len(TOWNS), *, seed: int = 0) -> Path:
    """Photos of streets 300 m long, each walked by several sequences, with a table of positions.

    The first sequence of the first town knows its position to 400 m only.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for t, (lon, lat) in enumerate(TOWNS[:towns]):
        # What the sequences of a place have in common: a mosaic of its own colours.
        mosaic = rng.integers(0, 200, (PHOTOS, 4, 4, 3))
        for s in range(SEQUENCES):
            start = datetime(2018 + s, 3 * s + 1, 10, 9, tzinfo=UTC)
            (root / f"{t}-{s}").mkdir(parents=True, exist_ok=True)
            for i in range(PHOTOS):
                key = f"{t}-{s}/{i}.jpg"
                pixels = mosaic[i].repeat(12, 0).repeat(12, 1) + rng.integers(0, 55, (48, 48, 3))
                exif = Image.Exif()
                exif[0x0131] = "secret-camera"
                Image.fromarray(pixels.astype(np.uint8)).save(root / key, exif=exif)
                rows.append(
                    {
                        "image_path": key,
                        "lon": lon + (60 * i + 5 * s) / 75_000,
                        "lat": lat + 6 * s / 111_000,
                        "captured_at": (start + timedelta(seconds=20 * i)).isoformat(),
                        "sequence": f"{t}-{s}",
                        "gps_accuracy_m": 400 if (t, s) == (0, 0) else 5,
                    }
                )
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


def countries(path: Path) -> Path:
    """Two countries, one above the other."""
    features = [
        {
            "type": "Feature",
            "properties": {"code": code, "name": name},
            "geometry": shapely.geometry.mapping(shapely.box(7.4, south, 7.8, north)),
        }
        for code, (name, south, north) in COUNTRIES.items()
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def orthophoto(path: Path, town: int = 0) -> Path:
    """Noise from above, some 700 m wide, around a town."""
    lon, lat = TOWNS[town]
    pixels = np.random.default_rng(town).integers(1, 255, (3, 64, 64), dtype=np.uint8)
    corner = from_origin(lon - 0.0032, lat + 0.0032, 1e-4, 1e-4)
    with rasterio.open(
        path, "w", "GTiff", 64, 64, 3, crs="EPSG:4326", transform=corner, dtype="uint8"
    ) as raster:
        raster.write(pixels)
    return path


def load(conn: Connection, folder: Path) -> None:
    """Regions, photos and one orthophoto with its tiles."""
    from geofix.ingest.aerial import ingest_aerial
    from geofix.ingest.aerial_tiles import register_tiles
    from geofix.ingest.photos import ingest_photos
    from geofix.ingest.regions import ingest_regions

    ingest_regions(
        conn,
        countries(folder / "countries.geojson"),
        level="country",
        code_field="code",
        name_field="name",
        dataset="countries",
    )
    root = photos(folder / "photos")
    ingest_photos(conn, root, dataset="streets", metadata=root / "metadata.csv", workers=1)
    ingest_aerial(conn, [orthophoto(folder / "ortho.tif")], source="ortho", captured_at=date(2021, 6, 1))
    register_tiles(conn, source="ortho", level=LEVEL)


def fill(folder: Path) -> None:
    """Load, embed, freeze, build code sets `means` (calibrated) and `air`."""
    from geofix.codes.build import build_code_set
    from geofix.codes.embed_store import embed_all
    from geofix.codes.register import register_model
    from geofix.database.queries.codes import find_code_set
    from geofix.localize.calibrate import calibrate_code_set
    from geofix.models.create import create_model
    from geofix.snapshots.build import build_snapshot, stored_snapshot

    create_model(folder / "tiny", trunk="mobilenetv3_small_050", size=64, dimension=DIMENSION, seed=3)
    with connect() as conn:
        load(conn, folder)
        model = register_model(conn, folder / "tiny", "tiny")
        embed_all(conn, model, "photos", workers=1)
        embed_all(conn, model, "aerial", workers=1)
        build_snapshot(conn, ["streets"], folder / "snapshot", test=0.3, val=0.2, seed=1)
        frozen = stored_snapshot(conn, folder / "snapshot").snapshot_id
        build_code_set(conn, name="means", model=model, recipe="cellmean", level=LEVEL, snapshot_id=frozen)
        build_code_set(conn, name="air", model=model, recipe="aerial", level=LEVEL)
        calibrate_code_set(conn, find_code_set(conn, "means"), frozen)
