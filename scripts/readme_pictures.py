"""Make docs/images/world.jpg from a demo home: GEOFIX_HOME=... python scripts/readme_pictures.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from geofix.database.engine import connect
from geofix.database.queries.reports import tiles
from geofix.imagery.photo import decode_photo
from geofix.imagery.raster import read_square
from geofix.ingest.aerial import raster_sources
from geofix.settings import get_settings
from geofix.spatial import s2

COLUMNS, ROWS, SIDE = 10, 4, 96


def main(out: Path) -> None:
    """Write world.jpg."""
    home = get_settings().home_dir
    photos = sorted((home / "worlds" / "demo-0" / "photos").rglob("*.jpg"))[: COLUMNS * ROWS]
    rows = [
        strip([decode_photo(path) for path in photos[i : i + COLUMNS]], 72)
        for i in range(0, len(photos), COLUMNS)
    ]
    with connect("reader") as conn:
        sources = raster_sources(conn, source="demo-demo-0-aerial")
        full = [row for row in tiles(conn, "demo-demo-0-aerial") if row[1] > 0.99]
    chosen = [full[i] for i in np.linspace(0, len(full) - 1, COLUMNS).astype(int)]
    lon, lat = s2.center(np.array([row[0] for row in chosen], np.int64))
    cut = [
        read_square([sources[i] for i in row[3]], x, y, size_px=SIDE)[0]
        for row, x, y in zip(chosen, lon, lat, strict=True)
    ]
    Image.fromarray(np.concatenate([*rows, strip(cut, SIDE)])).save(out / "world.jpg", quality=88)


def strip(pictures: list[np.ndarray], height: int) -> np.ndarray:
    """Pictures side by side, (height, COLUMNS * SIDE, 3)."""
    return np.concatenate([np.asarray(Image.fromarray(p).resize((SIDE, height))) for p in pictures], axis=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
