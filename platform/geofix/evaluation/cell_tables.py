"""Cell tables whose S2 tokens may have passed through a spreadsheet.

A token is text, but `47e9` reads as a number (`4.70E+10`), sixteen digits become `8.7E+15`, `0891` loses its
zero and `3dec` becomes a date. Published tables contain hundreds of such rows. The mean position beside a
token tells which cells it can have been, so each of them is damaged on purpose and compared with what the
file says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geofix.errors import BadInputError
from geofix.evaluation.tables import read_text_table
from geofix.partitions.classes import listed
from geofix.partitions.partition import Partition
from geofix.spatial import s2

_TOKEN = re.compile(r"^[0-9a-f]{1,16}$")
_NUMBER = re.compile(r"^(\d+)(?:\.(\d+))?(?:e\+?(\d+))?$")
_NUMERIC_TOKEN = re.compile(r"^\d+(e\d+)?$")
_DATE_TOKEN = re.compile(r"^(?:(\d{1,2})(dec|feb)|(dec|feb)(\d{1,4}))$")
_DATE = re.compile(r"^(?:0?(\d{1,2})-(dec|feb)|(dec|feb)-0?(\d{1,4}))(?:-\d+)?$")


@dataclass(frozen=True)
class CellTable:
    """A table with sound tokens.

    Attributes:
        frame: All columns; the token column as text, the others numbers where every row is one.
        s2_id: Cell ids (two's complement), same order.
        lines: Line of each row in the file, same order.
        repaired: Line in the file to (as read, as repaired).
        warnings: What was mended or looks odd.
    """

    frame: pd.DataFrame
    s2_id: NDArray[np.int64]
    lines: NDArray[np.int64]
    repaired: dict[int, tuple[str, str]]
    warnings: list[str]


@dataclass(frozen=True)
class ListedCells:
    """A table whose rows can be classes: disjoint cells, each with a position on earth and with photos.

    Attributes:
        s2_id: Cell ids (two's complement), in the order of the rows, shape (n,).
        lon: Mean position in degrees, shape (n,).
        lat: Degrees.
        photos: At least one each, shape (n,); None without such a column.
        warnings: What was mended or looks odd.
    """

    s2_id: NDArray[np.int64]
    lon: NDArray[np.float64]
    lat: NDArray[np.float64]
    photos: NDArray[np.int64] | None
    warnings: list[str]


def read_cell_table(
    path: Path,
    *,
    token_column: str = "s2_token",  # noqa: S107 - an S2 token, no secret
    lat_column: str = "latitude_mean",
    lon_column: str = "longitude_mean",
) -> CellTable:
    """Read a table of S2 cells; repair a damaged token where one cell fits, else refuse.

    A cell fits when it contains the row's mean position, a spreadsheet would have written it as the file
    does, and it overlaps no sound cell of the table. Without position columns every damaged token is refused.

    Raises:
        BadInputError: Tokens are damaged beyond repair, or repeated; a mean position is none, or the two
            columns look swapped; the message names the lines.
    """
    frame, warnings = read_text_table(path)
    token_column, lat_column, lon_column = _columns(frame, (token_column, lat_column, lon_column))
    if token_column not in frame:
        raise BadInputError(
            f"{path} has no column {token_column!r}; it has {list(frame.columns)}.",
            hint="Name the token column.",
        )
    lines = frame.index.to_numpy()
    typed = _typed(frame, token_column)
    if lat_column in frame and lon_column in frame:
        _check_positions(path, frame, lat_column, lon_column)
    tokens = np.array([str(t).strip().lower() for t in frame[token_column]], dtype=object)
    ids = np.array([cell_id(t) for t in tokens], dtype=np.int64)
    leaves = _leaves(typed, lat_column, lon_column)
    astray = np.zeros(len(ids), dtype=bool) if leaves is None else (ids != 0) & ~_inside(ids, leaves)
    if 2 * astray.sum() > len(ids):
        _check_order(path, typed, lat_column, lon_column, ids)
    broken = (ids == 0) | astray
    # Every damaged row is a cell of its own, so its position counts as taken for the others.
    taken = _intervals(
        np.concatenate([ids[~broken], [] if leaves is None else leaves[broken]]).astype(np.int64)
    )
    repaired: dict[int, tuple[str, str]] = {}
    refused: list[int] = []
    for row in np.flatnonzero(broken):
        found = None if leaves is None else _rebuild(str(tokens[row]), int(leaves[row]), taken)
        if found:
            repaired[int(lines[row])] = (str(frame[token_column].iloc[row]), found)
            tokens[row], ids[row], astray[row] = found, cell_id(found), False
        elif ids[row] == 0:
            refused.append(int(row))
    _refuse(path, token_column, tokens, lines, refused)
    typed[token_column] = tokens
    if repaired:
        shown = ", ".join(f"line {k}: {a!r} -> {b!r}" for k, (a, b) in list(repaired.items())[:3])
        warnings.append(
            f"{path.name}: {len(repaired)} S2 token(s) damaged by a spreadsheet were rebuilt ({shown})."
        )
    if astray.any():
        warnings.append(
            f"{path.name}: {int(astray.sum())} cell(s) do not contain the mean position beside them."
        )
    return CellTable(typed, ids, lines, repaired, warnings)


def read_listed_cells(
    path: Path,
    *,
    token: str = "s2_token",  # noqa: S107 - an S2 token, no secret
    lat: str = "latitude_mean",
    lon: str = "longitude_mean",
    photos: Sequence[str] = ("imgs_per_cell",),
) -> ListedCells:
    """A published cell table whose rows are to be classes; the first column of `photos` that is there counts.

    Raises:
        BadInputError: As `read_cell_table`; a column of positions is missing, a class has no photo, or cells
            overlap; the message names the lines.
    """
    found = read_cell_table(path, token_column=token, lat_column=lat, lon_column=lon)
    frame = found.frame
    lat, lon, *photos = _columns(frame, (lat, lon, *photos))
    if lost := [column for column in (lat, lon) if column not in frame]:
        raise BadInputError(
            f"{path} has no column {lost[0]!r} of numbers; it has {list(frame.columns)}.",
            hint="Name the columns of the mean position.",
        )
    _check_disjoint(path, found)
    count = next((column for column in photos if column in frame), None)
    return ListedCells(
        found.s2_id,
        frame[lon].to_numpy(np.float64),
        frame[lat].to_numpy(np.float64),
        None if count is None else _counts(path, frame[count], found.lines),
        found.warnings,
    )


def listed_partition(
    name: str,
    path: Path,
    *,
    token: str = "s2_token",  # noqa: S107 - an S2 token, no secret
    lat: str = "latitude_mean",
    lon: str = "longitude_mean",
    photos: str = "imgs_per_cell",
) -> tuple[Partition, list[str]]:
    """A published cell table as a partition whose classes are its rows, and what was mended or looks odd.

    Raises:
        BadInputError: As `read_listed_cells`; or there is no column of photos.
    """
    found = read_listed_cells(path, token=token, lat=lat, lon=lon, photos=(photos,))
    if found.photos is None:
        raise BadInputError(f"{path} has no column {photos!r}.", hint="Name the column of photos per cell.")
    made = listed(name, found.s2_id, found.lon, found.lat, found.photos, {"table": path.name})
    return made, found.warnings


def cell_id(token: str) -> int:
    """Id (two's complement) of a canonical token, 0 when the text is none."""
    if not _TOKEN.match(token) or token.endswith("0"):
        return 0
    value = int(token.ljust(16, "0"), 16)
    signed = value - (1 << 64) if value >= 1 << 63 else value
    return signed if bool(s2.is_valid(np.array([signed]))[0]) else 0


def _columns(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Names as the table writes them, where they differ in case alone."""
    written = {str(column).lower(): str(column) for column in frame.columns}
    return [name if name in frame else written.get(name.lower(), name) for name in names]


def _typed(frame: pd.DataFrame, token_column: str) -> pd.DataFrame:
    typed = frame.reset_index(drop=True)
    for column in typed.columns.drop(token_column):
        numbers = pd.to_numeric(typed[column], errors="coerce")
        if not numbers.isna().any():
            typed[column] = numbers
    return typed


def _leaves(typed: pd.DataFrame, lat_column: str, lon_column: str) -> NDArray[np.int64] | None:
    columns = [lon_column, lat_column]
    if not all(c in typed and pd.api.types.is_numeric_dtype(typed[c]) for c in columns):
        return None
    lon, lat = (typed[c].to_numpy(dtype=np.float64) for c in columns)
    return np.asarray(s2.cell_at(lon, lat, 30), dtype=np.int64)


def _check_positions(path: Path, frame: pd.DataFrame, lat_column: str, lon_column: str) -> None:
    """Refuse mean positions that are no numbers, or no place on earth."""
    lat, lon = (pd.to_numeric(frame[column], errors="coerce") for column in (lat_column, lon_column))
    for column, values, limit in ((lat_column, lat, 90.0), (lon_column, lon, 180.0)):
        if values.isna().any():
            _refuse_value(path, frame[column], values.isna(), "is no number", "Write the mean in degrees.")
        if (bad := values.abs() > limit).any():
            why = f"is not within {-limit:g} to {limit:g} degrees"
            _refuse_value(
                path,
                frame[column],
                bad,
                why,
                f"Exchange {lat_column} and {lon_column} if swapped, or correct it.",
            )


def _check_order(
    path: Path, typed: pd.DataFrame, lat_column: str, lon_column: str, ids: NDArray[np.int64]
) -> None:
    """Refuse a table most of whose cells hold their position only with latitude and longitude exchanged."""
    lat, lon = (typed[column].to_numpy(np.float64) for column in (lat_column, lon_column))
    if (np.abs(lon) > 90).any():
        return
    sound = ids != 0
    inside = int(_inside(ids, np.asarray(s2.cell_at(lat, lon, 30), np.int64))[sound].sum())
    if 2 * inside > sound.sum():
        raise BadInputError(
            f"{path}: {lat_column} and {lon_column} look swapped: {inside} of {len(ids)} cells contain their "
            "mean position only with the two exchanged.",
            hint=f"Exchange the columns {lat_column} and {lon_column}.",
        )


def _check_disjoint(path: Path, table: CellTable) -> None:
    order = np.argsort(table.s2_id)
    first, last = s2.range_of(table.s2_id[order])
    clash = np.flatnonzero(first[1:] <= last[:-1])
    if clash.size:
        rows = np.sort(order[clash[0] : clash[0] + 2])
        one, other = (f"{s2.token(table.s2_id[row])} on line {table.lines[row]}" for row in rows)
        raise BadInputError(
            f"{path}: cells {one} and {other} overlap ({clash.size} such pairs).",
            hint="A partition needs disjoint cells; a cell and its child cannot both be classes.",
        )


def _counts(path: Path, column: pd.Series, lines: NDArray[np.int64]) -> NDArray[np.int64]:
    text = pd.Series(column.to_numpy(), index=lines, name=column.name)
    values = pd.to_numeric(text, errors="coerce")
    whole = values.abs().lt(2**31) & (values % 1 == 0)
    if not whole.all():
        _refuse_value(path, text, ~whole, "is no number of photos", "Write whole numbers.")
    if (empty := values < 1).any():
        hint = "A class without photos has no position to answer with; drop it."
        _refuse_value(path, text, empty, "is a class without photos", hint)
    return values.to_numpy(np.int64)


def _refuse_value(path: Path, column: pd.Series, bad: pd.Series, why: str, hint: str) -> None:
    rows = np.flatnonzero(bad.to_numpy())
    raise BadInputError(
        f"{path}, line {column.index[rows[0]]}: {column.name} {str(column.iloc[rows[0]])!r} {why} "
        f"({rows.size} such of {len(column)}).",
        hint=hint,
    )


def _intervals(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leaf ranges (first, last) of cells, sorted, shape (n, 2)."""
    bounds = np.stack(s2.range_of(ids), axis=1)
    bounds = bounds[np.argsort(bounds[:, 0])]
    # An end never lies before an earlier one, so that the row before tells of all before it.
    bounds[:, 1] = np.maximum.accumulate(bounds[:, 1])
    return bounds


def _inside(ids: NDArray[np.int64], leaves: NDArray[np.int64]) -> NDArray[np.bool_]:
    inside = np.zeros(len(ids), dtype=bool)
    cells = ids != 0
    first, last = s2.range_of(ids[cells])
    inside[cells] = (first <= leaves[cells]) & (leaves[cells] <= last)
    return inside


def _rebuild(text: str, leaf: int, taken: NDArray[np.int64]) -> str | None:
    """The token of the cell above a leaf that a spreadsheet writes as `text` and that overlaps no sound cell.

    Rounding can leave several. Then the coarsest is taken, but only where its parent holds a sound cell: an
    adaptive partition has split that parent, so the coarsest free cell is its child. Else None.
    """
    tokens = [str(t) for t in s2.token(s2.parent(np.full(31, leaf), np.arange(31)))]
    fits = [i for i, t in enumerate(tokens) if _written_as(t, text) and _free(t, taken)]
    if len(fits) == 1 or (fits and fits[0] > 0 and not _free(tokens[fits[0] - 1], taken)):
        return tokens[fits[0]]
    return None


def _free(token: str, taken: NDArray[np.int64]) -> bool:
    """Whether a cell overlaps nothing but the one damaged row that it is to be the cell of."""
    low, high = (int(v) for v in _intervals(np.array([cell_id(token)], dtype=np.int64))[0])
    begin = int(np.searchsorted(taken[:, 0], low, side="left"))
    inside = int(np.searchsorted(taken[:, 0], high, side="right")) - begin
    return inside <= 1 and (begin == 0 or int(taken[begin - 1, 1]) < low)


def _written_as(token: str, text: str) -> bool:
    """Whether a spreadsheet may show `token` as `text`: as a number, rounded or not, or as a date."""
    if token == text:
        return False
    date, shown = _DATE_TOKEN.match(token), _DATE.match(text)
    if date and shown:
        return [g.lstrip("0") for g in date.groups("")] == [g.lstrip("0") for g in shown.groups("")]
    number = _NUMBER.match(text.replace(",", ""))
    if not number or not _NUMERIC_TOKEN.match(token):
        return False
    whole, decimals, exponent = number.group(1), number.group(2) or "", number.group(3)
    value = float(token)
    if not np.isfinite(value):
        return False
    if exponent is None:
        # Spreadsheets keep 15 significant digits and write zeros for the rest.
        return decimals.strip("0") == "" and f"{value:.14e}" == f"{float(whole):.14e}"
    places = len(decimals) + len(whole) - 1
    return f"{value:.{places}e}" == f"{float(f'{whole}.{decimals or 0}e{exponent}'):.{places}e}"


def _refuse(
    path: Path, column: str, tokens: NDArray[np.object_], lines: NDArray[np.int64], refused: list[int]
) -> None:
    if refused:
        shown = ", ".join(f"line {lines[r]}: {tokens[r]!r}" for r in refused[:5])
        raise BadInputError(
            f"{path}: {len(refused)} of {len(tokens)} S2 tokens in column {column!r} are damaged beyond "
            f"repair, most likely by a spreadsheet ({shown}).",
            hint="Get the original file and never open it in a spreadsheet; tokens are text.",
        )
    first: dict[str, int] = {}
    for row, token in enumerate(tokens):
        if token in first:
            raise BadInputError(
                f"{path}: S2 token {token!r} stands on line {lines[first[token]]} and on line {lines[row]}.",
                hint="Keep one row per cell.",
            )
        first[token] = row
