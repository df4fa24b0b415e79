"""A partition as files: partition.json, classes.parquet and cells.parquet in one directory."""

from __future__ import annotations

import json
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.partitions.partition import Partition
from geofix.plain import plain

FORMAT = 1
MANIFEST, CLASSES, CELLS = "partition.json", "classes.parquet", "cells.parquet"


def save_partition(partition: Partition, directory: Path, *, overwrite: bool = False) -> Path:
    """Write a partition into `directory`/NAME, whole or not at all; returns that folder.

    Args:
        partition: What to write.
        directory: Of a snapshot, a model or any other; made where it is missing.
        overwrite: Replace what is there.

    Raises:
        UsageError: The folder exists and is not to be replaced, or is no partition.
    """
    target = directory / partition.name
    if target.exists():
        if not (target / MANIFEST).is_file():
            raise UsageError(f"{target} exists and is no partition.", hint="Name another directory.")
        if not overwrite:
            raise UsageError(f"{target} exists.", hint="Name another directory, or overwrite it.")
    directory.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{partition.name}.", dir=directory))
    try:
        _write(partition, work)
        work.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        work.replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _write(partition: Partition, folder: Path) -> None:
    columns: dict[str, Any] = {
        "class": np.arange(len(partition)),
        "lon": partition.lon,
        "lat": partition.lat,
        "photos": partition.photos,
    }
    if partition.codes is not None:
        columns["code"] = list(partition.codes)
    if partition.outlines is not None:
        columns["outline"] = list(shapely.to_wkb(partition.outlines))
    if partition.parent is not None:
        columns["parent"] = partition.parent
    if partition.members is not None:
        for number in range(len(partition.sets)):
            columns[f"set_{number}"] = partition.members[:, number]
    pq.write_table(pa.table(columns), folder / CLASSES)
    tokens = pa.table({"s2_id": partition.cells, "class": partition.cell_class})
    pq.write_table(tokens, folder / CELLS)
    manifest = {
        "format": FORMAT,
        "name": partition.name,
        "kind": partition.kind,
        "parameters": plain(partition.parameters),
        "classes": len(partition),
        "cells": len(partition.cells),
        "photos": int(partition.photos.sum()),
        "coarser": partition.coarser,
        "sets": list(partition.sets),
        "files": {name: _sha256(folder / name) for name in (CLASSES, CELLS)},
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def load_partition(folder: Path) -> Partition:
    """Read a partition's folder; every file is compared with the hash in its manifest.

    Raises:
        NotFoundError: No partition there.
        BadInputError: Unreadable, changed, of another format, or not a partition that can be used.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise NotFoundError(f"{folder} is no partition: it has no {MANIFEST}.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found, files = int(manifest["format"]), dict(manifest["files"])
        if found != FORMAT:
            raise BadInputError(f"{folder} has partition format {found}; this version reads {FORMAT}.")
        for name in (CLASSES, CELLS):
            if not (folder / name).is_file() or _sha256(folder / name) != files[name]:
                raise BadInputError(f"{folder / name} is missing or changed after it was written.")
        return _read(folder, manifest)
    except (ValueError, KeyError, TypeError, pa.ArrowException, shapely.errors.ShapelyError) as error:
        raise BadInputError(
            f"{folder} cannot be read: {error!r}.", hint="Build the partition again."
        ) from error


def _read(folder: Path, manifest: dict[str, Any]) -> Partition:
    classes, cells = pq.read_table(folder / CLASSES), pq.read_table(folder / CELLS)
    have = set(classes.column_names)
    sets = tuple(str(name) for name in manifest["sets"])

    def column(table: pa.Table, name: str, kind: type) -> Any:
        return np.asarray(table[name].to_numpy(), kind)

    members = [column(classes, f"set_{number}", np.int64) for number in range(len(sets))]
    outlines = shapely.from_wkb(classes["outline"].to_pylist()) if "outline" in have else None
    return Partition(
        name=str(manifest["name"]),
        kind=manifest["kind"],
        cells=column(cells, "s2_id", np.int64),
        cell_class=column(cells, "class", np.int64),
        lon=column(classes, "lon", np.float64),
        lat=column(classes, "lat", np.float64),
        photos=column(classes, "photos", np.int64),
        parameters=dict(manifest["parameters"]),
        codes=tuple(classes["code"].to_pylist()) if "code" in have else None,
        outlines=None if outlines is None else np.asarray(outlines, object),
        coarser=manifest["coarser"],
        parent=column(classes, "parent", np.int64) if "parent" in have else None,
        sets=sets,
        members=np.stack(members, axis=1) if members else None,
    )


def _sha256(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
