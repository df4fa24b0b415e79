"""What a photo says about itself: position, direction and time from EXIF, however badly written."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

# EXIF 2.32 tag numbers.
ORIENTATION, MAKE, MODEL = 0x0112, 0x010F, 0x0110
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
_DATE_TIME_ORIGINAL, _DATE_TIME_DIGITIZED, _SUBSEC_ORIGINAL = 0x9003, 0x9004, 0x9291
_OFFSETS = (0x9011, 0x9012, 0x9010)  # original, digitized, modification
_LAT_REF, _LAT, _LON_REF, _LON, _ALT_REF, _ALT, _TIME = 1, 2, 3, 4, 5, 6, 7
_DIRECTION_REF, _DIRECTION, _DATE, _ACCURACY = 16, 17, 29, 31

# No place on earth is further than this from UTC (+14 h, -12 h), with half an hour for a slow clock.
_MAX_OFFSET = timedelta(hours=14, minutes=30)
_EARLIEST = datetime(1826, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Gps:
    """Fields of the GPS block; anything absent or unreadable is None.

    Attributes:
        lat: Degrees north, unchecked: may lie out of range.
        lon: Degrees east, unchecked.
        altitude_m: Metres above (below: negative) sea level.
        accuracy_m: Horizontal positioning error in metres.
        heading_deg: Direction of view in [0, 360).
        heading_ref: "T" for true north, "M" for magnetic north (declination is not removed).
        assumed_refs: A hemisphere letter was missing, so north or east was assumed.
        time: UTC time of the fix.
    """

    lat: float | None = None
    lon: float | None = None
    altitude_m: float | None = None
    accuracy_m: float | None = None
    heading_deg: float | None = None
    heading_ref: str | None = None
    assumed_refs: bool = False
    time: datetime | None = None


def number(value: Any) -> float | None:
    """A finite float from a rational, a number or a string; None for anything else (also x/0 and NaN)."""
    try:
        if isinstance(value, bytes):
            value = value.decode("ascii", "ignore")
        if isinstance(value, str):
            value = value.strip().strip("\0").strip()
            if "/" in value:
                over, under = value.split("/", 1)
                value = float(over) / float(under)
            elif value.count(",") == 1 and "." not in value:
                value = value.replace(",", ".")
        elif isinstance(value, tuple) and len(value) == 2:  # (numerator, denominator), as old writers give it
            value = float(value[0]) / float(value[1])
        result = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError, ArithmeticError):
        return None
    return result if math.isfinite(result) else None


def angle(value: Any) -> float | None:
    """Decimal degrees from degrees, minutes and seconds.

    Accepts one to three rationals, a plain number, or text such as "48.8583", "-33.9", "48,51.5N" (the
    XMP form). Minutes or seconds with a zero denominator count as absent when the degrees are readable,
    as cameras write 0/0 for an unused part; minutes or seconds above 60 make the angle unreadable.
    """
    if isinstance(value, bytes):
        value = value.decode("ascii", "ignore")
    if isinstance(value, str):
        text = value.strip().strip("\0").strip()
        plain = number(text) if "," not in text else None
        if plain is not None:
            return plain
        letter = text[-1:].upper()
        parts: list[Any] = [p for p in re.split(r"[^0-9.+\-/]+", text) if p]
        result = angle(parts) if 1 <= len(parts) <= 3 else None
        return -abs(result) if result is not None and letter in ("S", "W") else result
    if isinstance(value, (tuple, list)):
        parts = list(value)
    else:
        parts = [value]
    if not 1 <= len(parts) <= 3:
        return None
    numbers = [number(p) for p in parts]
    if numbers[0] is None:
        return None
    minutes, seconds = ([n or 0.0 for n in numbers[1:]] + [0.0, 0.0])[:2]
    if not (0 <= minutes <= 60 and 0 <= seconds <= 60):
        return None
    size = abs(numbers[0]) + minutes / 60 + seconds / 3600
    return -size if math.copysign(1.0, numbers[0]) < 0 else size


def heading(value: Any) -> float | None:
    """A direction in [0, 360) degrees; None when absent, NaN or beyond one turn."""
    result = number(value)
    if result is None or not -360 <= result <= 360:
        return None
    return result % 360.0 % 360.0  # twice: -1e-20 % 360 is 360.0


def _letter(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("ascii", "ignore")
    return str(value).strip().strip("\0").strip()[:1].upper() if value is not None else ""


def _signed(value: Any, ref: str, negative: str) -> float | None:
    result = angle(value)
    return -abs(result) if result is not None and ref == negative else result


def parse_gps(block: Mapping[int, Any]) -> Gps:
    """Read the GPS block (tag number -> value) of an EXIF header.

    A missing hemisphere letter is taken as north or east (or as the number's own sign) and flagged. Units
    and ranges: see `Gps`.
    """
    lat_ref, lon_ref = _letter(block.get(_LAT_REF)), _letter(block.get(_LON_REF))
    lat, lon = _signed(block.get(_LAT), lat_ref, "S"), _signed(block.get(_LON), lon_ref, "W")
    altitude = number(block.get(_ALT))
    below = block.get(_ALT_REF) in (1, b"\x01", "1")
    accuracy = number(block.get(_ACCURACY))
    ref = _letter(block.get(_DIRECTION_REF))
    return Gps(
        lat=lat,
        lon=lon,
        altitude_m=-altitude if altitude is not None and below else altitude,
        accuracy_m=accuracy if accuracy is not None and accuracy >= 0 else None,
        heading_deg=heading(block.get(_DIRECTION)),
        heading_ref=ref if ref in ("T", "M") else None,
        assumed_refs=(lat is not None and lat_ref not in ("N", "S"))
        or (lon is not None and lon_ref not in ("E", "W")),
        time=_gps_time(block),
    )


def _gps_time(block: Mapping[int, Any]) -> datetime | None:
    date = re.match(r"\s*(\d{4})[:\-/](\d{2})[:\-/](\d{2})", _text(block.get(_DATE)))
    clock = block.get(_TIME)
    if date is None or not isinstance(clock, (tuple, list)) or len(clock) != 3:
        return None
    h, m, s = (number(part) for part in clock)
    if h is None or m is None:
        return None
    try:
        day = datetime(int(date[1]), int(date[2]), int(date[3]), tzinfo=UTC)
        return plausible(day + timedelta(hours=h, minutes=m, seconds=s or 0.0))
    except (ValueError, OverflowError):
        return None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("ascii", "ignore").strip("\0 ")
    return str(value).strip("\0 ") if value is not None else ""


def plausible(when: datetime) -> datetime | None:
    """The time itself, unless it lies before photography or more than a day in the future."""
    return when if _EARLIEST <= when <= datetime.now(UTC) + timedelta(days=1) else None


def capture_time(block: Mapping[int, Any], gps_time: datetime | None) -> tuple[datetime | None, bool]:
    """When the photo was taken, and whether UTC had to be assumed.

    Args:
        block: The Exif block (tag number -> value).
        gps_time: UTC time of the GPS fix, if any.

    Returns:
        An aware time or None. With an offset tag the local time is exact; else the GPS time is taken when it
        is within 14.5 hours of the local time (a stale fix is not); else the local time is read as UTC, an
        error of up to 14 hours, and the flag is True.
    """
    local = _camera_time(block)
    if local is None:
        return gps_time, False
    for tag in _OFFSETS:
        offset = _offset(_text(block.get(tag)))
        if offset is not None:
            return plausible(local.replace(tzinfo=offset).astimezone(UTC)), False
    as_utc = local.replace(tzinfo=UTC)
    if gps_time is not None and abs(gps_time - as_utc) <= _MAX_OFFSET:
        return gps_time, False
    return plausible(as_utc), True


def _camera_time(block: Mapping[int, Any]) -> datetime | None:
    for tag in (_DATE_TIME_ORIGINAL, _DATE_TIME_DIGITIZED):
        match = re.match(
            r"(\d{4})[:\-/](\d{2})[:\-/](\d{2})[ T](\d{2}):(\d{2}):(\d{2})", _text(block.get(tag))
        )
        if match is None:
            continue
        fraction = re.match(r"\d+", _text(block.get(_SUBSEC_ORIGINAL)))
        micros = int((fraction[0] + "000000")[:6]) if fraction else 0
        try:
            year, month, day, hour, minute, second = (int(part) for part in match.groups())
            return datetime(year, month, day, hour, minute, second, micros)
        except ValueError:
            continue
    return None


def _offset(text: str) -> timezone | None:
    if text.upper() == "Z":
        return UTC
    match = re.fullmatch(r"([+-])(\d{1,2}):?(\d{2})", text)
    if match is None:
        return None
    delta = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return timezone(-delta if match[1] == "-" else delta) if delta <= _MAX_OFFSET else None
