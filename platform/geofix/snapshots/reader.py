"""Reading a snapshot without a database: verified once, streamed by row group."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geofix.errors import BadInputError, NotFoundError
from geofix.snapshots.digest import ContentDigest
from geofix.snapshots.format import (
    AERIAL,
    CELLS,
    FORMAT,
    MANIFEST,
    PHOTOS,
    TILES,
    combined_hash,
    file_sha256,
)
from geofix.snapshots.split import SPLITS


@dataclass(frozen=True)
class Snapshot:
    """A snapshot on disk.

    Attributes:
        path: Its directory.
        manifest: The content of snapshot.json.
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def sha256(self) -> str:
        """Hash of its content; checkpoints carry it."""
        return str(self.manifest["sha256"])

    @property
    def counts(self) -> dict[str, int]:
        """Photos per split."""
        return {str(k): int(v) for k, v in self.manifest["photos"].items()}

    @property
    def columns(self) -> list[str]:
        """Columns of the photo table."""
        return list(pq.read_schema(self.path / PHOTOS).names)

    def batches(
        self, *, split: str | None = None, columns: Sequence[str] | None = None, rows: int = 50_000
    ) -> Iterator[pa.RecordBatch]:
        """Stream photos in order of photo_id; memory stays at one batch.

        Args:
            split: Only photos of this split.
            columns: Only these columns.
            rows: Most rows per batch.

        Raises:
            BadInputError: Unknown split or column.
        """
        wanted = self._wanted(split, columns)
        read = wanted if split is None or "split" in wanted else [*wanted, "split"]
        with pq.ParquetFile(self.path / PHOTOS) as file:
            for batch in file.iter_batches(batch_size=rows, columns=read):
                if split is not None:
                    batch = batch.filter(pc.equal(batch.column("split"), split))
                if batch.num_rows:
                    yield batch.select(wanted)

    def read(self, *, split: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """All photos of a split (or of all) at once."""
        wanted = self._wanted(split, columns)
        schema = pa.schema([f for f in pq.read_schema(self.path / PHOTOS) if f.name in wanted])
        return pa.Table.from_batches(
            self.batches(split=split, columns=schema.names), schema=schema.remove_metadata()
        ).select(wanted)

    def cells(self) -> pa.Table | None:
        """The cell table, if the snapshot has one."""
        path = self.path / CELLS
        return pq.read_table(path) if path.is_file() else None

    def aerial(self) -> tuple[pa.Table, pa.Table] | None:
        """Rasters and tiles, if the snapshot was built with imagery."""
        if TILES not in self.manifest["files"]:
            return None
        return pq.read_table(self.path / AERIAL), pq.read_table(self.path / TILES)

    def _wanted(self, split: str | None, columns: Sequence[str] | None) -> list[str]:
        if split is not None and split not in SPLITS:
            raise BadInputError(f"Unknown split {split!r}.", hint=f"Splits are {', '.join(SPLITS)}.")
        have = self.columns
        if unknown := [c for c in columns or () if c not in have]:
            raise BadInputError(f"{self.path} has no photo columns {unknown}; it has {have}.")
        return list(columns) if columns is not None else have


def load_snapshot(path: Path, *, verify: bool = True) -> Snapshot:
    """Open a snapshot directory.

    Args:
        path: Directory written by `write_snapshot`.
        verify: Check the files' bytes and the content hash.

    Raises:
        NotFoundError: No snapshot there.
        BadInputError: Unreadable manifest, another format, or files that changed since they were written.
    """
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        raise NotFoundError(
            f"{path} is no snapshot: it has no {MANIFEST}.", hint="Make one: geofix snapshot build."
        )
    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
        found = int(manifest["format"])
        files = dict(manifest["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(
            f"{manifest_path} cannot be read: {error!r}.", hint="Build the snapshot again."
        ) from error
    if found != FORMAT:
        raise BadInputError(f"{path} has snapshot format {found}; this version reads {FORMAT}.")
    for name in files:
        if not (path / name).is_file():
            raise BadInputError(f"{path} lacks {name}.", hint="Copy the directory again, whole.")
    snapshot = Snapshot(path, manifest)
    if verify:
        _verify(snapshot, files)
    return snapshot


def _verify(snapshot: Snapshot, files: dict[str, Any]) -> None:
    for name, entry in files.items():
        found = file_sha256(snapshot.path / name)
        if found != entry["sha256"]:
            raise BadInputError(
                f"{snapshot.path / name} changed after it was written: sha256 {found[:12]}..., recorded "
                f"{str(entry['sha256'])[:12]}....",
                hint="A snapshot is frozen: copy it again, or build a new one.",
            )
    tables = [PHOTOS, CELLS, *([AERIAL, TILES] if TILES in files else [])]
    digests = [_digest(snapshot.path / name) if name in files else None for name in tables]
    if combined_hash(*digests) != snapshot.sha256:
        raise BadInputError(
            f"{snapshot.path}: the content hash does not match {MANIFEST}.",
            hint="The manifest was edited or belongs to other files; build the snapshot again.",
        )


def _digest(path: Path) -> ContentDigest:
    digest = ContentDigest()
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            digest.update(batch)
    return digest
