"""Where photos' pixels lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geofix.database.engine import Connection

URIS = """
SELECT photo_id, uri FROM geofix.photo_record WHERE photo_id = ANY (%(photo_ids)s)
"""


def photo_uris(conn: Connection, photo_ids: NDArray[np.int64]) -> list[str | None]:
    """Path or URI of each photo, in the order asked; None where there are no pixels, or no such photo."""
    found: dict[int, str | None] = dict(conn.execute(URIS, {"photo_ids": photo_ids.tolist()}).fetchall())
    return [found.get(int(photo)) for photo in photo_ids]
