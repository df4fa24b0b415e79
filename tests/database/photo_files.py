"""Photos on disk, regions in the database, and what an ingest left: for the tests of photo ingest."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import shapely
from PIL import Image

from geofix.database.engine import Connection
from geofix.ingest.photos import ingest_photos


def jpeg(
    path: Path,
    lat: float | None = None,
    lon: float | None = None,
    *,
    seed: int | None = None,
    gps: dict[int, object] | None = None,
) -> Path:
    """A small JPEG with pixels of its own unless `seed` is given, and EXIF GPS when a position is."""
    rng = np.random.default_rng(zlib.crc32(str(path).encode()) if seed is None else seed)
    image = Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8))
    exif = Image.Exif()
    if lat is not None and lon is not None:
        place = {
            1: "S" if lat < 0 else "N",
            2: (abs(lat), 0, 0),
            3: "W" if lon < 0 else "E",
            4: (abs(lon), 0, 0),
        }
        exif.get_ifd(0x8825).update({**place, **(gps or {})})
        exif.get_ifd(0x8769)[0x9003] = "2020:05:06 07:08:09"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "JPEG", exif=exif)
    return path


def rows(conn: Connection, query: str, *params: object) -> list[tuple]:
    return conn.execute(query, params).fetchall()


def rejects(conn: Connection) -> dict[str, str]:
    return dict(rows(conn, "SELECT source_key, reason FROM reject WHERE kind = 'photo'"))


def bomb(path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


def square(west: float, south: float, east: float, north: float) -> shapely.MultiPolygon:
    return shapely.MultiPolygon([shapely.box(west, south, east, north)])


def add_region(conn: Connection, level: str, code: str, geom: shapely.Geometry, area_km2: float = 1.0) -> int:
    conn.execute("INSERT INTO dataset (name, kind) VALUES ('regions', 'regions') ON CONFLICT DO NOTHING")
    (region_id,) = conn.execute(
        "INSERT INTO region (dataset_id, level, code, name, area_km2, geom)"
        " SELECT dataset_id, %s, %s, %s, %s,ST_Multi(ST_SetSRID(%s::geometry, 4326))"
        " FROM dataset WHERE name = 'regions' RETURNING region_id",
        (level, code, code, area_km2, shapely.to_wkb(geom)),
    ).fetchone()
    conn.execute(
        "INSERT INTO region_part (region_id, level, geom)"
        " SELECT region_id, level, d.geom"
        " FROM region, ST_Dump(region.geom) s, ST_Subdivide(s.geom, 128) d(geom) WHERE region_id = %s",
        (region_id,),
    )
    return region_id


def points(conn: Connection, *places: tuple[float, float], dataset: str = "d", tmp: Path) -> None:
    path = tmp / f"{dataset}.csv"
    path.write_text("id,lon,lat\n" + "".join(f"{i},{lon},{lat}\n" for i, (lon, lat) in enumerate(places)))
    ingest_photos(conn, path, dataset=dataset, positions_only=True, region_levels=[])


def tuple_of(row: tuple) -> tuple:
    return tuple(json.dumps(value) if isinstance(value, dict) else value for value in row)
