"""The two kinds of upright things a scene is made of, as columns of equal length."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from geofix.world.noise import F32, I32, Mask

BUILDING, HEDGE, FENCE, WALL, CAR, GLASS = range(6)
RECT, ELLIPSE, CONE = range(3)
LEAF, NEEDLE, TRUNK, POLE, PANEL, LAMP, PERSON = range(10, 17)


@dataclass
class Table:
    """Columns of equal length in declaration order."""

    def take(self, index: Any) -> Self:
        """The rows of an index array or mask."""
        return type(self)(*(getattr(self, f.name)[index] for f in fields(self)))

    @classmethod
    def join(cls, tables: list[Self]) -> Self:
        """All rows, one table after the other."""
        return cls(*(np.concatenate([getattr(t, f.name) for t in tables]) for f in fields(cls)))

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))


@dataclass
class Boxes(Table):
    """Oriented boxes: buildings with gabled or flat roofs, hedges, fences, walls, cars.

    `x`, `y` centre in local metres; `ux`, `uy` unit vector of the ridge; `hx`, `hy` half lengths;
    `base`, `eave` lower and upper edge of the walls; `rise` of the ridge above the eave; `hung` how far
    the roof's cladding hangs down the walls; `clad` how high the lower part of a facade reaches, in `lower`;
    `alive` per epoch.
    """

    x: F32
    y: F32
    ux: F32
    uy: F32
    hx: F32
    hy: F32
    base: F32
    eave: F32
    rise: F32
    material: I32
    wall: F32
    roof: F32
    hung: F32
    clad: F32
    lower: F32
    trim: F32
    shop: F32
    has_shop: Mask
    window: I32
    code: I32
    key: F32
    alive: Mask

    @classmethod
    def make(cls, n: int, **columns: Any) -> Boxes:
        """Boxes with defaults for the columns not given."""
        zeros, colour = np.zeros(n), np.full((n, 3), 0.5)
        defaults: dict[str, Any] = {
            "base": zeros, "rise": zeros, "hung": zeros, "clad": zeros, "lower": colour,
            "material": zeros, "wall": colour, "roof": colour,
            "trim": colour, "shop": colour, "has_shop": zeros, "window": zeros, "code": zeros, "key": zeros,
            "alive": np.ones((n, 2)),
        }  # fmt: skip
        return cls(**_typed(cls, {**defaults, **columns}))


@dataclass
class Sprites(Table):
    """Things that look the same from all sides: crowns, trunks, poles, signs, people.

    `lo`, `hi` lower and upper end above ground, `half` half width, all in metres; `alive` per epoch.
    """

    x: F32
    y: F32
    lo: F32
    hi: F32
    half: F32
    shape: I32
    material: I32
    rgb: F32
    rgb2: F32
    code: I32
    key: F32
    alive: Mask

    @classmethod
    def make(cls, n: int, **columns: Any) -> Sprites:
        """Sprites with defaults for the columns not given."""
        zeros, colour = np.zeros(n), np.full((n, 3), 0.5)
        defaults: dict[str, Any] = {
            "lo": zeros, "shape": zeros, "rgb": colour, "rgb2": colour, "code": zeros, "key": zeros,
            "alive": np.ones((n, 2)),
        }  # fmt: skip
        return cls(**_typed(cls, {**defaults, **columns}))


_INTS = {"material", "window", "code", "shape"}
_BOOLS = {"alive", "has_shop"}


def _typed(cls: type[Table], columns: dict[str, Any]) -> dict[str, Any]:
    def kind(name: str) -> type:
        return np.int32 if name in _INTS else np.bool_ if name in _BOOLS else np.float32

    return {f.name: np.asarray(columns[f.name]).astype(kind(f.name)) for f in fields(cls)}
