"""Which rows the method's table has for the models at hand, everything fitted on val."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geofix.codes.fuse import Parts
from geofix.codes.means import cell_means
from geofix.codes.upsample import upsample
from geofix.errors import BadInputError, UsageError
from geofix.evaluation.method_data import Cells
from geofix.evaluation.method_hits import count_hits, mean_percent
from geofix.evaluation.method_hybrid import codes_of, parts_of, source_of
from geofix.evaluation.method_positions import estimates, likewise, with_temperature
from geofix.evaluation.method_rows import (
    Plan,
    Row,
    asked_with,
    asking,
    codes_row,
    oracle_row,
    prototype_rows,
    vector_bytes,
)
from geofix.evaluation.protocols import EvaluationProtocol
from geofix.localizers.density import MODES, DensityLocalizer
from geofix.localizers.ensemble import ensemble, localizer_of
from geofix.localizers.knn import KnnLocalizer
from geofix.localizers.popular import PopularLocalizer
from geofix.log import get_logger
from geofix.models import hybrid

DENSITY_ANSWERS = 1  # as published; each further one is another search for a maximum
DENSITIES = {
    "knn_density": "density of the nearest photos",
    "knn_density_compat": "the same by the released grid",
}

_log = get_logger(__name__)


@dataclass(frozen=True, eq=False)
class Source:
    """What one model brings.

    Attributes:
        name: Of the model.
        train: Training photos it embedded; None where no row needs them.
        train_vectors: Their embeddings.
        prototypes: At their own level, None without.
        aerial: At the code level, None without.
        up: Prototypes at the code level by `copy` and `bilinear`.
    """

    name: str
    train: pd.DataFrame | None = None
    train_vectors: NDArray[np.float16] | None = None
    prototypes: Cells | None = None
    aerial: Cells | None = None
    up: dict[str, Cells] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, level: int, prototypes: Cells | None, **given: Any) -> Source:
        """With the prototypes brought to the code level in both ways.

        Raises:
            UsageError: The prototypes are finer than the code level.
        """
        up = {}
        for how in ("copy", "bilinear") if prototypes is not None else ():
            assert prototypes is not None
            cells, vectors = upsample(prototypes.ids, prototypes.vectors, level, how)
            order = np.argsort(cells, kind="stable")
            up[how] = Cells(cells[order], vectors[order])
        return cls(name, prototypes=prototypes, up=up, **given)


@dataclass(frozen=True)
class Wanted:
    """Which rows are asked for.

    Attributes:
        radius_m: r of the point estimate with most mass, and of the choice of the main row.
        cap_m: d0 of the medoid.
        density: The density maxima of nearest photos, in both modes, beside the nearest photo.
        ablations: Other recipes for kappa; and for what the hybrid is held against, means of photos and the
            ensemble, the position with most mass as well.
    """

    radius_m: float = 200.0
    cap_m: float = 1000.0
    density: bool = True
    ablations: bool = False


def build_rows(plan: Plan, joint: Source, others: dict[str, Source], wanted: Wanted) -> tuple[list[Row], str]:
    """All rows in the order of the table, and the key of the main one.

    Args:
        plan: Level and validation photos.
        joint: The model that is judged.
        others: By role, as far as given: `untrained`, `prototype` and `aerial` (trained alone), `second`
            (prototypes of another seed).
        wanted: Options.
    """
    rows = [oracle_row(plan.level)]
    if joint.prototypes is not None and joint.prototypes.level != plan.level:
        rows.append(oracle_row(joint.prototypes.level))
    rows += _popular(plan, joint)
    if "untrained" in others:
        rows += _photo_rows(plan, others["untrained"], joint, "_untrained", "untrained encoder", wanted)
    rows += _photo_rows(plan, joint, joint, "", "trained encoder", wanted)
    own = _part_rows(plan, joint, "", "")
    alone = [
        row
        for role, prefix in (("prototype", "_alone"), ("aerial", "_alone"))
        if role in others
        for row in _part_rows(plan, others[role], prefix, ", trained alone", only=role)
    ]
    rows += own + alone
    main, made = _hybrid_rows(plan, joint, wanted)
    if main is None:
        main = _best_on_val(plan, own or [row for row in rows if row.codes is not None], wanted)
        rows = [row for row in rows if row.key != main.key]
    main, calibrated_main = with_temperature(plan, main)
    rows += [*made, main]
    if calibrated_main:
        rows += estimates(plan, main, radius_m=wanted.radius_m, cap_m=wanted.cap_m)
    if "second" in others:
        rows += _ensemble(plan, others.get("prototype", joint), others["second"])
    for row in [row for row in rows if wanted.ablations and row.key in ("cellmean", "ensemble")]:
        rows += likewise(plan, row, radius_m=wanted.radius_m, cap_m=wanted.cap_m)
    return rows, main.key


def _popular(plan: Plan, joint: Source) -> list[Row]:
    if joint.train is None:
        return []
    found = PopularLocalizer.fit(joint.train.s2_id.to_numpy(np.int64), plan.level)
    label = "most photographed cell"
    return [
        Row(
            "most_photographed",
            label,
            found.name,
            (joint.name,),
            plan.level,
            asking(found, joint.name),
            "baseline",
        )
    ]


def _photo_rows(
    plan: Plan, source: Source, joint: Source, suffix: str, label: str, wanted: Wanted
) -> list[Row]:
    """Nearest training photos, and the mean of a cell's photos, by one encoder without codes of its own."""
    if source.train is None or source.train_vectors is None:
        return []
    photos, vectors = source.train, source.train_vectors
    knn = KnnLocalizer.fit(
        vectors, photos.lon.to_numpy(), photos.lat.to_numpy(), group=photos.index.to_numpy(np.int64)
    )
    size = vector_bytes(*vectors.shape)
    base = ((source.name,), plan.level)
    rows = [
        Row(
            f"knn{suffix}",
            f"nearest photo, {label}",
            "knn",
            *base,
            asking(knn, source.name),
            "baseline",
            size,
        )
    ]
    if wanted.density:
        rows += [
            Row(
                f"{name}{suffix}",
                f"{text}, {label} (one answer)",
                name,
                *base,
                asking(DensityLocalizer(knn, MODES[name]).scaled(), source.name, most=DENSITY_ANSWERS),
                "baseline",
                size,
            )
            for name, text in DENSITIES.items()
        ]
    leaf = photos.s2_id.to_numpy(np.int64)
    ids, means, _ = cell_means(vectors, leaf, plan.level)
    codes = localizer_of(ids, means, name="cellmean")
    rows.append(
        codes_row(f"cellmean{suffix}", f"mean of a cell's photos, {label}", codes, base[0], "baseline")
    )
    if joint.prototypes is not None and joint.prototypes.level != plan.level:
        ids, means, _ = cell_means(vectors, leaf, joint.prototypes.level)
        smooth = localizer_of(*upsample(ids, means, plan.level, "bilinear"), name="cellmean")
        text = f"mean of a L{joint.prototypes.level} cell's photos, bilinear, {label}"
        rows.append(codes_row(f"cellmean_bilinear{suffix}", text, smooth, base[0], "baseline"))
    return rows


def _part_rows(plan: Plan, source: Source, prefix: str, label: str, *, only: str | None = None) -> list[Row]:
    rows: list[Row] = []
    if source.prototypes is not None and only != "aerial":
        rows += prototype_rows(
            f"prototype{prefix}",
            f"prototypes{label}",
            source.prototypes,
            source.up,
            source.name,
            plan.level,
            "part",
        )
    if source.aerial is not None and only != "prototype":
        codes = localizer_of(source.aerial.ids, source.aerial.vectors, name="aerial_only")
        rows.append(codes_row(f"aerial{prefix}", f"aerial tiles{label}", codes, (source.name,), "part"))
    if only is not None and not rows:
        raise UsageError(
            f"Model {source.name} was to bring {only} vectors trained alone, and has none.",
            hint="Embed its aerial tiles, or name a model that was trained with prototypes.",
        )
    return rows


def _hybrid_rows(plan: Plan, joint: Source, wanted: Wanted) -> tuple[Row | None, list[Row]]:
    """The fitted hybrid, and the rows beside it: the other upsampling, kappa = 1, other recipes."""
    if joint.prototypes is None or joint.aerial is None:
        lacking = "prototypes" if joint.prototypes is None else "aerial vectors"
        plan.notes.append(f"Model {joint.name} has no {lacking}: there is no hybrid row.")
        return None, []
    asked = asked_with(plan.val, (joint.name,))
    ways = ("copy", "bilinear") if joint.prototypes.level != plan.level else ("copy",)
    parts = {how: parts_of(joint.up[how], joint.aerial) for how in ways}
    sources = {how: source_of(part, *asked) for how, part in parts.items()}
    fits = {how: hybrid.fit_source(source) for how, source in sources.items()}
    names = (joint.name,)

    def row(key: str, label: str, how: str, fit: hybrid.Fusion, role: str = "variant") -> Row:
        return codes_row(key, label, codes_of(parts[how], fit), names, role)

    # Likelihood can prefer what finds fewer photos: interpolated codes are smoother and draw more of them.
    recall = {how: _val_recall(plan, row(how, how, how, fits[how]), wanted) for how in ways}
    best = max(ways, key=recall.__getitem__)
    plan.fits["upsampling_recall"] = recall
    plan.fits["fusion"] = {how: fit.as_dict() for how, fit in fits.items()}
    plan.fits["upsampling"] = best

    one = hybrid.fit_source(sources[best], kappa=1.0, bias=False)
    made = [row("hybrid_kappa1", "hybrid, kappa 1 without bias", best, one)]
    for how in ways:
        if how != best:
            made.append(row(f"hybrid_{how}", f"hybrid, prototypes by {how}", how, fits[how]))
    if wanted.ablations:
        made += _ablations(plan, parts[best], sources[best], names)
    fit = fits[best]
    text = f"hybrid, kappa {fit.kappa:.3g} and biases fitted"
    if len(ways) > 1:
        text += f", prototypes by {best}"
    return row("hybrid", text, best, fit, "main"), made


def _ablations(plan: Plan, parts: Parts, source: Any, models: tuple[str, ...]) -> list[Row]:
    """Other ways to find kappa, without biases; and the conditional logit without them."""
    fits = [replace(hybrid.fit_source(source, bias=False), recipe="logit without bias")]
    try:
        fits += [hybrid.fit_ratio(source), hybrid.fit_logistic(source)]
    except BadInputError as error:
        plan.notes.append(str(error))
    fits += [fit for fit in hybrid.fit_grid(source) if fit.kappa != 1.0]
    plan.fits["ablations"] = [fit.as_dict() for fit in fits]
    return [
        codes_row(
            f"hybrid_{fit.recipe.replace(' ', '_').replace('.', '')}",
            f"hybrid by {fit.recipe}"
            + ("" if fit.recipe.startswith("kappa") else f", kappa {fit.kappa:.3g}"),
            codes_of(parts, fit),
            models,
            "ablation",
        )
        for fit in fits
    ]


def _best_on_val(plan: Plan, rows: list[Row], wanted: Wanted) -> Row:
    """The row with most val photos answered within the radius; without val photos the first."""
    able = [row for row in rows if row.codes is not None]
    if not able:
        raise BadInputError(
            "There are no codes to search.", hint="Embed the training photos of the snapshot."
        )

    best = max(able, key=lambda row: _val_recall(plan, row, wanted)) if len(plan.val) else able[0]
    return replace(best, role="main")


def _val_recall(plan: Plan, row: Row, wanted: Wanted) -> float:
    """Percent of val photos whose first answer lies within the radius."""
    protocol = EvaluationProtocol(ks=(1,), radii_m=(wanted.radius_m,))
    found = row.answer(plan.val, 1)
    metres = protocol.distance_m(plan.val.lon[:, None], plan.val.lat[:, None], found.lon, found.lat)
    share = count_hits(metres, protocol, plan.val.gps_accuracy_m).share
    return mean_percent(share) or 0.0


def _ensemble(plan: Plan, first: Source, second: Source) -> list[Row]:
    """Prototypes of two seeds: how much of a gain is the gain of any two models."""
    if not first.up or not second.up:
        raise UsageError(
            f"An ensemble needs prototypes in both {first.name} and {second.name}.",
            hint="Leave --second-model out, or name models with prototypes.",
        )
    a, b = first.up["bilinear"], second.up["bilinear"]
    models = (first.name, second.name)
    both = np.all([plan.val.known[name] for name in models], axis=0)
    common = np.intersect1d(a.ids, b.ids)
    if not len(common):
        raise BadInputError(
            f"The prototypes of {first.name} and {second.name} have no cell in common.",
            hint="Train both on one snapshot.",
        )
    empty = np.zeros((len(common), b.vectors.shape[1]), np.float32)
    # Two encoders: their similarities are those of vectors side by side, each with zeros for the other.
    left = np.concatenate([a.vectors[np.isin(a.ids, common)], empty], axis=1)
    right = np.concatenate(
        [np.zeros_like(left[:, : a.vectors.shape[1]]), b.vectors[np.isin(b.ids, common)]], axis=1
    )
    all_ = np.ones(len(common), bool)
    queries, _ = asked_with(plan.val, models)
    source = source_of(Parts(common, left, right, all_, all_), queries, plan.val.leaf[both])
    fit = hybrid.fit_source(source)
    plan.fits["ensemble"] = fit.as_dict()
    codes = ensemble((a.ids, a.vectors), (b.ids, b.vectors), fit.kappa)
    label = f"ensemble of two prototype models, weight {fit.kappa:.3g}, bilinear"
    return [codes_row("ensemble", label, codes, models, "variant")]
