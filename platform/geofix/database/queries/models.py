"""Models and snapshots: their rows, and the embeddings that a model made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from geofix.database.bulk import copy_rows, read_vectors
from geofix.database.engine import Connection
from geofix.database.queries import leaves
from geofix.errors import NotFoundError, UsageError

FIND = "SELECT * FROM geofix.model WHERE name = %(name)s"
NAME = "SELECT name FROM geofix.model WHERE model_id = %(model_id)s"
LIST = """
SELECT m.*, coalesce(pg_total_relation_size(to_regclass('geofix_leaf.photo_embedding_' || m.model_id)), 0) AS photo_embedding_bytes,
       coalesce(pg_total_relation_size(to_regclass('geofix_leaf.aerial_embedding_' || m.model_id)), 0) AS aerial_embedding_bytes
FROM geofix.model m ORDER BY m.created_at
"""
INSERT = """
INSERT INTO geofix.model (name, kind, dimension, directory_uri, weights_sha256, config, input_transform, snapshot_id, metrics)
VALUES (%(name)s, %(kind)s, %(dimension)s, %(directory_uri)s, %(weights_sha256)s, %(config)s, %(input_transform)s,
        %(snapshot_id)s, %(metrics)s)
RETURNING model_id
"""
DELETE = "DELETE FROM geofix.model WHERE model_id = %(model_id)s"
TAKE_BACK = """
UPDATE geofix.model SET name = %(name)s
WHERE name = %(name)s || '-' || left(%(sha256)s, 12) AND weights_sha256 = %(sha256)s"""
STEP_ASIDE = """
UPDATE geofix.model SET name = name || '-' || left(weights_sha256, 12)
WHERE name = %(name)s AND weights_sha256 <> %(sha256)s RETURNING name"""
SET_DIRECTORY = "UPDATE geofix.model SET directory_uri = %(directory_uri)s WHERE model_id = %(model_id)s"
CODE_SETS_OF = "SELECT name FROM geofix.code_set WHERE model_id = %(model_id)s ORDER BY 1"
UNKNOWN_DATASETS = """
SELECT u.name FROM unnest(%(datasets)s::text[]) AS u(name)
WHERE NOT EXISTS (SELECT FROM geofix.dataset d WHERE d.name = u.name AND d.kind = %(kind)s) ORDER BY 1
"""
RASTERS = """
SELECT aerial_raster_id, uri, kind, crs, reading FROM geofix.aerial_raster WHERE aerial_raster_id = ANY (%(ids)s)
"""
MERGE = """
INSERT INTO {leaf} ({parent_column}, {key}, embedding)
SELECT {parent_id}, s.key, s.embedding FROM pg_temp.staged_embedding s JOIN {source} t ON t.{key} = s.key
ON CONFLICT ({key}) DO NOTHING
"""
READ_SPLIT = """
SELECT e.photo_id, e.embedding FROM geofix.photo_embedding e JOIN geofix.snapshot_photo s USING (photo_id)
WHERE e.model_id = {model_id} AND s.snapshot_id = {snapshot_id} AND s.split = ANY ({splits}) ORDER BY e.photo_id
"""
READ_SPAN = """
SELECT e.photo_id, e.embedding FROM geofix.photo_embedding e JOIN geofix.snapshot_photo s USING (photo_id)
JOIN geofix.photo_record p USING (photo_id)
WHERE e.model_id = {model_id} AND s.snapshot_id = {snapshot_id} AND s.split = ANY ({splits})
  AND p.s2_id BETWEEN {first} AND {last} ORDER BY e.photo_id
"""
SPLIT_STAMP = """
SELECT count(*), coalesce(sum(hashint8(e.photo_id)), 0) FROM geofix.photo_embedding e
JOIN geofix.snapshot_photo s USING (photo_id)
WHERE e.model_id = %(model_id)s AND s.snapshot_id = %(snapshot_id)s AND s.split = %(split)s
"""
READ_DATASETS = """
SELECT e.photo_id, e.embedding FROM geofix.photo_embedding e JOIN geofix.photo_record p USING (photo_id)
JOIN geofix.dataset d USING (dataset_id)
WHERE e.model_id = {model_id} AND d.name = ANY ({datasets}) ORDER BY e.photo_id
"""
READ_TILES = """
SELECT e.aerial_tile_id, e.embedding FROM geofix.aerial_embedding e
WHERE e.model_id = {model_id} ORDER BY e.aerial_tile_id
"""
TILE_CELLS = """
SELECT t.aerial_tile_id, t.s2_id, t.level FROM geofix.aerial_tile t JOIN geofix.aerial_embedding e USING (aerial_tile_id)
WHERE e.model_id = %(model_id)s
  AND (%(datasets)s::text[] IS NULL
       OR t.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY (%(datasets)s)))
  AND (%(region)s::bytea IS NULL OR public.ST_Covers(public.ST_GeomFromEWKB(%(region)s), geofix.s2_center(t.s2_id)))
ORDER BY t.aerial_tile_id
"""


@dataclass(frozen=True)
class ModelRow:
    """One row of `model`."""

    model_id: int
    name: str
    kind: str
    dimension: int
    directory_uri: str
    weights_sha256: str
    config: dict[str, Any]
    input_transform: dict[str, Any]
    snapshot_id: int | None
    metrics: dict[str, Any]


def find_model(conn: Connection, name: str) -> ModelRow:
    """The model of a name.

    Raises:
        NotFoundError: There is none; the message lists those there are.
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(FIND, {"name": name}).fetchone()
    if row is None:
        names = [item["name"] for item in list_models(conn)]
        raise NotFoundError(
            f"No model is named {name!r}.",
            hint=f"There are: {', '.join(names)}."
            if names
            else "Register one with `geofix models register`.",
        )
    return ModelRow(**{key: row[key] for key in ModelRow.__dataclass_fields__})


def find_model_by_id(conn: Connection, model_id: int) -> ModelRow:
    """The model of a key that another row refers to."""
    row = conn.execute(NAME, {"model_id": model_id}).fetchone()
    if row is None:
        raise NotFoundError(f"Model {model_id} was deleted.", hint="Run `geofix gc`.")
    return find_model(conn, str(row[0]))


def list_models(conn: Connection) -> list[dict[str, Any]]:
    """All models with the size of their embeddings."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(LIST).fetchall()


def insert_model(conn: Connection, values: Mapping[str, Any]) -> int:
    """Register a model and make its embedding leaves; returns its id.

    A second registration under the same name with the same weights and configuration returns the first id, and
    its directory is from then on the one given now. Where the trunk's weights came from (`weights_uri`) is no
    part of the configuration: their hash is.

    Raises:
        UsageError: The name is taken by another model.
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        old = cursor.execute(FIND, {"name": values["name"]}).fetchone()
    if old is not None:
        same = old["weights_sha256"] == values["weights_sha256"]
        if same and _without_places(old["config"]) == _without_places(values["config"]):
            if old["directory_uri"] != values["directory_uri"]:
                conn.execute(
                    SET_DIRECTORY,
                    {"directory_uri": values["directory_uri"], "model_id": old["model_id"]},
                )
            return int(old["model_id"])
        raise UsageError(
            f"A model named {values['name']!r} with other weights or configuration exists.",
            hint="Choose another name: embeddings of two models must never mix.",
        )
    wrapped = {
        **values,
        **{key: Jsonb(values[key]) for key in ("config", "input_transform", "metrics")},
    }
    row = conn.execute(INSERT, wrapped).fetchone()
    assert row is not None
    model_id = int(row[0])
    leaves.ensure_leaf(conn, "photo_embedding", model_id, values["dimension"])
    leaves.ensure_leaf(conn, "aerial_embedding", model_id, values["dimension"])
    return model_id


def step_aside(conn: Connection, name: str, sha256: str) -> str | None:
    """Make a name free for the model of some weights.

    A model of that name with other weights is renamed, its hash appended; one that stepped aside earlier and has
    these weights gets its name back.

    Returns:
        The name that the other model has now, None where there was none.
    """
    given = {"name": name, "sha256": sha256}
    row = conn.execute(STEP_ASIDE, given).fetchone()
    if row is not None:
        conn.execute(TAKE_BACK, given)
    return None if row is None else str(row[0])


def _without_places(config: Any) -> Any:
    """A model's configuration without the places its files were read from."""
    if not isinstance(config, Mapping):
        return config
    return {key: _without_places(item) for key, item in config.items() if key != "weights_uri"}


def require_datasets(conn: Connection, datasets: list[str], kind: str) -> None:
    """Refuse names of data sets that do not exist: nothing would be embedded, and nobody told.

    Raises:
        NotFoundError: Names them.
    """
    unknown = [row[0] for row in conn.execute(UNKNOWN_DATASETS, {"datasets": datasets, "kind": kind})]
    if unknown:
        raise NotFoundError(
            f"No data set of kind {kind} is named {', '.join(map(repr, unknown))}.",
            hint='Ask `geofix sql "SELECT name, kind FROM dataset"`.',
        )


def raster_rows(conn: Connection, ids: list[int]) -> list[tuple[int, str, str, str, dict[str, Any]]]:
    """Rasters as (id, uri, kind, crs, reading)."""
    return conn.execute(RASTERS, {"ids": ids}).fetchall()


def add_embeddings(
    conn: Connection,
    parent: leaves.Parent,
    model_id: int,
    rows: Iterable[tuple[int, NDArray[np.floating[Any]]]],
) -> int:
    """Store (key, vector) rows of one model; keys that are there already, or whose photo is gone, are left out."""
    parent_column, key, _ = leaves.COLUMNS[parent]
    conn.execute(
        "CREATE TEMP TABLE IF NOT EXISTS staged_embedding (key bigint, embedding public.halfvec) ON COMMIT DELETE ROWS"
    )
    conn.execute("TRUNCATE pg_temp.staged_embedding")
    copy_rows(
        conn,
        "pg_temp.staged_embedding",
        {"key": "int8", "embedding": "halfvec"},
        ((item, HalfVector(np.asarray(vector, np.float16))) for item, vector in rows),
    )
    source = "photo_record" if parent == "photo_embedding" else "aerial_tile"
    merged = conn.execute(
        sql.SQL(MERGE).format(
            leaf=sql.Identifier("geofix_leaf", f"{parent}_{model_id}"),
            parent_column=sql.Identifier(parent_column),
            key=sql.Identifier(key),
            parent_id=sql.Literal(model_id),
            source=sql.Identifier("geofix", source),
        )
    )
    return merged.rowcount


def analyze_embeddings(conn: Connection, parent: leaves.Parent, model_id: int) -> None:
    """Tell the planner how many vectors there are now."""
    conn.execute(sql.SQL("ANALYZE {}").format(sql.Identifier("geofix_leaf", f"{parent}_{model_id}")))


def read_split_embeddings(
    conn: Connection,
    model: ModelRow,
    snapshot_id: int,
    splits: list[str],
    *,
    span: tuple[int, int] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Photo ids (n,) and embeddings (n, D) of a snapshot's splits, by photo id.

    `span` is a closed range of leaf ids that the photos lie in.
    """
    first, last = span or (None, None)
    query = sql.SQL(READ_SPLIT if span is None else READ_SPAN).format(
        model_id=sql.Literal(model.model_id),
        snapshot_id=sql.Literal(snapshot_id),
        splits=sql.Literal(splits),
        first=sql.Literal(first),
        last=sql.Literal(last),
    )
    return read_vectors(conn, query, dimension=model.dimension)


def split_stamp(conn: Connection, model_id: int, snapshot_id: int, split: str) -> tuple[int, int]:
    """Number and checksum of the photos of a split that a model has embedded."""
    key = {"model_id": model_id, "snapshot_id": snapshot_id, "split": split}
    row = conn.execute(SPLIT_STAMP, key).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def read_dataset_embeddings(
    conn: Connection, model: ModelRow, datasets: list[str]
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Photo ids (n,) and embeddings (n, D) of whole data sets, by photo id."""
    query = sql.SQL(READ_DATASETS).format(
        model_id=sql.Literal(model.model_id), datasets=sql.Literal(datasets)
    )
    return read_vectors(conn, query, dimension=model.dimension)


def read_tile_embeddings(conn: Connection, model: ModelRow) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Tile ids (n,) and embeddings (n, D), by tile id."""
    query = sql.SQL(READ_TILES).format(model_id=sql.Literal(model.model_id))
    return read_vectors(conn, query, dimension=model.dimension)


def tile_cells(
    conn: Connection, model_id: int, *, region_ewkb: bytes | None = None, datasets: list[str] | None = None
) -> list[tuple[int, int, int]]:
    """Embedded tiles as (tile id, s2_id, level), by tile id, inside a region or of data sets where given."""
    key = {"model_id": model_id, "region": region_ewkb, "datasets": datasets}
    return conn.execute(TILE_CELLS, key).fetchall()


def delete_model(conn: Connection, model: ModelRow) -> None:
    """Remove a model with its embedding leaves; commits.

    Raises:
        UsageError: Code sets were built with it: they are dropped first, each with its leaf.
    """
    used = [row[0] for row in conn.execute(CODE_SETS_OF, {"model_id": model.model_id})]
    if used:
        raise UsageError(
            f"Model {model.name} is used by code sets {', '.join(used)}.",
            hint="Drop them first with `geofix codes drop`.",
        )
    for parent in ("photo_embedding", "aerial_embedding", "prototype"):
        leaves.drop_leaf(conn, parent, model.model_id)
    conn.execute(DELETE, {"model_id": model.model_id})
