"""The input transform: equal to timm's own on real resampling, stored and read back exactly."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from geofix.errors import BadInputError, UsageError
from geofix.imagery.transforms import InputTransform

HALF = (0.5, 0.5, 0.5)
IMAGENET = (0.485, 0.456, 0.406)


def transform(**changes: object) -> InputTransform:
    values: dict[str, object] = {
        "size": (32, 32), "crop": 0.875, "interpolation": "bicubic", "mean": HALF, "std": HALF,
    }  # fmt: skip
    return InputTransform(**(values | changes))  # type: ignore[arg-type]


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with noise: every filter gives another result on it."""
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x * 255 / width, y * 255 / height, (x + y) * 127 / (width + height)], -1)
    noise = np.random.default_rng(seed).normal(0, 25, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(57, 91), (91, 57), (40, 40), (20, 33), (300, 211), (37, 36)])
@pytest.mark.parametrize("filter_", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop", [0.875, 1.0])
def test_equals_timm(shape: tuple[int, int], filter_: str, crop: float) -> None:
    data = pytest.importorskip("timm.data")
    theirs = data.create_transform(
        (3, 32, 32), mean=IMAGENET, std=(0.2, 0.3, 0.4), interpolation=filter_, crop_pct=crop
    )
    ours = transform(mean=IMAGENET, std=(0.2, 0.3, 0.4), interpolation=filter_, crop=crop)
    image = photo(*shape)
    np.testing.assert_allclose(ours.apply(image), theirs(Image.fromarray(image)).numpy(), atol=1e-6)


def test_golden_resize() -> None:
    """A ramp halved and cropped: each column is the mean of two, 76.5 110.5 144.5 178.5, rounded half up."""
    ramp = np.repeat(np.tile((np.arange(16) * 17).astype(np.uint8), (8, 1))[..., None], 3, axis=2)
    out = transform(size=(4, 4), crop=1.0).apply(ramp)
    assert out.shape == (3, 4, 4) and out.dtype == np.float32 and out.flags.c_contiguous
    golden = np.array([77, 111, 145, 179], np.float32) / 127.5 - 1
    np.testing.assert_allclose(out, np.broadcast_to(golden, (3, 4, 4)), atol=1e-6)


def test_golden_tensor() -> None:
    """Some pixels of a noisy photo, so that a changed filter of Pillow is noticed."""
    out = transform(size=(8, 8)).apply(photo(57, 91))[:, [0, 3, 7], [0, 5, 7]]
    golden = np.array([[60, 155, 189], [14, 97, 215], [28, 71, 96]], np.float32) / 127.5 - 1
    np.testing.assert_allclose(out, golden, atol=0.9 / 127.5)


def test_no_aliasing_when_shrinking() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    out = transform(size=(8, 8), crop=1.0).apply(stripes)
    assert np.abs(out).max() < 0.05  # a sampled column would be 1


def test_channels_and_fit() -> None:
    image = np.zeros((10, 30, 3), np.uint8)
    image[..., 0], image[:, :5, 2] = 255, 255
    rgb = transform(size=(10, 10), crop=1.0).apply(image)
    bgr = transform(size=(10, 10), crop=1.0, channels="bgr").apply(image)
    np.testing.assert_array_equal(rgb[::-1], bgr)
    assert rgb[2].max() == -1  # the blue edge is cropped away
    assert transform(size=(10, 10), fit="squash").apply(image)[2].max() > 0.9


def test_same_for_pillow_and_array_and_rectangles() -> None:
    image = photo(50, 70)
    wide = transform(size=(24, 40), crop=0.9)
    assert wide.apply(image).shape == (3, 24, 40)
    np.testing.assert_array_equal(wide.apply(image), wide.apply(Image.fromarray(image)))
    assert transform().apply(Image.fromarray(image).convert("L")).shape == (3, 32, 32)


def test_json_round_trip() -> None:
    one = transform(mean=(0.1, 0.2, 1 / 3), channels="bgr", size=(24, 40))
    again = InputTransform.from_json(one.to_json())
    assert again == one and again.to_json() == one.to_json()
    assert hash(again) == hash(one)
    assert json.loads(one.to_json())["size"] == [24, 40]


def test_from_timm_takes_every_number_over() -> None:
    config = {
        "input_size": (3, 96, 128), "interpolation": "bilinear", "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6), "crop_pct": 0.9, "crop_mode": "squash",
    }  # fmt: skip
    assert InputTransform.from_timm(config) == InputTransform(
        (96, 128), 0.9, "bilinear", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), fit="squash"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"crop": 0.0},
        {"crop": 1.5},
        {"size": (0, 4)},
        {"std": (0, 1, 1)},
        {"interpolation": "best"},
        {"channels": "hsv"},
    ],
)
def test_bad_values_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        transform(**change)


def test_bad_arrays_and_keys_are_refused() -> None:
    with pytest.raises(BadInputError, match="float64"):
        transform().apply(np.zeros((4, 4, 3)))  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="keys are"):
        InputTransform.from_dict({"size": [1, 1], "scale": 2})
