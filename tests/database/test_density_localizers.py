"""[L]kNN in both modes by name, and its neighbours by pgvector: the same photos, distances and answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pgvector import HalfVector
from small_world import SmallWorld

from geofix.database.engine import connect
from geofix.database.queries import models as model_queries
from geofix.evaluation.service import evaluate
from geofix.localizers.degreegrid import grid_maximum
from geofix.localizers.density import (
    MODES,
    DensityLocalizer,
    density_modes,
    inverse_power_weights,
    sphere_maximum,
)
from geofix.localizers.fit import FITTED, fit_localizer
from geofix.snapshots.build import stored_snapshot

PEAKS = {"knn_density": sphere_maximum, "knn_density_compat": grid_maximum}
NEIGHBOURS, PLACES = 20, 3
# Every photo of the model is searched; those that are none of the training photos are passed over.
SEARCHED = """
SELECT s.photo_id, s.score, s.method, ST_X(s.geom), ST_Y(s.geom)
FROM search_photos(%s, (SELECT count(*) FROM photo_embedding)::integer, 'tiny') s
JOIN snapshot_photo p ON p.photo_id = s.photo_id AND p.split = 'train' ORDER BY s.rank LIMIT %s
"""
DISTANCES = """
SELECT e.photo_id, e.embedding <-> %s AS d FROM photo_embedding e JOIN snapshot_photo USING (photo_id)
WHERE split = 'train' ORDER BY d LIMIT %s
"""


@pytest.fixture
def conn(small: SmallWorld):
    """Everything that a test stores is rolled back."""
    with connect() as connection:
        yield connection
        connection.rollback()


def asked(conn, small):
    model = model_queries.find_model(conn, "tiny")
    snapshot_id = stored_snapshot(conn, small.snapshot).snapshot_id
    ids, vectors = model_queries.read_split_embeddings(conn, model, snapshot_id, ["test_seen"])
    return model, snapshot_id, ids, vectors


@pytest.mark.parametrize("name", MODES)
def test_neighbours_and_answers_are_those_of_pgvector(conn, small, name):
    model, snapshot_id, ids, vectors = asked(conn, small)
    fitted = fit_localizer(conn, name, model, snapshot_id).localizer
    assert isinstance(fitted, DensityLocalizer) and (fitted.name, fitted.mode) == (name, MODES[name])
    made = replace(fitted, neighbours=NEIGHBOURS)
    near = made.knn.neighbours(vectors, NEIGHBOURS)
    answers = made.localize(vectors, PLACES)
    assert len(ids) > 10
    for query, vector in enumerate(vectors):
        rows = conn.execute(SEARCHED, (HalfVector(vector), NEIGHBOURS)).fetchall()
        photos, scores, methods, lon, lat = (np.array(column) for column in zip(*rows, strict=True))
        assert set(methods) == {"exact"}
        np.testing.assert_array_equal(photos, made.knn.group[near.row[query]])
        np.testing.assert_allclose(scores, near.cosine[query], atol=1e-6)
        distance = np.sqrt(2.0 - 2.0 * scores)
        np.testing.assert_allclose(distance, near.distance[query], atol=1e-5)
        # pgvector's own Euclidean distance differs by what halves lack of the length 1.
        euclidean = dict(conn.execute(DISTANCES, (HalfVector(vector), 2 * NEIGHBOURS)).fetchall())
        squares = [euclidean[photo] ** 2 for photo in photos]
        np.testing.assert_allclose(squares, distance**2, atol=1e-3)
        weights = inverse_power_weights(distance, made.m)
        places = density_modes(lon, lat, weights, PEAKS[name], made.sigma_m, made.snap_m, PLACES)
        np.testing.assert_allclose(places[:, 0], answers.lon[query, : len(places)], atol=1e-9)
        np.testing.assert_allclose(places[:, 1], answers.lat[query, : len(places)], atol=1e-9)
        np.testing.assert_allclose(places[:, 2], answers.score[query, : len(places)], rtol=1e-3)


def test_both_modes_are_evaluated_by_name_and_differ(conn, small):
    assert set(MODES) <= set(FITTED)
    found = {}
    for name in MODES:
        result = evaluate(
            conn, localizer=name, snapshot=small.snapshot, split="test_seen", model="tiny", name=name, k=5
        )
        assert result["localizer"] == name and result["answered"] == 100
        found[name] = conn.execute(
            "SELECT photo_id, rank, ST_X(p.geom), ST_Y(p.geom) FROM prediction p"
            " JOIN evaluation USING (evaluation_id) WHERE name = %s ORDER BY 1, 2",
            (name,),
        ).fetchall()
    sphere, compat = found.values()
    assert sphere != compat
    same = {row for row in sphere if row[1] == 1} & {row for row in compat if row[1] == 1}
    assert same  # most photos of one street: both find it
