"""geofix snapshot: freeze training sets and prove their split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geofix.cli.output import JsonOption, command, emit

app = typer.Typer(no_args_is_help=True)


@app.command()
@command
def build(
    dataset: Annotated[list[str], typer.Option("--dataset", help="Photo data set; repeatable.")],
    out: Annotated[Path, typer.Option(help="Directory to create.")],
    mode: Annotated[
        str, typer.Option(help="blocks; track: one continuous recording per sequence; test: all test_unseen.")
    ] = "blocks",
    block_level: Annotated[int, typer.Option(help="S2 level of the blocks held out whole.")] = 13,
    cell_level: Annotated[int, typer.Option(help="S2 level at which test_seen needs a training photo.")] = 15,
    buffer_m: Annotated[float, typer.Option(help="Metres between test_unseen and everything else.")] = 200.0,
    test: Annotated[float, typer.Option(help="Share of both test splits together.")] = 0.15,
    val: Annotated[float, typer.Option(help="Share of val, half of it unseen.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Same seed and photos, same split.")] = 0,
    train_share: Annotated[
        float,
        typer.Option(help="Of the training photos, drawn by the seed; the other splits stay as they are."),
    ] = 1.0,
    aerial: Annotated[
        list[str] | None,
        typer.Option(help="Aerial source to take in; repeatable. Every one there if not given; none: none."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing snapshot.")] = False,
    json: JsonOption = False,
) -> None:
    """Split photos, write them as Parquet, and let the database prove that no test photo leaks.

    Example: geofix snapshot build --dataset wuhan --out snapshots/wuhan --mode track
    """
    from geofix.database.engine import connect
    from geofix.snapshots.build import build_snapshot

    with connect() as conn:
        result = build_snapshot(
            conn,
            dataset,
            out,
            aerial=aerial,
            overwrite=overwrite,
            mode=mode,
            block_level=block_level,
            cell_level=cell_level,
            buffer_m=buffer_m,
            test=test,
            val=val,
            seed=seed,
            train_share=train_share,
        )
    emit(result, as_json=json)


@app.command()
@command
def check(
    directory: Annotated[Path, typer.Argument(help="Snapshot directory.")],
    model: Annotated[
        str | None, typer.Option(help="Also look for near duplicates by this model's embeddings.")
    ] = None,
    min_cosine: Annotated[float, typer.Option(help="Cosine from which two photos look alike.")] = 0.999,
    json: JsonOption = False,
) -> None:
    """Look for leaks: sequence, copy, distance, and look-alike photos in training and test.

    Example: geofix snapshot check snapshots/wuhan --model mnv2
    """
    from geofix.database.engine import connect
    from geofix.errors import SplitLeakError
    from geofix.snapshots.audit import audit_snapshot

    with connect() as conn:
        leaks = audit_snapshot(conn, directory, model=model, min_cosine=min_cosine)
    emit({"leaks": len(leaks), "found": [leak.as_record() for leak in leaks[:50]]}, as_json=json)
    hard = [leak for leak in leaks if leak.kind != "lookalike"]
    if hard:
        raise SplitLeakError(f"{len(hard)} leaks, first: {hard[0]}.", hint="Build the snapshot again.")
