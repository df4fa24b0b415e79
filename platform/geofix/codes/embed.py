"""Photos and tiles to embeddings: decoding in threads, the encoder in batches, a bad file set aside.

What is the same whatever the workers and batches: the order of the keys, and each decoded input bit for bit.
The vectors themselves agree to 1e-5 per component in float32 between batches of different size (kernels sum
in another order; measured below 5e-7 on a CPU for MobileNetV2), and to one unit in the last place in float16.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import numpy as np
import numpy.typing as npt
import structlog
import torch
from PIL import Image

from geofix.errors import GeofixError, UsageError
from geofix.imagery.photo import decode_image
from geofix.imagery.transforms import InputTransform
from geofix.log import progress
from geofix.models.encoder import Encoder
from geofix.settings import get_settings

Pixels = npt.NDArray[np.uint8]
Source = str | Path | bytes | Pixels | Image.Image
Loader = Source | Callable[[], Source]
Key = TypeVar("Key")

_log = structlog.get_logger(module=__name__)


@dataclass
class EmbedReport:
    """Counts of a run, kept up to date while it goes on.

    Attributes:
        embedded: Vectors yielded.
        failed: Items set aside.
        seconds: Wall time since the first item was asked for.
        failures: (key, reason) of the items set aside; a long run empties it by `take_failures`.
    """

    embedded: int = 0
    failed: int = 0
    seconds: float = 0.0
    failures: list[tuple[Any, str]] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Vectors per second of wall time, decoding and the consumer's own work included."""
        return self.embedded / self.seconds if self.seconds else 0.0

    def take_failures(self) -> list[tuple[Any, str]]:
        """The failures since the last call."""
        taken, self.failures = self.failures, []
        return taken

    def add_failure(self, key: object, reason: str) -> None:
        """Set one item aside."""
        self.failed += 1
        self.failures.append((key, reason))
        _log.warning("not embedded", key=str(key), reason=reason)


def load_input(loader: Loader, transform: InputTransform) -> npt.NDArray[np.float32]:
    """Decode one item and turn it into the model's input (3, H, W).

    Every part of the product that feeds an encoder comes through here, so that pixels agree.

    Args:
        loader: A path, an fsspec URI, encoded bytes, an RGB uint8 array or Pillow image, or a function
            without arguments that returns one of them.
        transform: The encoder's.
    """
    source = loader() if callable(loader) else loader
    if isinstance(source, str) and "://" in source:
        with fsspec.open(source, "rb") as stream:
            source = bytes(stream.read(get_settings().max_photo_bytes + 1))
    if isinstance(source, (str, Path, bytes)):
        source = decode_image(source, max_side=transform.decode_side)
    return transform.apply(source)


def embed_images(
    encoder: Encoder,
    items: Iterable[tuple[Key, Loader]],
    *,
    batch_size: int = 32,
    workers: int = 0,
    dtype: npt.DTypeLike = np.float16,
    total: int | None = None,
    report: EmbedReport | None = None,
    label: str = "embed",
) -> Iterator[tuple[list[Key], npt.NDArray[Any]]]:
    """Embed items in order, batch by batch.

    At most 3 x `batch_size` decoded inputs exist at a time, whatever the number of items; `items` is read
    only as fast as it is used up. A file that cannot be decoded, or whose embedding is not finite, goes to
    `report.failures` and the rest goes on; an error of the encoder itself ends the run.

    Args:
        encoder: On the device to compute on; used in evaluation mode.
        items: Pairs of key and loader, see `load_input`.
        batch_size: Items per forward pass.
        workers: Decoding threads; 0 takes the setting, or one per core.
        dtype: float16 or float32 of the vectors.
        total: Number of items for the progress bar, where it is known.
        report: Filled in while running.
        label: Shown beside the progress bar.

    Yields:
        Keys, and unit vectors (len(keys), D).
    """
    if batch_size < 1:
        raise UsageError(f"batch size is {batch_size}.", hint="Use 1 or more.")
    counts = report if report is not None else EmbedReport()
    threads = workers or get_settings().workers or os.cpu_count() or 1
    started = time.perf_counter()
    encoder.eval()
    decoded = _decoded(items, encoder.transform, threads, 2 * batch_size)
    with progress(label, total, "photos") as advance:
        try:
            for batch, seen in _batches(decoded, batch_size, counts):
                keys, vectors = _forward(encoder, batch, counts)
                counts.embedded += len(keys)
                counts.seconds = time.perf_counter() - started
                advance(seen)
                if keys:
                    yield keys, vectors.astype(dtype)
        finally:
            decoded.close()
            counts.seconds = time.perf_counter() - started


def _decoded(
    items: Iterable[tuple[Key, Loader]], transform: InputTransform, threads: int, depth: int
) -> Generator[tuple[Key, Future[npt.NDArray[np.float32]]]]:
    """Futures in the order of the items, `depth` of them under way ahead of the consumer."""
    source = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        waiting: deque[tuple[Key, Future[npt.NDArray[np.float32]]]] = deque()

        def refill(count: int) -> None:
            for key, loader in islice(source, count):
                waiting.append((key, pool.submit(load_input, loader, transform)))

        try:
            refill(depth)
            while waiting:
                yield waiting.popleft()
                refill(1)
        finally:
            for _, future in waiting:
                future.cancel()


def _batches(
    decoded: Iterable[tuple[Key, Future[npt.NDArray[np.float32]]]], size: int, counts: EmbedReport
) -> Iterator[tuple[list[tuple[Key, npt.NDArray[np.float32]]], int]]:
    """Full batches of good inputs, each with the number of items it used up."""
    batch: list[tuple[Key, npt.NDArray[np.float32]]] = []
    seen = 0
    for key, future in decoded:
        seen += 1
        try:
            batch.append((key, future.result()))
        except Exception as error:  # decoders raise many kinds; one file must not end the run
            counts.add_failure(key, _reason(error))
        if len(batch) == size:
            yield batch, seen
            batch, seen = [], 0
    if seen:
        yield batch, seen


def _forward(
    encoder: Encoder, batch: list[tuple[Key, npt.NDArray[np.float32]]], counts: EmbedReport
) -> tuple[list[Key], npt.NDArray[np.float32]]:
    if not batch:
        return [], np.zeros((0, encoder.dimension), dtype=np.float32)
    images = torch.from_numpy(np.stack([pixels for _, pixels in batch])).to(encoder.device)
    with torch.inference_mode():
        vectors: npt.NDArray[np.float32] = encoder(images).float().cpu().numpy()
    good: npt.NDArray[np.bool_] = np.asarray(np.isfinite(vectors).all(axis=1))
    for (key, _), fine in zip(batch, good, strict=True):
        if not fine:
            counts.add_failure(key, "embedding is not finite")
    return [key for (key, _), fine in zip(batch, good, strict=True) if fine], vectors[good]


def _reason(error: Exception) -> str:
    if isinstance(error, GeofixError):
        return str(getattr(error, "reason", "")) + (": " if hasattr(error, "reason") else "") + error.message
    return f"{type(error).__name__}: {error}"
