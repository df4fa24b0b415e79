"""Scene labels of photos from a CSV file: 3, 16 or 365 classes of the Places hierarchy."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geofix.errors import BadInputError, NotFoundError
from geofix.imagery.photo_keys import PhotoTable

S3 = ("indoor", "natural", "urban")
"""The three scenes, in the order of their published numbers."""
COUNTS = (3, 16, 365)
NONE = -1
_PHOTO = ("photo", "sha256", "image_path", "IMG_ID", "img_id")
_COLUMNS = {3: ("s3", "S3_Label"), 16: ("s16", "S16_Label"), 365: ("s365", "S365_Label")}


class SceneLabels:
    """Labels of photos.

    Columns: `photo` (end of the path) or `sha256`, and any of `s3`, `s16`, `s365`; the published names
    (`IMG_ID`, `S3_Label`, `S16_Label`, `S365_Label`) are read as well. Numbers from 0; `s3` may be a name. An
    empty field is no label.

    Raises:
        NotFoundError: There is no such file.
        BadInputError: A column is missing, or a label is no scene.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open(newline="", encoding="utf-8-sig") as stream:
                reader = csv.DictReader(stream)
                names = list(reader.fieldnames or ())
                photo = next((name for name in _PHOTO if name in names), None)
                self.columns = {
                    count: name for count, known in _COLUMNS.items() for name in known if name in names
                }
                if photo is None or not self.columns:
                    raise BadInputError(
                        f"{path} has columns {', '.join(names) or 'none'}; `photo` or `sha256` is needed, "
                        "and one of s3, s16, s365.",
                    )
                rows = [(row[photo] or "", self._labels(row, reader.line_num)) for row in reader]
        except FileNotFoundError as error:
            raise NotFoundError(
                f"Scene labels {path} do not exist.", hint="Correct `scenes.labels`."
            ) from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise BadInputError(f"{path} cannot be read: {error}.", hint="Use CSV in UTF-8.") from error
        self._table = PhotoTable((row for row in rows if row[0]), str(path))

    def of(self, uri: str, count: int) -> int:
        """Label of a photo among so many scenes, `NONE` where it has none.

        Raises:
            BadInputError: The file has no column for them.
        """
        if count not in self.columns:
            raise BadInputError(
                f"{self.path} has no labels of {count} scenes.", hint=f"It has: {sorted(self.columns)}."
            )
        found = self._table.find(uri)
        return NONE if found is None else found[COUNTS.index(count)]

    def table(self, uris: Sequence[str], counts: Sequence[int]) -> NDArray[np.int64]:
        """Labels (n, len(counts)) of photos, `NONE` where there is none."""
        rows = [[self.of(uri, count) for count in counts] for uri in uris]
        return np.array(rows, np.int64).reshape(len(uris), len(counts))

    def _labels(self, row: dict[str, str], line: int) -> tuple[int, ...]:
        return tuple(
            scene_number(row.get(self.columns[count]) or "", count, f"{self.path} line {line}")
            if count in self.columns
            else NONE
            for count in COUNTS
        )


def scene_number(text: str, count: int, where: str) -> int:
    """A scene as a number; '' is none.

    Raises:
        BadInputError: It is no scene of so many.
    """
    text = text.strip()
    if not text:
        return NONE
    if count == len(S3) and text.lower() in S3:
        return S3.index(text.lower())
    if text.isdecimal() and int(text) < count:
        return int(text)
    names = f", or {', '.join(S3)}" if count == len(S3) else ""
    raise BadInputError(
        f"{where}: scene {text!r} is none of the {count}.", hint=f"Use 0 to {count - 1}{names}."
    )
