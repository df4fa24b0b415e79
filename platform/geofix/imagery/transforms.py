"""From a decoded photo to the array a model takes in, by NumPy and Pillow alone.

The numbers come from timm's data configuration of the trunk, or from whoever made the weights, and are
stored with the model. Nothing here assumes a mean, a standard deviation or a size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from geofix.errors import BadInputError, UsageError

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Fit = Literal["center", "squash"]

_FILTERS: dict[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class InputTransform:
    """Resize, crop, scale to [0, 1] and normalise: what a model expects of its input.

    Attributes:
        size: (height, width) of the model's input, pixels.
        crop: Share of the resized shorter side that the crop keeps, in (0, 1]. The photo is first resized so
            that its shorter side is floor(size / crop).
        interpolation: Resampling filter; Pillow widens its kernels when shrinking, so there is no aliasing.
        mean: Subtracted per channel after scaling to [0, 1].
        std: Divides per channel afterwards.
        channels: Channel order of the output, 'rgb' or 'bgr'; mean and std are in the same order.
        fit: 'center' keeps the aspect ratio and crops the middle; 'squash' resizes to the size and keeps all.
    """

    size: tuple[int, int]
    crop: float
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: Literal["rgb", "bgr"] = "rgb"
    fit: Fit = "center"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(int(side) for side in self.size))
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        self._check()

    def _check(self) -> None:
        hint = "Correct the input transform in the model's configuration."
        if len(self.size) != 2 or min(self.size) < 1:
            raise UsageError(f"input size {self.size} is not (height, width) in pixels.", hint=hint)
        if not 0.0 < self.crop <= 1.0:
            raise UsageError(f"crop {self.crop} is outside (0, 1].", hint=hint)
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0.0:
            raise UsageError(f"mean {self.mean} and std {self.std} need three values, std > 0.", hint=hint)
        if self.interpolation not in _FILTERS:
            known = ", ".join(_FILTERS)
            raise UsageError(f"interpolation {self.interpolation!r} is none of {known}.", hint=hint)
        if self.channels not in ("rgb", "bgr") or self.fit not in ("center", "squash"):
            raise UsageError(f"channels {self.channels!r} or fit {self.fit!r} is not known.", hint=hint)

    @classmethod
    def from_timm(cls, config: Mapping[str, Any]) -> InputTransform:
        """Take over what `timm.data.resolve_model_data_config` returned for a trunk."""
        _, height, width = config["input_size"]
        mode = str(config.get("crop_mode") or "center")
        return cls(
            size=(height, width),
            crop=float(config.get("crop_pct") or 1.0),
            interpolation=config["interpolation"],
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            fit="squash" if mode == "squash" else "center",
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputTransform:
        """Read the mapping that `as_dict` wrote; an unknown or missing key is an error."""
        try:
            return cls(**values)
        except TypeError as error:
            raise BadInputError(
                f"input transform {dict(values)!r} cannot be read: {error}.",
                hint="Its keys are size, crop, interpolation, mean, std, channels and fit.",
            ) from error

    @classmethod
    def from_json(cls, text: str) -> InputTransform:
        """Read the JSON that `to_json` wrote."""
        return cls.from_dict(json.loads(text))

    def as_dict(self) -> dict[str, Any]:
        """The transform as plain JSON types (tuples become lists)."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    def to_json(self) -> str:
        """The transform as one JSON object with sorted keys, the same text for the same transform."""
        return json.dumps(self.as_dict(), sort_keys=True)

    @property
    def decode_side(self) -> int:
        """Longest side in pixels to which a photo may be reduced while it is decoded.

        Four times the resized shorter side: photos up to 4:1 then never have to be enlarged afterwards.
        Training, embedding and localizing must all decode with this value, or their pixels differ.
        """
        return 4 * max(math.ceil(side / self.crop) for side in self.size)

    def apply(self, photo: npt.NDArray[np.uint8] | Image.Image) -> npt.NDArray[np.float32]:
        """Turn one RGB photo (h, w, 3) uint8, or a Pillow image, into float32 (3, height, width)."""
        image = _as_image(photo)
        cut = self._crop(image) if self.fit == "center" else self._resize(image, self.size)
        return self.scaled(np.asarray(cut).transpose(2, 0, 1))

    def scaled(self, planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Planes (3, height, width) of red, green and blue, in the model's order, scaled and normalised."""
        if self.channels == "bgr":
            planes = planes[::-1]
        # Plane by plane and in place: with three channels last, NumPy's inner loop would have three steps.
        pixels: npt.NDArray[np.float32] = np.ascontiguousarray(planes).astype(np.float32)
        pixels /= np.float32(255.0)
        pixels -= np.array(self.mean, np.float32)[:, None, None]
        pixels /= np.array(self.std, np.float32)[:, None, None]
        return pixels

    def placed(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Size (height, width) that a photo of this size is resized to, and (top, left) of the crop in it."""
        if self.fit == "squash":
            return self.size, (0, 0)
        tall, wide = _resized(height, width, self.size, self.crop)
        # Half a pixel is rounded to the even number, as torchvision's CenterCrop does.
        return (tall, wide), (round((tall - self.size[0]) / 2), round((wide - self.size[1]) / 2))

    def apply_plane(self, plane: Image.Image) -> npt.NDArray[np.float32]:
        """Resize and crop a grey picture of labels as `apply` does a photo: (height, width), values as given.

        Every pixel takes over its nearest one, for labels have no mean.
        """
        nearest = replace(self, interpolation="nearest")
        image = nearest._crop(plane) if self.fit == "center" else nearest._resize(plane, self.size)
        return np.asarray(image, dtype=np.float32)

    def _resize(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        height, width = size
        if image.size == (width, height):
            return image
        return image.resize((width, height), _FILTERS[self.interpolation])

    def _crop(self, image: Image.Image) -> Image.Image:
        size, (top, left) = self.placed(image.height, image.width)
        return self._resize(image, size).crop((left, top, left + self.size[1], top + self.size[0]))


def _resized(height: int, width: int, size: tuple[int, int], crop: float) -> tuple[int, int]:
    """Height and width after the resize that keeps the aspect ratio and covers `size` / `crop`.

    The shorter side is exact and the longer one truncated, as torchvision's Resize does for a square input.
    """
    target_h, target_w = (math.floor(side / crop) for side in size)
    if height * target_w <= width * target_h:
        return target_h, max(target_w, target_h * width // height)
    return max(target_h, target_w * height // width), target_w


def _as_image(photo: npt.NDArray[np.uint8] | Image.Image) -> Image.Image:
    if isinstance(photo, Image.Image):
        return photo if photo.mode == "RGB" else photo.convert("RGB")
    array = np.asarray(photo)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        raise BadInputError(
            f"photo array of shape {array.shape} and type {array.dtype} is not RGB uint8 (h, w, 3).",
            hint="Decode photos with geofix.imagery.photo.decode_photo.",
        )
    return Image.fromarray(array)
