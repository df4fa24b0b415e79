"""A segmentation network that somebody exported: photos to semantic maps.

The file is TorchScript (`torch.jit.trace(...).save(FILE)`): its loader is no Python pickle and evaluates no
Python. What it holds is a program all the same, so it is opened only when its sha256 is the one that was
given, and refused when its code touches files. `torch.export` archives are not read: their loader falls back
to pickle.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from geofix.errors import BadInputError, NotFoundError
from geofix.imagery.semantics import ClassList
from geofix.imagery.transforms import InputTransform

_FILES = re.compile(r"\b(from_file|torch\.save|torch\.load|ops\.(?!prim\b|aten\b|quantized\b)\w+)")


class Segmenter:
    """Class numbers of every pixel of a photo.

    The network takes (1, 3, height, width), normalised, and gives logits (1, classes, h, w).

    Args:
        path: TorchScript file.
        sha256: Of the file.
        classes: What the network tells apart.
        transform: Its input.

    Raises:
        NotFoundError: There is no such file.
        BadInputError: The hash differs, it is no TorchScript, or its code touches files.
    """

    def __init__(self, path: Path, sha256: str, classes: ClassList, transform: InputTransform) -> None:
        self.path, self.classes, self.transform = path, classes, transform
        data = _read(path, sha256)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # TorchScript is announced to go
                self._network = torch.jit.load(io.BytesIO(data), map_location="cpu").eval()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise BadInputError(f"{path} is no TorchScript: {str(error).splitlines()[0]}") from error
        self._lock = threading.Lock()

    def map_of(self, photo: NDArray[np.uint8]) -> Image.Image:
        """The map of one RGB photo (h, w, 3), at the size the network works at and the photo's proportions.

        Raises:
            BadInputError: The network gives another number of classes, or no map.
        """
        height, width = self.transform.size
        size = (width, height) if photo.shape[1] >= photo.shape[0] else (height, width)
        pixels = torch.from_numpy(self._input(photo, size))[None]
        try:
            with self._lock, torch.inference_mode():
                logits = self._network(pixels)
        except RuntimeError as error:
            raise BadInputError(
                f"Segmentation network {self.path} fails on {size[0]} x {size[1]} pixels: "
                f"{str(error).strip().splitlines()[-1]}",
                hint="Correct `semantics.size`; it must take upright photos as well.",
            ) from error
        if not isinstance(logits, torch.Tensor) or logits.ndim != 4 or logits.shape[1] != len(self.classes):
            found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise BadInputError(
                f"Segmentation network {self.path} gives {found}; (1, {len(self.classes)}, h, w) is needed.",
                hint="Give the list of classes it was trained on, and export its logits.",
            )
        numbers = logits[0].argmax(dim=0).to(torch.uint8).numpy()
        image = Image.fromarray(numbers)
        return image.resize((photo.shape[1], photo.shape[0]), Image.Resampling.NEAREST)

    def _input(self, photo: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
        image = Image.fromarray(photo).resize(size, Image.Resampling.BILINEAR)
        pixels: NDArray[Any] = np.asarray(image, np.float32) / np.float32(255.0)
        pixels = (pixels - np.array(self.transform.mean, np.float32)) / np.array(
            self.transform.std, np.float32
        )
        return np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)


def _read(path: Path, sha256: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFoundError(
            f"Segmentation network {path} cannot be read: {error.strerror}.",
            hint="Correct `semantics.network`.",
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256.lower():
        raise BadInputError(
            f"Segmentation network {path} has sha256 {found}, {sha256} was given.",
            hint="It is a program: give the hash of the file that you made or trust.",
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            code = [name for name in archive.namelist() if "/code/" in name and name.endswith(".py")]
            texts = [archive.read(name).decode("utf-8", "replace") for name in code]
    except zipfile.BadZipFile as error:
        raise BadInputError(f"{path} is no TorchScript file.", hint="Export by torch.jit.trace.") from error
    if not texts:
        raise BadInputError(
            f"{path} holds no TorchScript code.",
            hint="State dicts and torch.export archives are not read; export by torch.jit.trace.",
        )
    for text in texts:
        if touched := _FILES.search(text):
            raise BadInputError(
                f"{path} calls {touched[0]}, which a segmentation network does not need; it is not opened."
            )
    return data
