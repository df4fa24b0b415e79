"""Write an analyst's answer to a file or stream as CSV, GeoJSON or Parquet, with licences and attribution."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args

import shapely

from geofix.database.export_parquet import write_parquet
from geofix.database.queries.ownership import Licence
from geofix.database.sandbox import Answer
from geofix.database.values import WGS84, as_json, as_text, as_wkt, shapes, srid
from geofix.errors import UsageError

Format = Literal["csv", "geojson", "parquet"]
FORMATS: tuple[str, ...] = get_args(Format)
SIDECAR = ".attribution.txt"
SUFFIXES = {".csv": "csv", ".geojson": "geojson", ".json": "geojson", ".parquet": "parquet"}


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        file: The file.
        sidecar: Licences and attribution beside a CSV, which cannot hold them; None for other formats.
    """

    file: Path
    sidecar: Path | None
    format: str
    rows: int
    cut: bool
    bytes: int


def export(answer: Answer, file: Path, kind: Format, *, overwrite: bool = False) -> Export:
    """Stream an answer into a file that appears whole or not at all.

    Raises:
        UsageError: The file exists, its folder does not, or the answer does not fit the format.
    """
    if file.exists() and not overwrite:
        raise UsageError(f"{file} exists.", hint="Name another file or give --overwrite.")
    if not file.parent.is_dir():
        raise UsageError(f"There is no folder {file.parent}.", hint="Create it, or name another file.")
    sidecar = file.with_name(file.name + SIDECAR) if kind == "csv" else None
    with _beside(file) as work:
        if kind == "parquet":
            write_parquet(answer, work)
        else:
            with work.open("w", encoding="utf-8", newline="") as stream:
                write_text(answer, stream, kind)
        size = work.stat().st_size
        if sidecar is not None:
            sidecar.write_text(attribution_text(answer.attribution), encoding="utf-8")
    return Export(file, sidecar, kind, answer.rows, answer.cut, size)


def write_text(answer: Answer, stream: IO[str], kind: Format) -> None:
    """Stream an answer as CSV or GeoJSON.

    Raises:
        UsageError: GeoJSON needs a geometry in EPSG:4326 (RFC 7946) and there is none.
    """
    if kind == "csv":
        _write_csv(answer, stream)
    elif kind == "geojson":
        _write_geojson(answer, stream)
    else:
        raise UsageError("Parquet is no text.", hint="Give --out FILE.")


def attribution_text(licences: list[Licence]) -> str:
    """Licences and attribution as lines of text."""
    return "".join(f"{line}\n" for line in map(str, licences))


def text_batches(answer: Answer) -> Iterator[list[list[Any]]]:
    """Batches of rows with shapes as WKT and all other values as PostgreSQL gave them."""
    places = [i for i, column in enumerate(answer.columns) if column.is_geometry]
    for batch in answer.batches():
        rows = [list(row) for row in batch]
        for i in places:
            for row, text in zip(rows, as_wkt([r[i] for r in rows], answer.columns[i].name), strict=True):
                row[i] = text
        yield rows


def _write_csv(answer: Answer, stream: IO[str]) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([column.name for column in answer.columns])
    for rows in text_batches(answer):
        writer.writerows([[as_text(value) for value in row] for row in rows])


def _write_geojson(answer: Answer, stream: IO[str]) -> None:
    place = next((i for i, column in enumerate(answer.columns) if column.is_geometry), None)
    if place is None:
        raise UsageError(
            "GeoJSON needs a geometry column, and the answer has none.",
            hint="Add geom to the SELECT, or choose --format csv.",
        )
    head = json.dumps([item.as_record() for item in answer.attribution], ensure_ascii=False)
    stream.write(f'{{"type": "FeatureCollection",\n"attribution": {head},\n"features": [')
    first = True
    for batch in answer.batches():
        geometry = _geojson_shapes([row[place] for row in batch], answer.columns[place].name)
        others = _others(answer, batch, place)
        for shape, properties in zip(geometry, others, strict=True):
            text = json.dumps(properties, ensure_ascii=False)
            comma = "\n" if first else ",\n"
            stream.write(f'{comma}{{"type": "Feature", "geometry": {shape}, "properties": {text}}}')
            first = False
    stream.write("\n]")
    if answer.cut:
        stream.write(f',\n"cut_at_rows": {answer.rows}')
    stream.write("}\n")


def _geojson_shapes(values: list[str | None], column: str) -> list[str]:
    """GeoJSON geometries as text; empty shapes become null."""
    found = shapes(values, column)
    number = srid(found, column)
    if number != WGS84:
        raise UsageError(
            f"GeoJSON is in EPSG:{WGS84}, column {column} in EPSG:{number}.",
            hint=f"Ask for ST_Transform({column}, {WGS84}).",
        )
    found[shapely.is_empty(found)] = None
    return ["null" if text is None else str(text) for text in shapely.to_geojson(found)]


def _others(answer: Answer, batch: list[tuple[Any, ...]], place: int) -> Iterator[dict[str, Any]]:
    """Properties of the features: all columns but the geometry; further geometries as WKT."""
    texts = {
        i: as_wkt([row[i] for row in batch], column.name)
        for i, column in enumerate(answer.columns)
        if column.is_geometry and i != place
    }
    for n, row in enumerate(batch):
        yield {
            column.name: texts[i][n] if i in texts else as_json(row[i])
            for i, column in enumerate(answer.columns)
            if i != place
        }


@contextmanager
def _beside(file: Path) -> Iterator[Path]:
    """A new file in the same folder that takes the name when the block ends well, and goes when it does not."""
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    os.close(descriptor)
    work = Path(name)
    try:
        yield work
        mask = os.umask(0)
        os.umask(mask)
        work.chmod(0o666 & ~mask)
        work.replace(file)
    finally:
        work.unlink(missing_ok=True)
