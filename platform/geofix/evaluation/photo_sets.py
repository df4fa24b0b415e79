"""The photo sets that geolocation is usually trained and judged on, by name."""

from __future__ import annotations

import re
from dataclasses import dataclass

from geofix.errors import NotFoundError


@dataclass(frozen=True)
class PhotoSet:
    """A set of photos as published.

    Attributes:
        name: What we call it.
        images: Photos with metadata; None where it is not known.
        others: Other numbers of rows met in published files, with what they are.
        aliases: Other names.
        note: What to know before comparing.
    """

    name: str
    images: int | None
    others: tuple[tuple[int, str], ...] = ()
    aliases: tuple[str, ...] = ()
    note: str = ""


# Numbers of rows: the metadata as published by GeoEstimation, TransLocator and the MEVER team.
SETS: dict[str, PhotoSet] = {
    item.name: item
    for item in (
        PhotoSet("Im2GPS", 237, aliases=("im2gps-test",)),
        PhotoSet(
            "Im2GPS3k",
            2997,
            ((3000, "the images of the archive; three have no metadata"), (2998, "a footer read as a photo")),
        ),
        PhotoSet("YFCC4k", 4536, aliases=("yfcc-4k",)),
        PhotoSet(
            "YFCC26k",
            25_600,
            ((23_035, "the subset of the MEVER team"),),
            ("YFCC-Val26k", "YFCC25600", "YFCC25k"),
            "every photo lies in a cell of all three published partitions, so coverage on it is no test",
        ),
        PhotoSet("MP-16", 4_723_695, aliases=("MP16", "MP16-Pro"), note="a training set"),
        PhotoSet("GWS15k", None, note="Street View, never released"),
        PhotoSet("GWS15k-GaGA", None, note="rebuilt from the test photos of OSV-5M; not GWS15k"),
        PhotoSet(
            "OSV-5M", None, aliases=("osv5m", "OpenStreetView-5M"), note="5.1 million photos with training"
        ),
        PhotoSet("PIGEON-StreetView", None, note="holdout of PIGEON's authors, not public"),
    )
}


def same_name(a: str, b: str) -> bool:
    """Whether two names differ at most in case, blanks, dashes and underscores."""
    return _plain(a) == _plain(b)


def known_set(name: str) -> PhotoSet | None:
    """The set of a name or an alias; None where there is none."""
    return next(
        (item for item in SETS.values() if any(same_name(name, one) for one in (item.name, *item.aliases))),
        None,
    )


def find_set(name: str, *, also: tuple[str, ...] = ()) -> PhotoSet:
    """The set of a name, whatever its case and dashes; a data set of `also` counts as one of its own.

    Raises:
        NotFoundError: There is none; the message lists those there are.
    """
    if found := known_set(name):
        return found
    if own := next((item for item in also if same_name(item, name)), None):
        return PhotoSet(own, None)
    raise NotFoundError(
        f"No photo set is named {name!r}.",
        hint=f"There are: {', '.join([*SETS, *(item for item in also if known_set(item) is None)])}.",
    )


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()
