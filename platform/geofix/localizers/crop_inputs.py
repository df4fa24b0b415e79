"""Parts of a photo cut for a network, and its answers to them put together."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import log_softmax

from geofix.imagery.transforms import InputTransform
from geofix.localizers.crops import Crops

_ENLARGED = 8 / 7
"""Side before the crops against the input's: 256 against 224 pixels, as usual."""


def cut_crops(
    photo: NDArray[np.uint8], transform: InputTransform, policy: Crops, plane: Image.Image | None = None
) -> NDArray[np.float32]:
    """The inputs (count, 3, H, W) of one RGB photo (h, w, 3).

    single: as photos are embedded. five-max, ten-mean: four corners and the middle of the photo at 8/7 of the
    input's side (its shorter side; the whole frame where the transform squashes), for ten-mean also mirrored.
    With a grey plane of labels of the photo's size: (count, 4, H, W).
    """
    image = Image.fromarray(photo)
    shown = np.stack([transform.apply(part) for part in _parts(image, transform, policy)])
    if plane is None:
        return shown
    parts = _parts(plane, transform, policy, Image.Resampling.NEAREST)
    labels = np.stack([transform.apply_plane(part) for part in parts])
    return np.concatenate([shown, labels[:, None]], axis=1)


def _parts(
    image: Image.Image,
    transform: InputTransform,
    policy: Crops,
    resampling: Image.Resampling = Image.Resampling.BICUBIC,
) -> list[Image.Image]:
    if policy.count == 1:
        return [image]
    height, width = transform.size
    large = (round(height * _ENLARGED), round(width * _ENLARGED))
    if transform.fit == "squash":
        size = (large[1], large[0])
    else:
        scale = max(large[0] / image.height, large[1] / image.width)
        size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    image = image.resize(size, resampling)
    right, low = image.width - width, image.height - height
    corners = [(0, 0), (right, 0), (0, low), (right, low), (right // 2, low // 2)]
    parts = [image.crop((x, y, x + width, y + height)) for x, y in corners]
    if policy.count == 10:
        parts += [part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for part in parts]
    return parts


def combine(logits: Tensor, policy: Crops) -> Tensor:
    """Log scores (B, classes) of logits (B, count, classes): one row per photo.

    single: log-softmax. five-max: the largest softmax value over the crops, which then no longer sum to 1.
    ten-mean: log-softmax of the mean logits.
    """
    if policy.name == "five-max":
        return log_softmax(logits.float(), dim=2).amax(dim=1)
    return log_softmax(logits.float().mean(dim=1), dim=1)


def score_blocks(total: int, policy: Crops, at_once: int = 64) -> list[slice]:
    """Photos that go through the network together: some `at_once` inputs."""
    step = max(1, at_once // policy.count)
    return [slice(first, min(first + step, total)) for first in range(0, total, step)]


def as_batch(parts: list[NDArray[np.float32]], device: torch.device) -> Tensor:
    """Inputs of several photos, all crops below each other."""
    return torch.from_numpy(np.concatenate(parts)).to(device)
