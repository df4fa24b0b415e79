"""Fit a code set's temperature, coverage and refinement on the validation photos of its snapshot."""

from __future__ import annotations

from typing import Any

import numpy as np

from geofix.codes.complete import complete_query
from geofix.codes.host_matrix import host_matrix
from geofix.codes.thinning import thinned
from geofix.codes.trained_on import learned_from_val, require_trained_on
from geofix.database.engine import Connection
from geofix.database.queries import codes as code_queries
from geofix.database.queries import models as model_queries
from geofix.database.queries import snapshots as snapshot_queries
from geofix.database.queries.codes import CodeSet
from geofix.database.queries.models import ModelRow
from geofix.errors import BadInputError
from geofix.localize.confidence import fit_confidence
from geofix.localize.positions import refinement_fit
from geofix.localizers.code_set import CodeSetLocalizer
from geofix.log import get_logger

REFINED_PHOTOS = 2000  # at most, in the fit of the refinement: it chooses one of eleven temperatures

_log = get_logger(__name__)


def calibrate_code_set(conn: Connection, code_set: CodeSet, snapshot_id: int) -> dict[str, Any]:
    """Fit on the split `val`, seen and unseen blocks in their natural mix, and store the fit.

    The temperature in the row is in units of the score; the one in `calibration` is in units of completed
    scores, which are smaller by the set's scale M. That of the refinement, `calibration.refinement`, is in
    units of the score. Of many photos `fit_confidence` draws some, by a seed; `calibration` says how many
    took part and how many there were.

    Returns:
        temperature, queries (photos whose own cell is in the set), nll, whether the coverage is a
        probability, the refinement's temperature, photos_used and photos_available.

    Raises:
        UsageError: The set has prototypes, which may have learned photos of `val`.
        BadInputError: No validation photo is embedded, or none lies in a cell of the set.
    """
    model = model_queries.find_model_by_id(conn, code_set.model_id)
    _check(conn, code_set, model, snapshot_id)
    ids, vectors = model_queries.read_split_embeddings(conn, model, snapshot_id, ["val"])
    if not len(ids):
        raise BadInputError(
            f"Model {model.name} has embedded no validation photo of the snapshot.",
            hint=f"Run `geofix embed photos --model {model.name}`.",
        )
    photos = snapshot_queries.snapshot_photos(conn, snapshot_id, ["val"]).set_index("photo_id").loc[ids]
    matrix = host_matrix(conn, code_set)
    leaf = photos.s2_id.to_numpy(np.int64)
    fit = fit_confidence(matrix, complete_query(vectors.astype(np.float32)), leaf)
    if fit.photos_used != len(ids):
        _log.info("calibrated on a sample", code_set=code_set.name, photos=fit.photos_used, of=len(ids))
    temperature = fit.temperature * code_set.scale
    rows = np.arange(len(ids), dtype=np.int64)
    if len(rows) > REFINED_PHOTOS:  # those that a set of one region can find
        rows = thinned(np.flatnonzero(matrix.rows_containing(leaf) >= 0), REFINED_PHOTOS)
    refinement = refinement_fit(
        CodeSetLocalizer.of(matrix, code_set),
        vectors[rows],
        photos.lon.to_numpy(np.float64)[rows],
        photos.lat.to_numpy(np.float64)[rows],
        temperature,
    )
    stored = {**fit.as_dict(), "refinement": refinement}
    code_queries.set_temperature(conn, code_set.code_set_id, temperature, stored)
    return {
        "temperature": temperature,
        "queries": fit.queries,
        "nll": fit.nll,
        "coverage_is_probability": fit.coverage.slope is not None,
        "refinement_temperature": refinement["temperature"],
        "photos_used": fit.photos_used,
        "photos_available": fit.photos_available,
    }


def _check(conn: Connection, code_set: CodeSet, model: ModelRow, snapshot_id: int) -> None:
    """A model may have learned the validation photos of another snapshot than its own.

    Raises:
        UsageError: The set has prototypes, which may have learned them.
    """
    if code_set.recipe in ("prototype", "hybrid"):
        require_trained_on(conn, model, snapshot_id)
    elif (why := learned_from_val(conn, model, snapshot_id)) is not None:
        _log.warning(f"{why} Probabilities are too high where it did.", code_set=code_set.name)
