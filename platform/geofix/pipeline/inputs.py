"""What a stage depends on, as one hash: its parameters, the stages before it, and the files it names."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from hashlib import file_digest, sha256
from pathlib import Path

from geofix import __version__
from geofix.ingest.region_text import region_file
from geofix.pipeline.file import Localize, Pipeline, Stage
from geofix.snapshots.reader import load_snapshot

# Up to this size a named file counts by its content; larger ones, and files in folders, by size and time.
HASHED_BYTES = 256 << 20
# Files that lie beside another one and are read with it.
BESIDE = (".shx", ".dbf", ".prj", ".cpg", ".tfw", ".jgw", ".pgw", ".wld")


def beginning(pipeline: Pipeline) -> str:
    """What the first stage of a pipeline depends on: the software, and a snapshot that no stage makes.

    Raises:
        NotFoundError: That snapshot is not there.
    """
    if pipeline.snapshot is None:
        return __version__
    return f"{__version__} {load_snapshot(pipeline.snapshot, verify=False).sha256}"


def digest(before: str, stage: Stage) -> str:
    """Hash of a stage and all that it depends on; `before` is that of the stage before it."""
    parts = [before, stage.model_dump_json(), *map(stamp, _named(stage))]
    return sha256("\0".join(parts).encode()).hexdigest()


def stamp(path: Path) -> str:
    """A path with the file's content, or with size and time of every file below it; a missing path too."""
    if path.is_file():
        beside = [path.with_suffix(suffix) for suffix in BESIDE if suffix != path.suffix]
        return "\0".join(_file(item) for item in [path, *beside] if item.is_file())
    found = sha256(str(path).encode())
    for item in sorted(path.rglob("*")) if path.is_dir() else []:
        if item.is_file():
            status = item.stat()
            found.update(f"{item.relative_to(path)!r}:{status.st_size}:{status.st_mtime_ns}".encode())
    return found.hexdigest()


def _named(stage: Stage) -> Iterator[Path]:
    """Files and folders that a stage reads."""
    for value in stage.model_dump().values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Path):
                yield item
    if isinstance(stage, Localize):
        yield from map(Path, matching(stage.photos))
    within = getattr(stage, "within", None)
    if within is not None and (area := region_file(within)) is not None:
        yield area


def matching(patterns: Iterable[str]) -> list[str]:
    """Files that some glob patterns name, sorted; they may be absolute, which Path.glob refuses."""
    return sorted({name for pattern in patterns for name in glob.glob(pattern)})  # noqa: PTH207


def _file(path: Path) -> str:
    status = path.stat()
    if status.st_size > HASHED_BYTES:
        return f"{path}:{status.st_size}:{status.st_mtime_ns}"
    with path.open("rb") as stream:
        return f"{path}:{file_digest(stream, 'sha256').hexdigest()}"
