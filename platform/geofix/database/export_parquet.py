"""Write an analyst's answer as Parquet: typed columns, shapes as GeoParquet 1.0, attribution in its metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from pyproj import CRS

from geofix.database.sandbox import Answer, Column
from geofix.database.values import WGS84, as_text, shapes, srid
from geofix.errors import UsageError

ATTRIBUTION_KEY = b"geofix_attribution"

# PostgreSQL's type -> Arrow's; everything else is written as text.
TYPES: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "oid": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "numeric": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", tz="UTC"),
    "bytea": pa.binary(),
    "_int4": pa.list_(pa.int32()),
    "_int8": pa.list_(pa.int64()),
    "_float8": pa.list_(pa.float64()),
    "_text": pa.list_(pa.string()),
    "_date": pa.list_(pa.date32()),
}


def write_parquet(answer: Answer, file: Path) -> None:
    """Stream an answer into a Parquet file.

    Raises:
        UsageError: The shapes of one column have several spatial references.
    """
    writer: pq.ParquetWriter | None = None
    kinds = [pa.binary() if c.is_geometry else TYPES.get(c.type_name, pa.string()) for c in answer.columns]
    references: dict[str, int] = {}
    try:
        for batch in answer.batches():
            columns = list(zip(*batch, strict=True))
            arrays = [
                _shapes(c, values, references) if c.is_geometry else pa.array(_plain(kind, values), kind)
                for c, kind, values in zip(answer.columns, kinds, columns, strict=True)
            ]
            if writer is None:
                writer = pq.ParquetWriter(file, _schema(answer, kinds, references), compression="zstd")
            writer.write_table(pa.Table.from_arrays(arrays, schema=writer.schema))
        if writer is None:
            writer = pq.ParquetWriter(file, _schema(answer, kinds, references), compression="zstd")
    finally:
        if writer is not None:
            writer.close()


def _plain(kind: pa.DataType, values: Sequence[Any]) -> list[Any]:
    """Values as Arrow takes them for a type."""
    change: Callable[[Any], Any] | None = None
    if pa.types.is_string(kind):
        change = as_text
    elif any(isinstance(value, Decimal) for value in values):
        change = float
    return [value if value is None or change is None else change(value) for value in values]


def _shapes(column: Column, values: Sequence[Any], references: dict[str, int]) -> pa.Array:
    """Plain WKB; the column's spatial reference is taken from its first shapes and must stay."""
    found = shapes(values, column.name)
    if not shapely.is_missing(found).all():
        number = srid(found, column.name)
        if references.setdefault(column.name, number) != number:
            raise UsageError(
                f"Column {column.name} mixes EPSG:{references[column.name]} and EPSG:{number}.",
                hint=f"Ask for ST_Transform({column.name}, {WGS84}).",
            )
    return pa.array(shapely.to_wkb(found, include_srid=False), pa.binary())


def _schema(answer: Answer, kinds: Sequence[pa.DataType], references: dict[str, int]) -> pa.Schema:
    records = [item.as_record() for item in answer.attribution]
    metadata = {ATTRIBUTION_KEY: json.dumps(records, ensure_ascii=False).encode()}
    placed = [column.name for column in answer.columns if column.is_geometry]
    if placed:
        metadata[b"geo"] = json.dumps(
            {
                "version": "1.0.0",
                "primary_column": placed[0],
                "columns": {name: _geometry(references.get(name, WGS84)) for name in placed},
            }
        ).encode()
    fields = [pa.field(c.name, kind) for c, kind in zip(answer.columns, kinds, strict=True)]
    return pa.schema(fields, metadata=metadata)


def _geometry(number: int) -> dict[str, Any]:
    """GeoParquet's entry of a column; whatever the reference says, the order is longitude, latitude."""
    crs = json.loads(CRS.from_epsg(number).to_json())
    return {"encoding": "WKB", "geometry_types": [], "crs": crs}
