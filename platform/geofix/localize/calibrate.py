"""Fit a code set's temperature, coverage and refinement on the validation photos of its snapshot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from geofix.codes.complete import complete_query
from geofix.codes.host_matrix import host_matrix
from geofix.codes.thinning import thinned
from geofix.codes.trained_on import require_trained_on, trained_on
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

PHOTOS = 5000  # at most, in the fit of temperature and coverage: 64 KB of memory each
REFINED_PHOTOS = 2000  # at most, in the fit of the refinement: it chooses one of eleven temperatures

_log = get_logger(__name__)


def calibrate_code_set(conn: Connection, code_set: CodeSet, snapshot_id: int) -> dict[str, Any]:
    """Fit on the split `val`, seen and unseen blocks in their natural mix, and store the fit.

    The temperature in the row is in units of the score; the one in `calibration` is in units of completed
    scores, which are smaller by the set's scale M. That of the refinement, `calibration.refinement`, is in
    units of the score. Of more than `PHOTOS` embedded validation photos so many are drawn, by a seed, alike
    from all; `calibration` says how many took part and how many there were.

    Returns:
        temperature, queries (photos whose own cell is in the set), nll, whether the coverage is a
        probability, the refinement's temperature, photos_used and photos_available.

    Raises:
        UsageError: The set has prototypes, which were trained on another snapshot.
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
    available = len(ids)
    used = thinned(np.arange(available), PHOTOS)
    if len(used) < available:
        _log.info("calibrated on a sample", code_set=code_set.name, photos=len(used), of=available)
        ids, vectors = ids[used], vectors[used]
    photos = snapshot_queries.snapshot_photos(conn, snapshot_id, ["val"]).set_index("photo_id").loc[ids]
    matrix = host_matrix(conn, code_set)
    fit = fit_confidence(matrix, complete_query(vectors.astype(np.float32)), photos.s2_id.to_numpy(np.int64))
    fit = replace(fit, photos_used=len(ids), photos_available=available)
    temperature = fit.temperature * code_set.scale
    rows = thinned(np.arange(len(ids), dtype=np.int64), REFINED_PHOTOS)
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
        "photos_used": len(ids),
        "photos_available": available,
    }


def _check(conn: Connection, code_set: CodeSet, model: ModelRow, snapshot_id: int) -> None:
    """A model may have learned the validation photos of another snapshot than its own.

    Raises:
        UsageError: The set has prototypes, which were trained on another snapshot.
    """
    if code_set.recipe in ("prototype", "hybrid"):
        require_trained_on(conn, model, snapshot_id)
    elif trained_on(conn, model) not in (None, snapshot_queries.snapshot_sha256(conn, snapshot_id)):
        _log.warning(
            "trained on another snapshot: where it learned from photos of val, probabilities are too high",
            model=model.name,
            code_set=code_set.name,
        )
