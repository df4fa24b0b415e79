"""What the accuracy page reads of an evaluation: its photos with their first answers, as columns of numbers.

Shares by region and of all photos at the distances of the page come from the evaluation's own summary while it fits
(`region_summary`). For all else, curves, cells, places within places and other distances, the photos are read once, by
binary COPY, and it is counted from them in memory (`geofix_dashboard.accuracy_tables`): 68 bytes a photo, where one
statement for each distance, level and place would look up the same photos again. Shapes, pictures and single answers are
read for what is shown alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geofix.database.bulk import read_columns
from geofix.database.engine import Connection
from geofix.database.queries.dashboard import frame

EVALUATIONS = """
SELECT s.*, e.metrics, e.snapshot_id FROM geofix.evaluation_summary s JOIN geofix.evaluation e USING (evaluation_id)
ORDER BY s.created_at, evaluation_id
"""
# Not `evaluation.n`, which counts what was measured: nothing, where photos without an answer are dropped and all are.
HAS_PHOTOS = """
SELECT EXISTS (SELECT FROM geofix.evaluation_photo WHERE evaluation_id = geofix.evaluation_id(%(name)s))
"""
COMPARISON = "SELECT comparison FROM geofix.evaluation WHERE evaluation_id = geofix.evaluation_id(%(name)s)"
# The photos of `evaluation_hits`, before a distance leaves some out. `mix` orders them at random, always in the same way.
# Each photo is looked up by its id: the planner would rather read all photos there are, with every core.
ASKED = """
SELECT ep.photo_id, p.s2_id, public.ST_X(p.geom), public.ST_Y(p.geom), coalesce(p.gps_accuracy_m, 0)::float8,
       coalesce(r.error_m, 'NaN'), coalesce(ep.nearest_training_m, 'NaN'),
       coalesce(ep.training_photos_in_cell::float4, 'NaN'), hashint8(ep.photo_id)
FROM geofix.evaluation e
JOIN geofix.evaluation_photo ep USING (evaluation_id)
CROSS JOIN LATERAL (SELECT * FROM geofix.photo_record o WHERE o.photo_id = ep.photo_id OFFSET 0) AS p
LEFT JOIN geofix.prediction r ON r.evaluation_id = ep.evaluation_id AND r.photo_id = ep.photo_id AND r.rank = 1
WHERE e.evaluation_id = geofix.evaluation_id(%(name)s) AND (r.photo_id IS NOT NULL OR e.missing_policy = 'wrong')
ORDER BY ep.photo_id
"""
REGION_OF = """
SELECT ep.photo_id, pr.region_id
FROM geofix.evaluation_photo ep
CROSS JOIN LATERAL (SELECT o.region_id FROM geofix.photo_region o
                    WHERE o.photo_id = ep.photo_id AND o.level = %(level)s OFFSET 0) AS pr
WHERE ep.evaluation_id = geofix.evaluation_id(%(name)s)
"""
REGION = "SELECT region_id FROM geofix.region WHERE level = %(level)s AND code = %(code)s"
# Without a tolerance there is no shape, and none is read: the function is strict.
PLACES = """
SELECT r.region_id, r.code, r.name AS place,
       public.ST_AsGeoJSON(public.ST_Simplify(r.geom, %(tolerance)s::float8, true), 5) AS shape
FROM geofix.region r WHERE r.region_id = ANY (%(ids)s::bigint[])
"""
# The smallest error of the answers up to the first K and after it up to the next one: most ranks are far away, and only
# what can count within the largest radius is looked at.
BEST = """
SELECT r.photo_id, width_bucket(r.rank - 1, %(ks)s::integer[]), min(r.error_m)
FROM geofix.prediction r
WHERE r.evaluation_id = geofix.evaluation_id(%(name)s) AND r.error_m <= %(most_m)s AND r.rank <= %(most_k)s GROUP BY 1, 2
"""
ERROR_LINES = """
SELECT i.photo_id, public.ST_X(p.geom) AS true_lon, public.ST_Y(p.geom) AS true_lat, public.ST_X(r.geom) AS lon,
       public.ST_Y(r.geom) AS lat, r.error_m
FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY AS i (photo_id, place)
JOIN geofix.photo_record p USING (photo_id)
JOIN geofix.prediction r ON r.evaluation_id = geofix.evaluation_id(%(name)s) AND r.photo_id = i.photo_id AND r.rank = 1
ORDER BY i.place
"""
# The photo nearest to each answered place stands beside it.
PHOTOS = """
SELECT i.photo_id, d.name AS dataset, p.source_key, p.uri, p.captured_at, p.heading_deg, r.error_m, r.score, r.probability,
       ep.nearest_training_m, ep.training_photos_in_cell, public.ST_X(p.geom) AS true_lon, public.ST_Y(p.geom) AS true_lat,
       public.ST_X(r.geom) AS lon, public.ST_Y(r.geom) AS lat, coalesce(p.licence, d.licence) AS licence,
       coalesce(p.author, d.attribution) AS attribution, near.uri AS near_uri, near.source_key AS near_key,
       near.distance_m AS near_m
FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY AS i (photo_id, place)
JOIN geofix.evaluation e ON e.evaluation_id = geofix.evaluation_id(%(name)s)
JOIN geofix.evaluation_photo ep ON ep.evaluation_id = e.evaluation_id AND ep.photo_id = i.photo_id
JOIN geofix.photo_record p ON p.photo_id = i.photo_id
JOIN geofix.dataset d USING (dataset_id)
LEFT JOIN geofix.prediction r ON r.evaluation_id = ep.evaluation_id AND r.photo_id = ep.photo_id AND r.rank = 1
LEFT JOIN LATERAL (
  SELECT o.uri, o.source_key, public.ST_DistanceSphere(o.geom, r.geom) AS distance_m FROM geofix.photo_record o
  WHERE o.uri IS NOT NULL AND o.photo_id <> i.photo_id AND r.geom IS NOT NULL
  ORDER BY o.geom OPERATOR(public.<->) r.geom LIMIT 1
) AS near ON true
WHERE r.photo_id IS NOT NULL OR e.missing_policy = 'wrong'
ORDER BY i.place
"""
ANSWERS = """
SELECT r.rank, geofix.s2_token(r.s2_id) AS code, public.ST_X(r.geom) AS lon, public.ST_Y(r.geom) AS lat, r.score, r.probability,
       r.error_m
FROM geofix.prediction r
WHERE r.evaluation_id = geofix.evaluation_id(%(name)s) AND r.photo_id = %(photo_id)s ORDER BY r.rank LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Focus:
    """A region or a range of leaf cells (S2 ids of level 30, both ends inclusive); empty: everywhere."""

    region_level: str | None = None
    region_code: str | None = None
    lo: int | None = None
    hi: int | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """Photos of an evaluation that count, by ascending id, with their first answer; every array has shape (n,).

    Attributes:
        comparison: `<` or `<=`: whether an error equal to a distance is within it.
        photo_id: Their ids.
        s2_id: Leaf cell of the true position.
        lon: True longitude in degrees.
        lat: True latitude in degrees.
        gps_m: How well the true position is known, in metres; 0 where nothing is said.
        error_m: Of the first answer; NaN without one.
        nearest_training_m: Distance to the nearest training photo; NaN where it is unknown.
        training_photos: Training photos in the same cell; NaN where it is unknown.
        mix: A fixed random number of each photo.
        place: Row in the evaluation as it was read; stays with a photo when only some are kept.
    """

    comparison: str
    photo_id: NDArray[np.int64]
    s2_id: NDArray[np.int64]
    lon: NDArray[np.float64]
    lat: NDArray[np.float64]
    gps_m: NDArray[np.float64]
    error_m: NDArray[np.float64]
    nearest_training_m: NDArray[np.float32]
    training_photos: NDArray[np.float32]
    mix: NDArray[np.int32]
    place: NDArray[np.int64]

    def only(self, kept: NDArray[np.bool_]) -> Asked:
        """The photos of a mask (n,)."""
        names = [item.name for item in fields(self) if item.name != "comparison"]
        return replace(self, **{name: getattr(self, name)[kept] for name in names})


def evaluations(conn: Connection) -> pd.DataFrame:
    """Summaries with the metrics document, oldest first."""
    return frame(conn, EVALUATIONS)


def has_photos(conn: Connection, name: str) -> bool:
    """Whether an evaluation asked photos that are still there, answered or not."""
    row = conn.execute(HAS_PHOTOS, {"name": name}).fetchone()
    return bool(row and row[0])


def asked(conn: Connection, name: str) -> Asked:
    """The photos of an evaluation that count; the arrays cannot be written to, so that many may hold them."""
    row = conn.execute(COMPARISON, {"name": name}).fetchone()
    columns = {"photo_id": "i8", "s2_id": "i8", "lon": "f8", "lat": "f8", "gps_m": "f8", "error_m": "f8"}
    columns |= {"nearest_training_m": "f4", "training_photos": "f4", "mix": "i4"}
    found = read_columns(conn, ASKED, columns, {"name": name})
    found["place"] = np.arange(len(found["photo_id"]))
    for column in found.values():
        column.flags.writeable = False
    return Asked(comparison=str(row[0]) if row else "<=", **found)


def regions_of(conn: Connection, name: str, level: str, every: Asked) -> NDArray[np.int64]:
    """The region of a level that each photo lies in, (n,); 0 outside every one."""
    return regions_at(every.photo_id, region_rows(conn, name, level))


def region_rows(conn: Connection, name: str, level: str) -> dict[str, NDArray[np.int64]]:
    """Photos of an evaluation that lie in a region of a level, and which, as columns photo_id and region_id."""
    columns = {"photo_id": "i8", "region_id": "i8"}
    return read_columns(conn, REGION_OF, columns, {"name": name, "level": level})


def regions_at(photo_ids: NDArray[np.int64], found: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """What `regions_of` says, of photos by ascending id and rows that were read apart."""
    place, known = _places(photo_ids, found["photo_id"])
    regions = np.zeros(len(photo_ids), np.int64)
    regions[place] = found["region_id"][known]
    regions.flags.writeable = False
    return regions


def region_id(conn: Connection, level: str, code: str) -> int | None:
    """The id of a region; None where there is none."""
    row = conn.execute(REGION, {"level": level, "code": code}).fetchone()
    return None if row is None else int(row[0])


def places(conn: Connection, ids: Sequence[int], tolerance: float | None) -> pd.DataFrame:
    """Regions with code, place (its name) and shape (GeoJSON, simplified by a tolerance in degrees; None: none)."""
    return frame(conn, PLACES, {"ids": list(ids), "tolerance": tolerance})


def best_errors(
    conn: Connection, name: str, ks: Sequence[int], most_m: float, every: Asked
) -> NDArray[np.float64]:
    """Smallest error among the first K answers, (n, K) in metres, of errors up to a limit; infinite beyond it."""
    values = {"name": name, "ks": list(ks), "most_m": float(most_m), "most_k": max(ks)}
    found = read_columns(conn, BEST, {"photo_id": "i8", "bucket": "i4", "error_m": "f8"}, values)
    place, known = _places(every.photo_id, found["photo_id"])
    best = np.full((len(every.photo_id), len(ks)), np.inf)
    best[place, found["bucket"][known]] = found["error_m"][known]
    best = np.minimum.accumulate(best, axis=1)
    best.flags.writeable = False
    return best


def _places(
    every: NDArray[np.int64], photo_ids: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Rows of the photos among those that count, by their ascending ids, and which of them do."""
    if not len(every):
        return np.zeros(0, np.intp), np.zeros(len(photo_ids), np.bool_)
    place = np.minimum(np.searchsorted(every, photo_ids), len(every) - 1)
    known = every[place] == photo_ids
    return place[known], known


def error_lines(conn: Connection, name: str, photo_ids: Sequence[int]) -> pd.DataFrame:
    """Truth and first answer of answered photos, in their order."""
    return frame(conn, ERROR_LINES, {"name": name, "ids": list(photo_ids)})


def photos(conn: Connection, name: str, photo_ids: Sequence[int]) -> pd.DataFrame:
    """Photos that count with their answer and the photo nearest to the answered place, in their order."""
    return frame(conn, PHOTOS, {"name": name, "ids": list(photo_ids)})


def answers(conn: Connection, name: str, photo_id: int, *, limit: int = 20) -> pd.DataFrame:
    """The first answers to one photo, by rank, with their error in metres."""
    return frame(conn, ANSWERS, {"name": name, "photo_id": photo_id, "limit": limit})
