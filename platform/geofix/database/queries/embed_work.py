"""What a model has not embedded yet, page by page in S2 order: memory does not grow with the number of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from geofix.database.engine import Connection

PAGE = 5_000
"""Rows read at a time."""
_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1

COUNT_PHOTOS = """
SELECT count(*), count(*) FILTER (WHERE NOT EXISTS (
    SELECT 1 FROM geofix.photo_embedding e WHERE e.model_id = %(model_id)s AND e.photo_id = p.photo_id))
FROM geofix.photo_record p WHERE p.uri IS NOT NULL
  AND (%(datasets)s::text[] IS NULL
       OR p.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY (%(datasets)s)))
  AND p.s2_id BETWEEN %(first)s AND %(last)s
"""
COUNT_TILES = """
SELECT count(*), count(*) FILTER (WHERE NOT EXISTS (
    SELECT 1 FROM geofix.aerial_embedding e WHERE e.model_id = %(model_id)s AND e.aerial_tile_id = t.aerial_tile_id))
FROM geofix.aerial_tile t
WHERE (%(datasets)s::text[] IS NULL
       OR t.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY (%(datasets)s)))
  AND t.s2_id BETWEEN %(first)s AND %(last)s
"""
# A page begins after the last row of the one before; `first` moves on with it, so that the index finds the place.
PHOTOS = """
SELECT p.photo_id, p.s2_id, p.uri FROM geofix.photo_record p
WHERE p.uri IS NOT NULL
  AND (%(datasets)s::text[] IS NULL
       OR p.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY (%(datasets)s)))
  AND p.s2_id BETWEEN %(first)s AND %(last)s AND (p.s2_id, p.photo_id) > (%(first)s, %(after)s)
  AND NOT EXISTS (SELECT 1 FROM geofix.photo_embedding e WHERE e.model_id = %(model_id)s AND e.photo_id = p.photo_id)
ORDER BY p.s2_id, p.photo_id LIMIT %(page)s
"""
TILES = """
SELECT t.aerial_tile_id, t.s2_id, t.side_m, t.aerial_raster_ids FROM geofix.aerial_tile t
WHERE (%(datasets)s::text[] IS NULL
       OR t.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY (%(datasets)s)))
  AND t.s2_id BETWEEN %(first)s AND %(last)s AND (t.s2_id, t.aerial_tile_id) > (%(first)s, %(after)s)
  AND NOT EXISTS (SELECT 1 FROM geofix.aerial_embedding e
                  WHERE e.model_id = %(model_id)s AND e.aerial_tile_id = t.aerial_tile_id)
ORDER BY t.s2_id, t.aerial_tile_id LIMIT %(page)s
"""


@dataclass(frozen=True, slots=True)
class Work:
    """Which pictures a run of embedding looks at.

    Attributes:
        model_id: The model.
        kind: `photos` or `aerial`.
        datasets: Names of data sets; None takes all.
        span: S2 ids between which they lie, both included; None: everywhere.
    """

    model_id: int
    kind: Literal["photos", "aerial"]
    datasets: list[str] | None = None
    span: tuple[int, int] | None = None

    def _params(self) -> dict[str, Any]:
        first, last = self.span or (_LOWEST, _HIGHEST)
        return {"model_id": self.model_id, "datasets": self.datasets, "first": first, "last": last}


def count_work(conn: Connection, work: Work) -> tuple[int, int]:
    """Pictures in all, and those among them that are not embedded yet."""
    row = conn.execute(COUNT_PHOTOS if work.kind == "photos" else COUNT_TILES, work._params()).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def work_pages(conn: Connection, work: Work) -> Iterator[list[tuple[Any, ...]]]:
    """Pictures not embedded yet in S2 order, `PAGE` at a time.

    Rows are (photo_id, s2_id, uri), or (aerial_tile_id, s2_id, side_m, raster ids). Every page is a query of its
    own, so rows may be stored and committed between pages. What is passed over is not offered again. The caller
    commits once it has a page, or its transaction stays open for as long as the page is worked on.
    """
    params = {**work._params(), "after": _LOWEST, "page": PAGE}
    while True:
        rows = conn.execute(PHOTOS if work.kind == "photos" else TILES, params).fetchall()
        if rows:
            yield rows
        if len(rows) < PAGE:
            return
        params["after"], params["first"] = rows[-1][0], rows[-1][1]
