"""Loading regions: named polygons from any OGR file, repaired, dissolved by code, in EPSG:4326."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError

from geofix.database.engine import Connection
from geofix.database.queries import regions as queries
from geofix.database.queries.aerial import Reject, add_rejects, ensure_source
from geofix.database.queries.photo_regions import reassign_changed
from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.imagery.footprints import keep_polygons, repair
from geofix.ingest.formats.base import printable
from geofix.log import get_logger, progress

# GeoJSON is WGS 84 by its standard, and TopoJSON carries the same longitudes and latitudes.
LONLAT_DRIVERS = frozenset({"GeoJSON", "GeoJSONSeq", "TopoJSON"})
NO_CODE = frozenset({"", "-99", "None", "nan"})
"""Values that stand for no code; Natural Earth writes -99."""
MAX_EDGE_M = 10_000.0
"""Edges in a projected CRS are cut to this length, to stay within 4 m of their line below 60 N."""
BATCH = 1000
_log = get_logger(__name__)


@dataclass(slots=True)
class RegionResult:
    """What an ingest did.

    Args:
        loaded: Regions (distinct codes) of the file that are in the database now.
        written: Those among them that are new or differ from before.
        repaired: Those whose polygons had to be repaired.
        rejected: Features in the rejects table.
        repairs: Code -> what was wrong.
        reasons: Reason of rejection -> how many.
    """

    loaded: int = 0
    written: int = 0
    repaired: int = 0
    rejected: int = 0
    repairs: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _File:
    """An OGR layer that was opened and found usable."""

    path: str
    layer: str | None
    features: int
    code_fields: tuple[str, ...]
    name_fields: tuple[str, ...]
    to_lonlat: Transformer | None


def ingest_regions(
    conn: Connection,
    path: str | Path,
    *,
    level: str,
    code_field: str,
    name_field: str,
    dataset: str,
    layer: str | None = None,
    crs: str | None = None,
    licence: str | None = None,
    attribution: str | None = None,
) -> RegionResult:
    """Load the polygons of a file as regions of one level.

    Loading again keeps region ids and changes only what differs; regions that are no longer in the file stay
    (several files may make up one data set). A code that exists at this level, from whatever data set, is
    replaced. Photos that may lie in another region now are assigned anew. All in the caller's transaction.

    Args:
        conn: An open connection; the caller commits.
        path: Any file OGR reads: GeoPackage, Shapefile, GeoJSON, TopoJSON, FlatGeobuf; also in .gz or .zip.
        level: ``country``, ``admin1`` or a name of one's own.
        code_field: Field that identifies a region; several with commas: the first that is filled counts.
        name_field: Field that names it; several with commas likewise.
        dataset: Name of the data set.
        layer: Layer of the file; None: the only one, or the one named like the level (``countries``).
        crs: CRS of a file that names none.
        licence: Licence of the boundaries; kept when None.
        attribution: Whom to credit; kept when None.

    Raises:
        NotFoundError: no such file.
        BadInputError: no layer of polygons, no CRS, unreadable.
        UsageError: a field or layer that does not exist, or the data set is of another kind.
    """
    if not level.strip():
        raise UsageError("The level of regions is empty.", hint="Say country, admin1 or a name of your own.")
    file = _open(Path(path), level, layer, code_field, name_field, crs)
    dataset_id = ensure_source(
        conn, dataset, "regions", licence=licence, attribution=attribution, source_uri=printable(str(path))
    )
    result = RegionResult()
    rejects: list[Reject] = []
    counts = queries.merge_regions(conn, dataset_id, level, _rows(file, Path(path).name, rejects, result))
    label = printable(Path(path).name)
    queries.clear_rejects(conn, dataset_id, f"{label}#")
    add_rejects(conn, dataset_id, "region", rejects)
    for reject in rejects:
        result.reasons[reject.reason] = result.reasons.get(reject.reason, 0) + 1
    result.loaded, result.repaired, result.written = counts.staged, counts.repaired, len(counts.written)
    result.rejected = len(rejects)
    if counts.written:
        reassign_changed(conn, level, counts.written)
    _log.info("regions", file=label, loaded=result.loaded, rejected=result.rejected)
    return result


def _ogr_path(path: Path) -> str:
    """The path as OGR wants it: through its own decompressors where packed."""
    if path.suffix.lower() == ".gz":
        return f"/vsigzip/{path.resolve()}"
    if path.suffix.lower() == ".zip":
        return f"/vsizip/{path.resolve()}"
    return str(path)


def _layer_of_level(path: Path, layers: list[str], level: str) -> str:
    """The only layer, or the one that bears the level's name, in the singular or the plural."""
    names = {level, f"{level}s", f"{level.removesuffix('y')}ies"}
    found = layers if len(layers) == 1 else [name for name in layers if name.lower() in names]
    if len(found) != 1:
        raise UsageError(
            f"{path} has several layers: {', '.join(layers)}.", hint="Name one of them with --layer."
        )
    return found[0]


def _open(
    path: Path, level: str, layer: str | None, code_field: str, name_field: str, crs: str | None
) -> _File:
    """Check that a file can be loaded before anything is written."""
    if not path.exists():
        raise NotFoundError(f"{path} does not exist.", hint="Name a GeoPackage, Shapefile or GeoJSON file.")
    name = _ogr_path(path)
    try:
        layers = [str(row[0]) for row in pyogrio.list_layers(name)]
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise BadInputError(f"{path}: not readable by OGR ({error}).", hint="Try ogrinfo.") from error
    if layer is None:
        layer = _layer_of_level(path, layers, level)
    if layer not in layers:
        raise UsageError(
            f"{path}: no layer {layer!r}; it has {', '.join(layers)}.", hint="Name one with --layer."
        )
    info = pyogrio.read_info(name, layer=layer, force_feature_count=True)
    fields = [str(f) for f in info["fields"]]
    wanted = [
        tuple(part.strip() for part in text.split(",") if part.strip()) for text in (code_field, name_field)
    ]
    unknown = [f for group in wanted for f in group if f not in fields]
    if unknown or not all(wanted):
        raise UsageError(f"{path}: no field {', '.join(unknown) or '(empty)'}; it has {', '.join(fields)}.")
    return _File(name, layer, int(info["features"]), wanted[0], wanted[1], _transformer(path, info, crs))


def _transformer(path: Path, info: dict[str, Any], given: str | None) -> Transformer | None:
    """Transformer to EPSG:4326, or None where the file is in it; x before y always."""
    name = info["crs"] or given
    if name is None:
        if info["driver"] in LONLAT_DRIVERS:
            return None
        raise BadInputError(
            f"{path}: the {info['driver']} file names no coordinate reference system (missing_crs).",
            hint="Name it with --crs EPSG:n, or put a .prj file beside it.",
        )
    try:
        crs = CRS.from_user_input(name)
        if crs.equals(CRS.from_epsg(4326), ignore_axis_order=True):
            return None
        return Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    except CRSError as error:
        raise BadInputError(f"{path}: CRS {name!r} is unknown ({error}).") from error


def _rows(
    file: _File, label: str, rejects: list[Reject], result: RegionResult
) -> Iterator[tuple[int, str, str, str | None, bytes]]:
    """Staging rows, feature by feature; what cannot be used goes to `rejects`."""
    columns = list(dict.fromkeys((*file.code_fields, *file.name_fields)))
    number = -1
    with (
        progress("regions", file.features, "features") as advance,
        pyogrio.open_arrow(
            file.path, layer=file.layer, columns=columns, batch_size=BATCH, use_pyarrow=True
        ) as (meta, reader),
    ):
        geometry = meta["geometry_name"] or "wkb_geometry"
        for batch in reader:
            for record in batch.to_pylist():
                number += 1
                advance(1)
                key = f"{printable(label)}#{number}"
                row = _row(file, number, key, record, record.get(geometry), rejects)
                if row is not None:
                    if row[3]:
                        result.repairs[row[1]] = row[3]
                    yield row


def _row(
    file: _File, number: int, key: str, record: dict[str, Any], wkb: bytes | None, rejects: list[Reject]
) -> tuple[int, str, str, str | None, bytes] | None:
    """The staging row of one feature, or None when it is rejected."""
    code, name = (_filled(record, fields) for fields in (file.code_fields, file.name_fields))
    shown = f"{key} ({name or code or 'unnamed'})"
    if not code:
        asked = {field: record[field] for field in file.code_fields}
        rejects.append(
            Reject(
                key, "no_code", f"{shown}: {asked}. Name a second field, as in --code-field iso_a3,adm0_a3."
            )
        )
        return None
    problem, polygons, why = _polygons(wkb, file.to_lonlat)
    if problem:
        rejects.append(Reject(key, problem, f"{shown}: {why}"))
        return None
    ewkb = shapely.to_wkb(shapely.set_srid(polygons, 4326), include_srid=True)
    return number, code, name or code, why, bytes(ewkb)


def _filled(record: dict[str, Any], fields: tuple[str, ...]) -> str:
    """The first field that holds something, as text; whole numbers without a decimal point."""
    for name in fields:
        value = record[name]
        if isinstance(value, float) and math.isfinite(value) and value == int(value):
            value = int(value)
        text = printable(str(value)).strip()
        if text not in NO_CODE:
            return text
    return ""


def _polygons(
    wkb: bytes | None, to_lonlat: Transformer | None
) -> tuple[str, shapely.MultiPolygon, str | None]:
    """Reason of rejection (empty: none), valid polygons in EPSG:4326, and what was wrong or repaired."""
    nothing = shapely.MultiPolygon()
    if wkb is None:
        return "empty_geometry", nothing, "the feature has no geometry"
    try:
        geometry = shapely.force_2d(shapely.from_wkb(wkb, on_invalid="fix"))
    except shapely.errors.ShapelyError as error:
        return "bad_geometry", nothing, str(error)
    if geometry is None or geometry.is_empty:
        return "empty_geometry", nothing, "the geometry is empty"
    kind = geometry.geom_type
    polygons = keep_polygons(geometry)
    if polygons.is_empty:
        return "not_polygon", nothing, f"the geometry is a {kind}"
    if not np.isfinite(shapely.get_coordinates(polygons)).all():
        return "bad_coordinates", nothing, "a coordinate is not finite"
    if to_lonlat is not None:
        polygons = _project(polygons, to_lonlat)
    west, south, east, north = polygons.bounds
    if not (-540 <= west <= east <= 540 and -90 - 1e-9 <= south <= north <= 90 + 1e-9):
        return (
            "outside_earth",
            nothing,
            f"bounds {west:.6g}, {south:.6g}, {east:.6g}, {north:.6g} are no degrees",
        )
    fixed, why = repair(polygons)
    if fixed.is_empty:
        return "empty_geometry", nothing, f"nothing is left after repair ({why})"
    return "", fixed, why


def _project(polygons: shapely.MultiPolygon, to_lonlat: Transformer) -> shapely.MultiPolygon:
    """To EPSG:4326, with long edges cut so that they stay on their line."""
    source = to_lonlat.source_crs
    if source is not None and source.is_projected:
        metres = source.axis_info[0].unit_conversion_factor or 1.0
        polygons = shapely.segmentize(polygons, MAX_EDGE_M / metres)

    def project(xy: Any) -> Any:
        return np.column_stack(to_lonlat.transform(xy[:, 0], xy[:, 1]))

    return shapely.transform(polygons, project)
