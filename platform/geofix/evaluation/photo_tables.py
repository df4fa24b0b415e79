"""Metadata of the usual photo sets, as their authors published it: positions, authors, scenes, places.

| layout | columns |
| --- | --- |
| GeoEstimation, TransLocator, MP-16 | IMG_ID, AUTHOR, LAT, LON, S3_Label, S16_Label, S365_Label, Prob_* |
| MEVER team | id, lat, lon |
| semantic partitioning | img_id, latitude, longitude |
| OSV-5M | id, latitude, longitude, country, region, sub-region, city, unique_*, creator_id |

Every file is a truth: a photo without a place, or with an impossible one, is refused rather than guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geofix.errors import BadInputError, NotFoundError
from geofix.evaluation import checks
from geofix.evaluation.photo_sets import PhotoSet, find_set
from geofix.evaluation.tables import Positions, read_positions
from geofix.ingest.files import FileFinder, walk

# Scene label columns and their number of classes (Places365 and its hierarchy).
SCENES = {"s3_label": 3, "s16_label": 16, "s365_label": 365}
# Order of the classes of S3: 0 indoor, 1 natural, 2 urban.
SCENE_PROBABILITIES = ("prob_indoor", "prob_natural", "prob_urban")
LEVELS = ("country", "region", "area", "city")
# The first column found counts. A unique name holds the levels above it, so equal names are equal places.
PLACES = {
    "country": ("unique_country", "country"),
    "region": ("unique_region", "region"),
    "area": ("unique_sub-region", "sub-region", "area"),
    "city": ("unique_city", "city"),
}
_AUTHORS = ("author", "creator_id", "creator_username", "creator", "username")
_SHA256 = ("sha256",)
_BLANK = ("", "nan", "none", "null", "n/a")
_PROBABILITY_SLACK = 1e-6  # rounding of shipped probabilities


@dataclass
class PhotoTable:
    """One row per photo of a set.

    Attributes:
        positions: Ids, latitudes and longitudes, with the warnings of reading.
        photo_set: Which set it is said to be; None: somebody's own.
        authors: Shape (n,), "" where unknown; None without such a column.
        sha256: Shape (n,), hexadecimal; None without such a column.
        scenes: `s3_label`, `s16_label`, `s365_label` to classes, shape (n,).
        scene_probability: Indoor, natural, urban, shape (n, 3), or None.
        places: Administrative level to names, shape (n,), "" where there is no label.
        warnings: What was mended or looks odd.
    """

    positions: Positions
    photo_set: PhotoSet | None = None
    authors: NDArray[np.object_] | None = None
    sha256: NDArray[np.object_] | None = None
    scenes: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    scene_probability: NDArray[np.float64] | None = None
    places: dict[str, NDArray[np.object_]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def ids(self) -> NDArray[np.object_]:
        """Ids as written, shape (n,)."""
        return self.positions.ids

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class ImageMatch:
    """Files of a folder beside the rows of a table.

    Attributes:
        paths: One per row, None where there is no file.
        refused: Ids without a file, with the reason.
        unlisted: Files that no row names, by their path below the folder.
    """

    paths: list[Path | None]
    refused: dict[str, str]
    unlisted: list[str]


def read_photo_table(
    path: Path,
    *,
    photo_set: str | None = None,
    columns: Mapping[str, str] | None = None,
    check_axes: bool = True,
) -> PhotoTable:
    """Read the published metadata of a photo set, in any of the layouts above.

    Args:
        path: CSV or Parquet.
        photo_set: Its name; the number of rows is compared with the published one.
        columns: Field to column where names are unusual (id, lat, lon).
        check_axes: Refuse a file whose latitude and longitude look swapped.

    Raises:
        NotFoundError: No such file, or no set of this name.
        BadInputError: The file cannot be used as it is: damaged ids, swapped columns, photos without a place,
            an unknown scene; the message names lines.
    """
    known = None if photo_set is None else find_set(photo_set)
    names = {
        *SCENES,
        *SCENE_PROBABILITIES,
        *_AUTHORS,
        *_SHA256,
        *(c for some in PLACES.values() for c in some),
    }
    positions = read_positions(path, "true", columns, others=names)
    if check_axes:
        checks.check_axes(positions, "true")
    checks.check_truth(positions)
    frame = positions.frame
    lower = {str(column).lower(): str(column) for column in frame.columns}
    found = PhotoTable(
        positions,
        known,
        _first(frame, lower, _AUTHORS),
        _first(frame, lower, _SHA256),
        {name: _scene(path, frame[lower[name]], count) for name, count in SCENES.items() if name in lower},
        _probabilities(path, frame, lower),
        {level: texts for level, some in PLACES.items() if (texts := _first(frame, lower, some)) is not None},
        list(positions.warnings),
    )
    found.warnings += _count_warning(known, len(found), path)
    return found


def match_images(table: PhotoTable, folder: Path) -> ImageMatch:
    """Find the image of each row below a folder, by the rules of `geofix ingest photos`.

    Raises:
        NotFoundError: No such folder.
    """
    if not folder.is_dir():
        raise NotFoundError(f"There is no folder {folder}.", hint="Give the folder that holds the images.")
    finder = FileFinder(folder, table.positions.path.parent)
    found = [finder.find(str(name)) for name in table.ids]
    paths = [None if item.refusal else Path(item.path) for item in found]
    refused = {
        str(name): f"{item.refusal.reason}: {item.refusal.detail}"
        for name, item in zip(table.ids, found, strict=True)
        if item.refusal
    }
    used = {item.path for item in found if not item.refusal}
    unlisted = sorted(item.key for item in walk(folder) if item.path not in used)
    return ImageMatch(paths, refused, unlisted)


def describe(table: PhotoTable) -> dict[str, object]:
    """What a table holds, for people and as JSON."""
    found: dict[str, object] = {"file": str(table.positions.path), "n": len(table)}
    if table.photo_set is not None:
        known = table.photo_set
        found |= {"set": known.name, "published_n": known.images, "note": known.note or None}
    found["latitude"], found["longitude"] = table.positions.columns["lat"], table.positions.columns["lon"]
    if table.authors is not None:
        authors = pd.Series(table.authors[table.authors != ""]).value_counts()
        found["authors"] = len(authors)
        found["most_photos_of_one_author"] = int(authors.iloc[0]) if len(authors) else 0
    for name, classes in table.scenes.items():
        counts = np.bincount(classes, minlength=SCENES[name])
        found[name] = counts.tolist() if len(counts) <= 16 else f"{int((counts > 0).sum())} classes"
    for level, labels in table.places.items():
        found[f"without_{level}"] = int((labels == "").sum())
    spots = pd.DataFrame({"lat": table.positions.lat, "lon": table.positions.lon})
    found["share_their_position"] = int(spots.duplicated(keep=False).sum())
    return found


def _count_warning(known: PhotoSet | None, n: int, path: Path) -> list[str]:
    if known is None or known.images is None or known.images == n:
        return []
    why = next((f": {what}" for number, what in known.others if number == n), "")
    return [f"{path.name} holds {n:,} photos, {known.name} has {known.images:,}{why}."]


def _first(frame: pd.DataFrame, lower: Mapping[str, str], names: Sequence[str]) -> NDArray[np.object_] | None:
    """The first of some columns as text, blanks as ""; None when there is none of them."""
    column = next((lower[name] for name in names if name in lower), None)
    if column is None:
        return None
    text = frame[column].str.strip()
    return text.mask(text.str.lower().isin(_BLANK), "").to_numpy(dtype=object)


def _scene(path: Path, column: pd.Series, count: int) -> NDArray[np.int64]:
    values = pd.to_numeric(column.str.strip(), errors="coerce")
    bad = values.isna() | (values % 1 != 0) | (values < 0) | (values >= count)
    if bad.any():
        line = values.index[bad][0]
        raise BadInputError(
            f"{path}, line {line}: {column.name} is {column.loc[line]!r}, an unknown scene; {int(bad.sum())} "
            f"row(s) have none of the classes 0 to {count - 1}.",
            hint="Label the photos again with the same list of scenes, or leave the column out.",
        )
    return values.to_numpy(dtype=np.int64)


def _probabilities(path: Path, frame: pd.DataFrame, lower: Mapping[str, str]) -> NDArray[np.float64] | None:
    if not all(name in lower for name in SCENE_PROBABILITIES):
        return None
    columns = [pd.to_numeric(frame[lower[name]], errors="coerce") for name in SCENE_PROBABILITIES]
    values = np.stack([c.to_numpy(dtype=np.float64) for c in columns], axis=1)
    with np.errstate(invalid="ignore"):
        inside = (values >= -_PROBABILITY_SLACK) & (values <= 1 + _PROBABILITY_SLACK)
    if not inside.all():
        row = int(np.flatnonzero(~inside.all(axis=1))[0])
        raise BadInputError(
            f"{path}, line {frame.index[row]}: {values[row].tolist()} are no probabilities of indoor, "
            "natural, urban.",
            hint="They are numbers between 0 and 1.",
        )
    return values
