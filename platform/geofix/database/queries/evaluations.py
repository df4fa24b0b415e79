"""Evaluations: phase one stores predictions, phase two reads them back; views and functions aggregate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from shapely import to_wkb

from geofix.database.bulk import copy_rows, read_columns
from geofix.database.engine import Connection
from geofix.database.queries import answer_regions, region_summary
from geofix.database.queries.codes import READY
from geofix.errors import NotFoundError, UsageError

FIND = "SELECT * FROM geofix.evaluation WHERE name = %(name)s"
LIST = "SELECT * FROM geofix.evaluation_summary ORDER BY created_at, evaluation_id"
WITH_DATASETS = """
SELECT e.evaluation_id, e.name AS evaluation, e.localizer, e.split, m.name AS model, e.n, e.metrics, asked.datasets
FROM geofix.evaluation e
LEFT JOIN geofix.model m USING (model_id)
CROSS JOIN LATERAL (
    SELECT array_agg(DISTINCT d.name ORDER BY d.name) AS datasets
    FROM geofix.evaluation_photo ep JOIN geofix.photo_record p USING (photo_id) JOIN geofix.dataset d USING (dataset_id)
    WHERE ep.evaluation_id = e.evaluation_id
) asked
WHERE NOT e.config ? 'in_the_making' AND e.metrics ? 'accuracy_km' AND asked.datasets IS NOT NULL
ORDER BY e.created_at, e.evaluation_id
"""
DELETE = "DELETE FROM geofix.evaluation WHERE name = %(name)s"
INSERT = """
INSERT INTO geofix.evaluation (name, localizer, model_id, code_set_id, snapshot_id, split, level, search_method, region_geom,
                               radius_km, comparison, missing_policy, n, config, software_version)
VALUES (%(name)s, %(localizer)s, %(model_id)s, %(code_set_id)s, %(snapshot_id)s, %(split)s, %(level)s, %(search_method)s,
        public.ST_GeomFromEWKB(%(region)s), %(radius_km)s, %(comparison)s, %(missing_policy)s, %(n)s, %(config)s,
        %(software_version)s)
RETURNING evaluation_id
"""
# Photos of one id stay together: they share a rank. The order is that in which a whole evaluation asks them.
SPANS = """
SELECT min(s2_id), max(s2_id), count(*) FROM (
    SELECT p.s2_id, (rank() OVER (ORDER BY p.s2_id) - 1) / %(size)s AS part
    FROM geofix.snapshot_photo s JOIN geofix.photo_record p USING (photo_id)
    WHERE s.snapshot_id = %(snapshot_id)s AND s.split = %(split)s
      AND (%(model_id)s::bigint IS NULL OR EXISTS (
          SELECT 1 FROM geofix.photo_embedding e WHERE e.model_id = %(model_id)s AND e.photo_id = s.photo_id))
) asked GROUP BY part ORDER BY part
"""
FORGET_SPAN = """
DELETE FROM geofix.prediction r USING geofix.photo_record p
WHERE r.evaluation_id = %(evaluation_id)s AND p.photo_id = r.photo_id AND p.s2_id BETWEEN %(first)s AND %(last)s
"""
MADE_WITH = "SELECT config ->> 'codes' FROM geofix.evaluation WHERE evaluation_id = %(evaluation_id)s"
# A refresh does not see an evaluation that is not committed yet. Where it is at work on the row at this moment, its codes
# are about to be others: waiting for it could be waiting for each other.
LET_GO = """
UPDATE geofix.evaluation e SET code_set_id = NULL
WHERE e.evaluation_id = %(evaluation_id)s AND e.config ? 'codes' AND e.code_set_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM unnest(%(held)s::text[]) AS h (codes) WHERE h.codes = e.config ->> 'codes')
"""
HOLD_CODES = f"""
SELECT s.code_set_id || '-' || {READY} FROM geofix.code_set s
WHERE s.code_set_id = (SELECT e.code_set_id FROM geofix.evaluation e WHERE e.evaluation_id = %(evaluation_id)s)
FOR SHARE OF s SKIP LOCKED
"""
RENAME = """
UPDATE geofix.evaluation SET name = %(name)s, config = config - 'in_the_making' WHERE evaluation_id = %(evaluation_id)s
"""
REGION_LEVELS = "SELECT DISTINCT level FROM geofix.region ORDER BY 1"
SET_METRICS = (
    "UPDATE geofix.evaluation SET metrics = %(metrics)s, n = %(n)s WHERE evaluation_id = %(evaluation_id)s"
)
ERRORS = """
SELECT ep.photo_id, coalesce(r.rank, 1::smallint), coalesce(r.error_m, 'NaN') FROM geofix.evaluation_photo ep
LEFT JOIN geofix.prediction r ON r.evaluation_id = ep.evaluation_id AND r.photo_id = ep.photo_id
WHERE ep.evaluation_id = %(evaluation_id)s
"""
# An index holds all of it, in the order it is wanted in.
FIRST_ERRORS = """
SELECT ep.photo_id, coalesce(r.error_m, 'NaN') FROM geofix.evaluation_photo ep
LEFT JOIN geofix.prediction r ON r.evaluation_id = ep.evaluation_id AND r.photo_id = ep.photo_id AND r.rank = 1
WHERE ep.evaluation_id = %(evaluation_id)s ORDER BY ep.photo_id
"""
ORIGINS = """
SELECT ep.photo_id, coalesce(p.sequence_id::float8, 'NaN'), p.s2_id, coalesce(p.gps_accuracy_m, 0)::float8
FROM geofix.evaluation_photo ep JOIN geofix.photo_record p USING (photo_id)
WHERE ep.evaluation_id = %(evaluation_id)s ORDER BY ep.photo_id
"""
TRUTH = """
SELECT ep.photo_id, public.ST_X(p.geom) AS lon, public.ST_Y(p.geom) AS lat, p.gps_accuracy_m, p.sequence_id, p.s2_id,
       ep.nearest_training_m, ep.training_photos_in_cell
FROM geofix.evaluation_photo ep JOIN geofix.photo_record p USING (photo_id)
WHERE ep.evaluation_id = %(evaluation_id)s ORDER BY ep.photo_id
"""
BY_REGION = "SELECT region_code, region_name, n, hits, accuracy, low, high, median_m FROM geofix.accuracy_by_region(%(name)s, %(level)s, %(threshold_m)s)"
BY_CELL = "SELECT s2_token, n, hits, accuracy, low, high, median_m FROM geofix.accuracy_by_cell(%(name)s, %(level)s, %(threshold_m)s)"
ERROR_LINES = """
SELECT public.ST_X(true_geom), public.ST_Y(true_geom), public.ST_X(geom), public.ST_Y(geom), error_m
FROM geofix.prediction_top1 WHERE evaluation = %(name)s ORDER BY photo_id
"""


def find_evaluation(conn: Connection, name: str) -> dict[str, Any]:
    """The evaluation of a name.

    Raises:
        NotFoundError: There is none; the message lists those there are.
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(FIND, {"name": name}).fetchone()
    if row is None:
        names = [item["evaluation"] for item in list_evaluations(conn)]
        raise NotFoundError(
            f"No evaluation is named {name!r}.",
            hint=f"There are: {', '.join(names)}." if names else "Make one with `geofix evaluate run`.",
        )
    return row


def list_evaluations(conn: Connection) -> list[dict[str, Any]]:
    """One summary row per evaluation, oldest first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(LIST).fetchall()


def list_with_datasets(conn: Connection) -> list[dict[str, Any]]:
    """Every measured evaluation with its metrics and the data sets whose photos it asked, oldest first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(WITH_DATASETS).fetchall()


def insert_evaluation(conn: Connection, values: Mapping[str, Any], *, replace: bool) -> int:
    """Register an evaluation; returns its id.

    Raises:
        UsageError: The name is taken and `replace` is off.
    """
    if replace:
        conn.execute(DELETE, {"name": values["name"]})
    else:
        require_free(conn, values["name"])
    row = conn.execute(INSERT, {**values, "config": Jsonb(values["config"])}).fetchone()
    assert row is not None
    return int(row[0])


def require_free(conn: Connection, name: str) -> None:
    """Refuse a name that is taken.

    Raises:
        UsageError: It is.
    """
    if conn.execute(FIND, {"name": name}).fetchone() is not None:
        raise UsageError(
            f"An evaluation named {name!r} exists.", hint="Choose another --name, or give --replace."
        )


def spans_to_ask(
    conn: Connection, model_id: int | None, snapshot_id: int, split: str, size: int
) -> list[tuple[int, int, int]]:
    """Ranges (first id, last id, photos) that hold every photo of a split, in order, `size` in each.

    With a model only photos that it embedded count. A range holds more where many photos lie on one id.
    """
    values = {"model_id": model_id, "snapshot_id": snapshot_id, "split": split, "size": size}
    return conn.execute(SPANS, values).fetchall()


def made_with(conn: Connection, evaluation_id: int) -> str | None:
    """Which state of a code set an evaluation was begun with; None where it searches none.

    Raises:
        UsageError: No evaluation has this id.
    """
    row = conn.execute(MADE_WITH, {"evaluation_id": evaluation_id}).fetchone()
    if row is None:
        raise UsageError(
            f"Evaluation {evaluation_id}, which this chunk belongs to, has been removed.",
            hint="Submit the evaluation again.",
        )
    return None if row[0] is None else str(row[0])


def let_go_of_replaced_codes(conn: Connection, evaluation_id: int) -> None:
    """Take the reference to its code set from an evaluation if that has other codes by now; the caller commits soon.

    From here on no refresh replaces them before the commit.
    """
    held = [row[0] for row in conn.execute(HOLD_CODES, {"evaluation_id": evaluation_id})]
    conn.execute(LET_GO, {"evaluation_id": evaluation_id, "held": held})


def forget_span(conn: Connection, evaluation_id: int, first: int, last: int) -> None:
    """Remove the predictions for photos in a range of S2 ids."""
    conn.execute(FORGET_SPAN, {"evaluation_id": evaluation_id, "first": first, "last": last})


def take_name(conn: Connection, evaluation_id: int, name: str, *, replace: bool) -> None:
    """Give a complete evaluation its name; from now on it is listed.

    Raises:
        UsageError: The name is taken and `replace` is off.
    """
    if replace:
        conn.execute(DELETE, {"name": name})
    else:
        require_free(conn, name)
    conn.execute(RENAME, {"evaluation_id": evaluation_id, "name": name})


def store_photos(
    conn: Connection,
    evaluation_id: int,
    photo_ids: NDArray[np.int64],
    nearest_training_m: NDArray[np.floating[Any]],
    training_photos_in_cell: NDArray[np.integer[Any]],
) -> None:
    """Store every photo that was asked, (n,) each; NaN distances become null."""
    columns = {
        "evaluation_id": "int8",
        "photo_id": "int8",
        "nearest_training_m": "float4",
        "training_photos_in_cell": "int4",
    }
    rows = (
        (evaluation_id, int(photo), None if np.isnan(distance) else float(distance), int(count))
        for photo, distance, count in zip(photo_ids, nearest_training_m, training_photos_in_cell, strict=True)
    )
    copy_rows(conn, "geofix.evaluation_photo", columns, rows)


def prediction_rows(
    evaluation_id: int,
    photo_ids: NDArray[np.int64],
    s2_id: NDArray[np.int64],
    lon: NDArray[np.floating[Any]],
    lat: NDArray[np.floating[Any]],
    score: NDArray[np.floating[Any]],
    probability: NDArray[np.floating[Any]] | None,
    error_m: NDArray[np.floating[Any]],
) -> Iterable[tuple[Any, ...]]:
    """Rows for `store_predictions` from (n, k) arrays; places without an answer (s2_id 0) are left out."""
    import shapely

    for i, photo in enumerate(photo_ids):
        answered = np.flatnonzero(s2_id[i] != 0)
        shapes = to_wkb(
            shapely.set_srid(shapely.points(lon[i, answered], lat[i, answered]), 4326), include_srid=True
        )
        for shape, j in zip(shapes, answered, strict=True):
            chance = None if probability is None else float(probability[i, j])
            yield (
                evaluation_id,
                int(photo),
                int(j) + 1,
                int(s2_id[i, j]),
                float(score[i, j]),
                chance,
                float(error_m[i, j]),
                shape,
            )


def store_predictions(conn: Connection, rows: Iterable[tuple[Any, ...]]) -> int:
    """Stream prediction rows."""
    columns = {
        "evaluation_id": "int8",
        "photo_id": "int8",
        "rank": "int2",
        "s2_id": "int8",
        "score": "float4",
        "probability": "float4",
        "error_m": "float8",
        "geom": "geometry",
    }
    return copy_rows(conn, "geofix.prediction", columns, rows)


def read_errors(conn: Connection, evaluation_id: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Photo ids (n,) and errors (n, k) in metres, NaN where there is no answer."""
    rows = read_columns(
        conn, ERRORS, {"photo_id": "i8", "rank": "i2", "error_m": "f8"}, {"evaluation_id": evaluation_id}
    )
    ids, place = np.unique(rows["photo_id"], return_inverse=True)
    table = np.full((len(ids), int(rows["rank"].max(initial=1))), np.nan)
    table[place, rows["rank"].astype(np.int64) - 1] = rows["error_m"]
    return ids, table


def read_first_errors(conn: Connection, evaluation_id: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Photo ids (n,), ascending, and the error of their first answer in metres (n,), NaN where there is none."""
    columns = {"photo_id": "i8", "error_m": "f8"}
    rows = read_columns(conn, FIRST_ERRORS, columns, {"evaluation_id": evaluation_id})
    return rows["photo_id"], rows["error_m"]


def read_origins(conn: Connection, evaluation_id: int) -> dict[str, NDArray[Any]]:
    """Columns of the asked photos by photo id: sequence_id (NaN: of none), s2_id and gps_m (0: nothing is said)."""
    columns = {"photo_id": "i8", "sequence_id": "f8", "s2_id": "i8", "gps_m": "f8"}
    return read_columns(conn, ORIGINS, columns, {"evaluation_id": evaluation_id})


def read_truth(conn: Connection, evaluation_id: int) -> dict[str, NDArray[Any]]:
    """Columns of the asked photos by photo id: lon, lat, gps_accuracy_m, sequence_id, s2_id, nearest_training_m ..."""
    with conn.cursor() as cursor:
        cursor.execute(TRUTH, {"evaluation_id": evaluation_id})
        names = [item.name for item in cursor.description or []]
        rows = cursor.fetchall()
    whole = {"photo_id", "s2_id"}
    return {
        name: np.array(
            [np.nan if row[i] is None else row[i] for row in rows], np.int64 if name in whole else np.float64
        )
        for i, name in enumerate(names)
    }


def delete_evaluation(conn: Connection, name: str) -> bool:
    """Remove an evaluation with its predictions; False when there was none."""
    return conn.execute(DELETE, {"name": name}).rowcount > 0


def set_metrics(conn: Connection, evaluation_id: int, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Store the metrics document, and beside it accuracy by region: the last step of every evaluation.

    Returns:
        What is stored: `administrative` is counted here.
    """
    region_summary.write(conn, evaluation_id)  # first, with its stamp: what changes from here on is seen
    stored = {**metrics, "administrative": answer_regions.count(conn, evaluation_id)}
    conn.execute(SET_METRICS, {"evaluation_id": evaluation_id, "metrics": Jsonb(stored), "n": metrics["n"]})
    return stored


def by_region(conn: Connection, name: str, level: str, threshold_m: float) -> list[dict[str, Any]]:
    """Accuracy per region of a level, percent with a Wilson interval.

    Raises:
        NotFoundError: No region of this level is loaded; the message lists the levels there are.
    """
    levels = [row[0] for row in conn.execute(REGION_LEVELS)]
    if level not in levels:
        raise NotFoundError(
            f"No region of level {level!r} is loaded.",
            hint=f"There are: {', '.join(levels)}." if levels else "Load some with `geofix ingest regions`.",
        )
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            BY_REGION, {"name": name, "level": level, "threshold_m": threshold_m}
        ).fetchall()


def by_cell(conn: Connection, name: str, level: int, threshold_m: float) -> list[dict[str, Any]]:
    """Accuracy per S2 cell of a level, percent with a Wilson interval."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(BY_CELL, {"name": name, "level": level, "threshold_m": threshold_m}).fetchall()


def error_lines(conn: Connection, name: str) -> NDArray[np.float64]:
    """Rows (true lon, true lat, answered lon, answered lat, error in metres); NaN where there is no answer."""
    rows = conn.execute(ERROR_LINES, {"name": name}).fetchall()
    return np.array(
        [[np.nan if value is None else value for value in row] for row in rows], np.float64
    ).reshape(-1, 5)
