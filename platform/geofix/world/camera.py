"""A camera's geometry and the light of a moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geofix.world.noise import F32, rgb_of
from geofix.world.surface import Season


@dataclass(frozen=True)
class Camera:
    """Where a photo is taken from.

    `x`, `y` local metres, `height_m` above ground, `azimuth_deg` from grid north, `fov_deg` across the width,
    `horizon` its row as a share of the height.
    """

    x: float
    y: float
    height_m: float
    azimuth_deg: float
    fov_deg: float
    horizon: float

    def columns(self, width: int) -> tuple[F32, F32, F32]:
        """Offset from the axis per unit of depth (W,), and the rays' directions x, y per unit of depth."""
        u = np.tan(np.radians(self.fov_deg) / 2) * ((np.arange(width) + 0.5) * 2 / width - 1)
        (fx, fy), (rx, ry) = self.forward, self.right
        return u.astype(np.float32), (fx + u * rx).astype(np.float32), (fy + u * ry).astype(np.float32)

    @property
    def forward(self) -> tuple[float, float]:
        """Unit vector of the optical axis."""
        a = np.radians(self.azimuth_deg)
        return float(np.sin(a)), float(np.cos(a))

    @property
    def right(self) -> tuple[float, float]:
        """Unit vector to the right."""
        a = np.radians(self.azimuth_deg)
        return float(np.cos(a)), float(-np.sin(a))

    def pixels_per_slope(self, width: int) -> float:
        """Rows below the horizon per unit of (drop / depth)."""
        return width / (2 * float(np.tan(np.radians(self.fov_deg) / 2)))


@dataclass(frozen=True)
class Light:
    """Sun, sky and air: `sun` is a unit vector in grid axes, `direct` its share of the light."""

    sun: tuple[float, float, float]
    direct: float
    ambient: float
    warm: float
    haze_m: float
    cloud: float
    season: Season

    def on(self, nx: F32, ny: F32, nz: F32 | float) -> F32:
        """Brightness of faces with these unit normals."""
        facing = nx * self.sun[0] + ny * self.sun[1] + nz * self.sun[2]
        return (self.ambient + self.direct * np.maximum(facing, 0)).astype(np.float32)

    @property
    def horizon_rgb(self) -> F32:
        """Colour of the sky at the horizon, and of haze."""
        clear = rgb_of([0.74, 0.83, 0.92]) * (1 - self.warm) + rgb_of([0.95, 0.78, 0.6]) * self.warm
        return np.asarray(clear + (rgb_of([0.78, 0.79, 0.8]) - clear) * self.cloud, np.float32) * self.level

    @property
    def zenith_rgb(self) -> F32:
        """Colour of the sky overhead."""
        clear = rgb_of([0.25, 0.46, 0.78])
        return np.asarray(clear + (rgb_of([0.62, 0.64, 0.67]) - clear) * self.cloud, np.float32) * self.level

    @property
    def level(self) -> float:
        """Overall brightness."""
        return 0.55 + 0.45 * min(1.0, self.ambient + 0.6 * self.direct)


def season_of(day: float, rng: np.random.Generator) -> Season:
    """What vegetation looks like on a day of the year (0 to 365)."""
    autumn = float(np.clip((day - 262) / 35, 0, 1) * (day < 345))
    winter = float(max(np.clip((day - 315) / 25, 0, 1), np.clip((95 - day) / 30, 0, 1)))
    dry = float(np.clip(1 - abs(day - 215) / 45, 0, 1) * rng.uniform(0, 1))
    snow = float(winter > 0.9 and rng.random() < 0.16) * float(rng.uniform(0.5, 1.0))
    return Season(autumn, winter, dry, snow)


def light_of(day: float, hour: float, rng: np.random.Generator) -> Light:
    """Light at a day of the year and a local solar hour at about 45 N; the weather is drawn."""
    decl = -0.409 * np.cos(2 * np.pi * (day + 10) / 365.25)
    lat, angle = np.radians(45.0), (hour - 12) * np.pi / 12
    sz = np.sin(lat) * np.sin(decl) + np.cos(lat) * np.cos(decl) * np.cos(angle)
    east = -np.cos(decl) * np.sin(angle)
    north = np.cos(lat) * np.sin(decl) - np.sin(lat) * np.cos(decl) * np.cos(angle)
    sz = max(float(sz), 0.14)
    flat = np.sqrt(1 - sz * sz) / max(float(np.hypot(east, north)), 1e-6)
    overcast = rng.random() < 0.42
    cloud = float(rng.uniform(0.75, 1.0) if overcast else rng.uniform(0.0, 0.4))
    direct = float(rng.uniform(0.0, 0.08) if overcast else rng.uniform(0.5, 0.72))
    return Light(
        sun=(float(east * flat), float(north * flat), sz),
        direct=direct,
        ambient=float(rng.uniform(0.78, 0.92) if overcast else rng.uniform(0.5, 0.62)),
        warm=float(np.clip(1 - sz / 0.45, 0, 1) * (0.25 if overcast else 0.8)),
        haze_m=float(rng.choice([160.0, 320.0, 700.0], p=[0.15, 0.45, 0.4])),
        cloud=cloud,
        season=season_of(day, rng),
    )
