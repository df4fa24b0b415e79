"""Roads of a patch: a warped grid, dense where the town is, with through roads in the country."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from geofix.world.noise import F64, I32, Field
from geofix.world.styles import Districts

Distance = Callable[[F64, F64], F64]
TRACK, STREET, MAIN = 0, 1, 2
HALF_WIDTH_M = (2.2, 3.4, 4.8)
SUBDIVISION = 5


@dataclass(frozen=True)
class Roads:
    """Road network in local metres.

    `nodes` is (N, 2); `ends` (E, 2) node indices; `lines` (E, SUBDIVISION + 1, 2) points along each edge;
    `kind`, `half_width`, `paved` (pavement width, 0 without), `street` (a number that all edges of one street
    share) one value per edge.
    """

    nodes: F64
    ends: I32
    lines: F64
    kind: I32
    half_width: F64
    paved: F64
    street: I32

    def degree(self) -> I32:
        """Number of edges at each node."""
        return np.bincount(self.ends.ravel(), minlength=len(self.nodes))


@dataclass(frozen=True)
class Town:
    """How built up a place is: Gaussian blobs and a little noise."""

    x: F64
    y: F64
    radius: F64
    weight: F64
    ripple: Field

    def __call__(self, x: F64, y: F64) -> F64:
        """Built-up share in 0..1 at local points of any shape."""
        total = np.zeros(np.shape(x))
        for bx, by, r, w in zip(self.x, self.y, self.radius, self.weight, strict=True):
            total += w * np.exp(-((x - bx) ** 2 + (y - by) ** 2) / (2 * r * r))
        return np.clip(total + 0.08 * self.ripple(x, y), 0, 1)


def make_town(rng: np.random.Generator, kind: str, half_m: float) -> Town:
    """Towns fill most of a patch, villages a part, and the countryside has a hamlet."""
    blobs, radius, weight = {
        "town": (3, (0.32, 0.5), (0.7, 1.1)),
        "coast": (3, (0.25, 0.4), (0.6, 1.0)),
        "village": (3, (0.13, 0.24), (0.6, 0.9)),
    }[kind]
    x, y = rng.uniform(-0.65, 0.65, (2, blobs)) * half_m
    return Town(
        x, y, rng.uniform(*radius, blobs) * half_m, rng.uniform(*weight, blobs), Field.random(rng, 300.0)
    )


def make_roads(
    rng: np.random.Generator, town: Town, coast_m: Distance, districts: Districts, half_m: float
) -> Roads:
    """Roads over the square of half side `half_m`; `coast_m` gives metres to the sea, negative in it."""
    gap = rng.uniform(72, 98)
    turn = rng.uniform(0, np.pi / 2)
    warp = [
        (Field.random(rng, 520.0), Field.random(rng, 520.0)),
        (Field.random(rng, 210.0), Field.random(rng, 210.0)),
    ]
    amplitude = (rng.uniform(10, 25), rng.uniform(3, 7))
    count = int(np.ceil(1.45 * half_m / gap))
    ticks = np.arange(-count, count + 1).astype(float)

    def place(i: F64, j: F64) -> F64:
        px, py = i * gap, j * gap
        x, y = px * np.cos(turn) - py * np.sin(turn), px * np.sin(turn) + py * np.cos(turn)
        dx = sum(a * w[0](x, y) for a, w in zip(amplitude, warp, strict=True))
        dy = sum(a * w[1](x, y) for a, w in zip(amplitude, warp, strict=True))
        return np.stack([x + dx, y + dy], axis=-1)

    gi, gj = (g.ravel() for g in np.meshgrid(ticks, ticks, indexing="ij"))
    node_id = np.arange(len(gi)).reshape(len(ticks), len(ticks))
    steps = np.linspace(0, 1, SUBDIVISION + 1)
    lines, ends, kinds, streets = [], [], [], []
    for along_i in (True, False):
        a = (node_id[:-1] if along_i else node_id[:, :-1]).ravel()
        b = (node_id[1:] if along_i else node_id[:, 1:]).ravel()
        line = place(
            gi[a][:, None] + (steps if along_i else 0 * steps),
            gj[a][:, None] + (0 * steps if along_i else steps),
        )
        row = gj[a] if along_i else gi[a]
        built = town(line[:, SUBDIVISION // 2, 0], line[:, SUBDIVISION // 2, 1])
        chance = rng.random(len(a))
        through = row % 4 == 0
        street = (built > 0.22) & (chance < 0.9)
        track = (row % 2 == 0) & (chance < 0.4)
        kind = np.where(through, MAIN, np.where(street, STREET, np.where(track, TRACK, -1)))
        lines.append(line)
        ends.append(np.c_[a, b])
        kinds.append(kind)
        streets.append(2 * (row.astype(int) + count) + int(along_i))
    line, end, kind = np.concatenate(lines), np.concatenate(ends), np.concatenate(kinds)
    dry = coast_m(line[..., 0], line[..., 1]).min(axis=1) > 16.0
    keep = (kind >= 0) & (np.abs(line).max(axis=(1, 2)) < half_m) & dry
    line, end, kind = line[keep], end[keep], kind[keep]
    street = np.concatenate(streets)[keep]
    mid = line[:, SUBDIVISION // 2]
    paved = np.where(
        (kind > TRACK) & (town(mid[:, 0], mid[:, 1]) > 0.2), districts.strip_m[districts.at(*mid.T)], 0.0
    )
    return Roads(place(gi, gj), end, line, kind, np.asarray(HALF_WIDTH_M)[kind], paved, street)
