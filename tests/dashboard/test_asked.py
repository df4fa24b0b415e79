"""What the accuracy page reads of an evaluation, against the plain joins that say the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from geofix.database.engine import connect
from geofix.database.queries import dashboard_accuracy

PLAIN = """
SELECT ep.photo_id, p.s2_id, ST_X(p.geom), ST_Y(p.geom), coalesce(p.gps_accuracy_m, 0)::float8, r.error_m,
       ep.nearest_training_m, ep.training_photos_in_cell
FROM evaluation e JOIN evaluation_photo ep USING (evaluation_id) JOIN photo_record p USING (photo_id)
LEFT JOIN prediction r ON r.evaluation_id = e.evaluation_id AND r.photo_id = ep.photo_id AND r.rank = 1
WHERE e.name = %s AND (r.photo_id IS NOT NULL OR e.missing_policy = 'wrong') ORDER BY ep.photo_id
"""
REGIONS = """
SELECT ep.photo_id, pr.region_id FROM evaluation e JOIN evaluation_photo ep USING (evaluation_id)
JOIN photo_region pr USING (photo_id) WHERE e.name = %s AND pr.level = %s
"""
COLUMNS = ("photo_id", "s2_id", "lon", "lat", "gps_m", "error_m", "nearest_training_m", "training_photos")


@pytest.mark.parametrize("name", ["first", "second"])
@pytest.mark.parametrize("rules", ["filled", "strict"])
def test_photos_and_regions_are_those_of_plain_joins(request, name, rules):
    request.getfixturevalue(rules)
    with connect("reader") as conn:
        found = dashboard_accuracy.asked(conn, name)
        rows = conn.execute(PLAIN, (name,)).fetchall()
        assert rows and len(rows) == len(found.photo_id)
        for i, column in enumerate(COLUMNS):
            wanted = np.array([np.nan if row[i] is None else row[i] for row in rows])
            same: Any = np.array_equal if i < 2 else np.allclose
            assert same(getattr(found, column), wanted, equal_nan=True), column
        regions = dashboard_accuracy.regions_of(conn, name, "country", found)
        of = dict(conn.execute(REGIONS, (name, "country")).fetchall())
    assert of and regions.tolist() == [of.get(int(photo), 0) for photo in found.photo_id]
    assert (regions == 0).any()
