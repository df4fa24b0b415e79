"""What belongs to a photo, found by the photo's hash or by the end of its path."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, Generic, TypeVar

import fsspec

from geofix.errors import BadInputError

Value = TypeVar("Value")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class PhotoTable(Generic[Value]):
    """Values of photos.

    A key is the sha256 of a photo's file in hexadecimal digits, or the end of its path: whole folder and file
    names, with or without the extension. The longest key that fits is taken, a hash before any path.

    Args:
        rows: Keys and values.
        where: What they were read from, for messages.

    Raises:
        BadInputError: A key stands there twice with different values.
    """

    def __init__(self, rows: Iterable[tuple[str, Value]], where: str) -> None:
        self.where = where
        self._hashes: dict[str, Value] = {}
        self._paths: dict[str, Value] = {}
        for key, value in rows:
            own = key.strip()
            table = self._hashes if _SHA256.fullmatch(own.lower()) else self._paths
            own = own.lower() if table is self._hashes else own.replace("\\", "/").strip("/")
            if own in table and table[own] != value:
                raise BadInputError(
                    f"{where} gives photo {own} {table[own]} and {value}.", hint="Leave one of the rows."
                )
            table[own] = value

    def __len__(self) -> int:
        return len(self._hashes) + len(self._paths)

    def find(self, uri: str) -> Value | None:
        """The value of a photo, or None; its file is read only where there are hashes."""
        if self._hashes and (found := self._hashes.get(photo_sha256(uri))) is not None:
            return found
        parts = PurePosixPath(uri.removeprefix("file://")).parts
        parts = tuple(part for part in parts if part != "/")
        for first in range(len(parts)):
            path = "/".join(parts[first:])
            for key in (path, path[: -len(suffix)] if (suffix := PurePosixPath(path).suffix) else path):
                if key in self._paths:
                    return self._paths[key]
        return None


def photo_sha256(uri: str) -> str:
    """Hash of a photo's file in hexadecimal digits, '' where it cannot be read."""
    try:
        if "://" not in uri:
            with Path(uri).open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        remote: Any
        with fsspec.open(uri, "rb") as remote:
            return hashlib.sha256(remote.read()).hexdigest()
    except (OSError, ValueError):
        return ""
