"""geofix evaluate table, testset: a whole photo set at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from geofix.cli.output import JsonOption, command, emit, line, pairs, say
from geofix.cli.output import table as print_table

SetOption = Annotated[
    str | None, typer.Option("--set", help="Im2GPS, Im2GPS3k, YFCC4k, a data set's name ...")
]
ColumnsOption = Annotated[
    list[str] | None, typer.Option(help="FIELD=COLUMN, for example pred_lat=y,pred_lon=x; repeatable.")
]
TruthOption = Annotated[Path | None, typer.Option(help="CSV or Parquet with id, lat, lon of the photos.")]
RadiusOption = Annotated[
    str | None, typer.Option(help="Radius of the earth in km, or ellipsoidal; default: the protocol's.")
]
ComparisonOption = Annotated[str | None, typer.Option(help="<= or <; default: the protocol's.")]
CropsOption = Annotated[str | None, typer.Option(help="How crops were combined; recorded.")]
ProtocolOption = Annotated[str, typer.Option(help="geofix, pigeon, geoclip, osv5m, mever, g3 or plonk.")]


@command
def table(
    photo_set: SetOption = None,
    with_published: Annotated[
        bool, typer.Option("--with-published", help="Published results, in sections of their own.")
    ] = False,
    predictions: Annotated[
        list[str] | None, typer.Option(help="FILE or NAME=FILE with id, lat, lon; repeatable.")
    ] = None,
    truth: TruthOption = None,
    humans: Annotated[
        Path | None, typer.Option(help="CSV of people's answers (person, id, lat, lon) or shares.")
    ] = None,
    cells: Annotated[
        list[str] | None,
        typer.Option(
            help="Cell table, folder of a partition or name of a stored one whose bounds are shown, or NAME= "
            "and one of these; repeatable."
        ),
    ] = None,
    columns: ColumnsOption = None,
    protocol: ProtocolOption = "geofix",
    radius: RadiusOption = None,
    comparison: ComparisonOption = None,
    missing: Annotated[str | None, typer.Option(help="wrong or drop; default: the protocol's.")] = None,
    crops: CropsOption = None,
    keep_axes: Annotated[
        bool, typer.Option("--keep-axes", help="Latitude and longitude are not swapped.")
    ] = False,
    database: Annotated[
        bool | None,
        typer.Option("--database/--no-database", help="Ask the database; default: when it answers."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Markdown on stdout.")] = False,
    json: JsonOption = False,
) -> None:
    """All that is known of a photo set: our evaluations, files, people, bounds, published results.

    Example: geofix evaluate table --set Im2GPS --with-published
    """
    from geofix.cli.ingest import mapping
    from geofix.errors import UsageError
    from geofix.evaluation import set_report, set_table
    from geofix.evaluation.humans import read_humans
    from geofix.evaluation.photo_sets import PhotoSet
    from geofix.evaluation.protocols import protocol_of

    if photo_set is None and (not (predictions or humans or cells) or truth is None or with_published):
        raise UsageError("Which photo set?", hint="Give --set NAME, or --predictions FILE --truth FILE.")
    if predictions and truth is None:
        raise UsageError("--predictions needs the truth.", hint="Give --truth FILE.")
    if markdown and json:
        raise UsageError("--markdown and --json exclude each other.")
    rules = protocol_of(protocol, radius=radius, comparison=comparison, missing=missing, crops=crops)
    fields, enough = mapping(columns), bool(predictions or humans or cells or with_published)
    with _stored(photo_set, database, enough) as (conn, stored):
        if photo_set is None:
            assert truth is not None
            found = set_table.SetTable(PhotoSet(truth.stem, None))
        else:
            found = set_table.find_table(photo_set, stored)
        asked = set_table.add_stored(found, stored, conn if cells and truth is None else None)
    if truth is not None:
        if predictions:
            set_table.add_predictions(
                found,
                _named(predictions),
                truth,
                protocol=rules,
                columns=fields,
                check_axes=not keep_axes,
            )
        if cells:
            asked = set_table.positions_of(found, truth, fields, check_axes=not keep_axes)
    if humans is not None:
        people = read_humans(humans, truth, columns=fields, protocol=rules, check_axes=not keep_axes)
        set_table.add_humans(found, people, rules)
    if cells:
        set_table.add_bounds(found, *asked, _partitions(cells, database), rules)
    if with_published:
        set_table.add_published(found)
    for warning in found.warnings:
        say(f"warning: {warning}")
    if markdown:
        line(set_report.markdown(found).rstrip("\n"))
        return
    emit(found.as_record(), as_json=json, human=lambda: show_table(found))


def show_table(found: Any) -> None:
    """Print the sections of a photo set as people read them."""
    from geofix.evaluation import set_report

    known = found.photo_set
    line(f"{known.name}" + (f", {known.images:,} photos" if known.images else ""))
    sections = found.sections()
    for title, rows in sections:
        headings = set_report.columns(rows)
        line("")
        line(f"{title} (percent within)")
        print_table(headings, [set_report.cells(row, headings) for row in rows])
    if not sections:
        line("no row; evaluate this set, give --predictions, or --with-published")
    for tag, title in found.sources.items():
        line(f"{tag}: {title}")


@command
def testset(
    file: Annotated[Path, typer.Argument(help="Metadata of the photos, CSV or Parquet.")],
    photo_set: SetOption = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the images.")] = None,
    train: Annotated[
        Path | None, typer.Option(help="Metadata of the training photos: do the lists share photos?")
    ] = None,
    train_images: Annotated[Path | None, typer.Option(help="Folder of the training images.")] = None,
    columns: ColumnsOption = None,
    keep_axes: Annotated[
        bool, typer.Option("--keep-axes", help="Latitude and longitude are not swapped.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Look through the published metadata of a photo set: what it holds, its images, leaks from training.

    Example: geofix evaluate testset im2gps3k_places365.csv --set Im2GPS3k --images im2gps3ktest
    """
    from geofix.cli.ingest import mapping
    from geofix.evaluation.leakage import find_leaks, photo_list
    from geofix.evaluation.photo_tables import describe, match_images, read_photo_table

    found = read_photo_table(file, photo_set=photo_set, columns=mapping(columns), check_axes=not keep_axes)
    result: dict[str, Any] = {**describe(found), "warnings": found.warnings}
    matched = None if images is None else match_images(found, images)
    if matched is not None:
        result |= {
            "images": sum(path is not None for path in matched.paths),
            "without_image": len(matched.refused),
            "unlisted_images": len(matched.unlisted),
            "examples": [*list(matched.refused.items())[:3], *matched.unlisted[:3]],
        }
    if train is not None:
        other = read_photo_table(train)
        beside = None if train_images is None else match_images(other, train_images)
        result["leakage"] = find_leaks(photo_list(other, beside), photo_list(found, matched))
    for warning in found.warnings:
        say(f"warning: {warning}")
    emit(result, as_json=json, human=lambda: show_testset(result))


def show_testset(result: dict[str, Any]) -> None:
    """Print what a photo set holds as people read it."""
    pairs({name: value for name, value in result.items() if name not in ("warnings", "leakage")})
    if "leakage" not in result:
        return
    found = result["leakage"]
    line(f"shared by {found['test']} and {found['train']}:")
    print_table(
        ("by", "photos", "percent", "different", "such as"),
        [
            (name, *([None] * 3), "not known")
            if leak is None
            else (name, leak["photos"], leak["percent"], leak["values"], ", ".join(leak["examples"]))
            for name, leak in found["leaks"].items()
        ],
    )


def _named(items: list[str], what: str = "files") -> dict[str, Path]:
    """THING or NAME=THING options; a file's name without its ending where no name is given."""
    from geofix.errors import UsageError

    found: dict[str, Path] = {}
    for item in items:
        name, equals, path = item.partition("=")
        if not equals or Path(item).exists():
            name, path = Path(item).stem if Path(item).is_file() else Path(item).name, item
        if name in found:
            raise UsageError(f"Two {what} are called {name!r}.", hint="Name them: NAME=FILE.")
        found[name] = Path(path)
    return found


def _partitions(items: list[str], database: bool | None) -> dict[str, Any]:
    """Classes of partitions: files, folders, and stored ones, for which alone the database is asked."""
    from geofix.evaluation.bounds import read_classes

    wanted = _named(items, "partitions")
    stored = {name: str(path) for name, path in wanted.items() if not path.exists()}
    looked_up = _stored_partitions(stored, database) if stored else {}
    return {
        name: looked_up[name] if name in looked_up else read_classes(path) for name, path in wanted.items()
    }


def _stored_partitions(wanted: dict[str, str], database: bool | None) -> dict[str, Any]:
    from geofix.database.engine import connect
    from geofix.errors import NotFoundError, ServiceError
    from geofix.evaluation.bounds import stored_classes

    # A name that holds a folder is no partition's, and no server is needed to say so.
    paths = [name for name in wanted.values() if database is False or Path(name).name != name]
    if paths:
        raise NotFoundError(
            f"There is no file or folder {paths[0]}.",
            hint="Give a cell table or the folder of a partition, or with the database the name of a stored "
            "one: `geofix partitions list` shows them.",
        )
    try:
        with connect("reader") as conn:
            return {label: stored_classes(conn, name) for label, name in wanted.items()}
    except ServiceError as error:
        names = ", ".join(map(repr, wanted.values()))
        raise ServiceError(
            f"{names}: neither file nor folder, and stored partitions cannot be asked for. {error.message}",
            hint=error.hint,
        ) from error


@contextmanager
def _stored(photo_set: str | None, database: bool | None, enough: bool) -> Iterator[tuple[Any, Any]]:
    """A connection and all stored evaluations; (None, []) where the database is not asked.

    Where nobody said whether to ask it, a database that does not answer is passed over if `enough` else is
    to be shown.
    """
    from geofix.errors import ServiceError

    if photo_set is None or database is False:
        yield None, []
        return
    from geofix.database.engine import connect
    from geofix.database.queries.evaluations import list_with_datasets

    with ExitStack() as stack:
        try:
            conn = stack.enter_context(connect("reader"))
            rows = list_with_datasets(conn)
        except ServiceError as error:
            if database or not enough:
                raise
            say(f"note: no evaluation is shown. {error.message}")
            conn, rows = None, []
        yield conn, rows
