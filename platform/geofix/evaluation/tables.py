"""Reading position tables that other tools wrote: CSV or Parquet, with footers, blanks and odd ids.

Everything is read as text first, so nothing is guessed: a leading zero stays, and a word in a number column
is seen.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geofix.errors import BadInputError, NotFoundError

Role = Literal["pred", "true"]
Floats = NDArray[np.float64]

# What a column is usually called; matched without case when no mapping is given.
_ALIASES: dict[str, tuple[str, ...]] = {
    "id": ("id", "img_id", "image_id", "image", "filename", "photo", "photo_id"),
    "lat": ("lat", "latitude"),
    "lon": ("lon", "lng", "longitude", "long"),
    "gps_accuracy_m": ("gps_accuracy_m",),
}
_BLANK = {"", "nan", "na", "n/a", "none", "null", "-", "--", "nat", "<na>"}
# A summary word alone, before a sign that numbers or units follow, or as part of a name such as mean_km.
_WORDS = (
    "mean|median|average|avg|total|totals|sum|count|n|acc|accuracy|recall|score|geoscore|overall|std|"
    "all|result|results|summary|street|city|region|country|continent"
)
_SUMMARY = re.compile(
    rf"^[^\w/\\]*({_WORDS})"
    r"([^\w/\\]*$|[\s:=@(\[%<>|±]|-level\b|[\W_]*[\d.]*\s*km\b)",
    re.IGNORECASE,
)
# Paths below a folder and names of files are photos, whatever word they begin with.
_FILE = re.compile(
    r"([^\W\d]|\))[/\\]|\.(jpe?g|jpe|jfif|mpo|png|webp|heic|heif|hif|avif|tiff?|bmp|gif|jp2|dng)\s*$",
    re.IGNORECASE,
)
# Slashes that no path has: in "street/1 km", "mean/median", "accuracy (street/city)" and "mean w/o outliers".
_SLASHED = re.compile(rf"^[^\w/\\]*({_WORDS})(\s*/\s*({_WORDS}|[\d.]+\s*km))+[\W_]*$", re.IGNORECASE)
_ASIDE = re.compile(r"\([^()]*/[^()]*\)|\bw/(o\b)?", re.IGNORECASE)
_SPREADSHEET = re.compile(r"^\d(\.\d+)?E\+\d+$", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"^-?\d{1,3},\d+$")


@dataclass
class Positions:
    """One position per id, as read.

    Attributes:
        path: Where it came from.
        ids: Text, shape (n,), unique.
        lat: Degrees, NaN where blank or no number.
        lon: Degrees.
        columns: Which column each field was read from.
        frame: All columns as text, same order.
        gps_accuracy_m: Metres, or None without such a column.
        warnings: What was mended or looks odd.
    """

    path: Path
    ids: NDArray[np.object_]
    lat: Floats
    lon: Floats
    columns: dict[str, str]
    frame: pd.DataFrame
    gps_accuracy_m: Floats | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Rows without a position."""
        return np.isnan(self.lat) | np.isnan(self.lon)

    @property
    def out_of_range(self) -> NDArray[np.bool_]:
        """Rows whose position is no place on earth."""
        with np.errstate(invalid="ignore"):
            return ~self.missing & ((np.abs(self.lat) > 90) | (np.abs(self.lon) > 180))


def read_text_table(path: Path, keep: Collection[str] | None = None) -> tuple[pd.DataFrame, list[str]]:
    """Read a CSV or Parquet file with every value as text ("" where empty).

    Args:
        path: CSV or Parquet.
        keep: Names of columns in lower case; others are passed over, which spares memory. None keeps all.

    Returns:
        The table, whose index is the line number in a CSV file (row number in Parquet), and warnings.

    Raises:
        NotFoundError: No such file.
        BadInputError: Neither CSV nor Parquet, not UTF-8, or empty.
    """
    if not path.is_file():
        raise NotFoundError(f"There is no file {path}.", hint="Give a CSV or Parquet file.")
    if path.suffix.lower() in {".parquet", ".pq"}:
        try:
            frame = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise BadInputError(f"{path} is no readable Parquet file: {error}.") from error
        frame = frame[[c for c in frame.columns if keep is None or str(c).strip().lower() in keep]]
        text = frame.astype("string").fillna("").astype(object).reset_index(drop=True)
        text.index += 1
        return text, []
    return _read_csv(path, keep)


def read_positions(
    path: Path,
    role: Role,
    columns: Mapping[str, str] | None = None,
    *,
    others: Collection[str] | None = None,
) -> Positions:
    """Read ids and positions, dropping footers and merging equal duplicates, each with a warning.

    Args:
        path: CSV or Parquet.
        role: "pred" or "true": `pred_lat` in the mapping wins over `lat` for predictions.
        columns: Field to column name; fields are id, lat, lon, gps_accuracy_m, or with pred_ / true_.
        others: Names in lower case of the further columns that `frame` is to hold; None keeps all.

    Raises:
        BadInputError: Unknown column, ids damaged by a spreadsheet, decimal commas, conflicting duplicates,
            or no row with a position.
    """
    frame, warnings = read_text_table(path, None if others is None else _wanted(others, columns or {}))
    used = position_columns(frame, path, role, columns or {})
    frame, dropped = _drop_footers(frame, used)
    if dropped:
        warnings.append(
            f"{path.name}: {len(dropped)} footer row(s) were read as data and left out: "
            + "; ".join(f"line {line}: {text!r}" for line, text in dropped[:3])
        )
    ids = frame[used["id"]].str.strip()
    _check_ids(ids, path)
    lat, lon = (_numbers(frame[used[k]], path, warnings) for k in ("lat", "lon"))
    accuracy = _numbers(frame[used["gps_accuracy_m"]], path, warnings) if "gps_accuracy_m" in used else None
    keep = _unique_rows(ids, lat, lon, path, warnings)
    found = Positions(
        path,
        ids.to_numpy(dtype=object)[keep],
        lat[keep],
        lon[keep],
        used,
        frame.iloc[np.flatnonzero(keep)],
        None if accuracy is None else accuracy[keep],
        warnings,
    )
    if len(found.ids) == 0 or found.missing.all():
        raise BadInputError(
            f"{path} holds no position in columns {used['lat']!r} and {used['lon']!r}.",
            hint="Map the right columns with --columns.",
        )
    return found


def _wanted(others: Collection[str], columns: Mapping[str, str]) -> set[str]:
    usual = {f"{r}{alias}" for r in ("", "pred_", "true_") for names in _ALIASES.values() for alias in names}
    return usual | set(others) | {column.lower() for column in columns.values()}


def _read_csv(path: Path, keep: Collection[str] | None) -> tuple[pd.DataFrame, list[str]]:
    """Rows of a CSV as text; longer or shorter rows are cut or padded, for the footer check to see."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle)
            header = [h.strip() for h in next(reader, [])]
            places = [i for i, h in enumerate(header) if keep is None or h.lower() in keep]
            rows, lines, ragged = [], [], 0
            for row in reader:
                if not row:
                    continue
                ragged += len(row) != len(header)
                rows.append([row[i] if i < len(row) else "" for i in places])
                lines.append(reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(
            f"{path} is no UTF-8 CSV file: {error}.",
            hint="Save it as CSV with UTF-8 encoding, or as Parquet.",
        ) from error
    if len(header) == 1 and any(s in header[0] for s in ";\t|"):
        raise BadInputError(f"{path} has one column, {header[0]!r}.", hint="Separate columns with commas.")
    if len(set(header)) != len(header):
        twice = sorted({h for h in header if header.count(h) > 1})
        raise BadInputError(f"{path} names columns twice: {twice}.")
    if not rows:
        raise BadInputError(f"{path} holds no rows below its header.")
    warnings = [f"{path.name}: {ragged} row(s) have more or fewer fields than the header."] if ragged else []
    return pd.DataFrame(rows, columns=[header[i] for i in places], index=lines, dtype=object), warnings


def position_columns(
    frame: pd.DataFrame, path: Path, role: Role, columns: Mapping[str, str]
) -> dict[str, str]:
    """Which column holds id, lat, lon and, if any, gps_accuracy_m.

    Raises:
        BadInputError: A field or column is unknown, or one that is needed is not found.
    """
    fields = set(_ALIASES)
    known = fields | {f"{r}_{f}" for r in ("pred", "true") for f in fields}
    if unknown := sorted(set(columns) - known):
        raise BadInputError(
            f"--columns maps unknown fields {unknown}.", hint=f"Known fields: {sorted(known)}."
        )
    lower = {str(c).lower(): str(c) for c in frame.columns}
    used = {}
    for name, aliases in _ALIASES.items():
        own, both = columns.get(f"{role}_{name}"), columns.get(name)
        usual = [f"{role}_{a}" for a in aliases] + list(aliases)
        guess = next((lower[a] for a in usual if a in lower), None)
        # A name meant for both files may exist in one of them alone.
        picked = own or (both if both in frame.columns else None) or guess
        if picked in frame.columns:
            used[name] = str(picked)
        elif own or both or name != "gps_accuracy_m":
            raise BadInputError(
                f"{path} has no column {own or both or name!r} for {role} {name}: {list(frame.columns)}.",
                hint=f"Map it: --columns {role}_{name}=COLUMN.",
            )
    return used


def _drop_footers(frame: pd.DataFrame, used: Mapping[str, str]) -> tuple[pd.DataFrame, list[tuple[int, str]]]:
    """Cut summary rows at the end: a summary word, a comment, a blank id, or words where numbers belong."""
    ids, lat, lon = (frame[used[k]].str.strip() for k in ("id", "lat", "lon"))
    end = len(frame)
    while end and _is_footer(ids.iloc[end - 1], lat.iloc[end - 1], lon.iloc[end - 1]):
        end -= 1
    dropped = [
        (int(line), ",".join(str(v) for v in row[:6])[:80])
        for line, row in zip(
            frame.index[end:], frame.iloc[end:].itertuples(index=False, name=None), strict=True
        )
    ]
    return frame.iloc[:end], dropped


def _is_footer(identifier: str, lat: str, lon: str) -> bool:
    if identifier.startswith("#") or identifier.lower() in _BLANK or _is_summary(identifier):
        return True
    return any(v.endswith("%") or _is_summary(v) for v in (lat, lon) if v.lower() not in _BLANK)


def _is_summary(text: str) -> bool:
    if _SUMMARY.match(text) or _SLASHED.match(text):
        return _FILE.search(_SLASHED.sub("", _ASIDE.sub("", text))) is None
    return False


def _check_ids(ids: pd.Series, path: Path) -> None:
    damaged = ids[ids.str.match(_SPREADSHEET)]
    if len(damaged):
        raise BadInputError(
            f"{path}: {len(damaged)} ids were turned into rounded numbers by a spreadsheet "
            f"(line {damaged.index[0]}: {damaged.iloc[0]!r}).",
            hint="Export the file again with the id column as text.",
        )


def number_column(column: pd.Series, path: Path) -> Floats:
    """Numbers of a column of text, NaN where it is blank.

    Raises:
        BadInputError: A value is something else.
    """
    odd: list[str] = []
    values = _numbers(column, path, odd)
    if odd:
        raise BadInputError(
            odd[0].replace(" and count as missing", ""), hint="Write numbers, or leave it blank."
        )
    return values


def _numbers(column: pd.Series, path: Path, warnings: list[str]) -> Floats:
    text = column.str.strip()
    comma = text[text.str.match(_DECIMAL_COMMA)]
    if len(comma):
        raise BadInputError(
            f"{path}, column {column.name!r}: {len(comma)} values use a decimal comma "
            f"(line {comma.index[0]}: {comma.iloc[0]!r}).",
            hint="Write decimal points.",
        )
    values = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64)
    values = np.where(np.isfinite(values), values, np.nan)
    odd = text[np.isnan(values) & ~text.str.lower().isin(_BLANK).to_numpy()]
    if len(odd):
        warnings.append(
            f"{path.name}: {len(odd)} value(s) of column {column.name!r} are no number and count as missing "
            f"(line {odd.index[0]}: {odd.iloc[0][:60]!r})."
        )
    return values


def _unique_rows(
    ids: pd.Series, lat: Floats, lon: Floats, path: Path, warnings: list[str]
) -> NDArray[np.bool_]:
    first = ~ids.duplicated().to_numpy()
    if first.all():
        return first
    spots = pd.DataFrame({"id": ids.to_numpy(), "lat": lat, "lon": lon}).drop_duplicates()
    conflicts = spots["id"][spots["id"].duplicated()].unique()
    if len(conflicts):
        raise BadInputError(
            f"{path}: {len(conflicts)} id(s) occur with different positions, such as {list(conflicts[:3])}.",
            hint="Keep one row per photo.",
        )
    warnings.append(
        f"{path.name}: {int((~first).sum())} repeated row(s) with equal id and position were merged."
    )
    return first
