"""The four sizes a world comes in."""

from __future__ import annotations

from dataclasses import dataclass

from geofix.errors import UsageError


@dataclass(frozen=True)
class Size:
    """What a size means; lengths in metres, photo width and height in pixels."""

    name: str
    patches: int
    side_m: float
    photos: int
    photo_px: tuple[int, int]
    aerial_m: float


SIZES = {
    "tiny": Size("tiny", 3, 700.0, 300, (64, 48), 1.0),
    "demo": Size("demo", 4, 1050.0, 3_000, (80, 60), 0.8),
    "study": Size("study", 8, 1600.0, 20_000, (96, 72), 0.6),
    "bench": Size("bench", 16, 2200.0, 102_400, (56, 42), 1.0),
}


def get_size(name: str) -> Size:
    """The size of this name, or UsageError."""
    try:
        return SIZES[name]
    except KeyError:
        raise UsageError(f"World size {name!r} is unknown.", hint=f"Use one of {', '.join(SIZES)}.") from None
