"""Writing a snapshot: tables of photos, cells, rasters and tiles, and snapshot.json, all or nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from geofix.errors import BadInputError, UsageError
from geofix.snapshots.digest import ContentDigest
from geofix.snapshots.split import SPLITS, Split

FORMAT = 1
PHOTOS, CELLS, MANIFEST = "photos.parquet", "cells.parquet", "snapshot.json"
AERIAL, TILES = "aerial.parquet", "tiles.parquet"
ROW_GROUP = 50_000

# Fixed types of known columns; unknown columns keep their own.
_TYPES: dict[str, pa.DataType] = {
    "lon": pa.float64(),
    "lat": pa.float64(),
    "s2_id": pa.int64(),
    "block_s2": pa.int64(),
    "sequence_key": pa.string(),
    "dataset": pa.string(),
    "captured_at": pa.timestamp("us", tz="UTC"),
    "sha256": pa.string(),
    "uri": pa.string(),
    "heading_deg": pa.float64(),
    "gps_accuracy_m": pa.float64(),
    "split": pa.string(),
    "dropped_reason": pa.string(),
    "unseen": pa.bool_(),
    "split_group": pa.int64(),
}

AERIAL_SCHEMA = pa.schema(
    {
        "raster": pa.int32(),
        "uri": pa.string(),
        "kind": pa.string(),
        "crs": pa.string(),
        "reading": pa.string(),
        "sha256": pa.string(),
        "captured_at": pa.date32(),
        "source": pa.string(),
        "west": pa.float64(),
        "south": pa.float64(),
        "east": pa.float64(),
        "north": pa.float64(),
    }
)
TILE_SCHEMA = pa.schema(
    {
        "s2_id": pa.int64(),
        "level": pa.int16(),
        "side_m": pa.float32(),
        "captured_at": pa.date32(),
        "source": pa.string(),
        "rasters": pa.list_(pa.int32()),
    }
)


def labelled(table: pd.DataFrame, split: Split) -> pd.DataFrame:
    """The photo table with split, dropped_reason, unseen, split_group and block_s2 beside each photo."""
    if len(table) != len(split.labels):
        raise UsageError(f"A split of {len(split.labels)} photos does not belong to a table of {len(table)}.")
    return table.assign(
        split=split.labels,
        dropped_reason=split.reason,
        unseen=split.unseen,
        split_group=split.group,
        block_s2=split.block_s2,
    )


def write_snapshot(
    out: Path,
    photos: pd.DataFrame,
    *,
    config: Mapping[str, Any] | Split,
    sources: Mapping[str, Mapping[str, Any]],
    cells: pd.DataFrame | None = None,
    aerial: tuple[pa.Table, Iterable[pa.Table]] | None = None,
    overwrite: bool = False,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a snapshot directory and return its manifest.

    Everything is written beside `out` first and renamed into place, so a snapshot is whole or absent.

    Args:
        out: Directory to create.
        photos: One row per photo with at least photo_id, lon, lat, split; rows labelled "dropped" are
            counted and left out of the file.
        config: How the split was made, or the split itself.
        sources: Data set to its licence, attribution and whatever else must travel with it.
        cells: One row per cell, with s2_id.
        aerial: Rasters, and tiles in order, piece by piece; columns of `AERIAL_SCHEMA` and `TILE_SCHEMA`.
        overwrite: Replace an existing snapshot.
        extra: Further entries of the manifest.

    Raises:
        UsageError: `out` exists and is not empty, without `overwrite`; or it is no snapshot.
        BadInputError: Columns are missing, a split has an unknown name, or a data set has no source entry.
    """
    _check_photos(photos, sources)
    _check_place(out, overwrite)
    kept = photos[photos["split"].astype(str) != "dropped"]
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write_table(temporary / PHOTOS, kept, "photo_id", photo_digest := ContentDigest())
        digests: list[ContentDigest | None] = [photo_digest, None]
        if cells is not None:
            _write_table(temporary / CELLS, cells, "s2_id", cell_digest := ContentDigest())
            digests[1] = cell_digest
        if aerial is not None:
            imagery, found = _write_aerial(temporary, *aerial)
            digests += found
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "sha256": combined_hash(*digests),
            "software": {"geofix": _software_version()},
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "photos": {name: int((kept["split"].astype(str) == name).sum()) for name in SPLITS},
            "cells": None if cells is None else len(cells),
            **({} if aerial is None else {"aerial": imagery}),
            "dropped": _dropped(photos, config),
            "config": asdict(config.config) if isinstance(config, Split) else dict(config),
            "sources": {k: dict(v) for k, v in sorted(sources.items())},
            "files": {p.name: _file_entry(p) for p in sorted(temporary.glob("*.parquet"))},
            **(extra or {}),
        }
        with (temporary / MANIFEST).open("w", encoding="utf-8") as handle:
            json.dump(manifest, handle, indent=2, ensure_ascii=False, sort_keys=True, default=str)
            handle.write("\n")
            handle.flush()
            os.fsync(handle.fileno())
        temporary.chmod(0o755)
        _move_into_place(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def combined_hash(*tables: ContentDigest | None) -> str:
    """The snapshot's identity: the content of photos and cells, and of rasters and tiles if it has any.

    Without imagery it is the hash of the first two alone.
    """
    parts = [table.hexdigest() if table else "" for table in tables]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _write_table(path: Path, frame: pd.DataFrame, by: str, digest: ContentDigest) -> None:
    ordered = frame.sort_values(by, kind="stable").reset_index(drop=True)
    writer: pq.ParquetWriter | None = None
    schema = _schema(ordered)
    try:
        writer = pq.ParquetWriter(path, schema, compression="zstd")
        for start in range(0, max(len(ordered), 1), ROW_GROUP):
            part = pa.Table.from_pandas(ordered.iloc[start : start + ROW_GROUP], schema, preserve_index=False)
            digest.update(part)
            writer.write_table(part, row_group_size=ROW_GROUP)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise BadInputError(
            f"{path.name} cannot be written: {error}.", hint="Check the column's types."
        ) from error
    finally:
        if writer is not None:
            writer.close()


def _write_aerial(
    directory: Path, rasters: pa.Table, tiles: Iterable[pa.Table]
) -> tuple[dict[str, int], list[ContentDigest]]:
    """Write rasters and tiles; returns how many there are, and their digests."""
    raster_digest, tile_digest = ContentDigest(), ContentDigest()
    rasters = rasters.cast(AERIAL_SCHEMA)
    raster_digest.update(rasters)
    pq.write_table(rasters, directory / AERIAL, compression="zstd")
    count = 0
    with pq.ParquetWriter(directory / TILES, TILE_SCHEMA, compression="zstd") as writer:
        for piece in tiles:
            part = piece.cast(TILE_SCHEMA)
            tile_digest.update(part)
            writer.write_table(part, row_group_size=ROW_GROUP)
            count += part.num_rows
    return {"rasters": rasters.num_rows, "tiles": count}, [raster_digest, tile_digest]


def _schema(frame: pd.DataFrame) -> pa.Schema:
    try:
        own = pa.Schema.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise BadInputError(f"A column holds values of several types: {error}.") from error
    fields = []
    for f in own:
        kind = f.type.value_type if pa.types.is_dictionary(f.type) else f.type
        # A column of nothing but nulls has no type of its own; text takes any later value.
        kind = pa.string() if pa.types.is_null(kind) or pa.types.is_large_string(kind) else kind
        fields.append(pa.field(f.name, _TYPES.get(f.name, kind)))
    return pa.schema(fields)


def _check_photos(photos: pd.DataFrame, sources: Mapping[str, Any]) -> None:
    if lost := [c for c in ("photo_id", "lon", "lat", "split") if c not in photos]:
        raise BadInputError(
            f"A snapshot needs the photo columns {lost}; the table has {list(photos.columns)}."
        )
    if unknown := sorted(set(photos["split"].astype(str)) - {*SPLITS, "dropped"}):
        raise BadInputError(f"Unknown splits {unknown}.", hint=f"Splits are {', '.join(SPLITS)} and dropped.")
    if photos["photo_id"].duplicated().any():
        raise BadInputError("A photo_id occurs twice in the snapshot.")
    datasets = set(photos["dataset"].dropna().astype(str)) if "dataset" in photos else set()
    if unsourced := sorted(datasets - set(sources)):
        raise BadInputError(
            f"Data sets {unsourced} have no licence or attribution entry.",
            hint="Licences travel with the data: name one per data set, 'unknown' if it is unknown.",
        )


def _check_place(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).is_file()):
        raise UsageError(
            f"{out} exists and is no snapshot.", hint="Name another directory; nothing was written."
        )
    if any(out.iterdir()) and not overwrite:
        raise UsageError(
            f"{out} already holds a snapshot.", hint="Name another directory or pass --overwrite."
        )


def _move_into_place(temporary: Path, out: Path) -> None:
    if not out.exists():
        temporary.rename(out)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    out.rename(aside / out.name)
    try:
        temporary.rename(out)
    except OSError:
        (aside / out.name).rename(out)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _dropped(photos: pd.DataFrame, config: Mapping[str, Any] | Split) -> dict[str, int]:
    if isinstance(config, Split):
        return dict(config.dropped)
    gone = photos[photos["split"].astype(str) == "dropped"]
    reasons = (
        gone["dropped_reason"].astype(str) if "dropped_reason" in gone else pd.Series("", index=gone.index)
    )
    return {str(k): int(v) for k, v in reasons.value_counts().sort_index().items()}


def _file_entry(path: Path) -> dict[str, Any]:
    return {"sha256": file_sha256(path), "bytes": path.stat().st_size}


def _software_version() -> str:
    try:
        return version("geofix")
    except PackageNotFoundError:
        return "unknown"
