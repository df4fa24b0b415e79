"""geofix world: write the built-in mini continent."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from geofix.cli.output import JsonOption, command, emit

app = typer.Typer(no_args_is_help=True)


@app.command()
@command
def create(
    directory: Annotated[Path, typer.Argument(help="Folder to fill; a half-written world is completed.")],
    size: Annotated[str, typer.Option(help="tiny, demo, study or bench.")] = "demo",
    seed: Annotated[int, typer.Option(min=0, help="Same size and seed, same bytes.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Rendering processes; 0: one per core.")] = 0,
    semantics: Annotated[
        bool,
        typer.Option(
            "--semantics", help="Semantic maps and scenes of the photos too, by the renderer itself."
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Render photos with EXIF, aerial COGs of two dates and countries, all of one procedural scene.

    With --semantics also DIRECTORY/semantics (a PNG of class numbers per photo) and DIRECTORY/scenes.csv, for
    `geofix train-classifier`; all other files stay as they are without it.

    Example: geofix world create worlds/tiny --size tiny --seed 1
    """
    from geofix.world.write import create_world

    summary = create_world(directory, size=size, seed=seed, workers=workers)
    if semantics:
        from geofix.world.semantics import write_semantics

        emit({**asdict(summary), "semantic_maps": write_semantics(directory, workers=workers)}, as_json=json)
    else:
        emit(summary, as_json=json)
