"""Scanning a folder of tiles: what exists, what is damaged, what is missing, and where it lies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fsspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from shapely import MultiPolygon, box, union_all

from geofix.imagery.handles import is_remote, local_path
from geofix.imagery.sources import RasterError, RasterSource, XyzLayout
from geofix.imagery.xyz import EXTENSIONS, MAX_TILE_PX, load_tile, needed_tiles, tile_bounds, tile_name

BLANK_SHARE = 0.6
"""Tiles with more than this share of blank pixels count as not there."""


@dataclass(frozen=True)
class TileIndex:
    """What a scan of a pyramid found.

    Args:
        layout: How the folder is laid out.
        tiles: Per zoom an int64 array (n, 2) of x and y, y counted from the north.
        bad: Relative path -> why the file is no usable tile.
        blank: Relative paths of tiles that hold next to no imagery; they are not in `tiles`.
    """

    layout: XyzLayout
    tiles: dict[int, NDArray[np.int64]]
    bad: dict[str, str]
    blank: list[str]


def scan_pyramid(
    root: Path,
    *,
    tms: bool = False,
    fallback_zooms: int = 0,
    blank_rgb: tuple[int, int, int] | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> TileIndex:
    """List a local pyramid and look at the header of every tile.

    With `blank_rgb` every tile is decoded. Memory is 16 bytes per tile.
    Files that are no tiles (a list beside them, say) are passed over.

    Raises:
        RasterError: `no_tiles`.
    """
    names: dict[str, int] = {}
    sizes: dict[int, int] = {}
    found: dict[int, list[tuple[int, int]]] = {}
    bad: dict[str, str] = {}
    blank: list[str] = []
    for zoom_dir in _numbered(root):
        zoom = int(zoom_dir.name)
        for x_dir in _numbered(zoom_dir):
            for path in sorted(x_dir.iterdir()):
                extension = path.suffix[1:].lower()
                if extension not in EXTENSIONS or not path.stem.isdigit():
                    continue
                advance(1)
                x, row = int(x_dir.name), int(path.stem)
                relative = path.relative_to(root).as_posix()
                problem, size = _tile_problem(path, root, zoom, x, row)
                if problem:
                    bad[relative] = problem
                    continue
                names[path.suffix[1:]] = names.get(path.suffix[1:], 0) + 1
                sizes[size] = sizes.get(size, 0) + 1
                if blank_rgb is not None and _is_blank(root, relative, size, blank_rgb):
                    blank.append(relative)
                    continue
                found.setdefault(zoom, []).append((x, 2**zoom - 1 - row if tms else row))
    if not found:
        raise RasterError(
            "no_tiles",
            f"{root}: no tile named z/x/y.{{{','.join(EXTENSIONS)}}} was found.",
            hint="Check the folder.",
        )
    if len(names) > 1 or len(sizes) > 1:
        raise RasterError(
            "no_tiles",
            f"{root}: tiles differ in ending {sorted(names)} or side {sorted(sizes)} px.",
            hint="Give every kind of tile a folder of its own.",
        )
    layout = XyzLayout(
        next(iter(names)), next(iter(sizes)), tuple(sorted(found)), tms, fallback_zooms, blank_rgb
    )
    return TileIndex(layout, {z: np.array(sorted(found[z]), np.int64) for z in layout.zooms}, bad, blank)


def listing_digest(root: Path) -> tuple[bytes, int, int]:
    """sha256 over name, size and time of every tile, their bytes, and the newest time in nanoseconds."""
    digest, total, newest = hashlib.sha256(), 0, 0
    for zoom_dir in _numbered(root):
        for x_dir in _numbered(zoom_dir):
            for entry in sorted(os.scandir(x_dir), key=lambda entry: entry.name):
                stat = entry.stat(follow_symlinks=False)
                name = os.fsencode(entry.name)
                digest.update(
                    b"%s/%s/%s %d %d\n"
                    % (zoom_dir.name.encode(), x_dir.name.encode(), name, stat.st_size, stat.st_mtime_ns)
                )
                total += stat.st_size
                newest = max(newest, stat.st_mtime_ns)
    return digest.digest(), total, newest


def is_pyramid(folder: Path) -> bool:
    """Whether a folder looks like z/x/y: numbered folders in numbered folders, with a numbered tile."""
    for zoom_dir in _numbered(folder):
        for x_dir in _numbered(zoom_dir):
            return any(p.stem.isdigit() and p.suffix[1:].lower() in EXTENSIONS for p in x_dir.iterdir())
    return False


def missing_tiles(
    source: RasterSource, zoom: int, lon: NDArray[np.float64], lat: NDArray[np.float64]
) -> tuple[int, list[str]]:
    """How many tiles cover the given points at a zoom, and the names of those that do not exist."""
    layout = source.xyz
    assert layout is not None
    needed = [tile_name(layout, zoom, x, y) for x, y in needed_tiles(zoom, lon, lat, layout.tile_px)]
    if is_remote(source.uri):
        there = [fsspec.core.url_to_fs(f"{source.uri.rstrip('/')}/{name}") for name in needed]
        return len(needed), [n for n, (fs, path) in zip(needed, there, strict=True) if not fs.exists(path)]
    root = local_path(source.uri)
    return len(needed), [name for name in needed if not (root / name).is_file()]


def _numbered(folder: Path) -> list[Path]:
    """Subfolders whose name is a number, in numeric order."""
    return sorted((p for p in folder.iterdir() if p.name.isdigit() and p.is_dir()), key=lambda p: int(p.name))


def _is_blank(root: Path, name: str, tile_px: int, blank_rgb: tuple[int, int, int]) -> bool:
    """Whether most of a tile holds no imagery."""
    pixels = load_tile(str(root), name, tile_px, blank_rgb)
    return pixels is not None and bool((pixels[..., 3] < 128).mean() > BLANK_SHARE)


def _tile_problem(path: Path, root: Path, zoom: int, x: int, row: int) -> tuple[str, int]:
    """Why a file is no usable tile (empty: it is one), and its side in pixels."""
    if zoom > 30 or not (0 <= x < 2**zoom and 0 <= row < 2**zoom):
        return "outside_earth", 0
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        return "symlink_outside", 0
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError):
        return (
            "zero_sized" if path.stat().st_size == 0 else "unreadable"
        ) if path.exists() else "unreadable", 0
    if width != height or not 1 <= width <= MAX_TILE_PX:
        return "not_square", 0
    return "", width


def footprint(index: TileIndex, zoom: int) -> MultiPolygon:
    """Where a zoom has tiles, EPSG:4326; runs of tiles in a column are merged before the union."""
    tiles = index.tiles[zoom]
    boxes = []
    for x in np.unique(tiles[:, 0]):
        rows = np.sort(tiles[tiles[:, 0] == x, 1])
        for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
            west, _, east, north = tile_bounds(zoom, int(x), int(run[0]))
            _, south, _, _ = tile_bounds(zoom, int(x), int(run[-1]))
            boxes.append(box(west, south, east, north))
    merged = union_all(boxes)
    return merged if isinstance(merged, MultiPolygon) else MultiPolygon([merged])
