"""The rows of the method's table: baselines, parts, the cell codes and what is built on them.

Every choice (kappa, biases, temperature, upsampling, refinement) is fitted on `val`, seen and unseen blocks
in their natural mix, and holds for all splits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geofix.codes.complete import complete_query
from geofix.evaluation.method_data import Cells, Photos
from geofix.localize.confidence import ConfidenceFit, fit_confidence
from geofix.localizers.base import Candidates, Localizer
from geofix.localizers.code_set import CodeSetLocalizer
from geofix.localizers.copied import CopiedLocalizer
from geofix.localizers.ensemble import joined, localizer_of
from geofix.spatial import s2

Answer = Callable[[Photos, int], Candidates]


@dataclass(frozen=True, eq=False)
class Row:
    """One way to answer.

    Attributes:
        key: Short name, part of the evaluation's name.
        label: For people.
        localizer: Name of the localizer in the database.
        models: Whose embeddings ask: none, one, or two side by side.
        level: S2 level whose cell centres are the best possible answer.
        answer: Ranks positions for photos.
        role: `baseline`, `part` (what the fusion is compared with), `main`, `variant` or `bound`.
        stored_bytes: Of the vectors and ids that are searched.
        copies: So many answers in a row are equally good.
        codes: The codes that are searched, where there are codes.
        temperature: Calibrated, where the row has probabilities.
    """

    key: str
    label: str
    localizer: str
    models: tuple[str, ...]
    level: int
    answer: Answer
    role: str
    stored_bytes: int = 0
    copies: int = 1
    codes: CodeSetLocalizer | None = None
    temperature: float | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """What the rows have in common.

    Attributes:
        level: Of the cell codes.
        val: Validation photos with the embeddings of all models.
        fits: What was fitted, by name, for the report.
        notes: What was left out, and why.
    """

    level: int
    val: Photos
    fits: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def oracle_row(level: int) -> Row:
    """The centre of the photo's own cell: no answer with centres can be better."""

    def answer(photos: Photos, k: int) -> Candidates:
        found = Candidates.empty(len(photos), 1)
        ids = s2.parent(photos.leaf, level)
        lon, lat = s2.center(ids)
        found.put(slice(None), ids[:, None], lon[:, None], lat[:, None], np.zeros((len(photos), 1)))
        return found

    return Row(
        f"oracle_l{level}", f"oracle: centre of the true L{level} cell", "oracle", (), level, answer, "bound"
    )


def asking(localizer: Localizer, *models: str, most: int | None = None) -> Answer:
    """Ask with the embeddings of one model, or of two side by side; photos without them get no answer.

    Args:
        localizer: Who is asked.
        *models: Names of the models.
        most: Never more answers than this.
    """

    def answer(photos: Photos, k: int) -> Candidates:
        known = np.all([photos.known[name] for name in models], axis=0)
        queries = photos.vectors[models[0]]
        if len(models) > 1:
            queries = joined(queries, photos.vectors[models[1]])
        if not known.any():
            return Candidates.empty(len(photos), k)
        given = localizer.localize(queries[known], min(k, most or k))
        # More than k where equal answers come in whole groups.
        found = Candidates.empty(len(photos), given.s2_id.shape[1])
        for name in ("s2_id", "lon", "lat", "score"):
            getattr(found, name)[known] = getattr(given, name)
        return found

    return answer


def codes_row(
    key: str,
    label: str,
    codes: CodeSetLocalizer,
    models: tuple[str, ...],
    role: str,
    *,
    temperature: float | None = None,
) -> Row:
    """A row that answers with the centres of cells by their codes."""
    level = int(s2.level(codes.matrix.ids[:1])[0])
    return Row(
        key,
        label,
        codes.name,
        models,
        level,
        asking(codes, *models),
        role,
        stored_bytes=vector_bytes(len(codes.matrix), codes.matrix.dimension),
        codes=codes,
        temperature=temperature,
    )


def prototype_rows(
    prefix: str, label: str, prototypes: Cells, upsampled: dict[str, Cells], model: str, level: int, role: str
) -> list[Row]:
    """Prototypes alone in three ways: centres of their own cells, copied, interpolated at the code level.

    Args:
        prefix: Of the keys.
        label: What the prototypes are.
        prototypes: At their own level.
        upsampled: `bilinear` at the code level.
        model: Whose embeddings ask.
        level: Of the codes.
        role: Of the rows.
    """
    coarse = localizer_of(prototypes.ids, prototypes.vectors, name="prototype_only")
    own = prototypes.level
    rows = [codes_row(f"{prefix}_centres", f"{label}, L{own} centres", coarse, (model,), role)]
    if own == level:
        return rows
    copied = CopiedLocalizer(coarse, level - own)
    rows.append(
        Row(
            f"{prefix}_copied",
            f"{label}, copied to L{level} (expected value over ties)",
            copied.name,
            (model,),
            level,
            asking(copied, model),
            role,
            stored_bytes=vector_bytes(len(prototypes.ids), coarse.matrix.dimension),
            copies=copied.copies,
        )
    )
    fine = upsampled["bilinear"]
    smooth = localizer_of(fine.ids, fine.vectors, name="prototype_only")
    rows.append(codes_row(f"{prefix}_bilinear", f"{label}, bilinear at L{level}", smooth, (model,), role))
    return rows


def vector_bytes(rows: int, dimension: int) -> int:
    """Bytes of float16 vectors with an 8-byte id each."""
    return rows * (2 * dimension + 8)


def calibrated(plan: Plan, codes: CodeSetLocalizer, models: tuple[str, ...]) -> tuple[float, ConfidenceFit]:
    """Temperature in units of the score, and the fit in units of completed scores, on val."""
    queries, leaf = asked_with(plan.val, models)
    # fp16 first, as a localizer asks.
    halves = complete_query(queries.astype(np.float16).astype(np.float32))
    fit = fit_confidence(codes.matrix, halves, leaf)
    return fit.temperature * codes.scale, fit


def asked_with(photos: Photos, models: tuple[str, ...]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Embeddings (q, D) of the photos that all models embedded, and their leaf cells (q,)."""
    known = np.all([photos.known[name] for name in models], axis=0)
    queries = photos.vectors[models[0]][known]
    if len(models) > 1:
        queries = joined(queries, photos.vectors[models[1]][known])
    return queries, photos.leaf[known]
