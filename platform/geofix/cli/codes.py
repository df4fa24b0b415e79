"""geofix codes: build, index, measure, distribute, list and drop code sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from geofix.cli.output import JsonOption, command, emit, say, table

if TYPE_CHECKING:
    from geofix.database.engine import Connection

app = typer.Typer(no_args_is_help=True)

CodeSetOption = Annotated[str, typer.Option("--code-set", help="Name of the code set.")]


@app.command()
@command
def build(
    model: Annotated[str, typer.Option(help="Registered model whose embeddings are used.")],
    code_set: CodeSetOption,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="cellmean: mean of a cell's training photos; aerial: its tiles; prototype: what was learned "
            "of its photos; hybrid: both. Default: the most that the model has been trained for."
        ),
    ] = None,
    level: Annotated[int, typer.Option(min=1, max=24, help="S2 level of the cells.")] = 16,
    snapshot: Annotated[
        Path | None, typer.Option(help="Snapshot directory with the training photos; default: the model's.")
    ] = None,
    region: Annotated[
        str | None, typer.Option(help="Only cells in this region: LEVEL:CODE, a file or WKT.")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option("--dataset", help="Only aerial tiles of this data set; repeatable.")
    ] = None,
    kappa: Annotated[
        str, typer.Option(help="Weight of the prototype in a hybrid: fit (on photos of val), or a number.")
    ] = "fit",
    upsample: Annotated[
        str, typer.Option(help="How prototypes come down to finer cells: copy or bilinear.")
    ] = "bilinear",
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate/--no-calibrate", help="Fit probabilities on the snapshot's photos of val."),
    ] = True,
    json: JsonOption = False,
) -> None:
    """Build one code set, all or nothing: it is ready when this command ends, or not there at all.

    Example: geofix codes build --model mnv2 --code-set mnv2-l16 --snapshot snapshots/wuhan
    """
    from typing import get_args

    from geofix.codes.build import Recipe, build_code_set
    from geofix.codes.upsample import Upsample
    from geofix.database.engine import connect
    from geofix.database.queries.codes import find_code_set
    from geofix.database.queries.models import find_model
    from geofix.errors import UsageError
    from geofix.ingest.region_text import region_ewkb
    from geofix.snapshots.build import stored_snapshot

    for option, given, known in (("recipe", recipe, Recipe), ("upsample", upsample, Upsample)):
        if given is not None and given not in get_args(known):
            raise UsageError(f"Unknown {option} {given!r}.", hint=f"Use {', '.join(get_args(known))}.")
    weight = _kappa(kappa)
    with connect() as conn:
        frozen = None if snapshot is None else stored_snapshot(conn, snapshot)
        result: dict[str, Any] = build_code_set(
            conn,
            name=code_set,
            model=find_model(conn, model),
            recipe=recipe,  # type: ignore[arg-type]
            level=level,
            snapshot_id=None if frozen is None else frozen.snapshot_id,
            region_ewkb=None if region is None else region_ewkb(conn, region),
            datasets=dataset or None,
            upsample=upsample,  # type: ignore[arg-type]
            kappa=weight,
        )
        used = find_code_set(conn, code_set).snapshot_id  # the model's own where none was named
        if calibrate and used is not None and (frozen is None or frozen.counts.get("val", 0)):
            result["calibration"] = _fitted(conn, code_set, used)
    emit({"code_set": code_set, **result}, as_json=json)


def _kappa(text: str) -> float | Literal["fit"]:
    from geofix.errors import UsageError

    if text == "fit":
        return "fit"
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--kappa {text!r} is neither fit nor a number.") from None


def _fitted(conn: Connection, code_set: str, snapshot_id: int) -> dict[str, Any] | None:
    """The fit of the probabilities, or None where the validation photos do not allow one."""
    from geofix.database.queries.codes import find_code_set
    from geofix.errors import BadInputError
    from geofix.localize.calibrate import calibrate_code_set

    try:
        return calibrate_code_set(conn, find_code_set(conn, code_set), snapshot_id)
    except BadInputError as error:
        say(f"not calibrated, so answers will have no probabilities: {error}")
        return None


@app.command()
@command
def index(
    code_set: CodeSetOption,
    m: Annotated[int, typer.Option(help="Links per cell.")] = 16,
    ef_construction: Annotated[int, typer.Option(help="Candidates kept while building.")] = 64,
    memory_mb: Annotated[int, typer.Option(min=64, help="Memory the build may use.")] = 512,
    parallel: Annotated[int, typer.Option(min=0, help="Further processes that help.")] = 1,
    queries: Annotated[int, typer.Option(min=0, help="Photos used to measure the recall; 0: do not.")] = 100,
    json: JsonOption = False,
) -> None:
    """Build the HNSW index of a code set; its memory is estimated first, its recall measured after.

    Example: geofix codes index --code-set mnv2-l16
    """
    from geofix.codes.index import build_index, recall_with_photos
    from geofix.database.engine import connect
    from geofix.database.queries.codes import find_code_set

    with connect() as conn:
        result = build_index(
            conn,
            find_code_set(conn, code_set),
            m=m,
            ef_construction=ef_construction,
            memory_bytes=memory_mb << 20,
            parallel=parallel,
        )
    if queries:
        with connect() as conn:
            measured = recall_with_photos(conn, find_code_set(conn, code_set), limit=queries)
        result["recall"] = None if measured is None else measured.recall
        result["recall_queries"] = 0 if measured is None else measured.queries
    emit(result, as_json=json)


@app.command()
@command
def calibrate(
    code_set: CodeSetOption,
    snapshot: Annotated[Path, typer.Option(help="Snapshot whose validation photos are used.")],
    json: JsonOption = False,
) -> None:
    """Fit the temperature of the probabilities, and what counts as outside coverage, on validation photos.

    Example: geofix codes calibrate --code-set mnv2-l16 --snapshot snapshots/wuhan
    """
    from geofix.database.engine import connect
    from geofix.database.queries.codes import find_code_set
    from geofix.localize.calibrate import calibrate_code_set
    from geofix.snapshots.build import stored_snapshot

    with connect() as conn:
        row = stored_snapshot(conn, snapshot)
        result = calibrate_code_set(conn, find_code_set(conn, code_set), row.snapshot_id)
    emit(result, as_json=json)


@app.command()
@command
def refresh(
    code_set: CodeSetOption,
    region: Annotated[str, typer.Option(help="Whose cells: LEVEL:CODE, a file or WKT.")],
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="Only photos of these beside the training photos; repeatable."),
    ] = None,
    memory_mb: Annotated[int, typer.Option(min=64, help="Memory that rebuilding the index may use.")] = 512,
    json: JsonOption = False,
) -> None:
    """Make the codes of one region again after new photos or tiles were embedded, without training.

    Searches go on with the old codes until the new ones are whole. Weights, biases and temperature stay.

    Example: geofix codes refresh --code-set mnv2-l16 --region country:FRA
    """
    from geofix.codes.refresh import refresh_region
    from geofix.database.engine import connect
    from geofix.ingest.region_text import region_ewkb

    with connect() as conn:
        result = refresh_region(
            conn, code_set, region_ewkb(conn, region), datasets=dataset or None, memory_bytes=memory_mb << 20
        )
    emit(result, as_json=json)


@app.command()
@command
def distribute(
    name: Annotated[str, typer.Argument(help="Name of the code set.")],
    shards: Annotated[
        list[str] | None,
        typer.Option("--shards", help="Shards in the order of the ranges; `local` is this server."),
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(help="Further shards.")] = None,
    back: Annotated[bool, typer.Option("--back", help="Bring all codes home to this server.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Roll an interrupted move back.")] = False,
    memory_mb: Annotated[
        int, typer.Option(min=64, help="Memory that building the index may use on each server.")
    ] = 512,
    wait_s: Annotated[
        float, typer.Option(min=0, help="How long a server that went away is waited for, in seconds.")
    ] = 60.0,
    json: JsonOption = False,
) -> None:
    """Spread a code set over several servers by ranges of S2 ids; it can be searched all the while.

    Interrupted, the same command goes on where it was; --cancel rolls back instead.

    Example: geofix codes distribute mnv2-l16 --shards a b c
    """
    from geofix.database.engine import connect
    from geofix.database.shard_moves import distribute as move
    from geofix.database.shard_moves import give_up
    from geofix.database.shards import HERE
    from geofix.errors import UsageError

    named = [part for text in [*(shards or []), *(more or [])] for part in text.split(",") if part]
    if sum((bool(named), back, cancel)) != 1:
        raise UsageError("Give one of --shards, --back and --cancel.")
    with connect() as conn:
        if cancel:
            emit({"code_set": name, "cancelled": give_up(conn, name)}, as_json=json)
            return
        result = move(conn, name, [HERE] if back else named, memory_bytes=memory_mb << 20, wait_s=wait_s)
    rows = [[piece["shard"], piece["cells"], piece["bytes"]] for piece in result["pieces"]]
    emit(result, as_json=json, human=lambda: table(("shard", "cells", "bytes"), rows))


@app.command("list")
@command
def list_(json: JsonOption = False) -> None:
    """List code sets with their model, size and last measured recall.

    Example: geofix codes list
    """
    from geofix.database.engine import connect
    from geofix.database.queries.codes import list_code_sets

    with connect("reader") as conn:
        rows = list_code_sets(conn)
    columns = {
        "name": "name",
        "model": "model",
        "recipe": "recipe",
        "level": "level",
        "state": "state",
        "cells": "cells",
        "with photos": "with_prototype",
        "with aerial": "with_aerial",
        "bytes": "total_bytes",
        "recall": "recall",
    }
    shown = [[row[key] for key in columns.values()] for row in rows]
    emit(rows, as_json=json, human=lambda: table(list(columns), shown))


@app.command()
@command
def drop(
    name: Annotated[str, typer.Argument(help="Name of the code set.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> None:
    """Drop a code set; evaluations made with it keep their rows.

    Example: geofix codes drop mnv2-l16 --yes
    """
    from geofix.database.engine import connect
    from geofix.database.queries.codes import drop_code_set, find_code_set
    from geofix.database.shard_pieces import alone, clean

    with connect() as conn:
        found = find_code_set(conn, name)
        if not yes:
            say(f"{name}: {found.cells:,} cells, state {found.state}")
            typer.confirm("Drop it?", abort=True, err=True)
        with alone(conn, found.code_set_id, name):
            drop_code_set(conn, found)
            conn.commit()
            clean(conn)
    emit({"dropped": name, "cells": found.cells}, as_json=json)
