"""What every metadata format yields, and how its columns are found."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from geofix.errors import BadInputError, UsageError
from geofix.imagery.exif import heading, plausible

MAX_EXTRA_FIELDS = 24
MAX_EXTRA_CHARS = 500


@dataclass(frozen=True, slots=True)
class PhotoRow:
    """One photo as a metadata file describes it; None means that the file does not say.

    Attributes:
        line: Number of the row in its file, from 1 (a CSV's header not counted).
        image_path: Path or name of the photo as written.
        lat: Degrees north, unchecked.
        lon: Degrees east, unchecked.
        heading_deg: In [0, 360).
        captured_at: Aware.
        time_assumed_utc: The text named no zone.
        sequence: Name of the sequence.
        gps_accuracy_m: Metres.
        licence: Of this photo.
        author: Of this photo.
        external_id: The source's own id.
        extra: Any other column, JSON values.
        problem: Reason code and detail of a row that cannot be used.
    """

    line: int
    image_path: str | None = None
    lat: float | None = None
    lon: float | None = None
    heading_deg: float | None = None
    captured_at: datetime | None = None
    time_assumed_utc: bool = False
    sequence: str | None = None
    gps_accuracy_m: float | None = None
    licence: str | None = None
    author: str | None = None
    external_id: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    problem: tuple[str, str] | None = None


# Logical field -> column names it is found under when none is named; compared without case.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "image_path": ("image_path", "path", "file", "filename", "file_name", "image", "img_path", "img_id"),
    "lat": ("lat", "latitude", "lat_deg", "lat_e6"),
    "lon": ("lon", "lng", "long", "longitude", "lon_deg", "lon_e6"),
    "heading_deg": ("heading_deg", "heading", "compass_angle", "bearing", "azimuth"),
    "captured_at": ("captured_at", "timestamp", "datetime", "date_taken", "time"),
    "sequence": ("sequence", "sequence_id", "group_id", "sequence_key"),
    "gps_accuracy_m": ("gps_accuracy_m", "accuracy_m", "gps_accuracy", "accuracy"),
    "licence": ("licence", "license"),
    "author": ("author", "creator", "username"),
    "external_id": ("id", "photo_id", "image_id"),
}

Getter = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """How to take each logical field from a record."""

    getters: Mapping[str, Getter]
    scale: float
    extra: tuple[str, ...]


def resolve_columns(
    found: Sequence[str],
    chosen: Mapping[str, str] | None,
    *,
    where: str,
    need: Iterable[str] = ("lat", "lon"),
    keep_extra: bool = True,
) -> ColumnMap:
    """Match logical fields with the columns of a file.

    Args:
        found: Column names of the file.
        chosen: Logical field -> column, or a template such as ``images/{id}.jpg``; anything not named is
            looked up in `ALIASES`.
        where: Name of the file, for messages.
        need: Fields without which the file cannot be used.
        keep_extra: Whether columns without a meaning end up in `PhotoRow.extra`.

    Raises:
        UsageError: `chosen` names an unknown field.
        BadInputError: A column is missing; the message lists those found. Columns named ``*_e6`` hold
            micro-degrees.
    """
    chosen = dict(chosen or {})
    listing = ", ".join(found) or "none"
    unknown = sorted(set(chosen) - set(ALIASES))
    if unknown:
        raise UsageError(
            f"Unknown field {', '.join(map(repr, unknown))} in the column mapping.",
            hint=f"Fields are: {', '.join(ALIASES)}.",
        )
    by_lower = {name.strip().lower(): name for name in reversed(found)}
    getters: dict[str, Getter] = {}
    used: dict[str, str] = {}
    for logical, aliases in ALIASES.items():
        if logical in chosen:
            used[logical] = chosen[logical]
            getters[logical] = _chosen_getter(logical, chosen[logical], found, listing, where)
        elif column := next((by_lower[a] for a in aliases if a in by_lower), None):
            used[logical] = column
            getters[logical] = _column_getter(column)
    missing = [name for name in need if name not in getters]
    if missing:
        raise BadInputError(
            f"{where} has no column for {' and '.join(missing)}; columns found: {listing}.",
            hint="Name them with --columns FIELD=COLUMN.",
        )
    micro = [used.get(name, "").lower().endswith("_e6") for name in ("lat", "lon")]
    if micro[0] != micro[1]:
        raise BadInputError(
            f"{where}: only one of {used.get('lat')} and {used.get('lon')} is in micro-degrees."
        )
    taken = set(used.values())
    extra = tuple(name for name in found if name not in taken)[:MAX_EXTRA_FIELDS] if keep_extra else ()
    return ColumnMap(getters, 1e-6 if micro[0] else 1.0, extra)


def _column_getter(column: str) -> Getter:
    return lambda record: record.get(column)


def _chosen_getter(logical: str, spec: str, found: Sequence[str], listing: str, where: str) -> Getter:
    names = [spec] if "{" not in spec else [part[1] for part in string.Formatter().parse(spec) if part[1]]
    for name in names:
        if name not in found:
            raise BadInputError(
                f"{where} has no column {name!r}, named for {logical}; columns found: {listing}.",
                hint="Column names are compared exactly.",
            )
    if "{" not in spec:
        return _column_getter(spec)
    pieces = re.split(r"\{([^{}]*)\}", spec)  # literal, name, literal, name, ...

    def fill(record: Mapping[str, Any]) -> str | None:
        parts = [p if i % 2 == 0 else clean_text(record.get(p)) for i, p in enumerate(pieces)]
        return None if None in parts else "".join(p for p in parts if p is not None)

    return fill


def photo_row(record: Mapping[str, Any], columns: ColumnMap, line: int) -> PhotoRow:
    """Turn one record into a row; values that cannot be read become its `problem`."""
    get = {name: getter(record) for name, getter in columns.getters.items()}
    problem: tuple[str, str] | None = None
    position: list[float | None] = []
    for name in ("lat", "lon"):
        value, bad = decimal(get.get(name))
        if bad:
            problem = ("bad_position", f"{name} is {get.get(name)!r}, which is not a number")
        position.append(value * columns.scale if value is not None else None)
    when, assumed, bad = parse_time(get.get("captured_at"))
    if bad:
        problem = problem or (
            "bad_time",
            f"captured_at is {get.get('captured_at')!r}, which is no known time",
        )
    accuracy = decimal(get.get("gps_accuracy_m"))[0]
    return PhotoRow(
        line=line,
        image_path=clean_text(get.get("image_path")),
        lat=position[0],
        lon=position[1],
        heading_deg=heading(decimal(get.get("heading_deg"))[0]),
        captured_at=when,
        time_assumed_utc=assumed,
        sequence=label(get.get("sequence")),
        gps_accuracy_m=accuracy if accuracy is not None and accuracy >= 0 else None,
        licence=label(get.get("licence")),
        author=label(get.get("author")),
        external_id=label(get.get("external_id")),
        extra=_extra(record, columns.extra),
        problem=problem,
    )


def _extra(record: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name in names:
        value = record.get(name)
        if isinstance(value, bool) or (isinstance(value, (int, float)) and math.isfinite(value)):
            result[printable(name)] = value
        elif isinstance(value, (str, date, datetime)) and (text := label(value)):
            result[printable(name)] = text
    return result


def printable(text: str) -> str:
    """Text that PostgreSQL takes: bytes that were no UTF-8, lone surrogates and NUL as backslash escapes."""
    try:
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        text = text.encode("utf-8", "backslashreplace").decode()
    return text.replace("\0", "\\x00")


def label(value: Any) -> str | None:
    """Text for the database, at most `MAX_EXTRA_CHARS` long; None for nothing."""
    text = clean_text(value)
    return None if text is None else printable(text)[:MAX_EXTRA_CHARS]


def clean_text(value: Any) -> str | None:
    """Text without surrounding blanks; None for nothing, NaN, or a float's empty cell."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)  # ids read as floats because of an empty cell elsewhere
    return str(value).strip() or None


def decimal(value: Any) -> tuple[float | None, bool]:
    """A finite number, and whether something was there that is none; accepts a decimal comma."""
    if value is None or isinstance(value, bool):
        return None, isinstance(value, bool)
    if isinstance(value, str):
        value = value.strip()
        if not value:
            return None, False
        if value.count(",") == 1 and "." not in value:
            value = value.replace(",", ".")
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        return None, True
    return (result, False) if math.isfinite(result) else (None, not math.isnan(result))


_TIME = re.compile(
    r"(\d{4})[-:/_.](\d{1,2})[-:/_.](\d{1,2})"
    r"(?:[ T_]+(\d{1,2})[:_](\d{2})(?:[:_](\d{2})(?:[:._,](\d{1,9}))?)?)?"
    r"\s*(Z|UTC|[+-]\d{2}:?\d{2}|[+-]\d{2})?",
    re.IGNORECASE,
)


def parse_time(value: Any) -> tuple[datetime | None, bool, bool]:
    """Read a time in any of the notations metadata files use.

    ISO 8601, EXIF (``2019:12:29 13:35:13``), milliseconds after a colon (``2019-12-29 13:35:13:170``),
    Mapillary (``2021_02_13_13_24_41_140``), dates alone, and Unix time in seconds (9-10 digits), milliseconds
    (12-13) or microseconds (15-16).

    Returns:
        The time in UTC or None; whether UTC was assumed because no zone is named; whether something is there
        that is no plausible time.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None, False, False
    if isinstance(value, datetime):
        naive = value.tzinfo is None
        when = plausible(value.replace(tzinfo=UTC) if naive else value.astimezone(UTC))
        return when, naive and when is not None, when is None
    if isinstance(value, date):
        when = plausible(datetime(value.year, value.month, value.day, tzinfo=UTC))
        return when, when is not None, when is None
    text = clean_text(value)
    if text is None:
        return None, False, False
    try:
        if re.fullmatch(r"\d{9,16}(\.\d*)?", text):
            when = _unix_time(int(text.split(".")[0]))
            return when, False, when is None
        match = _TIME.fullmatch(text)
        if match is None:
            return None, False, True
        when = plausible(_calendar_time(match))
    except (ValueError, OverflowError):
        return None, False, True
    return when, match[8] is None and when is not None, when is None


def _unix_time(number: int) -> datetime | None:
    scale = {9: 1, 10: 1, 12: 1_000, 13: 1_000, 15: 1_000_000, 16: 1_000_000}.get(len(str(number)))
    if scale is None:
        return None
    return plausible(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=number * (1_000_000 // scale)))


def _calendar_time(match: re.Match[str]) -> datetime:
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    micros = int(((match[7] or "") + "000000")[:6])
    when = datetime(year, month, day, hour, minute, second, micros, tzinfo=UTC)
    zone = re.fullmatch(r"([+-])(\d{2}):?(\d{2})?", match[8] or "")
    if zone is None:
        return when
    offset = timedelta(hours=int(zone[2]), minutes=int(zone[3] or 0))
    return when + offset if zone[1] == "-" else when - offset
