"""Random numbers that depend on keys alone, and smooth random fields."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.floating[Any]]  # single precision by intent
F64 = NDArray[np.floating[Any]]  # double precision by intent
I32 = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]
TILE = 256


def rng_for(seed: int, *key: int) -> np.random.Generator:
    """A generator that depends on the seed and the key, never on who calls or when."""
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=key))


@dataclass(frozen=True)
class Field:
    """A smooth random field: a sum of plane waves with zero mean and unit variance."""

    kx: F64
    ky: F64
    phase: F64

    @classmethod
    def random(cls, rng: np.random.Generator, wavelength_m: float, waves: int = 14) -> Field:
        """Waves of random direction whose lengths lie within 0.7 to 1.6 of `wavelength_m`."""
        length = wavelength_m * rng.uniform(0.7, 1.6, waves)
        angle = rng.uniform(0, 2 * np.pi, waves)
        k = 2 * np.pi / length
        return cls(k * np.cos(angle), k * np.sin(angle), rng.uniform(0, 2 * np.pi, waves))

    def __call__(self, x: F64, y: F64) -> F64:
        """Values at points in metres, any shape."""
        total = np.zeros(np.broadcast(x, y).shape)
        for kx, ky, phase in zip(self.kx, self.ky, self.phase, strict=True):
            total += np.cos(kx * x + ky * y + phase)
        return np.asarray(total * np.sqrt(2.0 / len(self.kx)))


def harmonics(rng: np.random.Generator, samples: int, first: int, last: int, slope: float) -> F64:
    """A closed random curve of `samples` values with a 1/k**slope spectrum, unit variance."""
    spectrum = np.zeros(samples // 2 + 1, dtype=complex)
    k = np.arange(first, last + 1)
    spectrum[k] = k ** (-slope) * np.exp(1j * rng.uniform(0, 2 * np.pi, len(k)))
    curve = np.fft.irfft(spectrum, samples)
    return np.asarray(curve / curve.std())


@lru_cache(maxsize=8)
def noise_tile(slope: float, key: int = 0) -> F32:
    """A seamless TILE x TILE texture in about -1..1 with a 1/f**slope spectrum; the same in every world."""
    rng = rng_for(20_011, key)
    f = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.fftfreq(TILE)[None, :])
    f[0, 0] = np.inf
    white = np.fft.fft2(rng.standard_normal((TILE, TILE)))
    tile = np.fft.ifft2(white * f ** (-slope)).real
    return np.asarray(np.clip(tile / (2.0 * tile.std()), -1, 1), dtype=np.float32)


def grain(tile: F32, u: F32, v: F32) -> F32:
    """Texture values at tile pixel coordinates `u`, `v` (nearest, wrapping)."""
    return tile.ravel()[(v.astype(np.int32) & (TILE - 1)) * TILE + (u.astype(np.int32) & (TILE - 1))]


def rgb_of(values: list[float]) -> NDArray[np.float32]:
    """A colour as a single-precision array."""
    return np.array(values, dtype=np.float32)
