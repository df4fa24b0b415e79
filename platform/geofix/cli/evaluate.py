"""geofix evaluate: judge localizers, ours and others'."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from geofix.cli import evaluate_method, evaluate_table
from geofix.cli.output import JsonOption, command, counted, emit, line, say, table

app = typer.Typer(no_args_is_help=True)
app.command()(evaluate_method.method)
app.command()(evaluate_method.pool)
app.command()(evaluate_table.table)
app.command()(evaluate_table.testset)

NameArgument = Annotated[str, typer.Argument(help="Name of the evaluation.")]


@app.command()
@command
def run(
    localizer: Annotated[
        str,
        typer.Option(
            help="cellmean, knn, knn_density, knn_density_compat, most_photographed, classifier, mvmf, "
            "aerial_only ..."
        ),
    ],
    snapshot: Annotated[Path, typer.Option(help="Snapshot directory.")],
    split: Annotated[str, typer.Option(help="train, val, test_seen or test_unseen.")] = "test_seen",
    name: Annotated[
        str | None, typer.Option(help="Name of the evaluation; default: localizer-model-level-split.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model whose embeddings are used.")] = None,
    code_set: Annotated[str | None, typer.Option("--code-set", help="Search this code set.")] = None,
    level: Annotated[
        int, typer.Option(min=1, max=24, help="S2 level of cells where there is no code set.")
    ] = 16,
    within: Annotated[
        str | None, typer.Option(help="Answers only in this region: LEVEL:CODE, a file or WKT.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Candidates kept per photo.")] = 100,
    exclude_author: Annotated[
        bool,
        typer.Option(
            "--exclude-author",
            help="knn, knn_density, knn_density_compat: no training photo of a photo's own author.",
        ),
    ] = False,
    crops: Annotated[
        str | None,
        typer.Option(help="Trained classifiers: single, five-max or ten-mean parts of a photo."),
    ] = None,
    protocol: evaluate_table.ProtocolOption = "geofix",
    radius: evaluate_table.RadiusOption = None,
    comparison: evaluate_table.ComparisonOption = None,
    missing: Annotated[
        str | None, typer.Option(help="wrong: a missing answer counts; drop: it leaves n.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an evaluation of this name.")] = False,
    json: JsonOption = False,
) -> None:
    """Let a localizer answer every photo of a split, store its answers, and measure them.

    Example: geofix evaluate run --localizer knn --model mnv2 --snapshot snapshots/wuhan --split test_seen
    """
    from geofix.database.engine import connect
    from geofix.evaluation.service import evaluate

    with connect() as conn:
        result = evaluate(
            conn,
            localizer=localizer,
            snapshot=snapshot,
            split=split,
            name=name,
            model=model,
            code_set=code_set,
            level=level,
            within=within,
            k=k,
            exclude_author=exclude_author,
            crops=crops,
            protocol=protocol,
            radius=radius,
            comparison=comparison,
            missing=missing,
            replace=replace,
        )
    emit(result, as_json=json, human=lambda: show_result(result))


def show_result(result: dict[str, Any]) -> None:
    """Print one evaluation as people read it."""
    photos = counted(result["n"], "photo")
    line(f"{result['evaluation']}: {result['localizer']} on {result['split']}, {photos}")
    show_protocols({"protocol": result["protocol"]})
    radii = list(result["recall"]["1"])
    rows: list[list[Any]] = [[f"R@{k}", *values.values()] for k, values in result["recall"].items()]
    for bound in ("oracle", "trivial"):
        if result.get(bound):
            label = "oracle" if bound == "oracle" else "most photographed cell"
            rows.append([label, *result[bound]["recall"]["1"].values()])
    table(["percent within", *(f"{radius} m" for radius in radii)], rows)
    kilometres = result["accuracy_km"]
    table(
        ["percent within", *(f"{radius} km" for radius in kilometres), "median m", "mean km", "GeoScore"],
        [["R@1", *kilometres.values(), result["median_m"], result["mean_km"], result["geoscore"]]],
    )
    show_administrative(result["administrative"])


def show_administrative(places: dict[str, Any]) -> None:
    """Print how many answers are in the right region, where a level has any."""
    if places:
        table(
            ["right region", "percent", "of photos", "without region"],
            [[level, row["percent"], row["n"], row["unlabelled"]] for level, row in places.items()],
        )


def show_protocols(given: dict[str, dict[str, Any]]) -> None:
    """Print how something was counted, where that was by other than the usual rules."""
    from geofix.evaluation.protocols import EvaluationProtocol
    from geofix.evaluation.set_report import protocol_text
    from geofix.evaluation.set_table import protocol_fields

    rules = {what: EvaluationProtocol.from_record(record) for what, record in given.items()}
    if any(item != EvaluationProtocol() for item in rules.values()):
        for what, item in rules.items():
            line(f"{what}: {item.name} ({protocol_text(protocol_fields(item))})")


@app.command("list")
@command
def list_(json: JsonOption = False) -> None:
    """List evaluations side by side.

    Example: geofix evaluate list
    """
    from geofix.database.engine import connect
    from geofix.database.queries.evaluations import list_evaluations

    with connect("reader") as conn:
        rows = list_evaluations(conn)
    columns = {
        "evaluation": "evaluation",
        "localizer": "localizer",
        "split": "split",
        "level": "level",
        "n": "n",
        "R@1 50 m": "recall_50m_percent",
        "100 m": "recall_100m_percent",
        "200 m": "recall_200m_percent",
        "1000 m": "recall_1000m_percent",
        "median m": "median_m",
        "GeoScore": "geoscore",
    }
    emit(
        rows,
        as_json=json,
        human=lambda: table(list(columns), [[r[c] for c in columns.values()] for r in rows]),
    )


@app.command()
@command
def show(
    name: NameArgument,
    by: Annotated[
        str,
        typer.Option(
            help="country, admin1, another region level, or cell; level: percent of answers in the right one."
        ),
    ] = "country",
    level: Annotated[int, typer.Option(min=0, max=30, help="S2 level for --by cell.")] = 13,
    threshold_m: Annotated[float, typer.Option(help="An answer counts within this many metres.")] = 200.0,
    json: JsonOption = False,
) -> None:
    """Accuracy by region or cell with n and a 95 % Wilson interval.

    Example: geofix evaluate show knn-test --by country --threshold-m 25000
    """
    from geofix.database.engine import connect
    from geofix.database.queries import evaluations, region_summary
    from geofix.evaluation.administrative import level_rows

    with connect("reader") as conn:
        metrics = evaluations.find_evaluation(conn, name)["metrics"]
        stored = metrics.get("administrative")
        if by == "level":
            rows = level_rows(name, stored)
        elif by == "cell":
            rows = evaluations.by_cell(conn, name, level, threshold_m)
        else:
            rows = evaluations.by_region(conn, name, by, threshold_m)
        if stored and (by == "level" or not json) and not region_summary.fits(conn, name):
            say(
                "warning: answers or regions changed after these were counted: `geofix evaluate summarize` "
                "counts anew"
            )
        elif stored is None and "accuracy_km" in metrics and not json:
            say("answers in the right region were not counted yet: `geofix evaluate summarize` counts them")

    def human() -> None:
        if by != "level":
            show_places(name, rows, threshold_m)
        show_administrative(stored or {})

    emit(rows, as_json=json, human=human)


def show_places(name: str, rows: list[dict[str, Any]], threshold_m: float) -> None:
    """Print accuracy by region or cell as people read it."""
    units = {"accuracy": "%", "low": "95 % low", "high": "95 % high", "median_m": "median m"}
    line(f"{name}: photos answered within {threshold_m:,g} m, percent with a 95 % Wilson interval")
    headings = [units.get(key, key.replace("_", " ")) for key in (rows[0] if rows else ())]
    table(headings or ["no photo"], [list(row.values()) for row in rows])


@app.command()
@command
def summarize(json: JsonOption = False) -> None:
    """Count accuracy by region anew for evaluations whose summary is missing or no longer fits.

    Every evaluation writes its own. Regions that photos were given since make it unfit, and the dashboard
    then counts from the rows.

    Example: geofix evaluate summarize
    """
    from geofix.database.engine import connect
    from geofix.database.queries.region_summary import write_lacking

    with connect() as conn:
        names = write_lacking(conn)
    emit(
        {"summarized": names},
        as_json=json,
        human=lambda: say(f"{counted(len(names), 'evaluation')} summarized"),
    )


@app.command()
@command
def pictures(
    name: NameArgument,
    out: Annotated[Path | None, typer.Option(help="PNG, SVG or PDF; default: NAME-photos.png here.")] = None,
    pick: Annotated[str, typer.Option(help="worst, best, or spread over all errors.")] = "worst",
    photos: Annotated[int, typer.Option(min=1, max=60, help="Photos on the sheet.")] = 12,
    json: JsonOption = False,
) -> None:
    """Draw photos beside what stands at the answer and at the truth: errors to look at.

    Example: geofix evaluate pictures knn-test --pick worst --out worst.png
    """
    from geofix.database.engine import connect
    from geofix.evaluation.error_pictures import draw_error_pictures

    file = out or Path(f"{name}-photos.png")
    with connect("reader") as conn:
        result = draw_error_pictures(conn, name, file, pick=pick, photos=photos)
    emit(result, as_json=json, human=lambda: say(f"{len(result['photos'])} photos drawn into {file}"))


@app.command()
@command
def compare(
    a: Annotated[str, typer.Argument(help="One evaluation.")],
    b: Annotated[str, typer.Argument(help="Another one on the same photos.")],
    threshold_m: Annotated[float, typer.Option(help="An answer counts within this many metres.")] = 200.0,
    json: JsonOption = False,
) -> None:
    """Difference of two evaluations on the same photos, with a cluster bootstrap interval over sequences.

    Example: geofix evaluate compare knn-test cellmean-test
    """
    from geofix.database.engine import connect
    from geofix.evaluation.service import compare_evaluations

    with connect("reader") as conn:
        result = compare_evaluations(conn, a, b, threshold_m=threshold_m)
    emit(result, as_json=json, human=lambda: show_comparison(result))


def show_comparison(result: dict[str, Any], *, cluster: str = "sequence") -> None:
    """Print the difference of two evaluations as people read it."""
    line(f"a = {result['a']}, b = {result['b']}: {counted(result['n'], 'photo')} of both")
    if "protocol_b" in result:
        show_protocols({"a counts by": result["protocol"], "b counts by": result["protocol_b"]})
    for key in ("only_a", "only_b"):
        if result[key]:
            line(f"left out, {key.replace('_', ' in ')} alone: {counted(result[key], 'photo')}")
    rows = [(f"percent within {radius} m", row) for radius, row in result["recall"].items()]
    rows.append(("median m", result["median_m"] or {}))
    keys = ("a", "b", "difference", "low", "high", "p")
    table(
        ("", "a", "b", "a - b", "95 % low", "95 % high", "p"),
        [(label, *(row.get(key) for key in keys)) for label, row in rows],
    )
    line(f"interval: cluster bootstrap over {counted(result['groups'], cluster)}")


@app.command()
@command
def external(
    predictions: Annotated[Path, typer.Argument(help="CSV or Parquet with id, lat, lon.")],
    truth: Annotated[Path, typer.Option(help="CSV or Parquet with id, lat, lon.")],
    columns: Annotated[
        list[str] | None,
        typer.Option(help="FIELD=COLUMN, for example pred_lat=y,pred_lon=x; repeatable."),
    ] = None,
    missing: Annotated[
        str | None, typer.Option(help="wrong: a missing answer counts; drop: it leaves n.")
    ] = None,
    keep_axes: Annotated[
        bool, typer.Option("--keep-axes", help="Latitude and longitude are not swapped.")
    ] = False,
    protocol: evaluate_table.ProtocolOption = "geofix",
    radius: evaluate_table.RadiusOption = None,
    comparison: evaluate_table.ComparisonOption = None,
    crops: evaluate_table.CropsOption = None,
    against: Annotated[
        Path | None, typer.Option(help="Another file of answers: difference with an interval.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Judge any other tool's answers by the usual radii, mean, median and GeoScore.

    Example: geofix evaluate external answers.csv --truth truth.csv --missing drop
    """
    from geofix.cli.ingest import mapping
    from geofix.evaluation.external import compare_external, evaluate_external
    from geofix.evaluation.protocols import protocol_of

    fields = mapping(columns)
    rules = protocol_of(protocol, radius=radius, comparison=comparison, missing=missing, crops=crops)
    result = evaluate_external(
        predictions,
        truth,
        columns=fields,
        protocol=rules,
        others=[] if against is None else [against],
        check_axes=not keep_axes,
    )
    if against is not None:
        found = compare_external(
            predictions,
            against,
            truth,
            columns_a=fields,
            columns_b=fields,
            protocol=rules,
            check_axes=not keep_axes,
        )
        result["against"] = {"a": predictions.stem, "b": against.stem, **found}
        result["warnings"] += [text for text in found["warnings"] if text not in result["warnings"]]
    for warning in result.get("warnings", []):
        say(f"warning: {warning}")
    emit(result, as_json=json, human=lambda: show_external(result))


def show_external(result: dict[str, Any]) -> None:
    """Print the judgement of another tool's answers as people read it."""
    policy, protocol = result["policy"]["missing"], result["protocol"]["name"]
    line(
        f"{counted(result['n'], 'photo')} counted; {result['missing']:,} without answer and "
        f"{result['out_of_range']:,} out of range ({policy}); protocol {protocol}"
    )
    kilometres = result["accuracy_km"]
    table(
        ["percent within", *(f"{radius} km" for radius in kilometres), "mean km", "median km", "GeoScore"],
        [["", *kilometres.values(), result["mean_km"], result["median_km"], result["geoscore"]]],
    )
    if places := result["administrative"]:
        table(
            ["right", "percent", "of photos", "without label"],
            [[level, row["percent"], row["n"], row["unlabelled"]] for level, row in places.items()],
        )
    if "against" in result:
        show_comparison({"only_a": 0, "only_b": 0, **result["against"]}, cluster="photo")
