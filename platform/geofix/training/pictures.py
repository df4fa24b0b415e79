"""Photos and tiles as they are embedded later, read in threads, for passes without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
        load: Gives the encoder's input of a picture by its number, or None where there is nothing to see.
        count: Number of pictures.
        threads: Readers.
        keep: Keep what was read.
    """

    load: Callable[[int], Pixels | None]
    count: int
    threads: int = 2
    keep: bool = False
    _kept: dict[int, NDArray[np.float16] | None] = field(default_factory=dict)

    def batches(self, size: int = 64) -> Iterator[tuple[NDArray[np.int64], Pixels]]:
        """Numbers and inputs of the pictures that can be read, in order; one batch is read ahead."""
        with ThreadPoolExecutor(self.threads, thread_name_prefix="pictures") as pool:
            ahead: Iterator[NDArray[np.floating] | None] = pool.map(self._one, range(min(size, self.count)))
            for first in range(0, self.count, size):
                numbers, under_way = range(first, min(first + size, self.count)), ahead
                ahead = pool.map(self._one, range(numbers.stop, min(numbers.stop + size, self.count)))
                rows = [(n, item) for n, item in zip(numbers, under_way, strict=True) if item is not None]
                if rows:
                    pixels = np.stack([item for _, item in rows]).astype(np.float32)
                    yield np.array([n for n, _ in rows], np.int64), pixels

    def _one(self, number: int) -> NDArray[np.floating] | None:
        if number in self._kept:
            return self._kept[number]
        try:
            found = self.load(number)
        except (GeofixError, OSError, ValueError):  # named when it is trained on, and by embedding
            found = None
        if not self.keep:
            return found
        # What is kept is also what is given now: every pass sees the same, a resumed run's first one too.
        self._kept[number] = None if found is None else found.astype(np.float16)
        return self._kept[number]


def photo_pictures(
    photos: TrainingPhotos, transform: InputTransform, *, threads: int, keep: bool = False
) -> Pictures:
    """The photos as the ground encoder takes them in."""

    def load(row: int) -> Pixels:
        return transform.apply(read_photo(photos.uri[row], transform))

    return Pictures(load, len(photos), threads, keep and fits(len(photos), transform))


def tile_pictures(
    index: AerialIndex,
    rows: NDArray[np.int64],
    transform: InputTransform,
    *,
    threads: int,
    keep: bool = False,
) -> Pictures:
    """North-up tiles of some rows of the index as the aerial encoder takes them in."""

    def load(number: int) -> Pixels | None:
        return tile_input(index, int(rows[number]), transform)

    return Pictures(load, len(rows), threads, keep and fits(len(rows), transform))


def fits(count: int, transform: InputTransform) -> bool:
    """Whether so many inputs may be kept in memory."""
    return count * 2 * 3 * transform.size[0] * transform.size[1] <= CACHE_BYTES


def embed_batches(
    encoder: Encoder, pictures: Pictures
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Numbers of the pictures that could be read, and their unit vectors (n, D) in float32, batch by batch.

    Args:
        encoder: In evaluation mode.
        pictures: What to embed.
    """
    for numbers, pixels in pictures.batches():
        with torch.inference_mode():
            vectors = encoder(torch.from_numpy(pixels).to(encoder.device)).float().cpu().numpy()
        yield numbers, vectors


def embed_pictures(encoder: Encoder, pictures: Pictures) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """All of `embed_batches` as one."""
    found = list(embed_batches(encoder, pictures))
    if not found:
        return np.zeros(0, np.int64), np.zeros((0, encoder.dimension), np.float32)
    numbers, vectors = zip(*found, strict=True)
    return np.concatenate(numbers), np.concatenate(vectors)
