"""How what is left to embed is cut into ranges of S2 ids."""

from __future__ import annotations

from typing import Literal

from geofix.database.engine import Connection

# Pictures of one id stay together: they share a rank.
PHOTO_SPANS = """
SELECT min(s2_id), max(s2_id), count(*) FROM (
    SELECT p.s2_id, (rank() OVER (ORDER BY p.s2_id) - 1) / %(size)s AS part FROM geofix.photo_record p
    WHERE p.uri IS NOT NULL
      AND (%(datasets)s::text[] IS NULL
           OR p.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY (%(datasets)s)))
      AND NOT EXISTS (SELECT 1 FROM geofix.photo_embedding e
                      WHERE e.model_id = %(model_id)s AND e.photo_id = p.photo_id)
) left_over GROUP BY part ORDER BY part
"""
TILE_SPANS = """
SELECT min(s2_id), max(s2_id), count(*) FROM (
    SELECT t.s2_id, (rank() OVER (ORDER BY t.s2_id) - 1) / %(size)s AS part FROM geofix.aerial_tile t
    WHERE (%(datasets)s::text[] IS NULL
           OR t.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY (%(datasets)s)))
      AND NOT EXISTS (SELECT 1 FROM geofix.aerial_embedding e
                      WHERE e.model_id = %(model_id)s AND e.aerial_tile_id = t.aerial_tile_id)
) left_over GROUP BY part ORDER BY part
"""


def spans_to_embed(
    conn: Connection, model_id: int, what: Literal["photos", "aerial"], datasets: list[str] | None, size: int
) -> list[tuple[int, int, int]]:
    """Ranges (first id, last id, pictures) that hold everything not embedded yet, in order, `size` in each.

    A range holds more where many pictures lie on one id.
    """
    values = {"model_id": model_id, "datasets": datasets, "size": size}
    return conn.execute(PHOTO_SPANS if what == "photos" else TILE_SPANS, values).fetchall()
