"""geofix models: register and list encoders and trained localizers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geofix.cli.output import JsonOption, command, emit, table

app = typer.Typer(no_args_is_help=True)


@app.command()
@command
def create(
    directory: Annotated[Path, typer.Argument(help="New model directory.")],
    trunk: Annotated[str, typer.Option(help="timm trunk, for example mobilenetv2_100.")],
    weights: Annotated[
        str | None, typer.Option(help="Local file or URI; without it, seeded random weights.")
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="Expected hash of the weights file.")] = None,
    size: Annotated[int | None, typer.Option(help="Input side in pixels; default: the trunk's own.")] = None,
    mean: Annotated[
        float | None, typer.Option(help="Mean of every channel; default: the trunk's own.")
    ] = None,
    std: Annotated[
        float | None, typer.Option(help="Deviation of every channel; default: the trunk's own.")
    ] = None,
    pad_type: Annotated[str | None, typer.Option(help="'same' for TensorFlow-style padding.")] = None,
    fit: Annotated[
        str | None, typer.Option(help="center crops the middle, squash keeps the whole frame.")
    ] = None,
    aggregation: Annotated[str, typer.Option(help="Pooling: gem, avg, salad or token.")] = "gem",
    gem_p: Annotated[float, typer.Option(help="Exponent of GeM pooling; 1 is the plain average.")] = 3.0,
    salad_clusters: Annotated[int, typer.Option(min=1, help="Clusters of SALAD.")] = 16,
    salad_width: Annotated[int, typer.Option(min=1, help="Values of each cluster.")] = 31,
    salad_token: Annotated[int, typer.Option(min=0, help="Values of SALAD's global token; 0: none.")] = 16,
    dimension: Annotated[int | None, typer.Option(help="Project to D; default: the pooled width.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of random weights and projections.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing model.")] = False,
    json: JsonOption = False,
) -> None:
    """Make a model directory from a timm trunk and local weights, one encoder for ground and aerial.

    Example: geofix models create models/mnv2 --trunk mobilenetv2_100 --weights w.pth --pad-type same
    """
    from geofix.errors import UsageError
    from geofix.models.create import create_model

    if fit not in (None, "center", "squash"):
        raise UsageError(f"--fit {fit!r} is neither center nor squash.")
    if aggregation not in ("gem", "avg", "salad", "token"):
        raise UsageError(f"--aggregation {aggregation!r} is none of gem, avg, salad and token.")

    manifest = create_model(
        directory,
        trunk=trunk,
        weights=weights,
        sha256=sha256,
        size=size,
        fit=fit,  # type: ignore[arg-type]
        mean=mean,
        std=std,
        trunk_options={"pad_type": pad_type} if pad_type else {},
        aggregation=aggregation,  # type: ignore[arg-type]
        gem_p=gem_p,
        salad={"clusters": salad_clusters, "width": salad_width, "token": salad_token},
        dimension=dimension,
        seed=seed,
        overwrite=overwrite,
    )
    emit(manifest, as_json=json)


@app.command()
@command
def register(
    directory: Annotated[
        Path, typer.Argument(help="Model directory, as `models create` or training wrote it.")
    ],
    name: Annotated[str, typer.Option(help="Name in the database.")],
    json: JsonOption = False,
) -> None:
    """Register a model directory in the database.

    Example: geofix models register models/mnv2 --name mnv2
    """
    from geofix.codes.register import register_model
    from geofix.database.engine import connect

    with connect() as conn:
        row = register_model(conn, directory, name)
    emit(
        {
            "model": row.name,
            "model_id": row.model_id,
            "dimension": row.dimension,
            "sha256": row.weights_sha256,
        },
        as_json=json,
    )


@app.command("list")
@command
def list_(json: JsonOption = False) -> None:
    """List registered models.

    Example: geofix models list --json
    """
    from geofix.database.engine import connect
    from geofix.database.queries.models import list_models

    with connect("reader") as conn:
        rows = list_models(conn)
    columns = {
        "name": "name",
        "kind": "kind",
        "dimension": "dimension",
        "weights": "weights_sha256",
        "photo embeddings, bytes": "photo_embedding_bytes",
        "aerial embeddings, bytes": "aerial_embedding_bytes",
    }
    shown = [[str(r[k])[:12] if k == "weights_sha256" else r[k] for k in columns.values()] for r in rows]
    emit(
        rows,
        as_json=json,
        human=lambda: table(list(columns), shown),
    )
