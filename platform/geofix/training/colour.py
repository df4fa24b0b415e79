"""Colour jitter on model inputs: the same scene under other light, another camera, another day."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geofix.imagery.transforms import InputTransform

Pixels = NDArray[np.float32]
# Rec. 601 luma, red to blue.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Jitter:
    """How far colours are moved; every value is the half-width of a factor around 1.

    Attributes:
        brightness: All channels together.
        contrast: Around the picture's mean luma.
        saturation: Around each pixel's luma.
        balance: Each channel by itself, as another white balance would.
    """

    brightness: float = 0.25
    contrast: float = 0.25
    saturation: float = 0.25
    balance: float = 0.05


def jitter(pixels: Pixels, transform: InputTransform, amount: Jitter, rng: np.random.Generator) -> Pixels:
    """A normalised input (3, H, W) with other colours, still within what an 8-bit photo can show."""
    mean = np.array(transform.mean, np.float32)[:, None, None]
    std = np.array(transform.std, np.float32)[:, None, None]
    luma_of = (_LUMA if transform.channels == "rgb" else _LUMA[::-1])[:, None, None]
    light, contrast, saturation = (
        np.float32(1.0 + half * rng.uniform(-1.0, 1.0))
        for half in (amount.brightness, amount.contrast, amount.saturation)
    )
    gain = (1.0 + amount.balance * rng.uniform(-1.0, 1.0, (3, 1, 1))).astype(np.float32)
    out = (pixels * std + mean) * (light * gain)
    luma = (out * luma_of).sum(axis=0, keepdims=True)
    middle = luma.mean()
    # Saturation, then contrast: both are straight lines through a grey, put into one pass.
    out = out * (saturation * contrast) + (luma * ((1 - saturation) * contrast) + middle * (1 - contrast))
    np.clip(out, 0.0, 1.0, out=out)
    shown: Pixels = ((out - mean) / std).astype(np.float32, copy=False)
    return shown
