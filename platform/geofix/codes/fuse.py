"""Prototypes and aerial codes of the same cells, put together with a weight fitted on validation photos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geofix.codes.thinning import thinned
from geofix.codes.vectors import CellVectors, unit
from geofix.database.engine import Connection
from geofix.database.queries import models as model_queries
from geofix.database.queries import snapshots as snapshot_queries
from geofix.database.queries.models import ModelRow
from geofix.errors import BadInputError, UsageError
from geofix.log import get_logger
from geofix.models.hybrid import Fusion, fit_source
from geofix.models.scores import ScoreBlock, VectorScores
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


@dataclass(eq=False)
class Similarities:
    """What a fit needs of all cells, gathered range by range: no vector is kept.

    Similarities take 8 bytes a pair of query and cell: 800 MB, above half a million cells 1.6 GB a million.

    Attributes:
        queries: (q, D) float32 photos; none where nothing is fitted.
        true_index: (q,) the cell of each, counted over all cells.
        closest: Largest product of the two vectors of a cell; None while no cell has both.
    """

    queries: NDArray[np.float32]
    true_index: NDArray[np.int64]
    closest: float | None = None
    _flags: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]] = field(default_factory=list)
    _blocks: list[ScoreBlock] = field(default_factory=list)
    _cells: int = 0

    def __post_init__(self) -> None:
        """Nothing is known yet of the queries' own cells."""
        self._true = np.zeros(len(self.true_index)), np.zeros(len(self.true_index))

    def add(self, parts: Parts) -> None:
        """The next cells, in order."""
        start, n = self._cells, len(parts.ids)
        both = parts.has_prototype & parts.has_aerial
        if both.any():
            products = np.einsum("nd,nd->n", parts.prototype[both], parts.aerial[both], dtype=np.float64)
            self.closest = max(float(products.max()), -1.0 if self.closest is None else self.closest)
        if len(self.queries):
            vectors = parts.prototype, parts.aerial
            flags = parts.has_prototype, parts.has_aerial
            computed = VectorScores(self.queries, *vectors, *flags, np.zeros(0, np.int64))
            self._blocks += [(start + at, *scores) for at, *scores in computed.blocks()]  # type: ignore[misc]
            here = np.flatnonzero((self.true_index >= start) & (self.true_index < start + n))
            for own, part in zip(self._true, vectors, strict=True):
                cell = part[self.true_index[here] - start]
                own[here] = np.einsum("qd,qd->q", self.queries[here], cell)
        self._flags.append((parts.has_prototype, parts.has_aerial))
        self._cells += n

    @property
    def has_prototype(self) -> NDArray[np.bool_]:
        """(n,) flags of all cells."""
        return self._joined()[0]

    @property
    def has_aerial(self) -> NDArray[np.bool_]:
        """(n,) flags of all cells."""
        return self._joined()[1]

    def _joined(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        if len(self._flags) > 1:
            prototype, aerial = zip(*self._flags, strict=True)
            self._flags = [(np.concatenate(prototype), np.concatenate(aerial))]
        return self._flags[0]

    def blocks(self) -> Iterator[ScoreBlock]:
        """See `geofix.models.scores.ScoreSource.blocks`."""
        return iter(self._blocks)

    def true_scores(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """See `geofix.models.scores.ScoreSource.true_scores`."""
        return self._true


@dataclass(frozen=True)
class Weights:
    """How the parts of a hybrid are put together.

    Attributes:
        fusion: kappa, biases and temperature.
        norm: M.
        known: The fit as plain values, for the code set's configuration.
    """

    fusion: Fusion
    norm: float
    known: dict[str, Any]


def weigh(
    conn: Connection,
    model: ModelRow,
    ids: NDArray[np.int64],
    read: Callable[[], Iterable[Parts]],
    kappa: Kappa,
    snapshot_id: int | None,
    *,
    pairs: int = _PAIRS,
) -> Weights:
    """What needs all cells at once: the fit, and the common norm M.

    Args:
        conn: Open connection.
        model: Whose embeddings of validation photos.
        ids: (n,) all cells that will be searched, ascending.
        read: Both codes of these cells, in ranges, in order; the ranges must not depend on who asks.
        kappa: `fit`: kappa, biases and temperature from the conditional logit over all these cells; a
            number: this kappa, no bias, and no temperature until the code set is calibrated.
        snapshot_id: Whose `val` photos; the model's own snapshot.
        pairs: Pairs of query and cell that one pass of the fit may take; beyond, a random sample of the
            queries (seed 0, at least 200) is compared with all cells.

    Raises:
        UsageError: kappa is not a number of at least 0, or there is no snapshot to fit on.
        BadInputError: No validation photo is embedded or lies in a cell.
    """
    if kappa == "fit":
        found, available = _queries(conn, model, ids, snapshot_id, pairs)
    elif not 0 <= kappa < np.inf:
        raise UsageError(f"kappa is {kappa}.", hint="Give a number of at least 0, or fit.")
    else:
        found, available = Similarities(np.zeros((0, 0), np.float32), np.zeros(0, np.int64)), 0
    for parts in read():
        found.add(parts)
    if kappa == "fit":
        fusion = fit_source(found)
        known: dict[str, Any] = {**fusion.as_dict(), "queries_available": available}
    else:
        fusion = Fusion(float(kappa), 1.0, 0.0, 0.0, float("nan"), recipe="given")
        known = {"kappa": fusion.kappa, "bias_no_prototype": 0.0, "bias_no_aerial": 0.0, "recipe": "given"}
    return Weights(fusion, _largest_norm(found, fusion), known)


def _largest_norm(found: Similarities, fusion: Fusion) -> float:
    """M with some headroom, never more than what any code of unit parts can need.

    |kappa z_P + z_A|^2 = kappa^2 + 1 + 2 kappa z_P . z_A, since the parts are unit vectors to 5e-7
    (`unit` sums squares in float32); a code that is longer by such rounding still fits M (`complete_codes`
    allows 1e-6).
    """
    kappa, no_prototype, no_aerial = fusion.kappa, fusion.bias_no_prototype, fusion.bias_no_aerial
    has_prototype, has_aerial = found.has_prototype, found.has_aerial
    squares = [] if found.closest is None else [kappa**2 + 1 + 2 * kappa * found.closest]
    if (has_prototype & ~has_aerial).any():
        squares.append(kappa**2 + no_aerial**2)
    if (has_aerial & ~has_prototype).any():
        squares.append(1 + no_prototype**2)
    needed = float(np.sqrt(max(squares))) or 1.0
    bound = np.sqrt(max((kappa + 1) ** 2, 1 + no_prototype**2, kappa**2 + no_aerial**2))
    return max(needed, min(_HEADROOM * needed, float(bound)))


def _queries(
    conn: Connection, model: ModelRow, cells: NDArray[np.int64], snapshot_id: int | None, pairs: int
) -> tuple[Similarities, int]:
    """The validation photos that are compared, and how many lie in a cell."""
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
    own = s2.parent(photos.loc[ids, "s2_id"].to_numpy(np.int64), int(s2.level(cells[0])))
    true = np.searchsorted(cells, own).clip(max=len(cells) - 1)
    inside = np.flatnonzero(cells[true] == own)
    if not len(inside):
        raise BadInputError(
            f"kappa cannot be fitted: none of {len(ids)} validation photos lies in a cell of this code set.",
            hint="Check the region, or give --kappa with a number.",
        )
    used = thinned(inside, max(200, pairs // len(cells)))
    if len(used) < len(inside):
        _log.info("kappa is fitted on a sample", queries=len(used), of=len(inside), cells=len(cells))
    return Similarities(unit(vectors[used]), true[used]), len(inside)
