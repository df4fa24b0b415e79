"""What people answered, from a CSV: a line per person and photo, or a line of shares per person or group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geofix.errors import BadInputError
from geofix.evaluation import checks, metrics
from geofix.evaluation.protocols import EvaluationProtocol
from geofix.evaluation.published import RADII_KM, check_accuracy
from geofix.evaluation.tables import (
    Positions,
    number_column,
    position_columns,
    read_positions,
    read_text_table,
)

SHARES = tuple(f"acc_{metrics.key(radius)}km" for radius in RADII_KM)
_PERSON = ("person", "player", "annotator", "human", "user")
_NAME = ("system", "name", *_PERSON)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class HumanResult:
    """One person, or all together.

    Attributes:
        name: Of the person or group.
        n: Photos answered or refused by this person; None where a file of shares does not say.
        accuracy_km: Percent within 1, 25, 200, 750, 2500 km.
        source: File.
        measured: From answers, and not entered as shares.
        note: What else to know.
    """

    name: str
    n: int | None
    accuracy_km: tuple[float | None, ...]
    source: str
    measured: bool
    median_km: float | None = None
    mean_km: float | None = None
    geoscore: float | None = None
    note: str = ""


def read_humans(
    path: Path,
    truth: Path | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    protocol: EvaluationProtocol | None = None,
    check_axes: bool = True,
) -> list[HumanResult]:
    """Read answers (id, lat, lon, and person where there are several) or shares (system, acc_1km ..., n).

    A person is judged on the photos that the file has a line of; a line without a position is no answer.
    All together count every line once.

    Args:
        path: CSV or Parquet.
        truth: Needed for answers.
        columns: Field to column of the truth (`true_id`, `true_lat`, `true_lon`) and of the answers.
        protocol: How answers are counted.
        check_axes: Refuse answers whose latitude and longitude look swapped.

    Raises:
        BadInputError: Neither kind, a share that is none, a photo that the truth lacks, a person who answers
            a photo twice, or swapped columns.
    """
    frame, _ = read_text_table(path)
    lower = {str(name).strip().lower(): str(name) for name in frame.columns}
    if any(name in lower for name in SHARES):
        return _shares(path, frame, lower)
    if truth is None:
        raise BadInputError(f"{path} holds answers, so their truth is needed.", hint="Give --truth FILE.")
    rules = protocol or EvaluationProtocol()
    return _answers(path, frame, lower, truth, columns or {}, rules, check_axes)


def _shares(path: Path, frame: pd.DataFrame, lower: Mapping[str, str]) -> list[HumanResult]:
    name = next((lower[key] for key in _NAME if key in lower), None)
    if name is None:
        raise BadInputError(f"{path} has no column `system` with the name of each row.")
    shares = [number_column(frame[lower[k]], path) if k in lower else None for k in SHARES]
    counts = number_column(frame[lower["n"]], path) if "n" in lower else None
    found = []
    for i, line in enumerate(frame.index):
        accuracy = tuple(None if c is None or np.isnan(c[i]) else float(c[i]) for c in shares)
        check_accuracy(f"{path}, line {line}", accuracy)
        n = None if counts is None or np.isnan(counts[i]) else int(counts[i])
        label = str(frame[name].iloc[i]).strip()
        found.append(HumanResult(label, n, accuracy, path.name, False, note="shares as entered"))
    return found


def _answers(
    path: Path,
    frame: pd.DataFrame,
    lower: Mapping[str, str],
    truth: Path,
    columns: Mapping[str, str],
    rules: EvaluationProtocol,
    check_axes: bool,
) -> list[HumanResult]:
    right = read_positions(truth, "true", {k: v for k, v in columns.items() if not k.startswith("pred_")})
    checks.check_truth(right)
    used = position_columns(frame, path, "pred", columns)
    ids = frame[used["id"]].str.strip().to_numpy(dtype=object)
    lat, lon = (number_column(frame[used[axis]], path) for axis in ("lat", "lon"))
    given = Positions(path, ids, lat, lon, used, frame)
    if check_axes:
        checks.check_axes(given, "pred")
    person_column = next((lower[key] for key in _PERSON if key in lower), None)
    people = (
        np.full(len(ids), "people", dtype=object)
        if person_column is None
        else frame[person_column].str.strip().to_numpy(dtype=object)
    )
    _check_lines(path, frame, ids, people, right)
    row = pd.Series(np.arange(len(right.ids)), index=right.ids).loc[ids].to_numpy()
    usable = ~given.missing & ~given.out_of_range
    x, y = np.where(usable, lon, np.nan), np.where(usable, lat, np.nan)
    error = rules.distance_m(x, y, right.lon[row], right.lat[row])
    names = list(dict.fromkeys(str(person) for person in people))
    found = [_result(name, error[people == name], rules, path) for name in names]
    if len(names) > 1:
        note = f"every answer of {len(names)} people counts once"
        found.append(_result("all people", error, rules, path, note))
    return found


def _check_lines(
    path: Path,
    frame: pd.DataFrame,
    ids: NDArray[np.object_],
    people: NDArray[np.object_],
    right: Positions,
) -> None:
    known = set(right.ids)
    lost = [i for i, name in enumerate(ids) if name not in known]
    if lost:
        raise BadInputError(
            f"{path}: {len(lost)} line(s) answer photos that {right.path} does not have, such as "
            f"{ids[lost[0]]!r} (line {frame.index[lost[0]]}).",
            hint="Bring the ids of both files into one form.",
        )
    twice = pd.DataFrame({"id": ids, "person": people}).duplicated()
    if twice.any():
        i = int(np.flatnonzero(twice)[0])
        raise BadInputError(
            f"{path}, line {frame.index[i]}: {people[i]!r} answers photo {ids[i]!r} a second time.",
            hint="Keep one line per person and photo, and name people in a column `person`.",
        )


def _result(name: str, error_m: Floats, rules: EvaluationProtocol, path: Path, note: str = "") -> HumanResult:
    median = metrics.median_m(error_m)
    shares = metrics.accuracy_km(error_m, RADII_KM, protocol=rules).values()
    n = len(error_m) if rules.missing == "wrong" else int((~np.isnan(error_m)).sum())
    score = metrics.geoscore(error_m, missing=rules.missing, scale_km=rules.geoscore_scale_km)
    return HumanResult(
        name,
        n,
        tuple(shares),
        path.name,
        True,
        None if median is None else median / 1000.0,
        metrics.mean_km(error_m),
        score,
        note,
    )
