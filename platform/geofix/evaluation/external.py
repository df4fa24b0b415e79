"""Judge the output of any other tool: two files of positions in, one result document out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geofix.errors import BadInputError
from geofix.evaluation import checks, metrics
from geofix.evaluation.administrative import administrative_accuracy
from geofix.evaluation.compare import compare_errors
from geofix.evaluation.photo_tables import LEVELS, PLACES
from geofix.evaluation.protocols import EvaluationProtocol, MissingPolicy
from geofix.evaluation.tables import Positions, read_positions

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Matched:
    """Predictions brought into the order of the truth.

    Attributes:
        truth: One row per photo.
        predicted: As read.
        row: Row of the prediction of each true photo, -1 without one.
        error_m: Metres, NaN for a missing or impossible answer.
        missing: Photos without an answer.
        out_of_range: Answers that are no place on earth.
        warnings: Everything noticed so far.
    """

    truth: Positions
    predicted: Positions
    row: NDArray[np.intp]
    error_m: Floats
    missing: int
    out_of_range: int
    warnings: list[str]


def evaluate_external(
    predictions: Path,
    truth: Path,
    *,
    columns: Mapping[str, str] | None = None,
    missing: MissingPolicy | None = None,
    protocol: EvaluationProtocol | None = None,
    others: Sequence[Path] = (),
    check_axes: bool = True,
) -> dict[str, Any]:
    """Judge a file of predictions.

    Every photo of the truth counts. A photo without prediction, and one whose prediction is no place on
    earth, is wrong (geoscore 0) or leaves N, by the policy; both are counted. `mean_km` and `median_km` are
    over valid answers.

    Args:
        predictions: CSV or Parquet with id, lat, lon in degrees.
        truth: The same; may be the same file with other columns.
        columns: Field to column: id, lat, lon, gps_accuracy_m for both files, or prefixed pred_ / true_ for
            one.
        missing: Overrides the protocol's policy.
        protocol: Radius, comparison, policy; None is the reference protocol.
        others: Other prediction files, to notice copies.
        check_axes: Refuse files whose latitude and longitude look swapped.

    Raises:
        BadInputError: A file cannot be used as it is; the message names rows and the option to set.
    """
    rules = protocol or EvaluationProtocol()
    rules = rules.with_missing(missing) if missing else rules
    found = match_files(predictions, truth, columns=columns, protocol=rules, check_axes=check_axes)
    error, warnings = found.error_m, list(found.warnings)
    answered = ~np.isnan(error)
    n = len(error) if rules.missing == "wrong" else int(answered.sum())
    scores = {
        p: metrics.geoscore(error, missing=p, scale_km=rules.geoscore_scale_km) for p in ("wrong", "drop")
    }
    shipped, odd = _shipped(found, rules)
    warnings += odd
    warnings += checks.copy_warnings([predictions, *others], columns) if others else []
    median = metrics.median_m(error)
    accuracy = found.truth.gps_accuracy_m
    kept = accuracy if accuracy is None or rules.missing == "wrong" else accuracy[answered]
    return {
        "n": n,
        "missing": found.missing,
        "out_of_range": found.out_of_range,
        "accuracy_km": metrics.accuracy_km(error, rules.radii_km, protocol=rules, gps_accuracy_m=accuracy),
        "eligible": {
            metrics.key(r): count
            for r, count in zip(
                rules.radii_km,
                metrics.eligible(kept, n, [1000.0 * r for r in rules.radii_km]).values(),
                strict=True,
            )
        },
        "mean_km": metrics.mean_km(error),
        "median_km": None if median is None else median / 1000.0,
        "geoscore": scores[rules.missing],
        "geoscore_missing_as_zero": scores["wrong"],
        "geoscore_valid_only": scores["drop"],
        "policy": {
            "missing": rules.missing,
            "out_of_range": f"as missing: {rules.missing}",
            "mean_and_median": "valid answers only",
        },
        "administrative": _administrative(found, rules),
        "protocol": rules.as_record(),
        "shipped": shipped,
        "warnings": warnings,
    }


def compare_external(
    predictions_a: Path,
    predictions_b: Path,
    truth: Path,
    *,
    columns_a: Mapping[str, str] | None = None,
    columns_b: Mapping[str, str] | None = None,
    protocol: EvaluationProtocol | None = None,
    groups: Mapping[str, str] | None = None,
    check_axes: bool = True,
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Paired bootstrap between two prediction files on the photos of one truth.

    Args:
        predictions_a: CSV or Parquet.
        predictions_b: CSV or Parquet.
        truth: CSV or Parquet.
        columns_a: Mapping for A and the truth.
        columns_b: Mapping for B.
        protocol: How to count; its radii in kilometres are compared.
        groups: Photo id to sequence, author or block; None resamples photos.
        check_axes: Refuse files whose latitude and longitude look swapped.
        replicates: Number of resamples.
        seed: Same seed, same intervals.

    Raises:
        BadInputError: As `evaluate_external`; or a photo has no group.
    """
    rules = protocol or EvaluationProtocol()
    a = match_files(predictions_a, truth, columns=columns_a, protocol=rules, check_axes=check_axes)
    b = match_files(predictions_b, truth, columns=columns_b, protocol=rules, check_axes=check_axes)
    if list(a.truth.ids) != list(b.truth.ids):
        raise BadInputError(f"The two mappings read different photos from {truth}.")
    labels = None
    if groups is not None:
        if lost := [i for i in a.truth.ids if i not in groups]:
            raise BadInputError(f"{len(lost)} photo(s) have no group, such as {lost[:3]}.")
        labels = [groups[i] for i in a.truth.ids]
    radii = tuple(1000.0 * r for r in rules.radii_km)
    result = compare_errors(
        a.error_m, b.error_m, groups=labels, radii_m=radii, protocol=rules, replicates=replicates, seed=seed
    )
    return {**result, "warnings": _told_of_both(a, b, rules)}


def match_files(
    predictions: Path,
    truth: Path,
    *,
    columns: Mapping[str, str] | None = None,
    protocol: EvaluationProtocol | None = None,
    check_axes: bool = True,
) -> Matched:
    """Read both files, refuse unusable ones, and give every true photo its error in metres.

    Raises:
        BadInputError: As `evaluate_external`.
    """
    rules = protocol or EvaluationProtocol()
    right = read_positions(truth, "true", columns)
    given = read_positions(predictions, "pred", columns)
    _check_mapping(columns or {}, given, right)
    if check_axes:
        checks.check_axes(given, "pred")
        checks.check_axes(right, "true")
    checks.check_truth(right)
    order = {identifier: i for i, identifier in enumerate(given.ids)}
    row = np.array([order.get(i, -1) for i in right.ids], dtype=np.intp)
    warnings = list(dict.fromkeys(right.warnings + given.warnings))
    warnings += _check_overlap(given, right, row)
    lat = np.where(row >= 0, given.lat[row], np.nan)
    lon = np.where(row >= 0, given.lon[row], np.nan)
    impossible = (row >= 0) & given.out_of_range[row]
    valid = ~np.isnan(lat) & ~np.isnan(lon) & ~impossible
    if check_axes:
        pairs = (lat[valid], lon[valid], right.lat[valid], right.lon[valid])
        checks.check_swap(given, right, pairs, rules)
    error = np.full(len(row), np.nan)
    error[valid] = rules.distance_m(lon[valid], lat[valid], right.lon[valid], right.lat[valid])
    warnings += checks.odd_patterns(given, right, error)
    out_of_range = int(impossible.sum())
    return Matched(right, given, row, error, int((~valid).sum()) - out_of_range, out_of_range, warnings)


def _check_mapping(columns: Mapping[str, str], given: Positions, truth: Positions) -> None:
    """A name for both files may be in one alone, but a name in neither is a slip."""
    have = {*map(str, given.frame.columns), *map(str, truth.frame.columns)}
    for name, column in columns.items():
        if column not in have:
            raise BadInputError(
                f"--columns {name}={column}: no such column in {given.path.name} or {truth.path.name}.",
                hint=f"Their columns: {sorted(have)}.",
            )


def _check_overlap(given: Positions, truth: Positions, row: NDArray[np.intp]) -> list[str]:
    matched = int((row >= 0).sum())
    if matched == 0:
        raise BadInputError(
            f"No id of {given.path} occurs in {truth.path}: {given.ids[0]!r} against {truth.ids[0]!r}.",
            hint="Map the id columns, or bring file endings and folders of the ids into one form.",
        )
    extra = len(given.ids) - matched
    return [f"{given.path.name}: {extra} prediction(s) have no true photo and were ignored."] if extra else []


def _shipped(found: Matched, rules: EvaluationProtocol) -> tuple[dict[str, Any], list[str]]:
    present = found.row >= 0
    frame = found.predicted.frame.iloc[np.sort(found.row[present])]
    error = found.error_m[present][np.argsort(found.row[present], kind="stable")]
    score = 5000.0 * np.exp(-error / 1000.0 / rules.geoscore_scale_km)
    figures, warnings = checks.check_shipped(frame, found.predicted.columns["lat"], error, score)
    return figures, [f"{found.predicted.path.name}: {text}" for text in warnings]


def _told_of_both(a: Matched, b: Matched, rules: EvaluationProtocol) -> list[str]:
    """Warnings of two files with one truth; the second file by its path where both have one name."""
    first, second = ([*one.warnings, *_shipped(one, rules)[1]] for one in (a, b))
    one, other = a.predicted.path, b.predicted.path
    if one.name == other.name and not one.samefile(other):
        mark, of_truth = f"{other.name}: ", a.truth.warnings
        second = [
            f"{other}: {text.removeprefix(mark)}" if text.startswith(mark) and text not in of_truth else text
            for text in second
        ]
    return first + [text for text in second if text not in first]


def _administrative(found: Matched, rules: EvaluationProtocol) -> dict[str, dict[str, Any]]:
    """Percent in the right country, region, area, city, where both files have a column of the level."""
    suffix = checks.suffix_of(found.predicted.columns["lat"])
    given, right = found.predicted.frame, found.truth.frame
    predicted, truth = {}, {}
    for level in LEVELS:
        true_column = next((c for c in (f"true_{level}", *PLACES[level]) if c in right), None)
        if true_column is None or f"pred_{level}{suffix}" not in given:
            continue
        names = given[f"pred_{level}{suffix}"].to_numpy(dtype=object)
        predicted[level] = np.where(found.row >= 0, names[found.row], "")
        truth[level] = right[true_column].to_numpy(dtype=object)
    return administrative_accuracy(predicted, truth, missing=rules.missing, answered=~np.isnan(found.error_m))
