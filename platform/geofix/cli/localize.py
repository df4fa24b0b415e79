"""geofix localize: find where photos were taken."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from geofix.cli.output import JsonOption, command, counted, emit, line, say, table

app = typer.Typer(no_args_is_help=True)


@app.command()
@command
def localize(
    photos: Annotated[list[Path], typer.Argument(help="Image files.")],
    code_set: Annotated[str, typer.Option("--code-set", help="Code set to search.")],
    within: Annotated[
        str | None, typer.Option(help="Only inside this region: LEVEL:CODE, a file or WKT.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Candidates per photo.")] = 10,
    position: Annotated[
        str,
        typer.Option(
            help="What the position of an answer is: centre of the best cell; refined, moved by neighbouring "
            "cells; mass, most probability within 200 m; medoid, least expected distance."
        ),
    ] = "centre",
    json: JsonOption = False,
) -> None:
    """Find where photos were taken: ranked cells with probabilities, and how sure the answer is.

    Example: geofix localize photo.jpg --code-set mnv2-l16 --within country:FIN
    """
    from geofix.database.engine import connect
    from geofix.localize.kinds import known_position
    from geofix.localize.service import localize_photos

    known_position(position)
    with connect() as conn:
        answers = localize_photos(conn, photos, code_set, within=within, k=k, position=position)
    emit(answers, as_json=json, human=lambda: show_answers(answers))


def show_answers(answers: list[dict[str, Any]]) -> None:
    """Print every answer as people read it."""
    for answer in answers:
        show_answer(answer)


def show_answer(answer: dict[str, Any]) -> None:
    """Print one answer as people read it."""
    if "error" in answer:
        say(f"{answer['photo']}: {answer['error']}")
        return
    from geofix.localize.kinds import POSITIONS

    searched = answer["search"]
    line(f"{answer['photo']}: {counted(searched['cells_in_scope'], 'cell')} searched, {searched['method']}")
    columns = ("rank", "s2_token", "lon", "lat", "score", "probability", "region")
    table(
        columns,
        [
            [item[c] if c not in ("lon", "lat") else f"{item[c]:.6f}" for c in columns]
            for item in answer["candidates"]
        ],
    )
    place = answer["position"]
    line(f"Position: lon {place['lon']:.6f}, lat {place['lat']:.6f} ({POSITIONS[answer['position_kind']]})")
    if answer["confidence_200m"] is not None:
        line(f"Probability within 200 m of it: {100 * answer['confidence_200m']:.1f} %")
    for mass, region in answer["credible"].items():
        line(f"{mass} % credible region: {region['km2']:,.3f} km2 in {counted(region['cells'], 'cell')}")
    if answer["credible"]:
        line("Outlines of the credible regions, as GeoJSON polygons: --json")
    if answer["position_note"]:
        say(answer["position_note"])
    if answer["in_coverage"] is None:
        say("No probabilities: this code set was not calibrated (`geofix codes calibrate`).")
    elif not answer["in_coverage"]:
        say("Outside coverage: no searched cell looks like this photo; read the answer as a guess.")
