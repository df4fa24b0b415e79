"""Photo files below a folder: walking it, and finding the file a metadata row names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from geofix.imagery.photo import PHOTO_EXTENSIONS, sniff_format
from geofix.ingest.checks import Refusal
from geofix.ingest.formats.base import printable

_UNMISTAKABLE = ("JPEG", "PNG", "WEBP", "HEIF", "AVIF")
_TRIED_EXTENSIONS = (".jpg", ".jpeg", ".JPG", ".png", ".webp", ".heic", ".JPEG", ".PNG", ".HEIC")


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the folder: its key (path below the folder, valid UTF-8), its path, or why it is refused."""

    key: str
    path: str = ""
    refusal: Refusal | None = None


def walk(root: Path) -> Iterator[Found]:
    """Yield every photo below `root`, folder by folder in the order of names.

    Files without a photo's extension are passed over, unless they are images all the same: then they are
    yielded and refused later for their name. Hidden folders and ``._*`` files are passed over. Symbolic links
    are followed only when they stay below `root`: a linked folder is walked where it really is, a link to a
    photo that is walked itself is refused as its duplicate.
    """
    top = os.path.realpath(root)
    stack = [top]
    while stack:
        folder = stack.pop()
        try:
            with os.scandir(folder) as entries:
                listing = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            detail = f"the folder cannot be read: {error.strerror or error}"
            yield Found(_key(folder, top), folder, Refusal("unreadable", detail))
            continue
        folders: list[str] = []
        for entry in listing:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("."):
                    folders.append(entry.path)
            elif (found := _entry(entry, top)) is not None:
                yield found
        stack.extend(reversed(folders))


def _key(path: str, top: str) -> str:
    return printable(os.path.relpath(path, top).replace(os.sep, "/"))


def _entry(entry: os.DirEntry[str], top: str) -> Found | None:
    if entry.name.startswith("._"):
        return None
    extension = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
    photo = extension in PHOTO_EXTENSIONS
    if entry.is_symlink():
        target = os.path.realpath(entry.path)
        if not within(target, top):
            shown = printable(os.readlink(entry.path))  # noqa: PTH115
            return Found(_key(entry.path, top), entry.path, Refusal("symlink_outside", f"links to {shown}"))
        if os.path.isdir(target):  # noqa: PTH112
            return None
        if not os.path.exists(target):  # noqa: PTH110
            return Found(_key(entry.path, top), entry.path, Refusal("missing_file", "a broken symbolic link"))
        if _is_walked(target, top):
            refusal = Refusal("duplicate_file", f"links to {_key(target, top)}")
            return Found(_key(entry.path, top), entry.path, refusal)
    if not photo and not _is_image(entry):
        return None
    return Found(_key(entry.path, top), entry.path, name_problem(entry.name))


def _is_walked(target: str, top: str) -> bool:
    """Whether a link's target is found by the walk itself, rather than kept in a hidden store."""
    hidden = any(part.startswith(".") for part in Path(os.path.relpath(target, top)).parts)
    return not hidden and os.path.splitext(target)[1].lower() in PHOTO_EXTENSIONS  # noqa: PTH122


def _is_image(entry: os.DirEntry[str]) -> bool:
    try:
        if not entry.is_file():
            return False
        with open(entry.path, "rb") as file:  # noqa: PTH123
            return sniff_format(file.read(32)) in _UNMISTAKABLE
    except OSError:
        return False


def name_problem(name: str) -> Refusal | None:
    """A refusal when a name is not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return Refusal("bad_name", f"the name is not UTF-8: {printable(name)}; rename the file")
    return None


def within(path: str, top: str) -> bool:
    """Whether an absolute, normalised path is `top` or lies below it."""
    return path == top or path.startswith(top.rstrip(os.sep) + os.sep)


class FileFinder:
    """Finds the files that metadata rows name.

    A name is looked for below the folder, then beside the metadata file, then with an image extension added,
    then with ``/`` and ``_`` exchanged, at last by its last part anywhere below the folder. The last needs
    a list of all file names, which is made once and only when a name was not found otherwise.

    Args:
        root: The folder.
        beside: The metadata file's folder.
    """

    def __init__(self, root: Path, beside: Path) -> None:
        self._top = os.path.realpath(root)
        self._bases = tuple(dict.fromkeys((self._top, os.path.realpath(beside))))
        self._index: dict[str, str | None] | None = None

    def find(self, name: str) -> Found:
        """The file called `name` in the metadata."""
        if "\0" in name:
            return Found(printable(name), refusal=Refusal("missing_file", "the name holds a NUL byte"))
        outside = None
        for candidate in self._candidates(name):
            path = os.path.normpath(candidate)
            if not os.path.isfile(path):  # noqa: PTH113
                continue
            key = _key(path, self._top)
            if not within(path, self._top):
                outside = Found(
                    printable(name), path, Refusal("outside_folder", f"lies at {printable(path)}")
                )
            elif not within(os.path.realpath(path), self._top):
                target = printable(os.path.realpath(path))
                return Found(key, path, Refusal("symlink_outside", f"links to {target}"))
            else:
                return Found(key, path, name_problem(key if key != printable(key) else name))
        return outside or self._by_last_part(name)

    def _candidates(self, name: str) -> Iterator[str]:
        plain = name.replace("\\", "/")
        for spelling in dict.fromkeys((name, plain, plain.replace("/", "_"))):
            for base in self._bases:
                yield os.path.join(base, spelling)  # noqa: PTH118
        if os.path.splitext(plain)[1].lower() not in PHOTO_EXTENSIONS:  # noqa: PTH122
            for extension in _TRIED_EXTENSIONS:
                yield os.path.join(self._top, plain + extension)  # noqa: PTH118

    def _by_last_part(self, name: str) -> Found:
        if self._index is None:
            self._index = {}
            for found in walk(Path(self._top)):
                last = found.path.rsplit(os.sep, 1)[-1]
                stem = os.path.splitext(last)[0]  # noqa: PTH122
                for key in {last, stem}:
                    self._index[key] = None if key in self._index else found.path
        last = name.replace("\\", "/").rsplit("/", 1)[-1]
        path = self._index.get(last)
        if path is not None:
            real = os.path.realpath(path)
            if within(real, self._top):
                return Found(_key(path, self._top), path, name_problem(last))
            return Found(
                _key(path, self._top), path, Refusal("symlink_outside", f"links to {printable(real)}")
            )
        several = last in self._index
        detail = "several files have this name" if several else f"no file {printable(name)!r} in {self._top}"
        return Found(printable(name), refusal=Refusal("missing_file", printable(detail)))
