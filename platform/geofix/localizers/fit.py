"""A localizer by name, fitted on a snapshot's training photos or read from a code set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geofix.codes.build import cellmean_vectors
from geofix.codes.matrix import CellMatrix
from geofix.codes.trained_on import trained_on
from geofix.database.engine import Connection
from geofix.database.queries import models as model_queries
from geofix.database.queries import snapshots as snapshot_queries
from geofix.database.queries.codes import CodeSet
from geofix.database.queries.models import ModelRow
from geofix.errors import BadInputError, UsageError
from geofix.localizers.base import Localizer, PhotoLocalizer
from geofix.localizers.cellmean import CellMeanLocalizer
from geofix.localizers.code_set import NAMES, CodeSetLocalizer
from geofix.localizers.density import MODES, DensityLocalizer
from geofix.localizers.knn import KnnLocalizer
from geofix.localizers.popular import PopularLocalizer
from geofix.localizers.trained import TRAINED, trained_localizer
from geofix.log import get_logger
from geofix.settings import get_settings

_log = get_logger(__name__)
# Localizers that need no code set: fitted on the training photos of a snapshot, without training, or trained.
FITTED = ("cellmean", "knn", *MODES, "most_photographed", *TRAINED)


@dataclass(frozen=True)
class Fitted:
    """A localizer with the level whose cell centres are its best possible answers."""

    localizer: Localizer | PhotoLocalizer
    level: int
    code_set_id: int | None = None


def fit_localizer(
    conn: Connection,
    name: str,
    model: ModelRow,
    snapshot_id: int,
    *,
    level: int = 16,
    code_set: CodeSet | None = None,
) -> Fitted:
    """Fit or load a localizer.

    Args:
        conn: Open connection.
        name: `cellmean`, `knn`, `knn_density`, `knn_density_compat`, `most_photographed`, or with a code set
            the localizer that its recipe stands for (`cellcode`, `prototype_only`, `aerial_only`,
            `cellmean`), or one of `TRAINED`.
        model: Whose embeddings are used, or a trained classifier.
        snapshot_id: Its training photos.
        level: S2 level of cells, for localizers without a code set.
        code_set: Read from here instead of fitting.

    Raises:
        UsageError: Unknown name, or a code set of another recipe or model.
        BadInputError: No training photo is embedded, or the model's directory cannot be used.
    """
    theirs = trained_on(conn, model)
    if theirs is not None and theirs != snapshot_queries.snapshot_sha256(conn, snapshot_id):
        _log.warning("trained on another snapshot, whose photos may be among those asked", model=model.name)
    if code_set is not None:
        stands_for = NAMES.get(code_set.recipe, code_set.recipe)
        if name != stands_for:
            raise UsageError(
                f"Code set {code_set.name} was built by recipe {code_set.recipe}, not for localizer {name}.",
                hint=f"Give --localizer {stands_for}, or another code set.",
            )
        if code_set.model_id != model.model_id:
            raise UsageError(
                f"Code set {code_set.name} belongs to another model than {model.name}.",
                hint="Leave --model out: the code set's own is used.",
            )
        return Fitted(CodeSetLocalizer.load(conn, code_set), code_set.level, code_set.code_set_id)
    if name not in FITTED:
        known = ", ".join(sorted({*FITTED, *NAMES.values()}))
        raise UsageError(
            f"Localizer {name!r} needs a code set, or does not exist.",
            hint=f"Give --code-set; known: {known}.",
        )
    if name in TRAINED:
        place, device = Path(model.directory_uri), get_settings().device
        return Fitted(trained_localizer(name, place, device, sha256=model.weights_sha256), level)
    if name == "cellmean":
        made = cellmean_vectors(conn, model, snapshot_id, level)
        counts = np.ones(len(made.ids), np.int64)
        return Fitted(CellMeanLocalizer(CellMatrix.from_rows(made.ids, made.vectors), counts), level)
    ids, embeddings = model_queries.read_split_embeddings(conn, model, snapshot_id, ["train"])
    if not len(ids):
        raise BadInputError(
            f"Model {model.name} has embedded no training photo of this snapshot.",
            hint=f"Run `geofix embed photos --model {model.name}`.",
        )
    photos = snapshot_queries.snapshot_photos(conn, snapshot_id, ["train"]).set_index("photo_id").loc[ids]
    if name == "most_photographed":
        return Fitted(PopularLocalizer.fit(photos.s2_id.to_numpy(np.int64), level), level)
    knn = KnnLocalizer.fit(embeddings, photos.lon.to_numpy(), photos.lat.to_numpy(), group=ids)
    return Fitted(DensityLocalizer(knn, MODES[name]).scaled() if name in MODES else knn, level)
