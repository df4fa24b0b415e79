"""Photos that visitors upload: checked, kept where only this user reads, removed with their answer."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geofix.imagery.photo import BadPhoto, decode_photo
from geofix.settings import get_settings
from geofix.storage import readable_bytes

TYPES = ["jpg", "jpeg", "png", "webp", "heic", "heif"]
KEPT_S = 24 * 3600  # a folder whose job was never finished goes after a day
PREVIEW_PX = 420


@dataclass(frozen=True, eq=False)
class Upload:
    """One file as it was sent.

    Attributes:
        name: What its owner calls it; never part of a path.
        data: Its bytes.
        preview: Upright pixels (h, w, 3), or in words why it is no photo.
    """

    name: str
    data: bytes
    preview: np.ndarray | str

    @property
    def good(self) -> bool:
        """Whether it is a photo."""
        return not isinstance(self.preview, str)


def read(name: str, data: bytes) -> Upload:
    """Decode a file with the product's limits on bytes and pixels; nothing in it is executed or kept."""
    if not data:
        return Upload(name, data, f"{name} is empty. Copy the file again.")
    most = get_settings().max_photo_bytes
    if len(data) > most:
        told = f"{name} has {readable_bytes(len(data))}, more than {readable_bytes(most)}. Make it smaller."
        return Upload(name, data, told)
    try:
        return Upload(name, data, decode_photo(data, max_side=PREVIEW_PX))
    except BadPhoto as error:
        told = error.message.replace(f"{len(data)} bytes", name)
        named = told if name in told else f"{name}: {told}"
        return Upload(name, data, f"{named} {error.hint}".strip())


def store(photos: Iterable[Upload]) -> list[Path]:
    """Write photos to a new private folder under names of our own; their paths."""
    folder = _home() / secrets.token_hex(8)
    folder.mkdir(parents=True, mode=0o700)
    paths = []
    for number, photo in enumerate(photos, start=1):
        path = folder / f"photo-{number:03}.bin"
        path.write_bytes(photo.data)
        path.chmod(0o600)
        paths.append(path)
    return paths


def remove(paths: Iterable[str | Path]) -> None:
    """Remove the folders of stored photos; paths elsewhere are left alone."""
    for folder in {Path(path).parent for path in paths}:
        if folder.parent == _home():
            shutil.rmtree(folder, ignore_errors=True)


def stored(path: str | Path) -> bool:
    """Whether a path is one that `store` gives."""
    return Path(path).parent.parent == _home() and ".." not in Path(path).parts


def sweep() -> int:
    """Remove folders that are a day old; how many."""
    if not _home().is_dir():
        return 0
    old = [item for item in _home().iterdir() if time.time() - item.stat().st_mtime > KEPT_S]
    for folder in old:
        shutil.rmtree(folder, ignore_errors=True)
    return len(old)


def _home() -> Path:
    return get_settings().home_dir / "uploads"
