"""Prototypes and aerial codes of the same cells, put together with a weight fitted on validation photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geofix.codes.complete import completion_norm
from geofix.codes.recipes import CellVectors, unit
from geofix.database.engine import Connection
from geofix.database.queries import models as model_queries
from geofix.database.queries import snapshots as snapshot_queries
from geofix.database.queries.models import ModelRow
from geofix.errors import BadInputError, UsageError
from geofix.log import get_logger
from geofix.models.hybrid import Fusion, fit_source
from geofix.models.scores import VectorScores
from geofix.spatial import s2

Kappa = float | Literal["fit"]

_PAIRS = 100_000_000  # of query and cell per pass of the fit; more queries than fit are thinned out at random
_HEADROOM = 1.05  # of M, so that a refresh with slightly longer codes does not need a rebuild

_log = get_logger(__name__)


@dataclass(frozen=True, eq=False)
class Parts:
    """Both codes of every cell that has at least one.

    Attributes:
        ids: (n,) cells of one level, ascending.
        prototype: (n, D) unit vectors, zero rows where there is none.
        aerial: (n, D) likewise.
        has_prototype: (n,) flags.
        has_aerial: (n,) flags.
    """

    ids: NDArray[np.int64]
    prototype: NDArray[np.float32]
    aerial: NDArray[np.float32]
    has_prototype: NDArray[np.bool_]
    has_aerial: NDArray[np.bool_]

    @classmethod
    def of(cls, prototype: CellVectors, aerial: CellVectors) -> Parts:
        """All cells of either; both of one level."""
        ids = np.union1d(prototype.ids, aerial.ids)
        shape = (len(ids), prototype.vectors.shape[1])
        vectors, flags = [], []
        for part in (prototype, aerial):
            rows = np.searchsorted(ids, part.ids)
            spread = np.zeros(shape, np.float32)
            spread[rows] = part.vectors
            held = np.zeros(len(ids), bool)
            held[rows] = True
            vectors.append(spread)
            flags.append(held)
        return cls(ids, vectors[0], vectors[1], flags[0], flags[1])

    def combine(self, kappa: float, no_prototype: float, no_aerial: float) -> CellVectors:
        """Codes kappa z_P + z_A, not normalised, with a bias where a part is missing."""
        bias = no_prototype * ~self.has_prototype + no_aerial * ~self.has_aerial
        return CellVectors(
            self.ids,
            np.float32(kappa) * self.prototype + self.aerial,
            bias.astype(np.float32),
            self.has_prototype,
            self.has_aerial,
            kappa,
        )


def largest_norm(made: CellVectors, kappa: float, no_prototype: float, no_aerial: float) -> float:
    """M with some headroom, never more than what any code of unit parts can need."""
    bound = np.sqrt(max((kappa + 1) ** 2, 1 + no_prototype**2, kappa**2 + no_aerial**2))
    needed = completion_norm(made.vectors, made.bias)
    return max(needed, min(_HEADROOM * needed, float(bound)))


def hybrid_vectors(
    conn: Connection,
    model: ModelRow,
    parts: Parts,
    kappa: Kappa,
    snapshot_id: int | None,
    *,
    pairs: int = _PAIRS,
) -> CellVectors:
    """Codes of a hybrid.

    Args:
        conn: Open connection.
        model: Whose embeddings of validation photos.
        parts: Both codes of all cells that will be searched.
        kappa: `fit`: kappa, biases and temperature from the conditional logit over all these cells; a
            number: this kappa, no bias, and no temperature until the code set is calibrated.
        snapshot_id: Whose `val` photos; the model's own snapshot.
        pairs: Pairs of query and cell that one pass of the fit may take; some 25 passes of 48 ns a pair at
            D = 128 on one core, or 8 ns where up to 50 million similarities are kept in memory.

    Raises:
        UsageError: kappa is not a number of at least 0, or there is no snapshot to fit on.
        BadInputError: No validation photo is embedded or lies in a cell.
    """
    if kappa == "fit":
        fusion, available = fit_kappa(conn, model, parts, snapshot_id, pairs=pairs)
        known: dict[str, Any] = {**fusion.as_dict(), "queries_available": available}
    elif not 0 <= kappa < np.inf:
        raise UsageError(f"kappa is {kappa}.", hint="Give a number of at least 0, or fit.")
    else:
        fusion = Fusion(float(kappa), 1.0, 0.0, 0.0, float("nan"), recipe="given")
        known = {"kappa": fusion.kappa, "bias_no_prototype": 0.0, "bias_no_aerial": 0.0, "recipe": "given"}
    point = (fusion.kappa, fusion.bias_no_prototype, fusion.bias_no_aerial)
    made = parts.combine(*point)
    return CellVectors(
        made.ids,
        made.vectors,
        made.bias,
        made.has_prototype,
        made.has_aerial,
        fusion.kappa,
        fusion.temperature if kappa == "fit" else None,
        norm=largest_norm(made, *point),
        config={"fusion": known},
    )


def fit_kappa(
    conn: Connection, model: ModelRow, parts: Parts, snapshot_id: int | None, *, pairs: int = _PAIRS
) -> tuple[Fusion, int]:
    """The conditional logit on validation photos in their natural mix, and how many of them lie in a cell.

    Where queries times cells exceed `pairs`, a random sample of the queries (seed 0, at least 200) is used;
    every query is still compared with all cells.
    """
    if snapshot_id is None:
        raise UsageError(
            "kappa is fitted on validation photos, and no snapshot is named.",
            hint="Give --snapshot DIR, or --kappa with a number.",
        )
    ids, vectors = model_queries.read_split_embeddings(conn, model, snapshot_id, ["val"])
    photos = snapshot_queries.snapshot_photos(conn, snapshot_id, ["val"]).set_index("photo_id")
    if not len(ids):
        known = f"has {len(photos)} validation photos, none embedded by model {model.name}"
        raise BadInputError(
            f"kappa cannot be fitted: the snapshot {known}.",
            hint=f"Run `geofix embed photos --model {model.name}`, or give --kappa with a number.",
        )
    own = s2.parent(photos.loc[ids, "s2_id"].to_numpy(np.int64), int(s2.level(parts.ids[0])))
    true = np.searchsorted(parts.ids, own).clip(max=len(parts.ids) - 1)
    inside = np.flatnonzero(parts.ids[true] == own)
    if not len(inside):
        raise BadInputError(
            f"kappa cannot be fitted: none of {len(ids)} validation photos lies in a cell of this code set.",
            hint="Check the region, or give --kappa with a number.",
        )
    used = _thinned(inside, max(200, pairs // len(parts.ids)))
    if len(used) < len(inside):
        _log.info("kappa is fitted on a sample", queries=len(used), of=len(inside), cells=len(parts.ids))
    source = VectorScores(
        unit(vectors[used]), parts.prototype, parts.aerial, parts.has_prototype, parts.has_aerial, true[used]
    )
    return fit_source(source), len(inside)


def _thinned(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
