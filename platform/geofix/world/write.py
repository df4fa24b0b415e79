"""A world on disk: planned once, rendered by any number of processes, the same bytes for the same seed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from geofix import log
from geofix.errors import BadInputError, SpaceError, UsageError
from geofix.settings import get_settings
from geofix.world import files
from geofix.world.aerial_view import FLIGHTS, render_aerial
from geofix.world.camera import Light, light_of
from geofix.world.ground_view import render
from geofix.world.noise import rng_for
from geofix.world.plan import CAMERAS, Shot, demand, plan_patch, share_out
from geofix.world.scene import Scene, Without, build_layout, build_scene
from geofix.world.sensor import expose, passers_by
from geofix.world.sizes import Size, get_size
from geofix.world.tables import Boxes, Sprites
from geofix.world.terrain import COUNTRIES, CRS, Continent, Patch, build_continent, place_patches

FORMAT = 3
CHUNK = 150
MANIFEST = "world.json"


@dataclass(frozen=True)
class WorldSummary:
    """What lies in a world's directory; `bytes` is the sum of all its files."""

    photos: int
    aerial_rasters: int
    regions: int
    bytes: int


@dataclass(frozen=True)
class Recipe:
    """All that determines a world's bytes."""

    size: str
    seed: int
    without: Without = field(default_factory=Without)

    def scene(self, patch: int) -> Scene:
        """The scene of one patch; the last two are kept."""
        return _scene(self, patch)

    def geography(self) -> tuple[Size, Continent, list[Patch]]:
        """Size, continent and patches."""
        size, continent = get_size(self.size), build_continent(self.seed)
        return size, continent, place_patches(continent, size, self.seed)


@lru_cache(maxsize=2)
def _scene(recipe: Recipe, patch: int) -> Scene:
    _, continent, patches = recipe.geography()
    return build_scene(continent, patches[patch], recipe.seed, recipe.without)


def plan_world(recipe: Recipe) -> list[Shot]:
    """Every photo of a world, patch by patch."""
    size, continent, patches = recipe.geography()
    demands = [demand(build_layout(continent, p, recipe.seed), p, recipe.seed) for p in patches]
    counts = share_out(demands, size.photos)
    return [
        shot for d, count in zip(demands, counts, strict=True) for shot in plan_patch(d, count, recipe.seed)
    ]


def light_at(recipe: Recipe, shot: Shot) -> Light:
    """The light of a photo's moment."""
    moment = shot.captured_at
    day = moment.timetuple().tm_yday + moment.hour / 24
    return light_of(
        day, moment.hour + moment.minute / 60, rng_for(recipe.seed, 13, shot.patch, shot.sequence)
    )


def chance_of(recipe: Recipe, shot: Shot) -> tuple[np.random.Generator, tuple[Boxes | None, Sprites | None]]:
    """A photo's own generator, after it drew who passes by; and these."""
    rng = rng_for(recipe.seed, 14, shot.patch, shot.sequence, shot.number)
    extra = passers_by(rng, shot.camera, shot.road_azimuth_deg, shot.lateral_m, shot.road_half_m)
    return rng, extra


def take_photo(recipe: Recipe, shot: Shot, size: tuple[int, int]) -> object:
    """The pixels of one photo, (height, width, 3) uint8; they depend on the recipe and the shot alone."""
    light, (rng, extra) = light_at(recipe, shot), chance_of(recipe, shot)
    radiance = render(recipe.scene(shot.patch), shot.camera, light, shot.epoch, size, *extra)
    return expose(rng, radiance, CAMERAS[shot.device][3])


def _photos_task(root: Path, recipe: Recipe, shots: list[Shot]) -> int:
    size = get_size(recipe.size)
    for shot in shots:
        files.write_photo(root, shot, take_photo(recipe, shot, size.photo_px))  # type: ignore[arg-type]
    return len(shots)


def _aerial_task(root: Path, recipe: Recipe, patch: int, flight: int) -> int:
    size, scene = get_size(recipe.size), recipe.scene(patch)
    pixels, inside = render_aerial(scene, FLIGHTS[flight], size.aerial_m, recipe.seed)
    files.write_cog(_aerial_path(root, patch, flight), pixels, inside, scene.patch, size.aerial_m)
    return 0


def _aerial_path(root: Path, patch: int, flight: int) -> Path:
    return root / "aerial" / FLIGHTS[flight].date / f"sheet_{patch + 1:02d}.tif"


def create_world(
    directory: Path,
    *,
    size: str,
    seed: int,
    workers: int = 0,
    drop_ground_only: bool = False,
    drop_shared: bool = False,
) -> WorldSummary:
    """Write a world of `size` and `seed` below `directory`, or complete a half-written one.

    Args:
        directory: Made when absent; must be empty or hold this same world.
        size: tiny, demo, study or bench.
        seed: Any whole number from 0.
        workers: Rendering processes; 0: as set, by default one per core. Bytes do not depend on it.
        drop_ground_only: Ablation: blank facades, no signs, lamps and fences.
        drop_shared: Ablation: no trees and hedges, one colour for fields, roads and roofs.

    Raises:
        UsageError: The directory holds another world, or the seed is negative.
        BadInputError: The directory holds files that belong to no world of this seed.
        SpaceError: Too little free space.
    """
    if seed < 0:
        raise UsageError(f"World seed {seed} is negative.", hint="Use a whole number from 0.")
    get_size(size)
    root = Path(directory).expanduser().resolve()
    recipe = Recipe(size, seed, Without(ground_only=drop_ground_only, shared=drop_shared))
    manifest = _read_manifest(root, recipe)
    if manifest is not None and (summary := _intact(root, manifest)) is not None:
        return summary
    shots = plan_world(recipe)
    _check_strangers(root, shots)
    _check_space(root, recipe)
    root.mkdir(parents=True, exist_ok=True)
    _sweep(root)
    _write_manifest(root, recipe, None)
    _, continent, patches = recipe.geography()
    if not (root / "regions.gpkg").is_file():
        files.write_regions(root / "regions.gpkg", continent)
    files.write_table(root / "photos.csv", shots)
    _render(root, recipe, shots, len(patches), workers or get_settings().workers or os.cpu_count() or 1)
    summary = _measure(root, continent)
    _write_manifest(root, recipe, summary)
    return _with_manifest(root, summary)


def _render(root: Path, recipe: Recipe, shots: list[Shot], patches: int, workers: int) -> None:
    missing = [s for s in shots if not files.is_jpeg(root / s.path)]
    tasks: list[tuple[object, ...]] = []
    for patch in range(patches):
        here = [s for s in missing if s.patch == patch]
        tasks += [(_photos_task, root, recipe, here[i : i + CHUNK]) for i in range(0, len(here), CHUNK)]
        absent = [f for f in range(len(FLIGHTS)) if not _aerial_path(root, patch, f).is_file()]
        tasks += [(_aerial_task, root, recipe, patch, f) for f in absent]
    if not tasks:
        return
    with log.progress("world", len(missing), "photos") as advance:
        for done in run_tasks(tasks, min(workers, len(tasks))):
            advance(done)


def run_tasks(tasks: list[tuple[object, ...]], workers: int) -> Iterator[int]:
    """What each task returns, in any order; a task is a function and its arguments."""
    if workers == 1:
        for function, *args in tasks:
            yield function(*args)  # type: ignore[operator]
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_parent) as pool:
        futures: list[Future[int]] = [pool.submit(*task) for task in tasks]  # type: ignore[arg-type]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _follow_parent() -> None:
    """End this process when the one that started it dies: a killed run must leave no renderer behind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _read_manifest(root: Path, recipe: Recipe) -> dict[str, object] | None:
    """The manifest if it can be read; a readable one of another world is an error."""
    try:
        found = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        identity = found["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if identity != (wanted := _identity(recipe)):
        raise UsageError(
            f"{root} already holds the world of {_in_words(identity)}, not of {_in_words(wanted)}.",
            hint="Choose an empty directory, or the same size and seed.",
        )
    return dict(found)


def _identity(recipe: Recipe) -> dict[str, object]:
    return {"format": FORMAT, "size": recipe.size, "seed": recipe.seed, "without": asdict(recipe.without)}


def _in_words(identity: object) -> str:
    """A world's recipe for people: size, seed, and what else is not as usual."""
    if not isinstance(identity, dict):
        return "an unknown kind"
    words = [f"size {identity.get('size')}", f"seed {identity.get('seed')}"]
    without = identity.get("without")
    if isinstance(without, dict):
        words += [f"without its {name.replace('_', ' ')} cues" for name, off in without.items() if off]
    if identity.get("format") != FORMAT:
        words.append(f"format {identity.get('format')}, which this version does not write")
    return ", ".join(words)


def _photo_files(root: Path) -> Iterator[os.DirEntry[str]]:
    if (root / "photos").is_dir():
        for folder in os.scandir(root / "photos"):
            if folder.is_dir():
                yield from os.scandir(folder.path)


def _measure(root: Path, continent: Continent | None = None) -> WorldSummary:
    sizes = [e.stat().st_size for e in _photo_files(root) if e.name.endswith(".jpg")]
    rasters = [p.stat().st_size for p in sorted(root.glob("aerial/*/sheet_*.tif"))]
    other = sum(
        (root / name).stat().st_size for name in ("photos.csv", "regions.gpkg") if (root / name).is_file()
    )
    regions = len(COUNTRIES) if continent is None else len(continent.countries)
    return WorldSummary(len(sizes), len(rasters), regions, sum(sizes) + sum(rasters) + other)


def _with_manifest(root: Path, s: WorldSummary) -> WorldSummary:
    return WorldSummary(s.photos, s.aerial_rasters, s.regions, s.bytes + (root / MANIFEST).stat().st_size)


def _intact(root: Path, manifest: dict[str, object]) -> WorldSummary | None:
    """The summary when every byte that was written is still counted there."""
    found = _measure(root)
    return _with_manifest(root, found) if manifest.get("summary") == asdict(found) else None


def _write_manifest(root: Path, recipe: Recipe, summary: WorldSummary | None) -> None:
    size, _, patches = recipe.geography()
    content = {
        "recipe": _identity(recipe),
        "crs": CRS,
        "photo_px": size.photo_px,
        "aerial_m": size.aerial_m,
        "aerial_dates": [f.date for f in FLIGHTS],
        "sheets": [asdict(p) for p in patches],
        "complete": summary is not None,
        "summary": None if summary is None else asdict(summary),
    }
    files.write_bytes(root / MANIFEST, (json.dumps(content, indent=1) + "\n").encode())


def _check_strangers(root: Path, shots: list[Shot]) -> None:
    known = Counter(s.path.rsplit("/", 1)[1] for s in shots)
    for entry in _photo_files(root):
        if entry.name.endswith(".jpg") and entry.name not in known:
            raise BadInputError(
                f"{entry.path} is no photo of this world.",
                hint="Choose an empty directory, or the same size and seed.",
            )


def _check_space(root: Path, recipe: Recipe) -> None:
    """Estimated 0.9 bytes a photo pixel and 0.6 an aerial pixel, the upper end of what was measured."""
    size = get_size(recipe.size)
    need = size.photos * (0.9 * size.photo_px[0] * size.photo_px[1] + 1500)
    need += len(FLIGHTS) * size.patches * 0.6 * 1.7 * (size.side_m / size.aerial_m) ** 2
    existing = next(p for p in (root, *root.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free - need < get_settings().min_free_bytes:
        raise SpaceError(
            f"World {recipe.size} needs about {need / 1e6:.0f} MB; {free / 1e6:.0f} MB are free at {root}.",
            hint="Free some space, choose a smaller size, or lower GEOFIX_MIN_FREE_BYTES.",
        )


def _sweep(root: Path) -> None:
    """Remove what an interrupted run left half written."""
    for entry in [*_photo_files(root)]:
        if entry.name.endswith(".part"):
            Path(entry.path).unlink(missing_ok=True)
    for pattern in (".*.part", ".*.part.*", "aerial/*/.*.part.tif*"):
        for path in root.glob(pattern):
            path.unlink(missing_ok=True)
