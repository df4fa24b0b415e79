"""geofix ingest: load photos, aerial imagery and regions."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from geofix.cli.output import JsonOption, command, emit, say

app = typer.Typer(no_args_is_help=True)

LicenceOption = Annotated[str | None, typer.Option(help="Licence of the data set; carried into exports.")]
AttributionOption = Annotated[str | None, typer.Option(help="Whom to credit; carried into exports.")]


@app.command()
@command
def photos(
    path: Annotated[
        Path, typer.Argument(help="Folder of photos, or with --positions-only a table of positions.")
    ],
    dataset: Annotated[str, typer.Option(help="Name of the data set.")],
    metadata: Annotated[
        Path | None, typer.Option(help="CSV, Parquet, GeoJSON, GeoEstimation CSV or Mapillary JSON.")
    ] = None,
    metadata_format: Annotated[
        str | None, typer.Option("--format", help="Its format; default: by content.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(help="FIELD=COLUMN, for example lat=latitude,lon=longitude; repeatable."),
    ] = None,
    positions_only: Annotated[
        bool, typer.Option("--positions-only", help="Rows are photos without files.")
    ] = False,
    licence: LicenceOption = None,
    attribution: AttributionOption = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes for decoding; 0: one per core.")] = 0,
    json: JsonOption = False,
) -> None:
    """Load photos; bad ones land in the table `reject` with their reason, the rest is loaded.

    The exit code is 3 where all are bad.

    Example: geofix ingest photos photos/ --metadata photos/metadata.csv --dataset wuhan
    """
    from geofix.database.engine import connect
    from geofix.ingest.photos import ingest_photos

    with connect() as conn:
        result = ingest_photos(
            conn,
            path,
            dataset=dataset,
            metadata=metadata,
            metadata_format=metadata_format,
            licence=licence,
            attribution=attribution,
            columns=mapping(columns),
            positions_only=positions_only,
            workers=workers,
        )
    if result.rejected:
        say(f"{result.rejected:,} rejected; see SELECT source_key, reason, detail FROM reject.")
    emit(result, as_json=json)
    _require_any(path, result.loaded + result.updated + result.unchanged, result.reasons, "photo")


@app.command()
@command
def aerial(
    paths: Annotated[list[str], typer.Argument(help="Rasters, folders of rasters, or z/x/y folders.")],
    source: Annotated[str, typer.Option(help="Name of the aerial data set.")],
    captured_at: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Day of capture.")
    ] = None,
    extents: Annotated[Path | None, typer.Option(help="CSV that says where plain pictures lie.")] = None,
    crs: Annotated[str | None, typer.Option(help="CRS of rasters that name none.")] = None,
    tms: Annotated[bool, typer.Option("--tms", help="Rows of pyramids are counted from the south.")] = False,
    tiles_level: Annotated[int, typer.Option(help="S2 level of the tiles; -1 makes none.")] = 16,
    side_m: Annotated[float, typer.Option(help="Side of a tile in metres.")] = 154.0,
    min_coverage: Annotated[float, typer.Option(help="Least covered share of a tile.")] = 0.5,
    licence: LicenceOption = None,
    attribution: AttributionOption = None,
    json: JsonOption = False,
) -> None:
    """Load aerial rasters and give every cell they cover a tile; the exit code is 3 where all are bad.

    Example: geofix ingest aerial ortho/ --source ortho --captured-at 2020-06-01
    """
    from geofix.database.engine import connect
    from geofix.ingest.aerial import ingest_aerial
    from geofix.ingest.aerial_tiles import register_tiles

    with connect() as conn:
        result = ingest_aerial(
            conn,
            paths,
            source=source,
            captured_at=None if captured_at is None else captured_at.date(),
            licence=licence,
            attribution=attribution,
            extents=extents,
            crs=crs,
            tms=tms,
        )
        tiles = None
        if tiles_level >= 0:
            tiles = register_tiles(
                conn, source=source, level=tiles_level, side_m=side_m, min_coverage=min_coverage
            )
    if result.rejected:
        say(f"{result.rejected:,} rejected; see SELECT source_key, reason, detail FROM reject.")
    emit(
        {
            "rasters": result.rasters,
            "unchanged": result.unchanged,
            "rejected": result.rejected,
            "reasons": result.reasons,
            "tiles": tiles,
        },
        as_json=json,
    )
    _require_any(", ".join(paths), result.rasters + result.unchanged, result.reasons, "raster")


@app.command()
@command
def regions(
    path: Annotated[
        Path, typer.Argument(help="Any OGR file: GeoPackage, GeoJSON (also .gz), Shapefile, TopoJSON.")
    ],
    level: Annotated[str, typer.Option(help="country, admin1 or a name of your own.")],
    code_field: Annotated[
        str, typer.Option(help="Field with the code, or several: the first filled one counts.")
    ],
    name_field: Annotated[str, typer.Option(help="Field with the name.")],
    dataset: Annotated[str | None, typer.Option(help="Name of the data set; default: the file's.")] = None,
    layer: Annotated[
        str | None, typer.Option(help="Layer, where the file has several and none is called like the level.")
    ] = None,
    crs: Annotated[str | None, typer.Option(help="CRS of a file that names none.")] = None,
    licence: LicenceOption = None,
    attribution: AttributionOption = None,
    json: JsonOption = False,
) -> None:
    """Load named polygons; invalid ones are repaired and reported, and photos get their regions anew.

    Example: geofix ingest regions countries.geojson --level country --code-field iso_a3 --name-field name
    """
    from geofix.database.engine import connect
    from geofix.ingest.regions import ingest_regions

    with connect() as conn:
        result = ingest_regions(
            conn,
            path,
            level=level,
            code_field=code_field,
            name_field=name_field,
            dataset=dataset or path.name.split(".")[0],
            layer=layer,
            crs=crs,
            licence=licence,
            attribution=attribution,
        )
    emit(result, as_json=json)


def _require_any(path: Path | str, taken: int, reasons: dict[str, int], noun: str) -> None:
    """Go on where something could be used, or nothing was there to be refused.

    Raises:
        BadInputError: All that was found was rejected.
    """
    from geofix.errors import BadInputError

    if taken or not reasons:
        return
    told = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items(), key=lambda r: -r[1]))
    raise BadInputError(
        f"No {noun} of {path} could be used; all {sum(reasons.values()):,} were rejected ({told}).",
        hint="Each one's fault: geofix sql 'SELECT source_key, reason, detail FROM reject'.",
    )


def mapping(items: list[str] | None, *, commas: bool = True) -> dict[str, str] | None:
    """FIELD=COLUMN options as a mapping; `commas`: several may stand in one option, as in `lat=y,lon=x`.

    Raises:
        UsageError: One lacks its equals sign.
    """
    from geofix.errors import UsageError

    if commas:
        split = [(item, item.split(",")) for item in items or []]
        items = [one for item, parts in split for one in (parts if all("=" in p for p in parts) else [item])]
    pairs = [item.partition("=") for item in items or []]
    for (field, equals, column), item in zip(pairs, items or [], strict=True):
        if not (field and equals and column):
            raise UsageError(f"{item!r} is not FIELD=COLUMN.", hint="For example --columns lat=latitude.")
    return {field: column for field, _, column in pairs} or None
