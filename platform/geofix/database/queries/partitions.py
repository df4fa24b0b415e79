"""Partitions: what they are made from, and storing, reading and dropping them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from geofix.database.bulk import copy_rows, read_columns
from geofix.database.engine import Connection
from geofix.errors import NotFoundError, UsageError

PHOTOS_OF_SNAPSHOT = """
SELECT r.photo_id, public.ST_X(r.geom) AS lon, public.ST_Y(r.geom) AS lat
FROM geofix.snapshot_photo s JOIN geofix.photo_record r USING (photo_id)
WHERE s.snapshot_id = {snapshot_id} AND s.split = 'train' ORDER BY r.photo_id
"""
PHOTOS_OF_DATASETS = """
SELECT r.photo_id, public.ST_X(r.geom) AS lon, public.ST_Y(r.geom) AS lat
FROM geofix.photo_record r JOIN geofix.dataset d USING (dataset_id)
WHERE d.name = ANY ({datasets}) ORDER BY r.photo_id
"""
CODES = """
SELECT a.photo_id, g.code FROM geofix.photo_region a JOIN geofix.region g USING (region_id)
WHERE a.level = %(level)s AND a.photo_id = ANY (%(ids)s)
"""
OUTLINES = """
SELECT code, public.ST_AsEWKB(geom) FROM geofix.region WHERE level = %(level)s AND code = ANY (%(codes)s)
"""
DATASETS_OF_SNAPSHOT = """
SELECT DISTINCT r.dataset_id FROM geofix.snapshot_photo s JOIN geofix.photo_record r USING (photo_id)
WHERE s.snapshot_id = %(snapshot_id)s ORDER BY 1
"""
DATASET_IDS = "SELECT dataset_id FROM geofix.dataset WHERE name = ANY (%(datasets)s) ORDER BY 1"
FIND_ID = "SELECT partition_id FROM geofix.partition WHERE name = %(name)s"
IDS = "SELECT name, partition_id FROM geofix.partition WHERE name = ANY (%(names)s)"
# A later insert under the same name is one that another session made since the name was looked for.
INSERT = """
INSERT INTO geofix.partition (name, kind, snapshot_id, dataset_ids, coarser_id, set_ids, region_level, parameters,
                              classes, photos, software_version)
VALUES (%(name)s, %(kind)s, %(snapshot_id)s, %(dataset_ids)s, %(coarser_id)s, %(set_ids)s, %(region_level)s,
        %(parameters)s, %(classes)s, %(photos)s, %(software_version)s)
ON CONFLICT (name) DO NOTHING RETURNING partition_id
"""
DROP = "DELETE FROM geofix.partition WHERE name = %(name)s RETURNING classes"
# Partitions that point to one that is dropped: nested finer ones, and intersections.
DEPENDENTS = """
SELECT d.name FROM geofix.partition p JOIN geofix.partition d
  ON d.coarser_id = p.partition_id OR p.partition_id = ANY (d.set_ids)
WHERE p.name = ANY (%(names)s) AND NOT d.name = ANY (%(names)s) ORDER BY 1
"""
NAMES = "SELECT name FROM geofix.partition ORDER BY name"
SUMMARY = (
    "SELECT * FROM geofix.partition_summary WHERE %(name)s::text IS NULL OR name = %(name)s ORDER BY name"
)
CLASSES = """
SELECT class, region_code, photos, parent_class, members, public.ST_X(mean_geom), public.ST_Y(mean_geom),
       CASE WHEN %(outlines)s THEN public.ST_AsEWKB(geom) END
FROM geofix.partition_class WHERE partition_id = %(partition_id)s ORDER BY class
"""
CELLS = """
SELECT s2_id, class FROM geofix.partition_cell WHERE partition_id = {partition_id} ORDER BY s2_id
"""
LEVELS = """
SELECT geofix.s2_level(s2_id) AS level, count(*) AS cells FROM geofix.partition_cell
WHERE partition_id = %(partition_id)s GROUP BY 1 ORDER BY 1
"""
SPREAD = """
SELECT min(photos), percentile_disc(0.5) WITHIN GROUP (ORDER BY photos), max(photos)
FROM geofix.partition_class WHERE partition_id = %(partition_id)s
"""
LARGEST = """
SELECT class, s2_token, region_code, photos, mean_lon, mean_lat FROM geofix.partition_map
WHERE partition = %(name)s ORDER BY photos DESC, class LIMIT %(limit)s
"""
MAP = """
SELECT class, s2_token, level, region_code, photos, parent_class, members, mean_lon, mean_lat,
       public.ST_AsEWKB(geom) AS geom
FROM geofix.partition_map WHERE partition = %(name)s ORDER BY class
"""
LICENCES = """
SELECT d.name, d.licence, d.attribution FROM geofix.partition p JOIN geofix.dataset d ON d.dataset_id = ANY (p.dataset_ids)
WHERE p.name = %(name)s ORDER BY 1
"""

CLASS_COLUMNS = {
    "partition_id": "int8",
    "class": "int4",
    "s2_id": "int8",
    "region_code": "text",
    "photos": "int4",
    "parent_class": "int4",
    "members": "int4[]",
    "mean_geom": "geometry",
    "geom": "geometry",
}
CELL_COLUMNS = {
    "partition_id": "int8",
    "s2_id": "int8",
    "leaf_first": "int8",
    "leaf_last": "int8",
    "class": "int4",
}


def training_positions(
    conn: Connection, *, snapshot_id: int | None = None, datasets: list[str] | None = None
) -> dict[str, NDArray[Any]]:
    """photo_id, lon and lat of a snapshot's training photos, or of all photos of data sets, by photo id."""
    if snapshot_id is not None:
        query = sql.SQL(PHOTOS_OF_SNAPSHOT).format(snapshot_id=sql.Literal(snapshot_id))
    else:
        query = sql.SQL(PHOTOS_OF_DATASETS).format(datasets=sql.Literal(list(datasets or [])))
    return read_columns(conn, query, {"photo_id": "i8", "lon": "f8", "lat": "f8"})


def region_codes(conn: Connection, photo_ids: NDArray[np.int64], level: str) -> NDArray[np.object_]:
    """Region code of each photo at a level, None where it has none, shape (n,); ids ascending."""
    out = np.full(len(photo_ids), None, dtype=object)
    found = conn.execute(CODES, {"level": level, "ids": photo_ids.tolist()}).fetchall()
    if found:
        ids, codes = zip(*found, strict=True)
        out[np.searchsorted(photo_ids, np.asarray(ids))] = codes
    return out


def region_outlines(conn: Connection, level: str, codes: list[str]) -> dict[str, bytes]:
    """EWKB of regions by code."""
    return {row[0]: bytes(row[1]) for row in conn.execute(OUTLINES, {"level": level, "codes": codes})}


def source_datasets(
    conn: Connection, *, snapshot_id: int | None = None, datasets: list[str] | None = None
) -> list[int]:
    """Ids of the data sets that a snapshot's photos, or some names, belong to."""
    if snapshot_id is not None:
        rows = conn.execute(DATASETS_OF_SNAPSHOT, {"snapshot_id": snapshot_id})
    else:
        rows = conn.execute(DATASET_IDS, {"datasets": list(datasets or [])})
    return [row[0] for row in rows]


def insert_partition(
    conn: Connection,
    values: Mapping[str, Any],
    classes: Iterable[tuple[Any, ...]],
    cells: Iterable[tuple[Any, ...]],
) -> int:
    """Store a partition; the caller commits. Returns its id.

    Args:
        conn: An open connection that may write.
        values: Columns of `INSERT`; `coarser` and `sets` name stored partitions.
        classes: Rows of `CLASS_COLUMNS` without the first.
        cells: Rows of `CELL_COLUMNS` without the first.

    Raises:
        UsageError: The name is taken.
        NotFoundError: A partition it points to is not stored.
    """
    names = [*values["sets"], *([values["coarser"]] if values["coarser"] else [])]
    ids: dict[str, int] = dict(conn.execute(IDS, {"names": names}).fetchall())
    if missing := [name for name in names if name not in ids]:
        raise NotFoundError(
            f"Partition {missing[0]!r} is not stored.", hint="Store the partitions it needs first."
        )
    row = conn.execute(
        INSERT,
        {
            **values,
            "parameters": Jsonb(values["parameters"]),
            "coarser_id": ids[values["coarser"]] if values["coarser"] else None,
            "set_ids": [ids[name] for name in values["sets"]],
        },
    ).fetchone()
    if row is None:
        raise UsageError(
            f"A partition is named {values['name']!r} already.",
            hint="Choose another name, or give --overwrite.",
        )
    key = int(row[0])
    copy_rows(conn, "geofix.partition_class", CLASS_COLUMNS, ((key, *item) for item in classes))
    copy_rows(conn, "geofix.partition_cell", CELL_COLUMNS, ((key, *item) for item in cells))
    return key


def taken_names(conn: Connection, names: list[str]) -> list[str]:
    """Which of these names partitions have."""
    return sorted(row[0] for row in conn.execute(IDS, {"names": names}))


def drop_partitions(conn: Connection, names: list[str]) -> int:
    """Drop partitions that no other one points to; returns how many there were. The caller commits.

    Raises:
        UsageError: Another partition is nested in one of them, or is their intersection.
    """
    if others := [row[0] for row in conn.execute(DEPENDENTS, {"names": names})]:
        raise UsageError(
            f"Partition {others[0]!r} is made of one of {', '.join(map(repr, names))} ({len(others)} such).",
            hint="Drop it first, or both at once.",
        )
    return sum(conn.execute(DROP, {"name": name}).rowcount for name in names)


def find_partition(conn: Connection, name: str) -> dict[str, Any]:
    """The summary of a partition.

    Raises:
        NotFoundError: There is none of that name.
    """
    found = summaries(conn, name)
    if not found:
        names = [row[0] for row in conn.execute(NAMES)]
        raise NotFoundError(
            f"No partition is named {name!r}.",
            hint=f"There are: {', '.join(names[:20])}." if names else "Make one: geofix partitions build.",
        )
    return found[0]


def summaries(conn: Connection, name: str | None = None) -> list[dict[str, Any]]:
    """All partitions, or the one of a name, as the view partition_summary shows them."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(SUMMARY, {"name": name}).fetchall()


def read_classes(conn: Connection, partition_id: int, *, outlines: bool) -> list[tuple[Any, ...]]:
    """Class, region code, photos, parent, members, longitude, latitude and EWKB of every class, in order."""
    return conn.execute(CLASSES, {"partition_id": partition_id, "outlines": outlines}).fetchall()


def read_cells(conn: Connection, partition_id: int) -> dict[str, NDArray[Any]]:
    """s2_id and class of every cell, in order of the id."""
    query = sql.SQL(CELLS).format(partition_id=sql.Literal(partition_id))
    return read_columns(conn, query, {"s2_id": "i8", "class": "i4"})


def describe(conn: Connection, name: str, *, largest: int) -> dict[str, Any]:
    """The summary with cells per level, photos per class and the largest classes."""
    found = find_partition(conn, name)
    key = {"partition_id": found["partition_id"]}
    spread = conn.execute(SPREAD, key).fetchone()
    assert spread is not None
    with conn.cursor(row_factory=dict_row) as cursor:
        top = cursor.execute(LARGEST, {"name": name, "limit": largest}).fetchall()
    return {
        **found,
        "photos_per_class": dict(zip(("min", "median", "max"), spread, strict=True)),
        "cells_per_level": {int(level): int(cells) for level, cells in conn.execute(LEVELS, key)},
        "largest": top,
    }


def map_rows(conn: Connection, name: str) -> list[dict[str, Any]]:
    """Every class with its figures and EWKB, in order."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(MAP, {"name": name}).fetchall()


def licences(conn: Connection, name: str) -> list[dict[str, Any]]:
    """Data sets that a partition was made from, with licence and attribution."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(LICENCES, {"name": name}).fetchall()
