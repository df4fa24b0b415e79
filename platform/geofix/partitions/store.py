"""Partitions in the database: stored with polygons for maps, read back as they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import shapely

from geofix import __version__
from geofix.database.engine import Connection
from geofix.database.queries import partitions as queries
from geofix.partitions.outlines import class_outlines
from geofix.partitions.partition import Partition
from geofix.plain import plain
from geofix.spatial import s2

_SRID = 4326


def store_partitions(
    conn: Connection,
    partitions: Sequence[Partition],
    *,
    snapshot_id: int | None = None,
    dataset_ids: Sequence[int] = (),
    overwrite: bool = False,
) -> list[int]:
    """Store partitions in their order, all or none; the caller commits. Returns their ids.

    Args:
        conn: An open connection that may write.
        partitions: A partition after those that it points to (its coarser one, its sets).
        snapshot_id: Whose training photos they were made from.
        dataset_ids: Whose photos they were made from.
        overwrite: Drop stored ones of the same names first.

    Raises:
        UsageError: A name is taken, or what is to be replaced is needed by another partition.
    """
    if overwrite:
        queries.drop_partitions(conn, [p.name for p in partitions])
    made = []
    for partition in partitions:
        values = {
            "name": partition.name,
            "kind": partition.kind,
            "snapshot_id": snapshot_id,
            "dataset_ids": list(dataset_ids),
            "coarser": partition.coarser,
            "sets": list(partition.sets),
            "region_level": partition.parameters.get("level") if partition.codes is not None else None,
            "parameters": plain(partition.parameters),
            "classes": len(partition),
            "photos": int(partition.photos.sum()),
            "software_version": __version__,
        }
        made.append(queries.insert_partition(conn, values, _class_rows(partition), _cell_rows(partition)))
    return made


def _class_rows(partition: Partition) -> Iterator[tuple[Any, ...]]:
    n = len(partition)
    points = shapely.to_wkb(
        shapely.set_srid(shapely.points(partition.lon, partition.lat), _SRID), include_srid=True
    )
    shapes = class_outlines(partition)
    drawn = shapely.to_wkb(shapely.set_srid(shapes, _SRID), include_srid=True)
    cells = partition.class_cells().tolist() if partition.one_cell_each else [None] * n
    codes = partition.codes or [None] * n
    parents = (
        [None if p < 0 else p for p in partition.parent.tolist()] if partition.parent is not None else None
    )
    members = partition.members.tolist() if partition.members is not None else None
    for i, photos in enumerate(partition.photos.tolist()):
        parent = None if parents is None else parents[i]
        voted = None if members is None else members[i]
        yield i, cells[i], codes[i], photos, parent, voted, points[i], drawn[i]


def _cell_rows(partition: Partition) -> Iterator[tuple[Any, ...]]:
    first, last = s2.range_of(partition.cells)
    columns = (partition.cells, first, last, partition.cell_class)
    yield from zip(*(column.tolist() for column in columns), strict=True)


def load_stored(conn: Connection, name: str) -> Partition:
    """A stored partition, as it was stored.

    Raises:
        NotFoundError: There is none of that name; the message lists those there are.
        BadInputError: Its rows do not make a partition that can be used.
    """
    found = queries.find_partition(conn, name)
    administrative = found["kind"] == "administrative"
    rows = queries.read_classes(conn, found["partition_id"], outlines=administrative)
    _, codes, photos, parents, members, lon, lat, outlines = zip(*rows, strict=True)
    cells = queries.read_cells(conn, found["partition_id"])
    shapes = None
    if administrative and all(item is not None for item in outlines):
        shapes = np.empty(len(rows), object)
        shapes[:] = shapely.set_srid(shapely.from_wkb([bytes(item) for item in outlines]), 0)
    return Partition(
        name=found["name"],
        kind=found["kind"],
        cells=cells["s2_id"],
        cell_class=cells["class"].astype(np.int64),
        lon=np.asarray(lon, np.float64),
        lat=np.asarray(lat, np.float64),
        photos=np.asarray(photos, np.int64),
        parameters=found["parameters"],
        codes=tuple(codes) if administrative else None,
        outlines=shapes,
        coarser=found["coarser"],
        parent=None if found["coarser"] is None else _numbers(parents),
        sets=tuple(found["sets"]),
        members=np.asarray(members, np.int64) if found["sets"] else None,
    )


def _numbers(values: Sequence[int | None]) -> Any:
    return np.array([-1 if value is None else value for value in values], np.int64)
