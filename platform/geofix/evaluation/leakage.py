"""Do two lists of photos share something? The same photo by id or by bytes, or the same photographer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geofix.evaluation.photo_tables import ImageMatch, PhotoTable

_EXAMPLES = 5
# The test sets of Im2GPS name a photo PHOTO_SECRET_SERVER_OWNER.jpg; others name the photo alone.
_FLICKR = re.compile(r"^(\d+)_[0-9a-f]+_\d+_(\d+@N\d+)$")
_IMAGE = re.compile(r"\.(jpe?g|png|webp|tiff?|heic|heif|avif|bmp)$", re.IGNORECASE)


@dataclass(frozen=True)
class PhotoList:
    """What two lists are compared by; None where a list does not say.

    Attributes:
        name: For messages.
        ids: Photo keys (see `photo_key`), shape (n,).
        sha256: Hexadecimal, "" where unknown, shape (n,).
        authors: "" where unknown, shape (n,).
    """

    name: str
    ids: NDArray[np.object_]
    sha256: NDArray[np.object_] | None = None
    authors: NDArray[np.object_] | None = None


def photo_key(text: str) -> str:
    """The part of an id that names the photo: `45/77/3228511372.jpg` and `3228511372` are one photo."""
    last = _IMAGE.sub("", text.strip().replace("\\", "/").rsplit("/", 1)[-1])
    found = _FLICKR.match(last)
    return found.group(1) if found else last


def author_of(text: str) -> str:
    """The owner that an Im2GPS name ends with; "" for any other id."""
    found = _FLICKR.match(_IMAGE.sub("", text.strip().rsplit("/", 1)[-1]))
    return found.group(2) if found else ""


def photo_list(table: PhotoTable, images: ImageMatch | None = None) -> PhotoList:
    """A table as a list to compare; sha256 of the column, or of the files where these are given."""
    keys = np.array([photo_key(str(i)) for i in table.ids], dtype=object)
    authors = table.authors
    if authors is None:
        owners = np.array([author_of(str(i)) for i in table.ids], dtype=object)
        authors = owners if (owners != "").any() else None
    sha256 = table.sha256
    if sha256 is None and images is not None:
        sha256 = np.array([_digest(path) for path in images.paths], dtype=object)
    return PhotoList(table.positions.path.name, keys, sha256, authors)


def find_leaks(train: PhotoList, test: PhotoList) -> dict[str, Any]:
    """Photos of `test` that `train` holds too, by id and by sha256, and those whose author is in `train`.

    A shared author is no fault of a list, but methods that search training photos gain from it, most at
    1 km: give their result with and without (`geofix evaluate run --exclude-author`).

    Returns:
        `{"train", "test", "n_train", "n_test", "leaks": {"id" | "sha256" | "author": {"photos", "values",
        "percent", "examples"} or None}}`; None where one of the lists does not say. `photos` counts test
        photos, `values` different ids, sums or authors.
    """
    pairs = {
        "id": (train.ids, test.ids),
        "sha256": (train.sha256, test.sha256),
        "author": (train.authors, test.authors),
    }
    return {
        "train": train.name,
        "test": test.name,
        "n_train": len(train.ids),
        "n_test": len(test.ids),
        "leaks": {name: None if a is None or b is None else _shared(a, b) for name, (a, b) in pairs.items()},
    }


def _shared(train: NDArray[np.object_], test: NDArray[np.object_]) -> dict[str, Any]:
    known = set(train) - {""}
    hits = np.array([value in known for value in test], dtype=bool)
    values: Sequence[str] = list(dict.fromkeys(str(v) for v in test[hits]))
    return {
        "photos": int(hits.sum()),
        "values": len(values),
        "percent": float(100.0 * hits.mean()) if len(hits) else 0.0,
        "examples": list(values[:_EXAMPLES]),
    }


def _digest(path: Path | None) -> str:
    if path is None:
        return ""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
