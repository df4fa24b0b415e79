"""Semantic maps and scene labels beside a world's photos, by the renderer itself."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from geofix import log
from geofix.errors import NotFoundError
from geofix.imagery.semantics import CLASSES as LIST
from geofix.settings import get_settings
from geofix.world.class_view import CLASSES, SOURCE, class_number, render_classes
from geofix.world.files import write_bytes
from geofix.world.plan import Shot
from geofix.world.scene import Without, build_layout
from geofix.world.sizes import get_size
from geofix.world.write import (
    CHUNK,
    FORMAT,
    MANIFEST,
    Recipe,
    chance_of,
    light_at,
    plan_world,
    run_tasks,
)

FOLDER, SCENES = "semantics", "scenes.csv"
NATURAL, URBAN = 1, 2
KINDS = {"town": URBAN, "village": URBAN, "coast": NATURAL, "forest": NATURAL, "field": NATURAL}
"""Scenes of the world and which of the three (0 indoor, 1 natural, 2 urban) each is; none is indoor."""
BUILT, SHORE_M, WOODED = 0.2, 120.0, 0.3


def write_semantics(directory: Path, *, workers: int = 0) -> int:
    """Write `semantics/` (one PNG per photo, and the list of classes) and `scenes.csv`.

    The world's own files stay as they are; maps that are there already are kept. They are PNGs whose values
    are class numbers and whose palette is the classes' colours.

    Args:
        directory: A complete world.
        workers: As `create_world`.

    Returns:
        The number of photos.

    Raises:
        NotFoundError: The directory holds no complete world of this version.
    """
    root = Path(directory).expanduser().resolve()
    recipe = _recipe(root)
    shots = plan_world(recipe)
    (root / FOLDER).mkdir(exist_ok=True)
    write_bytes(root / FOLDER / LIST, (json.dumps(CLASSES.as_dict(), indent=1) + "\n").encode())
    missing = [shot for shot in shots if not map_path(root, shot).is_file()]
    tasks: list[tuple[object, ...]] = []
    for patch in sorted({shot.patch for shot in missing}):
        here = [shot for shot in missing if shot.patch == patch]
        tasks += [(_maps_task, root, recipe, here[i : i + CHUNK]) for i in range(0, len(here), CHUNK)]
    if tasks:
        count = min(workers or get_settings().workers or os.cpu_count() or 1, len(tasks))
        with log.progress("semantic maps", len(missing), "photos") as advance:
            for done in run_tasks(tasks, count):
                advance(done)
    _write_scenes(root, recipe, shots)
    return len(shots)


def map_path(root: Path, shot: Shot) -> Path:
    """Where a photo's map lies: under the photo's own folder and name."""
    return (root / FOLDER / Path(shot.path).relative_to("photos")).with_suffix(".png")


def _recipe(root: Path) -> Recipe:
    try:
        content = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        found = content["recipe"]
        if not content["complete"] or found["format"] != FORMAT:
            raise ValueError("incomplete, or of another version")
        return Recipe(found["size"], found["seed"], Without(**found["without"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotFoundError(
            f"{root} holds no complete world: {error}.", hint="Create it first by `geofix world create`."
        ) from error


def _maps_task(root: Path, recipe: Recipe, shots: list[Shot]) -> int:
    size = get_size(recipe.size).photo_px
    palette = [value for colour in CLASSES.colours for value in colour]
    for shot in shots:
        _, extra = chance_of(recipe, shot)
        light = light_at(recipe, shot)
        numbers = render_classes(recipe.scene(shot.patch), shot.camera, light, shot.epoch, size, *extra)
        image = Image.fromarray(numbers)
        image.putpalette(palette)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", optimize=True)
        path = map_path(root, shot)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, buffer.getvalue())
    return len(shots)


def _write_scenes(root: Path, recipe: Recipe, shots: list[Shot]) -> None:
    kinds: dict[str, str] = {}
    _, continent, patches = recipe.geography()
    for patch in patches:
        here = [shot for shot in shots if shot.patch == patch.index]
        at = build_layout(continent, patch, recipe.seed)
        x, y = np.array([s.camera.x for s in here]), np.array([s.camera.y for s in here])
        built, shore = at.town(x, y) > BUILT, at.coast(x, y) < SHORE_M
        for number, shot in enumerate(here):
            if built[number]:
                kind = "village" if patch.kind == "village" else "town"
            elif shore[number]:
                kind = "coast"
            else:
                kind = "forest" if _wooded(map_path(root, shot)) else "field"
            kinds[shot.path] = kind
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("photo", "s3", "kind", "source"))
    for path in sorted(kinds):
        writer.writerow((path, KINDS[kinds[path]], kinds[path], SOURCE))
    write_bytes(root / SCENES, text.getvalue().encode())


def _wooded(path: Path) -> bool:
    """Whether trees and forest floor cover a good part of a photo."""
    with Image.open(path) as image:
        numbers = np.asarray(image)
    return bool(np.isin(numbers, [class_number("tree"), class_number("forest floor")]).mean() > WOODED)
