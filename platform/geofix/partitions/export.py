"""The classes of a stored partition as a map file: GeoJSON or GeoPackage, with licences and attribution."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shapely

from geofix.database.engine import Connection
from geofix.database.queries import partitions as queries
from geofix.errors import UsageError

SUFFIXES = {".geojson": "GeoJSON", ".json": "GeoJSON", ".gpkg": "GPKG"}


def export_partition(conn: Connection, name: str, file: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Write one feature per class: its polygon with class, token, level, photos, parent and mean position.

    The file appears whole or not at all. Classes without a polygon get none.

    Args:
        conn: An open connection; the reader's is enough.
        name: Name of the partition.
        file: Suffix .geojson, .json or .gpkg.
        overwrite: Replace the file.

    Raises:
        NotFoundError: No such partition.
        UsageError: Unknown suffix, the file exists, or its folder does not.
    """
    driver = SUFFIXES.get(file.suffix.lower())
    if driver is None:
        raise UsageError(f"{file.name}: no map format has this suffix.", hint=f"Use {', '.join(SUFFIXES)}.")
    if file.exists() and not overwrite:
        raise UsageError(f"{file} exists.", hint="Name another file or give --overwrite.")
    if not file.parent.is_dir():
        raise UsageError(f"There is no folder {file.parent}.", hint="Create it, or name another file.")
    queries.find_partition(conn, name)
    rows = queries.map_rows(conn, name)
    sources = queries.licences(conn, name)
    with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
        work = Path(folder) / file.name
        if driver == "GPKG":
            _write_geopackage(rows, sources, name, work)
        else:
            with work.open("w", encoding="utf-8") as stream:
                stream.writelines(_geojson(rows, sources, name))
        size = work.stat().st_size
        work.replace(file)
    return {"partition": name, "file": str(file), "format": driver, "classes": len(rows), "bytes": size}


def _shape(row: dict[str, Any]) -> Any:
    return None if row["geom"] is None else shapely.set_srid(shapely.from_wkb(bytes(row["geom"])), 0)


def _geojson(rows: list[dict[str, Any]], sources: list[dict[str, Any]], name: str) -> Iterator[str]:
    head = json.dumps({"partition": name, "attribution": sources}, ensure_ascii=False)[1:-1]
    yield f'{{"type": "FeatureCollection",\n{head},\n"features": ['
    for number, row in enumerate(rows):
        shape = _shape(row)
        drawn = "null" if shape is None else shapely.to_geojson(shape)
        properties = json.dumps({k: v for k, v in row.items() if k != "geom"}, ensure_ascii=False)
        comma = ",\n" if number else "\n"
        yield f'{comma}{{"type": "Feature", "geometry": {drawn}, "properties": {properties}}}'
    yield "\n]}\n"


def _write_geopackage(
    rows: list[dict[str, Any]], sources: list[dict[str, Any]], name: str, file: Path
) -> None:
    import geopandas as gpd

    plain = [{k: _text(v) for k, v in row.items() if k != "geom"} for row in rows]
    frame = gpd.GeoDataFrame(plain, geometry=[_shape(row) for row in rows], crs="EPSG:4326")
    # A column without any value has no type that a GeoPackage knows.
    frame = frame.dropna(axis="columns", how="all")
    attribution = "; ".join(
        ", ".join(str(s[k]) for k in ("name", "licence", "attribution") if s[k]) for s in sources
    )
    frame.to_file(
        file,
        driver="GPKG",
        layer=name,
        engine="pyogrio",
        layer_metadata={"ATTRIBUTION": attribution} if attribution else None,
    )


def _text(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value
