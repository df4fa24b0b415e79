"""What differs from photo to photo of one place: tint, exposure, noise, and what stands in the way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geofix.world import tables as t
from geofix.world.camera import Camera
from geofix.world.noise import F32, rgb_of
from geofix.world.tables import Boxes, Sprites

CAR_RGB = np.array(
    [
        [0.8, 0.8, 0.82],
        [0.1, 0.1, 0.11],
        [0.35, 0.36, 0.38],
        [0.55, 0.08, 0.08],
        [0.1, 0.2, 0.45],
        [0.85, 0.84, 0.78],
    ]
)


def expose(rng: np.random.Generator, light: F32, noise_scale: float) -> NDArray[np.uint8]:
    """Radiance (H, W, 3) to 8-bit sRGB-like values with this photo's white balance, exposure and noise."""
    warm, magenta = rng.normal(0, 0.1), rng.normal(0, 0.055)
    tint = np.exp(warm * rgb_of([1.0, 0.1, -1.0]) + magenta * rgb_of([0.5, -1.0, 0.5]))
    image = light * np.float32(rng.lognormal(-0.08, 0.32)) * tint
    grey = image.mean(axis=-1, keepdims=True)
    image = grey + (image - grey) * np.float32(rng.uniform(0.55, 1.25))
    h, w = image.shape[:2]
    r2 = ((np.arange(h) / h - 0.5) ** 2)[:, None] + ((np.arange(w) / w - 0.5) ** 2)[None]
    image = image * (1 - np.float32(rng.uniform(0, 0.5)) * r2.astype(np.float32))[..., None]
    image = np.clip(image, 0, None) ** np.float32(rng.uniform(0.7, 1.15))
    image = np.float32(rng.uniform(0, 0.06)) + image * np.float32(rng.uniform(0.88, 1.02))
    if rng.random() < 0.3:
        image = ndimage.gaussian_filter(image, (rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.9), 0))
    image = image + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(
        noise_scale * rng.uniform(0.005, 0.03)
    )
    return np.asarray(np.clip(image * 255 + 0.5, 0, 255), dtype=np.uint8)


def passers_by(
    rng: np.random.Generator, camera: Camera, road_azimuth_deg: float, lateral_m: float, half_width_m: float
) -> tuple[Boxes | None, Sprites | None]:
    """Cars along the road, people and poles beside it; `lateral_m`: camera right of the axis."""
    a = np.radians(road_azimuth_deg)
    ux, uy = float(np.sin(a)), float(np.cos(a))
    ahead_sign = 1.0 if ux * camera.forward[0] + uy * camera.forward[1] > 0 else -1.0
    cars = int(rng.choice([0, 1, 2, 3], p=[0.25, 0.3, 0.25, 0.2]))
    boxes = None
    if cars:
        ahead = rng.uniform(5.5, 45, cars) * ahead_sign
        lane = rng.choice([-1.0, 1.0], cars) * (half_width_m - 1.0) - lateral_m
        x, y = camera.x + ux * ahead + uy * lane, camera.y + uy * ahead - ux * lane
        rgb = CAR_RGB[rng.integers(0, len(CAR_RGB), cars)] * rng.uniform(0.8, 1.1, (cars, 1))
        body = Boxes.make(
            cars,
            x=x,
            y=y,
            ux=np.full(cars, ux),
            uy=np.full(cars, uy),
            hx=np.full(cars, 2.1),
            hy=np.full(cars, 0.9),
            base=np.full(cars, 0.12),
            eave=np.full(cars, 0.95),
            material=np.full(cars, t.CAR),
            wall=rgb,
            roof=rgb,
        )
        cabin = Boxes.make(
            cars,
            x=x,
            y=y,
            ux=body.ux,
            uy=body.uy,
            hx=np.full(cars, 1.15),
            hy=np.full(cars, 0.8),
            base=np.full(cars, 0.95),
            eave=np.full(cars, 1.42),
            material=np.full(cars, t.GLASS),
            wall=rgb,
            roof=rgb,
        )
        boxes = Boxes.join([body, cabin])
    people = int(rng.choice([0, 1, 2], p=[0.65, 0.25, 0.1]))
    poles = int(rng.random() < 0.14)
    if people + poles == 0:
        return boxes, None
    n = people + poles
    depth, across = rng.uniform(3, 22, n), rng.uniform(-0.75, 0.75, n)
    (fx, fy), (rx, ry) = camera.forward, camera.right
    x, y = camera.x + depth * (fx + across * rx), camera.y + depth * (fy + across * ry)
    is_pole = np.arange(n) >= people
    clothes = rng.uniform(0.08, 0.6, (n, 1)) + rng.uniform(0, 0.18, (n, 3))
    rgb = np.where(is_pole[:, None], 0.4, clothes)
    skin = np.where(is_pole[:, None], 0.4, rgb_of([0.6, 0.45, 0.36]))
    zeros, round_ = np.zeros(n), np.full(n, t.ELLIPSE)
    parts = [
        (
            zeros,
            np.where(is_pole, rng.uniform(3, 8, n), 0.85),
            np.where(is_pole, 0.09, 0.13),
            zeros,
            0.6 * rgb,
        ),
        (
            np.where(is_pole, 2.0, 0.7),
            np.where(is_pole, 2.1, 1.5),
            np.where(is_pole, 0.09, 0.23),
            round_,
            rgb,
        ),
        (np.where(is_pole, 2.0, 1.45), np.where(is_pole, 2.1, 1.72), np.full(n, 0.11), round_, skin),
    ]
    material = np.full(n, t.PERSON)
    sprites = [
        Sprites.make(n, x=x, y=y, lo=lo, hi=hi, half=half, shape=shape, rgb=colour, material=material)
        for lo, hi, half, shape, colour in parts
    ]
    return boxes, Sprites.join(sprites)
