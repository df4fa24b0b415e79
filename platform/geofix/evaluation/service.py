"""Evaluate by name: look up what is named, fit, run; and compare two stored evaluations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import shapely
from numpy.typing import NDArray

from geofix.database.engine import Connection
from geofix.database.queries import codes as code_queries
from geofix.database.queries import evaluations as queries
from geofix.database.queries import models as model_queries
from geofix.database.queries.models import ModelRow
from geofix.database.queries.snapshots import SnapshotRow
from geofix.errors import BadInputError, TransientError, UsageError
from geofix.evaluation.compare import compare_errors, counting
from geofix.evaluation.protocols import EvaluationProtocol, endings, protocol_of
from geofix.evaluation.run import Request, run_evaluation
from geofix.evaluation.same_author import without_own_author
from geofix.ingest.region_text import region_ewkb
from geofix.localizers.base import Localizer, PhotoLocalizer, SeesCrops
from geofix.localizers.crops import find_policy
from geofix.localizers.fit import Fitted, fit_localizer
from geofix.localizers.scope import answer_ids, ranges_inside
from geofix.snapshots.build import stored_snapshot
from geofix.spatial import s2


@dataclass(frozen=True)
class Prepared:
    """An evaluation whose names have been looked up and whose localizer is fitted."""

    request: Request
    model: ModelRow
    snapshot: SnapshotRow


def evaluate(conn: Connection, *, replace: bool = False, **asked: Any) -> dict[str, Any]:
    """Judge a localizer on a split of a snapshot; the caller commits.

    Args:
        conn: Open connection of the writer or owner.
        replace: Replace an evaluation of the same name.
        asked: As `prepare`.

    Raises:
        UsageError: Neither model nor code set is named, or the evaluation's name is taken.
    """
    found = prepare(conn, **asked)
    return run_evaluation(conn, found.request, found.model, found.snapshot, replace=replace)


def prepare(
    conn: Connection,
    *,
    localizer: str,
    snapshot: Path,
    split: str,
    name: str | None = None,
    model: str | None = None,
    code_set: str | None = None,
    level: int = 16,
    within: str | None = None,
    k: int = 100,
    exclude_author: bool = False,
    crops: str | None = None,
    protocol: str = "geofix",
    radius: str | None = None,
    comparison: str | None = None,
    missing: str | None = None,
    fit: Callable[..., Fitted] = fit_localizer,
) -> Prepared:
    """Look up what is named and fit the localizer.

    Args:
        conn: Open connection.
        localizer: See `geofix.localizers.fit`.
        snapshot: Snapshot directory.
        split: Which photos are asked.
        name: Name of the evaluation; default made from what is judged.
        model: Whose embeddings; needed without a code set.
        code_set: Search this code set.
        level: S2 level without a code set.
        within: Only answers in this region (LEVEL:CODE, file or WKT).
        k: Candidates kept per photo.
        exclude_author: A photo may not find training photos of its own author (`knn`, `knn_density*`).
        crops: Parts of a photo that a trained classifier is shown: single, five-max or ten-mean.
        protocol: How to count, by name (`geofix.evaluation.protocols`), with the crops that were shown.
        radius: Of the earth in kilometres, or `ellipsoidal`; None: the protocol's.
        comparison: `<=` or `<`; None: the protocol's.
        missing: `wrong` or `drop`; None: the protocol's.
        fit: What fits the localizer, with the parameters of `fit_localizer`.

    Raises:
        UsageError: Neither model nor code set is named, the localizer does not search photos, or the
            protocol is unknown.
        BadInputError: Authors are to be excluded and none is known.
        TransientError: The code set was refreshed at this moment.
    """
    rules = protocol_of(protocol, radius=radius, comparison=comparison, missing=missing)
    row = stored_snapshot(conn, snapshot)
    chosen, codes = (None, None) if code_set is None else code_queries.find_with_stamp(conn, code_set)
    if chosen is not None:
        model_row = model_queries.find_model_by_id(conn, chosen.model_id)
        if model is not None and model != model_row.name:
            raise UsageError(f"Code set {code_set} belongs to model {model_row.name}, not {model}.")
    elif model is None:
        raise UsageError("Whose embeddings?", hint="Give --model or --code-set.")
    else:
        model_row = model_queries.find_model(conn, model)
    fitted = fit(conn, localizer, model_row, row.snapshot_id, level=level, code_set=chosen)
    if chosen is not None and code_queries.find_with_stamp(conn, chosen.name)[1] != codes:
        raise TransientError(f"Codes of {chosen.name} were replaced at this moment.", hint="Try again.")
    asked, exclude, shown = fitted.localizer, None, "single"
    if exclude_author:
        asked, exclude = without_own_author(conn, cast(Localizer, fitted.localizer), row.snapshot_id)
        rules = replace(rules, same_author="excluded")
    if crops is not None:
        asked, shown = _with_crops(asked, crops)
    region = None if within is None else region_ewkb(conn, within)
    parts = [localizer, code_set or f"{model_row.name}-l{level}", split]
    request = Request(
        name=name or "-".join([*parts, *endings(rules, exclude_author=exclude_author, crops=crops)]),
        localizer=asked,
        split=split,
        level=fitted.level,
        code_set_id=fitted.code_set_id,
        ranges=None if region is None else _scope(fitted, region, within),
        region_ewkb=region,
        k=k,
        temperature=None if chosen is None else chosen.temperature,
        config={"localizer": localizer, "within": within} | ({} if codes is None else {"codes": codes}),
        protocol=rules.showing(shown),
        exclude=exclude,
    )
    return Prepared(request, model_row, row)


@dataclass(frozen=True)
class Pair:
    """Two evaluations on their common photos.

    Attributes:
        a: Name of the first.
        b: Name of the second.
        errors_a: Its error of the first answer in metres, (n,), NaN where there is none.
        errors_b: The same photos in the same order.
        gps_m: How well each true position is known, in metres, (n,); 0 where nothing is said.
        photo_id: Their ids, (n,), ascending.
        sequence: Sequence of each photo, (n,), NaN for none.
        s2_id: Leaf cell of the true position, (n,).
        groups: Cluster of each photo, (n,); None where there is but one.
        protocol_a: How the first counts.
        protocol_b: How the second counts.
        only_a: Photos that the first alone asked.
        only_b: Photos that the second alone asked.
    """

    a: str
    b: str
    errors_a: NDArray[np.float64]
    errors_b: NDArray[np.float64]
    gps_m: NDArray[np.float64]
    photo_id: NDArray[np.int64]
    sequence: NDArray[np.float64]
    s2_id: NDArray[np.int64]
    groups: NDArray[Any] | None
    protocol_a: EvaluationProtocol
    protocol_b: EvaluationProtocol
    only_a: int
    only_b: int

    def counting(self, threshold_m: float) -> Pair:
        """The photos that both count at a distance in metres, as `evaluation_hits` leaves photos out.

        A photo without an answer goes where an evaluation drops those, and so does one whose own position is
        known worse than the distance.
        """
        kept = counting(self.protocol_a, self.errors_a) & counting(self.protocol_b, self.errors_b)
        kept &= self.gps_m <= threshold_m
        if kept.all():
            return self
        names = ("errors_a", "errors_b", "gps_m", "photo_id", "sequence", "s2_id")
        rest = replace(self, **{name: getattr(self, name)[kept] for name in names})
        return replace(rest, groups=_clusters(rest.photo_id, rest.sequence, rest.s2_id))


def read_pair(conn: Connection, a: str, b: str) -> Pair:
    """The first answers of two evaluations to their common photos, clustered by sequence.

    Raises:
        BadInputError: They have no photo in common.
    """
    first, second = (queries.find_evaluation(conn, name) for name in (a, b))
    ids_a, errors_a = queries.read_first_errors(conn, first["evaluation_id"])
    ids_b, errors_b = queries.read_first_errors(conn, second["evaluation_id"])
    common, place_a, place_b = np.intersect1d(ids_a, ids_b, assume_unique=True, return_indices=True)
    if not len(common):
        raise BadInputError(
            f"{a} and {b} asked different photos: none is common.", hint="Compare evaluations of one split."
        )
    origin = queries.read_origins(conn, first["evaluation_id"])
    place = np.searchsorted(origin["photo_id"], common)
    sequence, s2_id = origin["sequence_id"][place], origin["s2_id"][place]
    return Pair(
        a=a,
        b=b,
        errors_a=errors_a[place_a],
        errors_b=errors_b[place_b],
        gps_m=origin["gps_m"][place],
        photo_id=common,
        sequence=sequence,
        s2_id=s2_id,
        groups=_clusters(common, sequence, s2_id),
        protocol_a=_protocol(first),
        protocol_b=_protocol(second),
        only_a=len(ids_a) - len(common),
        only_b=len(ids_b) - len(common),
    )


def compare_evaluations(
    conn: Connection, a: str, b: str, *, threshold_m: float = 200.0, replicates: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Paired difference of two evaluations on their common photos, clustered by sequence.

    Raises:
        BadInputError: They have no photo in common, or none that counts.
    """
    return compare_pair(read_pair(conn, a, b), threshold_m, replicates=replicates, seed=seed)


def compare_pair(
    pair: Pair, threshold_m: float, *, replicates: int = 2000, seed: int = 0, median: bool = True
) -> dict[str, Any]:
    """The paired difference of a pair, as `compare_errors`, with whose it is and what was left out of it.

    Each evaluation counts as its own protocol says, photo by photo as `evaluation_hits` does.

    Raises:
        BadInputError: No common photo counts.
    """
    here = pair.counting(threshold_m)
    n = len(here.photo_id)
    if not n:
        raise BadInputError(
            f"None of the {len(pair.photo_id)} photo(s) common to {pair.a} and {pair.b} counts within "
            f"{threshold_m:g} m: each knows its own position worse than that, or an answer was dropped.",
            hint="Choose a larger distance.",
        )
    found = compare_errors(
        here.errors_a,
        here.errors_b,
        radii_m=(threshold_m,),
        groups=here.groups,
        protocol=here.protocol_a,
        protocol_b=here.protocol_b,
        replicates=replicates,
        seed=seed,
        median=median,
    )
    names = {"a": pair.a, "b": pair.b, "n": n, "only_a": pair.only_a, "only_b": pair.only_b}
    return {**names, "left_out": len(pair.photo_id) - n, **found}


def _protocol(row: dict[str, Any]) -> EvaluationProtocol:
    """How a stored evaluation counts; the columns that SQL counts by come first."""
    stored = EvaluationProtocol.from_record(row["config"].get("protocol", {}))
    return replace(stored, comparison=row["comparison"], missing=row["missing_policy"])


def _with_crops(localizer: Localizer | PhotoLocalizer, name: str) -> tuple[Localizer | PhotoLocalizer, str]:
    """The localizer that looks at these parts of a photo, and how a protocol records them.

    Raises:
        UsageError: It looks at embeddings, or the crops are unknown.
    """
    policy = find_policy(name)
    if not isinstance(localizer, SeesCrops):
        raise UsageError(
            f"Localizer {localizer.name} does not look at parts of a photo.",
            hint="Leave --crops out; it is for trained classifiers.",
        )
    return localizer.with_crops(policy), policy.told


def _clusters(
    photo_ids: NDArray[np.int64], sequence: NDArray[np.float64], leaf: NDArray[np.int64]
) -> NDArray[Any] | None:
    """Sequences as clusters; level-16 cells where there is one sequence; None where there is one cell."""
    # A photo without a sequence is its own cluster.
    groups = np.where(np.isnan(sequence), -photo_ids.astype(np.float64), sequence)
    if len(np.unique(groups)) > 1:
        return groups
    cells = s2.parent(leaf, 16)
    return cells if len(np.unique(cells)) > 1 else None


def _scope(fitted: Fitted, region: bytes, within: str | None) -> NDArray[np.int64]:
    """Id ranges of the answers that lie in a region, by the centre of their cell.

    Raises:
        BadInputError: None does.
    """
    ranges = ranges_inside(answer_ids(fitted.localizer), shapely.from_wkb(region))
    if not len(ranges):
        raise BadInputError(
            f"{fitted.localizer.name} has no answer inside {within!r}.",
            hint="Evaluate elsewhere, or build codes for the region.",
        )
    return ranges
