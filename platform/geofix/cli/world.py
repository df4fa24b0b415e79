"""geofix world: write the built-in mini continent."""

from __future__ import annotations

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
    json: JsonOption = False,
) -> None:
    """Render photos with EXIF, aerial COGs of two dates and countries, all of one procedural scene.

    Example: geofix world create worlds/tiny --size tiny --seed 1
    """
    from geofix.world.write import create_world

    emit(create_world(directory, size=size, seed=seed, workers=workers), as_json=json)
