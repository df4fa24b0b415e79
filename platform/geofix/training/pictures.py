"""Photos and tiles as they are embedded later, read in threads, for passes without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from geofix.errors import GeofixError
from geofix.imagery.transforms import InputTransform
from geofix.models.encoder import Encoder
from geofix.training.places import AerialIndex, TrainingPhotos
from geofix.training.samples import read_photo, tile_input

Pixels = NDArray[np.float32]
CACHE_BYTES = 1 << 30
"""Pictures that are needed after every epoch are kept in memory up to this size."""


@dataclass
class Pictures:
    """Inputs of an encoder, read again every time or kept where they are few.

    Attributes:
        loaders: One per picture; gives the encoder's input, or None where there is nothing to see.
        threads: Readers.
        keep: Keep what was read.
    """

    loaders: Sequence[Callable[[], Pixels | None]]
    threads: int = 2
    keep: bool = False
    _kept: dict[int, NDArray[np.float16] | None] = field(default_factory=dict)

    def batches(self, size: int = 64) -> Iterator[tuple[NDArray[np.int64], Pixels]]:
        """Numbers and inputs of the pictures that can be read, in order."""
        with ThreadPoolExecutor(self.threads, thread_name_prefix="pictures") as pool:
            for first in range(0, len(self.loaders), size):
                numbers = range(first, min(first + size, len(self.loaders)))
                found = list(pool.map(self._one, numbers))
                rows = [(n, item) for n, item in zip(numbers, found, strict=True) if item is not None]
                if rows:
                    pixels = np.stack([item for _, item in rows]).astype(np.float32)
                    yield np.array([n for n, _ in rows], np.int64), pixels

    def _one(self, number: int) -> NDArray[np.floating] | None:
        if number in self._kept:
            return self._kept[number]
        try:
            found = self.loaders[number]()
        except (GeofixError, OSError, ValueError):  # named when it is trained on, and by embedding
            found = None
        if self.keep:
            self._kept[number] = None if found is None else found.astype(np.float16)
        return found


def photo_pictures(
    photos: TrainingPhotos, transform: InputTransform, *, threads: int, keep: bool = False
) -> Pictures:
    """The photos as the ground encoder takes them in."""

    def loader(row: int) -> Callable[[], Pixels | None]:
        return lambda: transform.apply(read_photo(photos.uri[row], transform))

    return Pictures(
        [loader(row) for row in range(len(photos))], threads, keep and fits(len(photos), transform)
    )


def tile_pictures(
    index: AerialIndex,
    rows: NDArray[np.int64],
    transform: InputTransform,
    *,
    threads: int,
    keep: bool = False,
) -> Pictures:
    """North-up tiles of some rows of the index as the aerial encoder takes them in."""

    def loader(row: int) -> Callable[[], Pixels | None]:
        return lambda: tile_input(index, row, transform)

    return Pictures([loader(int(row)) for row in rows], threads, keep and fits(len(rows), transform))


def fits(count: int, transform: InputTransform) -> bool:
    """Whether so many inputs may be kept in memory."""
    return count * 2 * 3 * transform.size[0] * transform.size[1] <= CACHE_BYTES


@torch.inference_mode()
def embed_pictures(
    encoder: Encoder, pictures: Pictures, *, on_step: Callable[[int], None] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Numbers of the pictures that could be read, and their unit vectors (n, D) in float32.

    Args:
        encoder: In evaluation mode.
        pictures: What to embed.
        on_step: Called with the number of pictures of every batch.
    """
    numbers, vectors = [], []
    for found, pixels in pictures.batches():
        numbers.append(found)
        vectors.append(encoder(torch.from_numpy(pixels).to(encoder.device)).float().cpu().numpy())
        if on_step is not None:
            on_step(len(found))
    if not numbers:
        return np.zeros(0, np.int64), np.zeros((0, encoder.dimension), np.float32)
    return np.concatenate(numbers), np.concatenate(vectors)
