"""Which photos are taken: drives and walks along roads, dense in towns, with places nobody went."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass

import numpy as np

from geofix.spatial import s2
from geofix.world.camera import Camera
from geofix.world.noise import F64, I32, rng_for
from geofix.world.objects import Layout, stations
from geofix.world.terrain import Patch, lonlat, true_azimuth

LEVEL = 15
EMPTY_BLOCKS, EMPTY_CELLS = 0.10, 0.11
INSET_M = 4.0
MAX_MISSES = 10
FIRST_DAY, DAYS = dt.datetime(2018, 1, 1, tzinfo=dt.UTC), 2556
CHANGE_DAY = dt.datetime(2021, 7, 1, tzinfo=dt.UTC)
# make, model, horizontal field of view in degrees, noise, JPEG quality
CAMERAS = (
    ("Norvik", "NV-7 Dash", 92.0, 1.2, 82),
    ("Norvik", "NV-9", 88.0, 0.8, 88),
    ("Halden", "H2 Action", 94.0, 1.0, 85),
    ("Pellmar", "P30", 86.0, 0.7, 90),
    ("Pellmar", "P12 lite", 90.0, 1.6, 80),
    ("Okari", "Surround One", 90.0, 1.0, 86),
)


@dataclass(frozen=True)
class Shot:
    """One photo to be taken; `lon`, `lat`, `heading_deg` as a receiver and a compass report them."""

    path: str
    patch: int
    sequence: int
    number: int
    sequence_id: str
    camera: Camera
    device: int
    captured_at: dt.datetime
    lon: float
    lat: float
    heading_deg: float
    accuracy_m: float
    road_azimuth_deg: float
    lateral_m: float
    road_half_m: float

    @property
    def epoch(self) -> int:
        """Which state of the changing objects it shows."""
        return int(self.captured_at >= CHANGE_DAY)


@dataclass
class Demand:
    """How many photos each L15 cell of a patch wants; `cell` of each station indexes `weight`."""

    site: Layout
    patch: Patch
    station: dict[str, np.ndarray]
    cell: I32
    weight: F64


def demand(site: Layout, patch: Patch, seed: int) -> Demand:
    """Relative photo counts per cell: lognormal, higher where it is built up, none in some places."""
    s = stations(site.roads, 6.0)
    inside = patch.contains(s["x"], s["y"], INSET_M)
    s = {k: v[inside] for k, v in s.items()}
    lon, lat = lonlat(patch.x + s["x"], patch.y + s["y"])
    cells, cell = np.unique(s2.cell_at(lon, lat, LEVEL), return_inverse=True)
    rng = rng_for(seed, 11, patch.index)
    length = np.bincount(cell) * 6.0
    built = np.bincount(cell, site.town(s["x"], s["y"])) / np.bincount(cell)
    blocks, block = np.unique(s2.parent(cells, LEVEL - 1), return_inverse=True)
    empty = (rng.random(len(blocks)) < EMPTY_BLOCKS)[block] | (rng.random(len(cells)) < EMPTY_CELLS)
    weight = np.exp(1.1 * rng.standard_normal(len(cells)).clip(-2.5, 2.0) + (built - 0.4))
    weight = np.where(empty, 0.0, np.minimum(weight, length / 25.0))
    return Demand(site, patch, s, cell.astype(np.int64), weight)


def share_out(demands: list[Demand], photos: int) -> list[I32]:
    """Whole numbers of photos per cell and patch that add up to `photos`."""
    weight = np.concatenate([d.weight for d in demands])
    want = weight * photos / weight.sum()
    count = np.floor(want).astype(np.int64)
    rest = photos - int(count.sum())
    count[np.argsort(-(want - count), kind="stable")[:rest]] += 1
    return np.split(count, np.cumsum([len(d.weight) for d in demands])[:-1])


class _Walker:
    """A way along roads, edge after edge, mostly straight on."""

    def __init__(self, site: Layout) -> None:
        roads = site.roads
        leg = np.diff(roads.lines, axis=1)
        self.length = np.hypot(leg[..., 0], leg[..., 1])
        self.unit = leg / np.maximum(self.length, 1e-9)[..., None]
        self.total = np.concatenate([np.zeros((len(leg), 1)), np.cumsum(self.length, axis=1)], axis=1)
        self.lines, self.ends = roads.lines, roads.ends
        self.at_node: dict[int, list[int]] = {}
        for e, (a, b) in enumerate(roads.ends):
            self.at_node.setdefault(int(a), []).append(e)
            self.at_node.setdefault(int(b), []).append(e)

    def place(self, edge: int, along: float) -> tuple[F64, F64]:
        """Point and unit direction of the edge at a distance from its start."""
        k = min(max(int(np.searchsorted(self.total[edge], along)) - 1, 0), self.unit.shape[1] - 1)
        u = self.unit[edge, k]
        return self.lines[edge, k] + u * (along - self.total[edge, k]), u

    def advance(
        self, rng: np.random.Generator, edge: int, along: float, way: int, step: float
    ) -> tuple[int, float, int] | None:
        """Position after `step` metres, or None at a dead end."""
        along += way * step
        for _ in range(4):
            end = float(self.total[edge, -1])
            if 0 <= along <= end:
                return edge, along, way
            node = int(self.ends[edge, 1 if way > 0 else 0])
            over = along - end if way > 0 else -along
            others = [e for e in self.at_node[node] if e != edge]
            if not others:
                return None
            heading = self.unit[edge, -1 if way > 0 else 0] * way
            starts = [int(self.ends[e, 0]) == node for e in others]
            leaving = [
                self.unit[e, 0] if s else -self.unit[e, -1] for e, s in zip(others, starts, strict=True)
            ]
            straight = int(np.argmax([float(u @ heading) for u in leaving]))
            pick = straight if rng.random() < 0.72 else int(rng.integers(len(others)))
            edge, way = others[pick], 1 if starts[pick] else -1
            along = over if way > 0 else float(self.total[edge, -1]) - over
        return None


def plan_patch(want: Demand, count: I32, seed: int) -> list[Shot]:
    """Sequences that together take exactly `count` photos in each cell of the patch."""
    remaining = count.copy()
    by_cell = np.argsort(want.cell, kind="stable")
    first = np.searchsorted(want.cell[by_cell], np.arange(len(count) + 1))
    walker, drafts, sequence = _Walker(want.site), [], 0
    cell_of = _CellLookup(want)
    while remaining.sum() > 0:
        rng = rng_for(seed, 12, want.patch.index, sequence)
        cell = int(np.searchsorted(np.cumsum(remaining), rng.integers(remaining.sum()), side="right"))
        start = int(by_cell[rng.integers(first[cell], first[cell + 1])])
        drafts += _sequence(rng, want, walker, cell_of, remaining, start, sequence)
        sequence += 1
    return _finish(drafts, want, seed)


class _CellLookup:
    """Cell of a road position, that of the nearest station along its edge."""

    def __init__(self, want: Demand) -> None:
        self.first: dict[int, tuple[F64, I32]] = {}
        edges = want.station["edge"].astype(int)
        points = np.c_[want.station["x"], want.station["y"]]
        for e in np.unique(edges):
            rows = np.flatnonzero(edges == e)
            self.first[int(e)] = (points[rows], want.cell[rows])

    def __call__(self, edge: int, point: F64) -> int:
        """Index of the cell, -1 where the patch has no station on this edge."""
        if edge not in self.first:
            return -1
        points, cells = self.first[edge]
        return int(cells[np.argmin(((points - point) ** 2).sum(axis=1))])


@dataclass
class _Draft:
    sequence: int
    number: int
    point: F64
    unit: F64
    edge: int
    azimuth: float
    lateral: float
    height: float
    device: int
    when: dt.datetime
    horizon: float
    noise: F64


def _sequence(
    rng: np.random.Generator, want: Demand, walker: _Walker, cell_of: _CellLookup,
    remaining: I32, start: int, sequence: int,
) -> list[_Draft]:  # fmt: skip
    drafts: list[_Draft] = []
    edge, way = int(want.station["edge"][start]), int(rng.choice([-1, 1]))
    begin = np.array([want.station["x"][start], want.station["y"][start]])
    along = float(np.hypot(*(begin - walker.lines[edge, 0])))
    length, step = int(np.clip(rng.lognormal(2.55, 0.5), 4, 40)), rng.uniform(6, 16)
    device, on_foot = int(rng.integers(len(CAMERAS))), rng.random() < 0.4
    height = rng.uniform(1.4, 1.8) if on_foot else rng.uniform(1.3, 2.9)
    side = rng.choice([-1.0, 1.0]) if on_foot else (-1.0 if want.site.style.drives_left else 1.0)
    lane = (side, 0.8 * side) if on_foot else (side * rng.uniform(0.1, 0.8), 0.0)
    hour = rng.uniform(8.2, 17.5)
    when = FIRST_DAY + dt.timedelta(days=int(rng.integers(DAYS)), hours=hour, seconds=int(rng.integers(60)))
    position: tuple[int, float, int] | None = (edge, along, way)
    misses = 0
    while position is not None and len(drafts) < length and misses < MAX_MISSES:
        edge, along, way = position
        point, unit = walker.place(edge, along)
        cell = cell_of(edge, point)
        if not want.patch.contains(point[0], point[1], INSET_M) or cell < 0:
            break
        if remaining[cell] > 0:
            remaining[cell] -= 1
            drafts.append(
                _draft(rng, want, sequence, len(drafts), point, unit * way, edge, height, device, when, lane)
            )
            misses = 0
        else:
            misses += 1
        when += dt.timedelta(
            seconds=float(np.round(step * rng.uniform(0.8, 1.2) / (1.4 if on_foot else 7.0)) + 1)
        )
        position = walker.advance(rng, edge, along, way, step * rng.uniform(0.8, 1.2))
    if not drafts:
        cell = int(want.cell[start])
        remaining[cell] -= 1
        point, unit = walker.place(int(want.station["edge"][start]), along)
        drafts.append(_draft(rng, want, sequence, 0, begin, unit, edge, height, device, when, lane))
    return drafts


def _draft(
    rng: np.random.Generator, want: Demand, sequence: int, number: int, point: F64, unit: F64, edge: int,
    height: float, device: int, when: dt.datetime, lane: tuple[float, float],
) -> _Draft:  # fmt: skip
    along = np.degrees(np.arctan2(unit[0], unit[1]))
    if rng.random() < 0.7:
        azimuth = along + (180 if rng.random() < 0.25 else 0) + rng.normal(0, 8)
    else:
        azimuth = rng.uniform(0, 360)
    half = float(want.site.roads.half_width[edge])
    lateral = lane[0] * half + lane[1]
    return _Draft(
        sequence, number, point, unit, edge, float(azimuth % 360), lateral, height, device, when,
        float(0.5 + np.clip(rng.normal(0, 0.055), -0.13, 0.13)), rng.standard_normal(4),
    )  # fmt: skip


def _finish(drafts: list[_Draft], want: Demand, seed: int) -> list[Shot]:
    """Positions in degrees, true headings, receiver errors, and names that say nothing."""
    if not drafts:
        return []
    point, unit = np.array([d.point for d in drafts]), np.array([d.unit for d in drafts])
    lateral = np.array([d.lateral for d in drafts])
    x, y = point[:, 0] + unit[:, 1] * lateral, point[:, 1] - unit[:, 0] * lateral
    noise = np.array([d.noise for d in drafts])
    sigma = np.clip(1.0 + 0.5 * np.abs(noise[:, 2]), 1.0, 2.5)
    lon, lat = lonlat(
        want.patch.x + x + sigma * noise[:, 0] * 0.7, want.patch.y + y + sigma * noise[:, 1] * 0.7
    )
    azimuth = np.array([d.azimuth for d in drafts])
    heading = true_azimuth(want.patch.x + x, want.patch.y + y, azimuth) + 2.0 * noise[:, 3]
    shots = []
    for i, d in enumerate(drafts):
        name = hashlib.sha256(f"{seed}:{want.patch.index}:{d.sequence}:{d.number}".encode()).hexdigest()[:20]
        group = hashlib.sha256(f"{seed}:{want.patch.index}:{d.sequence}".encode()).hexdigest()[:16]
        camera = Camera(float(x[i]), float(y[i]), d.height, d.azimuth, CAMERAS[d.device][2], d.horizon)
        shots.append(
            Shot(
                f"photos/{name[:2]}/{name}.jpg",
                want.patch.index,
                d.sequence,
                d.number,
                group,
                camera,
                d.device,
                d.when.replace(microsecond=0),
                round(float(lon[i]), 7),
                round(float(lat[i]), 7),
                round(float(heading[i] % 360), 2),
                round(float(2 * sigma[i]), 1),
                float(np.degrees(np.arctan2(unit[i, 0], unit[i, 1]))),
                d.lateral,
                float(want.site.roads.half_width[d.edge]),
            )
        )
    return shots
