"""geofix evaluate method and pool: a trained method beside its parts and baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from geofix.cli.output import JsonOption, command, counted, emit, line, table


@command
def method(
    snapshot: Annotated[Path, typer.Option(help="Snapshot directory.")],
    model: Annotated[str, typer.Option(help="The jointly trained model.")],
    prototype_model: Annotated[
        str | None, typer.Option("--prototype-model", help="Prototypes trained alone for the same time.")
    ] = None,
    aerial_model: Annotated[
        str | None, typer.Option("--aerial-model", help="Aerial encoder trained alone for the same time.")
    ] = None,
    second_model: Annotated[
        str | None, typer.Option("--second-model", help="Prototypes of another seed, for the ensemble.")
    ] = None,
    untrained_model: Annotated[
        str | None, typer.Option("--untrained-model", help="Encoder before training.")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Repeatable; default: test_seen and test_unseen.")
    ] = None,
    level: Annotated[int, typer.Option(min=1, max=24, help="S2 level of the cell codes.")] = 16,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Only aerial tiles of this data set; repeatable.")
    ] = None,
    elsewhere: Annotated[
        list[str] | None, typer.Option(help="Photo data set of another place, for the coverage; repeatable.")
    ] = None,
    frozen: Annotated[
        bool,
        typer.Option("--frozen", help="Means of the snapshot's photos in place of the model's prototypes."),
    ] = False,
    urban: Annotated[
        str | None,
        typer.Option(
            help="Level of regions that are urban; default: `urban`, or thirds by density of photos."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the report; default: NAME here.")] = None,
    name: Annotated[
        str | None, typer.Option(help="First part of the evaluations' names; default: MODEL-method.")
    ] = None,
    density: Annotated[
        bool, typer.Option("--density/--no-density", help="Density maximum of the nearest photos too.")
    ] = True,
    ablations: Annotated[
        bool, typer.Option("--ablations", help="Other ways to find kappa; means and ensemble at most mass.")
    ] = False,
    threshold_m: Annotated[float, typer.Option(help="Radius of groups and differences.")] = 200.0,
    kept: Annotated[
        int, typer.Option(min=1, max=100, help="Candidates per photo stored in the database.")
    ] = 10,
    seed: Annotated[int, typer.Option(help="Of the bootstrap and the choice of val photos.")] = 0,
    replace: Annotated[bool, typer.Option("--replace", help="Replace evaluations of these names.")] = False,
    json: JsonOption = False,
) -> None:
    """Compare a trained method with its parts, baselines and variants on one snapshot, in one table.

    Everything that is chosen is fitted on val. Each row and split is stored as an evaluation; the table is
    written as Markdown, JSON and PNG.

    Example: geofix evaluate method --snapshot snapshots/study --model joint --untrained-model start
    """
    from geofix.database.engine import connect
    from geofix.evaluation.method import MethodRequest, evaluate_method
    from geofix.evaluation.method_build import Wanted

    roles = {
        "untrained": untrained_model,
        "prototype": prototype_model,
        "aerial": aerial_model,
        "second": second_model,
    }
    request = MethodRequest(
        snapshot=snapshot,
        model=model,
        others={role: given for role, given in roles.items() if given is not None},
        splits=tuple(split or ("test_seen", "test_unseen")),
        level=level,
        datasets=dataset,
        elsewhere=elsewhere,
        frozen=frozen,
        urban=urban,
        name=name,
        wanted=Wanted(radius_m=threshold_m, density=density, ablations=ablations),
        threshold_m=threshold_m,
        kept=kept,
        seed=seed,
        replace=replace,
    )
    with connect() as conn:
        result = evaluate_method(conn, request, out or Path(name or f"{model}-method"))
    emit(result, as_json=json, human=lambda: show_method(result))


def show_method(result: dict[str, Any]) -> None:
    """Print the first table of the report and where the rest lies."""
    radius = f"{result['threshold_m']:g}"
    splits = result["splits"]
    line(f"{result['name']}: percent of photos answered within {radius} m by the first answer")
    head = ["row", *(f"{name} (n = {result['photos'][name]:,})" for name in splits), "median m", "kB per km2"]
    rows = []
    for row in result["rows"]:
        size = row["bytes_per_km2"]
        recalls = [row["splits"][name]["recall"]["1"][radius] for name in splits]
        last = row["splits"][splits[-1]]["median_m"]
        rows.append([row["label"], *recalls, last, None if size is None else size / 1000])
    table(head, rows)
    for note in result["notes"]:
        line(note)
    line(f"{counted(len(result['evaluations']), 'evaluation')} stored; report: {result['files'][0]}")


@command
def pool(
    runs: Annotated[list[Path], typer.Argument(help="Folders that `evaluate method` wrote.")],
    split: Annotated[str, typer.Option(help="A split of all runs, or mix.")] = "test_seen",
    threshold_m: Annotated[float, typer.Option(help="An answer counts within this many metres.")] = 200.0,
    json: JsonOption = False,
) -> None:
    """Pool several runs of `evaluate method` (seeds): main row minus the best part, with an interval.

    Example: geofix evaluate pool seed0 seed1 seed2 --split test_seen
    """
    from geofix.evaluation.method_pool import pool_runs

    result = pool_runs(runs, split=split, threshold_m=threshold_m)
    emit(result, as_json=json, human=lambda: show_pool(result))


def show_pool(result: dict[str, Any]) -> None:
    """Print each run, the pooled difference, and the rows over all runs."""
    keys = ("folder", "photos", "main_recall", "best_part", "best_part_recall", "difference")
    line(f"{result['split']}: percent within {result['threshold_m']:g} m, first answer")
    table([key.replace("_", " ") for key in keys], [[run[key] for key in keys] for run in result["runs"]])
    pooled = result["pooled"]
    line(f"mean difference {result['mean_difference']:+.2f}, least {result['least_difference']:+.2f}")
    if pooled is not None:
        line(
            f"pooled difference {pooled['difference']:+.2f}, "
            f"95 % {pooled['low']:+.2f} to {pooled['high']:+.2f} "
            f"({pooled['n']:,} photos, {counted(pooled['clusters'], 'cluster')})"
        )
    rows = [[name, item["mean"], item["least"], item["most"]] for name, item in result["rows"].items()]
    table(["row", "mean", "least", "most"], rows)
