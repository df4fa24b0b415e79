"""How an evaluation counts: radius of the earth, comparison, missing answers, crops, candidates.

Two results are comparable only under one protocol, so every result record carries it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyproj import Geod

from geofix.errors import UsageError
from geofix.spatial.distance import great_circle_m

Comparison = Literal["<=", "<"]
MissingPolicy = Literal["wrong", "drop"]
Earth = Literal["sphere", "wgs84"]
SameAuthor = Literal["kept", "excluded"]
_CHANGED = ", changed"


@dataclass(frozen=True)
class EvaluationProtocol:
    """One way of counting.

    Attributes:
        name: Short name printed beside results.
        earth: Great circle on a sphere, or geodesic on the WGS 84 ellipsoid.
        radius_km: Radius of that sphere; unused on the ellipsoid.
        comparison: Whether an error equal to the radius is a hit.
        missing: Photos without a usable answer stay in N as wrong, or leave N.
        crops: How several crops of a photo were combined; recorded, since it alone moves results by a point.
        same_author: Whether a method that searches training photos may find those of a photo's own author.
        ks: Numbers of candidates K of recall@K.
        radii_m: Radii of recall, metres.
        radii_km: Radii of the accuracy table, kilometres.
        geoscore_scale_km: Scale s of 5000 exp(-d/s).
    """

    name: str = "geofix"
    earth: Earth = "sphere"
    radius_km: float = 6371.0
    comparison: Comparison = "<="
    missing: MissingPolicy = "wrong"
    crops: str = "single"
    same_author: SameAuthor = "kept"
    ks: tuple[int, ...] = (1, 5, 10, 100)
    radii_m: tuple[float, ...] = (50.0, 100.0, 200.0, 1000.0)
    radii_km: tuple[float, ...] = (1.0, 25.0, 200.0, 750.0, 2500.0)
    geoscore_scale_km: float = 1492.7

    def __post_init__(self) -> None:
        """Refuse values under which no metric is defined."""
        _choice("comparison", self.comparison, ("<=", "<"))
        _choice("missing", self.missing, ("wrong", "drop"))
        _choice("earth", self.earth, ("sphere", "wgs84"))
        _choice("same_author", self.same_author, ("kept", "excluded"))
        if not self.ks or min(self.ks) < 1:
            raise UsageError(
                f"Protocol {self.name!r}: ks={self.ks} must name candidate counts of at least 1."
            )
        for key in ("radii_m", "radii_km"):
            radii = getattr(self, key)
            if not radii or min(radii) <= 0:
                raise UsageError(f"Protocol {self.name!r}: {key}={radii} must hold positive radii.")
        if not (0 < self.radius_km < np.inf and 0 < self.geoscore_scale_km < np.inf):
            raise UsageError(
                f"Protocol {self.name!r}: the earth's radius and the score's scale must be positive."
            )

    def within(self, error: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
        """Which errors count as hits of a radius in the same unit; NaN never does."""
        hits: NDArray[np.bool_] = error <= radius if self.comparison == "<=" else error < radius
        return hits

    def distance_m(
        self, lon1: ArrayLike, lat1: ArrayLike, lon2: ArrayLike, lat2: ArrayLike
    ) -> NDArray[np.float64]:
        """Distances in metres between positions in degrees; NaN where a coordinate is NaN."""
        given = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (lon1, lat1, lon2, lat2)))
        known = ~np.isnan(given).any(axis=0)
        x1, y1, x2, y2 = (v[known] for v in given)
        metres = np.full(known.shape, np.nan)
        if self.earth == "sphere":
            metres[known] = great_circle_m(x1, y1, x2, y2, radius_m=self.radius_km * 1000.0)
        else:
            metres[known] = Geod(ellps="WGS84").inv(x1, y1, x2, y2)[2]
        return metres

    @property
    def distance(self) -> str:
        """How distance is measured, in words."""
        return "WGS 84 geodesic" if self.earth == "wgs84" else f"sphere, {self.radius_km} km"

    def as_record(self) -> dict[str, Any]:
        """The fields as JSON values, for the evaluation's row."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> EvaluationProtocol:
        """Inverse of `as_record`; unknown fields are an error.

        Raises:
            UsageError: The record names a field this version does not know.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(record) - known):
            raise UsageError(f"Unknown protocol fields {unknown}; known are {sorted(known)}.")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
        return cls(**values)

    def with_missing(self, missing: MissingPolicy) -> EvaluationProtocol:
        """The same protocol under another policy for missing answers."""
        return replace(self, missing=missing)

    def showing(self, crops: str) -> EvaluationProtocol:
        """The same protocol with what a localizer was shown of a photo.

        One that is named for other crops is then called `NAME, changed`; geofix's own leaves them to the
        localizer.
        """
        if crops == self.crops:
            return self
        keeps = self.name == EvaluationProtocol.name or self.name.endswith(_CHANGED)
        return replace(self, crops=crops, name=self.name if keeps else f"{self.name}{_CHANGED}")

    @property
    def marks(self) -> list[str]:
        """What names of evaluations end in, to be told apart by how they count; nothing for geofix's own."""
        name = self.name.removesuffix(_CHANGED)
        base = PROTOCOLS.get(name, EvaluationProtocol())
        found = [] if name == EvaluationProtocol.name else [name]
        if self.distance != base.distance:
            found.append("wgs84" if self.earth == "wgs84" else f"{self.radius_km:.10g}km")
        if self.comparison != base.comparison:
            found.append("strict" if self.comparison == "<" else "inclusive")
        if self.missing != base.missing:
            found.append(f"missing-{self.missing}")
        return found


def _choice(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"Protocol field {field} is {value!r}; it must be one of {', '.join(allowed)}.")


# Variants found in the public code of other systems. The first one reproduces the published ISN files.
PROTOCOLS: dict[str, EvaluationProtocol] = {
    p.name: p
    for p in (
        EvaluationProtocol(),
        EvaluationProtocol(name="pigeon", radius_km=6378.137),
        EvaluationProtocol(name="geoclip", earth="wgs84", crops="ten-crop mean"),
        EvaluationProtocol(name="osv5m", comparison="<"),
        EvaluationProtocol(name="mever", comparison="<", crops="ten-crop mean"),
        EvaluationProtocol(name="g3", earth="wgs84", comparison="<"),
        EvaluationProtocol(name="plonk", comparison="<", missing="drop"),
    )
}


def get_protocol(name: str) -> EvaluationProtocol:
    """A named protocol.

    Raises:
        UsageError: No protocol has this name.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"Unknown protocol {name!r}.", hint=f"Known: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def protocol_of(
    name: str = "geofix",
    *,
    radius: str | None = None,
    comparison: str | None = None,
    missing: str | None = None,
    crops: str | None = None,
) -> EvaluationProtocol:
    """A named protocol with some fields changed; then it is called `NAME, changed`.

    Args:
        name: One of `PROTOCOLS`.
        radius: Radius of the sphere in kilometres, or `ellipsoidal`.
        comparison: `<=` or `<`.
        missing: `wrong` or `drop`.
        crops: What to record of crops.

    Raises:
        UsageError: No protocol has this name, or a value is none of the allowed ones.
    """
    found = get_protocol(name)
    changes: dict[str, Any] = {"comparison": comparison, "missing": missing, "crops": crops}
    if radius is not None:
        changes |= _earth(radius)
    changed = replace(found, **{key: value for key, value in changes.items() if value is not None})
    return found if changed == found else replace(changed, name=f"{name}{_CHANGED}")


def endings(
    protocol: EvaluationProtocol, *, exclude_author: bool = False, crops: str | None = None
) -> list[str]:
    """What the name of an evaluation ends in that was not asked as usual.

    Args:
        protocol: How it counts.
        exclude_author: Photos of a photo's own author are passed over.
        crops: Parts of a photo that were shown, by the name of the policy.
    """
    return [*(["other-authors"] if exclude_author else []), *([crops] if crops else []), *protocol.marks]


def _earth(radius: str) -> dict[str, Any]:
    if radius.lower() in ("ellipsoidal", "ellipsoid", "wgs84"):
        return {"earth": "wgs84"}
    try:
        return {"earth": "sphere", "radius_km": float(radius)}
    except ValueError:
        raise UsageError(
            f"Radius {radius!r} is no number.", hint="Give 6371, 6378.137 or ellipsoidal."
        ) from None
