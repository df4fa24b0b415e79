"""Traps of published prediction files: swapped axes, zero islands, copies, columns that do not add up."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geofix.errors import BadInputError
from geofix.evaluation.protocols import EvaluationProtocol
from geofix.evaluation.tables import Positions, read_positions

Floats = NDArray[np.float64]
_FEW = 5  # Below this many photos a pattern is no evidence.
_SWAP_GAIN = 0.2  # Swapping must cut the median error to a fifth before it is believed.
_TRUE_WORDS = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}


@dataclass(frozen=True)
class DuplicateFiles:
    """Two prediction files that practically hold the same answers."""

    a: Path
    b: Path
    shared: int
    equal_percent: float


def check_axes(found: Positions, role: str) -> None:
    """Refuse a file in which latitudes of more than 90 degrees become valid when the axes are swapped.

    Raises:
        BadInputError: More than 1 % of the rows, and at least two, are so.
    """
    with np.errstate(invalid="ignore"):
        steep = (np.abs(found.lat) > 90) & (np.abs(found.lat) <= 180) & (np.abs(found.lon) <= 90)
        # Values that are in range only unswapped speak against it.
        wide = (np.abs(found.lon) > 90) & (np.abs(found.lat) <= 90)
    n = int((~found.missing).sum())
    if steep.sum() >= 2 and steep.sum() > 0.01 * n and steep.sum() > wide.sum():
        row = int(np.flatnonzero(steep)[0])
        raise BadInputError(
            f"{found.path}: latitude and longitude look swapped: {int(steep.sum())} of {n} latitudes exceed "
            f"90 degrees "
            f"(id {found.ids[row]!r}: lat {found.lat[row]:g}, lon {found.lon[row]:g}).",
            hint=_swap_hint(found, role),
        )


def check_truth(truth: Positions) -> None:
    """Refuse a truth in which a photo has no position, or an impossible one.

    Raises:
        BadInputError: It is so; the message names photos and lines.
    """
    for bad, what in ((truth.missing, "no position"), (truth.out_of_range, "an impossible position")):
        if bad.any():
            names = [str(i) for i in truth.ids[bad][:3]]
            lines = [int(i) for i in truth.frame.index[bad][:3]]
            raise BadInputError(
                f"{truth.path}: {int(bad.sum())} true photo(s) have {what}, such as {names} (lines {lines}).",
                hint="Remove these rows or map the right columns; a truth cannot be guessed.",
            )


def check_swap(
    predicted: Positions,
    truth: Positions,
    pairs: tuple[Floats, Floats, Floats, Floats],
    protocol: EvaluationProtocol,
) -> None:
    """Refuse a pair of files whose errors collapse when one of them has its axes swapped.

    Args:
        predicted: Only for names in the message.
        truth: Only for names in the message.
        pairs: Predicted lat, lon and true lat, lon in degrees, valid rows alone.
        protocol: How distance is measured.

    Raises:
        BadInputError: The median error falls to a fifth or less.
    """
    lat_p, lon_p, lat_t, lon_t = pairs
    if len(lat_p) < _FEW:
        return
    plain = float(np.median(protocol.distance_m(lon_p, lat_p, lon_t, lat_t)))
    for found, role, (a, b, c, d) in (
        (predicted, "pred", (lon_p, lat_p, lat_t, lon_t)),
        (truth, "true", (lat_p, lon_p, lon_t, lat_t)),
    ):
        valid = (np.abs(a) <= 90) & (np.abs(c) <= 90)
        if valid.sum() < max(_FEW, 0.5 * len(a)):
            continue
        swapped = float(np.median(protocol.distance_m(b[valid], a[valid], d[valid], c[valid])))
        if swapped < _SWAP_GAIN * plain:
            raise BadInputError(
                f"{found.path}: latitude and longitude look swapped: the median error is {plain / 1000:.1f} "
                f"km as "
                f"read and {swapped / 1000:.1f} km with the axes of this file exchanged.",
                hint=_swap_hint(found, role),
            )


def odd_patterns(predicted: Positions, truth: Positions, error_m: Floats) -> list[str]:
    """Warnings about answers or truths that look like placeholders."""
    warnings = []
    for found, what in ((predicted, "predictions"), (truth, "true positions")):
        zero = int(((found.lat == 0) & (found.lon == 0)).sum())
        if zero >= 2 and zero > 0.01 * len(found.ids):
            warnings.append(
                f"{found.path.name}: {zero} of {len(found.ids)} {what} are exactly (0, 0), "
                "most likely a placeholder for no answer; they count as given."
            )
    answers = np.stack([predicted.lat, predicted.lon], axis=1)[~predicted.missing]
    if len(answers) >= 20:
        _, counts = np.unique(answers, axis=0, return_counts=True)
        if counts.max() > 0.5 * len(answers):
            warnings.append(
                f"{predicted.path.name}: {counts.max()} of {len(answers)} predictions are one and the same "
                f"place."
            )
    spots = len(np.unique(np.stack([truth.lat, truth.lon], axis=1), axis=0))
    if len(truth.ids) >= 20 and spots < 0.2 * len(truth.ids):
        warnings.append(
            f"{truth.path.name}: {len(truth.ids)} photos share {spots} true positions; they look like place "
            f"centres, "
            "so the finest radii mean little. A column gps_accuracy_m leaves such photos out where it "
            "matters."
        )
    exact = int((error_m == 0).sum())
    if exact >= _FEW and exact > 0.5 * len(error_m):
        warnings.append(
            f"{predicted.path.name}: {exact} of {len(error_m)} predictions equal the truth exactly; "
            "is it the same column?"
        )
    return warnings


def check_shipped(
    frame: pd.DataFrame, lat_column: str, error_m: Floats, score: Floats
) -> tuple[dict[str, Any], list[str]]:
    """Compare columns shipped in the file with what is recomputed; nothing shipped enters a result.

    Looks at `distance*` (km), `score*` and running `accuracy_X*` with its `X_hit*`, under the suffix of the
    mapped latitude column (`pred_lat_base` -> `_base`).

    Args:
        frame: All columns as text, one row per photo in file order.
        lat_column: The mapped latitude column.
        error_m: Recomputed errors in metres in the same order.
        score: Recomputed scores in the same order.

    Returns:
        Figures and warnings.
    """
    suffix = suffix_of(lat_column)
    figures: dict[str, Any] = {}
    warnings: list[str] = []
    for name, ours, unit, tolerance in (
        ("distance", error_m / 1000.0, "km", 0.05),
        ("score", score, "points", 0.5),
    ):
        if f"{name}{suffix}" not in frame:
            continue
        shipped = pd.to_numeric(frame[f"{name}{suffix}"], errors="coerce").to_numpy(dtype=np.float64)
        gap = np.abs(shipped - ours)
        worst = float(np.nanmax(gap)) if np.isfinite(gap).any() else float("nan")
        figures[f"max_abs_diff_{name}"] = worst
        if worst > tolerance:
            warnings.append(
                f"Shipped column {name}{suffix!s} differs from the recomputed {name} by up to {worst:.6g} "
                f"{unit}."
            )
    figures["accuracy"] = _check_running(frame, suffix, warnings)
    return figures, warnings


def suffix_of(lat_column: str) -> str:
    """What follows `pred_lat` in the name of a latitude column: the other columns of one model end so."""
    match = re.fullmatch(r"(?:pred_?)?lat(?:itude)?(.*)", lat_column, re.IGNORECASE)
    return match.group(1) if match else ""


def find_duplicate_predictions(
    files: Sequence[Path],
    columns: Mapping[str, str] | None = None,
    *,
    equal_deg: float = 1e-4,
    share: float = 0.95,
) -> list[DuplicateFiles]:
    """Pairs of prediction files that practically hold the same answers.

    Args:
        files: CSV or Parquet files.
        columns: Mapping as in `read_positions`.
        equal_deg: Two positions nearer than this in both axes are equal (1e-4 degrees is at most 11 m).
        share: Smallest share of equal answers among shared ids, of at least five; a file given twice needs
            none.
    """
    tables = []
    for path in files:
        read = read_positions(path, "pred", columns)
        tables.append((path, pd.DataFrame({"lat": read.lat, "lon": read.lon}, index=read.ids).dropna()))
    pairs = []
    for (path_a, a), (path_b, b) in itertools.combinations(tables, 2):
        both = a.merge(b, left_index=True, right_index=True, suffixes=("_a", "_b"))
        if not len(both) or (len(both) < _FEW and not path_a.samefile(path_b)):
            continue
        close = (both["lat_a"] - both["lat_b"]).abs().le(equal_deg)
        close &= (both["lon_a"] - both["lon_b"]).abs().le(equal_deg)
        if close.mean() >= share:
            pairs.append(DuplicateFiles(path_a, path_b, len(both), float(100 * close.mean())))
    return pairs


def copy_warnings(files: Sequence[Path], columns: Mapping[str, str] | None = None) -> list[str]:
    """What to tell of `find_duplicate_predictions`: files given twice, and files with the same answers."""
    told = []
    for found in find_duplicate_predictions(files, columns):
        a, b = found.a, found.b
        if a.samefile(b):
            told.append(f"{a} is given twice: the answers of one file are shown as those of two.")
            continue
        one, other = (a.name, b.name) if a.name != b.name else (a, b)
        told.append(
            f"{one} and {other} are practically one file: {found.equal_percent:.1f} % of {found.shared} "
            "answers agree."
        )
    return told


def _check_running(frame: pd.DataFrame, suffix: str, warnings: list[str]) -> dict[str, Any]:
    """Last value of every running accuracy column against the share of its hit column."""
    figures = {}
    for column in map(str, frame.columns):
        match = re.fullmatch(rf"accuracy_(\w+?){re.escape(suffix)}", column)
        if match is None or f"{match.group(1)}_hit{suffix}" not in frame:
            continue
        hits = frame[f"{match.group(1)}_hit{suffix}"].str.strip().str.lower().map(_TRUE_WORDS)
        shipped = pd.to_numeric(frame[column], errors="coerce")
        n, total = int(hits.notna().sum()), float(hits.sum())
        last = float(shipped.iloc[-1])
        if n == 0 or not np.isfinite(last):
            continue
        own = 100.0 * total / n
        figures[match.group(1)] = {"shipped": last, "recomputed": own}
        if abs(own - last) > 1e-6:
            early = n > 1 and abs(100.0 * (total - float(hits.dropna().iloc[-1])) / (n - 1) - last) < 1e-6
            why = f"; it ends one row early, with denominator {n - 1} instead of {n}" if early else ""
            warnings.append(f"Shipped column {column} ends at {last:.4f} %, the hits give {own:.4f} %{why}.")
    return figures


def _swap_hint(found: Positions, role: str) -> str:
    lat, lon = found.columns["lat"], found.columns["lon"]
    return f"If so, exchange them: --columns {role}_lat={lon},{role}_lon={lat}. If not: --keep-axes."
