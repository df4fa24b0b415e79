"""Which parts of a photo a network is shown: policies by name."""

from __future__ import annotations

from dataclasses import dataclass

from geofix.errors import UsageError


@dataclass(frozen=True)
class Crops:
    """A policy; results under different ones differ by about a point, so it stands in every evaluation.

    Attributes:
        name: What a user types.
        told: How a protocol records it.
        count: Parts of a photo.
    """

    name: str
    told: str
    count: int


POLICIES = {
    item.name: item
    for item in (
        Crops("single", "single", 1),
        Crops("five-max", "five-crop maximum", 5),
        Crops("ten-mean", "ten-crop mean", 10),
    )
}


def find_policy(name: str) -> Crops:
    """The policy of a name.

    Raises:
        UsageError: There is none.
    """
    if name not in POLICIES:
        raise UsageError(f"Crops {name!r} are not known.", hint=f"Use {', '.join(POLICIES)}.")
    return POLICIES[name]
