"""Fit a code set's temperature and coverage on the validation photos of its snapshot."""

from __future__ import annotations

from typing import Any

import numpy as np

from geofix.codes.complete import complete_query
from geofix.codes.host_matrix import host_matrix
from geofix.database.engine import Connection
from geofix.database.queries import codes as code_queries
from geofix.database.queries import models as model_queries
from geofix.database.queries import snapshots as snapshot_queries
from geofix.database.queries.codes import CodeSet
from geofix.errors import BadInputError
from geofix.localize.confidence import fit_confidence


def calibrate_code_set(conn: Connection, code_set: CodeSet, snapshot_id: int) -> dict[str, Any]:
    """Fit on the split `val`, seen and unseen blocks in their natural mix, and store the fit.

    The temperature in the row is in units of the score; the one in `calibration` is in units of completed
    scores, which are smaller by the set's scale M.

    Returns:
        temperature, queries, nll and whether the coverage is a probability.

    Raises:
        BadInputError: No validation photo is embedded, or none lies in a cell of the set.
    """
    model = model_queries.find_model_by_id(conn, code_set.model_id)
    ids, vectors = model_queries.read_split_embeddings(conn, model, snapshot_id, ["val"])
    if not len(ids):
        raise BadInputError(
            f"Model {model.name} has embedded no validation photo of the snapshot.",
            hint=f"Run `geofix embed photos --model {model.name}`.",
        )
    photos = snapshot_queries.snapshot_photos(conn, snapshot_id, ["val"]).set_index("photo_id").loc[ids]
    matrix = host_matrix(conn, code_set)
    fit = fit_confidence(matrix, complete_query(vectors.astype(np.float32)), photos.s2_id.to_numpy(np.int64))
    temperature = fit.temperature * code_set.scale
    code_queries.set_temperature(conn, code_set.code_set_id, temperature, fit.as_dict())
    return {
        "temperature": temperature,
        "queries": fit.queries,
        "nll": fit.nll,
        "coverage_is_probability": fit.coverage.slope is not None,
    }
