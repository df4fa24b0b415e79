"""Semantic maps of photos: which class each pixel belongs to, read from files with all that can be wrong."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geofix.errors import BadInputError, NotFoundError
from geofix.imagery.photo_keys import PhotoTable
from geofix.settings import get_settings

CLASSES = "semantics.json"
"""Name of the list of classes within a folder of maps."""
MOST_CLASSES = 256
_FORMATS = ("PNG", "TIFF", "BMP")  # of exact values; JPEG would mix classes
_SUFFIXES = {".png", ".tif", ".tiff", ".bmp"}
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassList:
    """The classes of semantic maps.

    Attributes:
        names: One per class; a class's number is its place.
        colours: RGB of each, all different.
        source: Who made the maps, as the list says; '' where it does not.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    source: str = ""

    def __post_init__(self) -> None:
        if not 2 <= len(self.names) <= MOST_CLASSES or len(self.names) != len(self.colours):
            raise BadInputError(
                f"A list of {len(self.names)} classes with {len(self.colours)} colours cannot be used.",
                hint=f"Semantic maps have 2 to {MOST_CLASSES} classes, each with a colour.",
            )
        if len(set(self.colours)) != len(self.colours):
            raise BadInputError("Two semantic classes have the same colour.", hint="Give each its own.")
        if any(not 0 <= value <= 255 for colour in self.colours for value in colour):
            raise BadInputError("A colour of a semantic class is outside 0 to 255.")

    def __len__(self) -> int:
        return len(self.names)

    def as_dict(self) -> dict[str, Any]:
        """As `semantics.json` holds it."""
        classes = [{"name": n, "rgb": list(c)} for n, c in zip(self.names, self.colours, strict=True)]
        return {"source": self.source, "classes": classes}

    @classmethod
    def from_dict(cls, content: Any, where: str) -> ClassList:
        """Read what `as_dict` gave.

        Raises:
            BadInputError: It is something else.
        """
        try:
            items = content["classes"]
            names = tuple(str(item["name"]) for item in items)
            colours = tuple((int(r), int(g), int(b)) for r, g, b in (item["rgb"] for item in items))
            return cls(names, colours, str(content.get("source", "")))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInputError(
                f"{where} is no list of semantic classes: {type(error).__name__} {error}.",
                hint='It looks like {"source": "...", "classes": [{"name": "sky", "rgb": [70, 130, 180]}]}.',
            ) from error


def read_class_list(path: Path) -> ClassList:
    """Read a list of classes.

    Raises:
        NotFoundError: There is no such file.
        BadInputError: It holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{path} does not exist: it lists the classes of the semantic maps.",
            hint="Write it beside the maps, or name another file as `semantics.classes`.",
        ) from error
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} cannot be read: {error}.", hint="It must be JSON in UTF-8.") from error
    return ClassList.from_dict(content, str(path))


def read_class_map(path: Path, classes: ClassList) -> Image.Image:
    """A map's class numbers as a grey picture; coloured maps are translated by the classes' colours.

    Raises:
        NotFoundError: There is no such file.
        BadInputError: It cannot be read, or shows a class that the list does not have.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > get_settings().max_photo_pixels:
                raise BadInputError(f"Semantic map {path} has {width} x {height} pixels, too many.")
            values = np.asarray(image if image.mode in ("L", "P", "1") else image.convert("RGB"))
            mode = image.mode
    except FileNotFoundError as error:
        raise NotFoundError(f"Semantic map {path} does not exist.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInputError(
            f"Semantic map {path} cannot be read: {error}.", hint="Use PNG with class numbers or colours."
        ) from error
    if mode not in ("L", "P", "RGB", "RGBA"):
        raise BadInputError(
            f"Semantic map {path} has pixels of kind {mode}.", hint="Use 8-bit class numbers or RGB colours."
        )
    numbers = values if values.ndim == 2 else _numbers(values, classes, path)
    if (highest := int(numbers.max())) >= len(classes):
        raise BadInputError(
            f"Semantic map {path} shows class {highest}; the list has {len(classes)}, from 0.",
            hint="Give the list of classes that the maps were made with.",
        )
    return Image.fromarray(np.ascontiguousarray(numbers, dtype=np.uint8))


def _numbers(colours: NDArray[np.uint8], classes: ClassList, path: Path) -> NDArray[np.uint8]:
    packed = colours.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    known = np.array(classes.colours, np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    order = np.argsort(known)
    place = np.minimum(np.searchsorted(known[order], packed), len(known) - 1)
    numbers = order[place]
    wrong = known[numbers] != packed
    if wrong.any():
        rgb = colours[wrong][0].tolist()
        raise BadInputError(
            f"Semantic map {path} shows colour {rgb}, which is none of the {len(classes)} classes'.",
            hint="Give the list of classes that the maps were made with; maps must not be smoothed.",
        )
    return np.asarray(numbers, np.uint8)


def fitted(classes: Image.Image, size: tuple[int, int], where: str) -> Image.Image:
    """A map at a photo's size (width, height), by the nearest pixel.

    Raises:
        BadInputError: It has other proportions than the photo, by more than rounding: one pixel of either.
    """
    (w, h), (photo_w, photo_h) = classes.size, size
    rounding = 1.0 / min(w, h) + 1.0 / min(photo_w, photo_h)
    if abs(w * photo_h / (h * photo_w) - 1.0) > rounding:
        raise BadInputError(
            f"Semantic map {where} has {w} x {h} pixels, its photo {photo_w} x {photo_h}: other proportions.",
            hint="Make maps of whole photos, upright as EXIF says.",
        )
    return classes if classes.size == size else classes.resize(size, Image.Resampling.NEAREST)


class SemanticMaps:
    """Maps in files beside the photos.

    Args:
        place: A folder whose files are named as the photos are (the end of the path, or the sha256 of the
            photo's file), or a CSV file with columns `photo` (path or sha256) and `map` (path from there).
        classes: What the maps show; None: `semantics.json` in the folder.

    Raises:
        NotFoundError: There is no such folder or file.
        BadInputError: No map is there, or the CSV file lacks a column.
    """

    def __init__(self, place: Path, classes: ClassList | None = None) -> None:
        self.place = place
        if not place.exists():
            raise NotFoundError(f"Semantic maps {place} do not exist.", hint="Correct `semantics.maps`.")
        folder = place if place.is_dir() else place.parent
        beside = folder / CLASSES
        self.classes = read_class_list(beside) if classes is None else classes
        if classes is not None and beside.is_file():
            _same(read_class_list(beside), classes, beside)
        rows = _of_folder(place) if place.is_dir() else _of_table(place)
        self._files: PhotoTable[Path] = PhotoTable(rows, str(place))
        if not len(self._files):
            raise BadInputError(f"{place} holds no semantic map.", hint="Maps are PNG, TIFF or BMP files.")

    def file_of(self, uri: str) -> Path | None:
        """The file of a photo's map, or None."""
        return self._files.find(uri)

    def read(self, uri: str, size: tuple[int, int]) -> Image.Image:
        """The map of a photo whose pixels have this (width, height).

        Raises:
            NotFoundError: It has none.
            BadInputError: It cannot be used.
        """
        path = self.file_of(uri)
        if path is None:
            raise NotFoundError(f"{self.place} has no semantic map of photo {uri}.")
        return fitted(read_class_map(path, self.classes), size, str(path))


def _same(found: ClassList, wanted: ClassList, path: Path) -> None:
    if (found.names, found.colours) != (wanted.names, wanted.colours):
        raise BadInputError(
            f"{path} lists {len(found)} classes, which are not the {len(wanted)} that are wanted.",
            hint="Maps must show the classes that the model was trained with.",
        )


def _of_folder(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."):
            yield path.relative_to(folder).with_suffix("").as_posix(), path


def _of_table(path: Path) -> Iterator[tuple[str, Path]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if not {"photo", "map"} <= set(reader.fieldnames or ()):
                found = ", ".join(reader.fieldnames or ()) or "none"
                raise BadInputError(f"{path} has columns {found}; photo and map are needed.")
            for row in reader:
                if row["photo"] and row["map"]:
                    yield row["photo"], path.parent / row["map"]
    except UnicodeDecodeError as error:
        line, text = _not_utf8(path)
        raise BadInputError(
            f"{path}, line {line}: {text!r} is no UTF-8, so the list of semantic maps cannot be read.",
            hint="Save it as CSV with UTF-8 encoding.",
        ) from error
    except (OSError, csv.Error) as error:
        raise BadInputError(
            f"{path} is no list of semantic maps: {error}.",
            hint="Give a CSV file with columns photo and map, or a folder of maps.",
        ) from error


def _not_utf8(path: Path) -> tuple[int, bytes]:
    """The first line that is no UTF-8, with its beginning."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number, line.strip()[:60]
    return 1, b""
