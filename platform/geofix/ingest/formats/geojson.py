"""Point features: GeoJSON, GeoPackage or any other file OGR reads, streamed by Arrow batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyogrio
import shapely
from pyogrio.raw import open_arrow
from pyproj import CRS, Transformer

from geofix.errors import BadInputError
from geofix.ingest.formats.base import PhotoRow, photo_row, resolve_columns

BATCH_ROWS = 5_000
_LAT, _LON = "geofix:lat", "geofix:lon"


def read(
    path: Path, *, columns: Mapping[str, str] | None = None, need: Iterable[str] = ("lat", "lon")
) -> Iterator[PhotoRow]:
    """Yield one row per point feature; position from the geometry, everything else from the properties.

    Other coordinate systems are turned to EPSG:4326 (error of a datum shift without grids: up to a few
    metres). Features that are no points carry a `problem`.

    Raises:
        BadInputError: Not readable by OGR, or columns missing.
    """
    try:
        with (
            warnings.catch_warnings(),
            open_arrow(path, batch_size=BATCH_ROWS, use_pyarrow=True) as (
                meta,
                reader,
            ),
        ):
            warnings.simplefilter("ignore")
            geometry = meta["geometry_name"] or "wkb_geometry"
            names = [str(name) for name in meta["fields"]]
            mapping = resolve_columns(
                [*names, _LAT, _LON],
                {**(columns or {}), "lat": _LAT, "lon": _LON},
                where=str(path),
                need=need,
            )
            transformer = _to_wgs84(meta["crs"])
            line = 0
            for batch in reader:
                for record in _records(batch, names, geometry, transformer):
                    line += 1
                    problem = record.pop("problem", None)
                    row = photo_row(record, mapping, line)
                    yield row if problem is None else PhotoRow(line, row.image_path, problem=problem)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pa.ArrowException) as error:
        raise BadInputError(
            f"{path} is not readable as GeoJSON: {error}.", hint="Check it with ogrinfo."
        ) from error


def _to_wgs84(crs: str | None) -> Transformer | None:
    if not crs:
        return None
    source = CRS.from_user_input(crs)
    if source.equals(CRS.from_epsg(4326), ignore_axis_order=True) or source.to_authority() == (
        "OGC",
        "CRS84",
    ):
        return None
    return Transformer.from_crs(source, 4326, always_xy=True)


def _records(
    batch: pa.RecordBatch, names: list[str], geometry: str, transformer: Transformer | None
) -> Iterator[dict[str, Any]]:
    shapes = shapely.from_wkb(batch.column(geometry).to_numpy(zero_copy_only=False), on_invalid="ignore")
    kinds = shapely.get_type_id(shapes)
    lon, lat = shapely.get_x(shapes), shapely.get_y(shapes)
    if transformer is not None:
        lon, lat = transformer.transform(lon, lat)
    properties = {name: batch.column(name).to_pylist() for name in names}
    for i, kind in enumerate(kinds.tolist()):
        record: dict[str, Any] = {name: values[i] for name, values in properties.items()}
        record[_LON], record[_LAT] = float(lon[i]), float(lat[i])  # NaN for an empty or absent point
        if kind not in (-1, 0):
            record["problem"] = ("bad_geometry", f"the feature is a {shapes[i].geom_type}, not a point")
        yield record
