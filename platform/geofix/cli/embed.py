"""geofix embed: turn photos and aerial tiles into embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from geofix.cli.output import JsonOption, command, emit, say

if TYPE_CHECKING:
    from geofix.codes.embed_store import EmbedResult, Kind

app = typer.Typer(no_args_is_help=True)

ModelOption = Annotated[str, typer.Option("--model", help="Registered model.")]
DatasetOption = Annotated[list[str] | None, typer.Option("--dataset", help="Only this data set; repeatable.")]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Pictures per forward pass.")]


def _embed(kind: Kind, model: str, datasets: list[str] | None, batch_size: int) -> EmbedResult:
    from geofix.codes.embed_store import embed_all
    from geofix.database.engine import connect
    from geofix.database.queries.models import find_model

    with connect() as conn:
        result = embed_all(
            conn, find_model(conn, model), kind, datasets=datasets or None, batch_size=batch_size
        )
    for key, reason in result.failures[:10]:
        say(f"not embedded: {key}: {reason}")
    return result


@app.command()
@command
def photos(
    model: ModelOption, dataset: DatasetOption = None, batch_size: BatchOption = 32, json: JsonOption = False
) -> None:
    """Embed every photo that the model has not embedded yet; a killed run goes on where it was.

    Example: geofix embed photos --model mnv2
    """
    emit(_embed("photos", model, dataset, batch_size), as_json=json)


@app.command()
@command
def aerial(
    model: ModelOption, dataset: DatasetOption = None, batch_size: BatchOption = 32, json: JsonOption = False
) -> None:
    """Embed every aerial tile that the model has not embedded yet.

    Example: geofix embed aerial --model mnv2
    """
    emit(_embed("aerial", model, dataset, batch_size), as_json=json)
