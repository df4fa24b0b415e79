"""geofix partitions: cut the earth into classes; build, load, list, show, export and drop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geofix.cli.output import JsonOption, command, emit, pairs, say, table

if TYPE_CHECKING:
    from geofix.partitions.partition import Partition

app = typer.Typer(no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the partition.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what has the name.")]
OutOption = Annotated[
    Path | None,
    typer.Option(help="Also write DIR/NAME as Parquet and JSON, for machines without the database."),
]


@app.command()
@command
def build(
    name: NameArgument,
    rule: Annotated[str, typer.Option(help="uniform, adaptive, combinatorial or administrative.")],
    snapshot: Annotated[
        Path | None, typer.Option(help="Snapshot directory whose training photos are used.")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option("--dataset", help="All photos of this data set; repeatable.")
    ] = None,
    level: Annotated[int | None, typer.Option(help="uniform: S2 level of the cells.")] = None,
    tau_min: Annotated[
        int | None,
        typer.Option(help="Classes with this many photos or fewer are dropped; adaptive 50, else 0."),
    ] = None,
    tau_max: Annotated[
        list[int] | None,
        typer.Option(help="adaptive: cells with more photos are split; repeatable, default 5000 2000 1000."),
    ] = None,
    max_level: Annotated[
        int | None, typer.Option(help="Finest level: adaptive 30, combinatorial (atoms) 17.")
    ] = None,
    classes: Annotated[int | None, typer.Option(help="combinatorial: about how many per set.")] = None,
    sets: Annotated[int, typer.Option(help="combinatorial: how many sets of classes.")] = 5,
    atom_photos: Annotated[
        int | None,
        typer.Option(help="combinatorial: most photos of an atom; default: about 8 atoms a class."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="combinatorial: merge by this model's photo embeddings too.")
    ] = None,
    region_level: Annotated[str, typer.Option(help="administrative: level of the regions.")] = "country",
    position: Annotated[
        str, typer.Option(help="Mean of a class's photos: sphere, or degrees as the published tables.")
    ] = "sphere",
    seed: Annotated[int, typer.Option(help="combinatorial: of the random parameters.")] = 0,
    out: OutOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Make a partition from training photos and store it, all or nothing.

    An adaptive rule with three tau_max makes NAME-coarse, NAME-middle and NAME-fine, nested; a combinatorial
    one makes the sets NAME-1, NAME-2 ... and their intersection NAME.

    Example: geofix partitions build world --rule adaptive --dataset photo-points
    """
    from typing import get_args

    from geofix.database.engine import connect
    from geofix.errors import UsageError
    from geofix.partitions.adaptive import TAU_MAX
    from geofix.partitions.build import Plan, Rule, build_partitions, read_photos
    from geofix.partitions.partition import Position
    from geofix.snapshots.build import stored_snapshot

    for option, given, known in (("rule", rule, Rule), ("position", position, Position)):
        if given not in get_args(known):
            raise UsageError(f"Unknown {option} {given!r}.", hint=f"Use {', '.join(get_args(known))}.")
    plan = Plan(
        rule=rule,  # type: ignore[arg-type]
        level=level,
        tau_min=tau_min,
        tau_max=tuple(sorted(tau_max or TAU_MAX.values(), reverse=True)),
        max_level=max_level,
        classes=classes,
        sets=sets,
        atom_photos=atom_photos,
        model=model,
        region_level=region_level,
        position=position,  # type: ignore[arg-type]
        seed=seed,
    )
    with connect() as conn:
        frozen = None if snapshot is None else stored_snapshot(conn, snapshot).snapshot_id
        photos = read_photos(conn, snapshot_id=frozen, datasets=dataset or [])
        made = build_partitions(conn, name, plan, photos, overwrite=overwrite)
        written = _written(made, out, overwrite)
    _report(made, len(photos.ids), written, json)


@app.command()
@command
def load(
    name: NameArgument,
    file: Annotated[Path, typer.Argument(help="Table with one S2 cell per row: CSV.")],
    token_column: Annotated[str, typer.Option(help="Column of the S2 token.")] = "s2_token",  # noqa: S107
    lon_column: Annotated[str, typer.Option(help="Column of the mean longitude.")] = "longitude_mean",
    lat_column: Annotated[str, typer.Option(help="Column of the mean latitude.")] = "latitude_mean",
    photos_column: Annotated[str, typer.Option(help="Column of the photos per cell.")] = "imgs_per_cell",
    out: OutOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Store a published cell table as a partition; classes are numbered as its rows.

    Tokens that a spreadsheet damaged are rebuilt where the mean position beside them leaves one possibility,
    and refused elsewhere.

    Example: geofix partitions load isn-fine cells_fine.csv
    """
    from geofix.database.engine import connect
    from geofix.evaluation.cell_tables import listed_partition
    from geofix.partitions.store import store_partitions

    made, warnings = listed_partition(
        name, file, token=token_column, lon=lon_column, lat=lat_column, photos=photos_column
    )
    for warning in warnings:
        say(warning)
    with connect() as conn:
        store_partitions(conn, [made], overwrite=overwrite)
        written = _written((made,), out, overwrite)
    _report((made,), int(made.photos.sum()), written, json)


def _written(made: tuple[Partition, ...], out: Path | None, overwrite: bool) -> list[Path]:
    from geofix.partitions.files import save_partition

    return [] if out is None else [save_partition(p, out, overwrite=overwrite) for p in made]


def _report(made: tuple[Partition, ...], photos: int, written: list[Path], json: bool) -> None:
    from geofix.partitions.classes import describe

    rows = [describe(p, photos) for p in made]
    emit(
        {"partitions": rows, "photos": photos, "written": [str(path) for path in written]},
        as_json=json,
        human=lambda: table(list(rows[0]), [list(row.values()) for row in rows]),
    )


@app.command("list")
@command
def list_(json: JsonOption = False) -> None:
    """List partitions with what they were made from.

    Example: geofix partitions list
    """
    from geofix.database.engine import connect
    from geofix.database.queries.partitions import summaries

    with connect("reader") as conn:
        rows = summaries(conn)
    columns = (
        "name",
        "kind",
        "classes",
        "photos",
        "cells",
        "min_level",
        "max_level",
        "coarser",
        "stale_reason",
    )
    shown = [[row[key] for key in columns] for row in rows]
    emit(rows, as_json=json, human=lambda: table([key.replace("_", " ") for key in columns], shown))


@app.command()
@command
def show(
    name: NameArgument,
    largest: Annotated[int, typer.Option(min=0, help="How many of the fullest classes.")] = 5,
    json: JsonOption = False,
) -> None:
    """Show one partition: parameters, cells per level, photos per class, its fullest classes.

    Example: geofix partitions show world-fine
    """
    from geofix.database.engine import connect
    from geofix.database.queries.partitions import describe

    with connect("reader") as conn:
        found = describe(conn, name, largest=largest)
    emit(found, as_json=json, human=lambda: _show(found))


def _show(found: dict[str, Any]) -> None:
    pairs({key: value for key, value in found.items() if key != "largest"})
    if top := found["largest"]:
        table(list(top[0]), [list(row.values()) for row in top], title="fullest classes")


@app.command()
@command
def export(
    name: NameArgument,
    out: Annotated[Path, typer.Option(help="File: .geojson or .gpkg.")],
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Write the classes as polygons for a map, with licences and attribution.

    Example: geofix partitions export world-fine --out world-fine.gpkg
    """
    from geofix.database.engine import connect
    from geofix.partitions.export import export_partition

    with connect("reader") as conn:
        result = export_partition(conn, name, out, overwrite=overwrite)
    emit(result, as_json=json)


@app.command()
@command
def drop(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of partitions.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> None:
    """Drop partitions; those that others are nested in or made of go with these or not at all.

    Example: geofix partitions drop world-fine world-middle world-coarse --yes
    """
    from geofix.database.engine import connect
    from geofix.database.queries.partitions import drop_partitions, find_partition

    with connect() as conn:
        found = [find_partition(conn, name) for name in dict.fromkeys(names)]
        if not yes:
            say("; ".join(f"{row['name']}: {row['classes']:,} classes" for row in found))
            typer.confirm("Drop?", abort=True, err=True)
        dropped = drop_partitions(conn, [row["name"] for row in found])
    emit({"dropped": dropped, "names": [row["name"] for row in found]}, as_json=json)
