"""Batches decoded ahead of the computation, in worker processes, with their errors as they are."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from multiprocessing import current_process

import torch
from torch.utils.data import DataLoader, Dataset

from geofix.errors import GeofixError
from geofix.training.samples import Batch, Pairs


def decoded(pairs: Pairs, first: int, *, workers: int, pin: bool) -> Iterator[Batch]:
    """The batches of an epoch from step `first` on.

    Args:
        pairs: The epoch.
        first: Step to begin at.
        workers: Processes that decode; 0: this one.
        pin: Pictures in page-locked memory.

    Raises:
        GeofixError: As `Pairs` raises it.
    """
    # A process that Celery forked may have no children of its own.
    count = 0 if current_process().daemon else workers
    loader = DataLoader(
        _Guarded(pairs),
        batch_size=None,
        sampler=range(first, len(pairs)),
        num_workers=count,
        prefetch_factor=2 if count else None,
        pin_memory=pin,
        worker_init_fn=_begin_worker,
        # Each loader draws a seed: from the run's own generator a resumed epoch would draw one more.
        generator=torch.Generator(),
    )
    for found in loader:
        if isinstance(found, GeofixError):
            raise found
        yield found


class _Guarded(Dataset[Batch | GeofixError]):
    """Hands errors over as they are: DataLoader would bury them in the text of a traceback."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, step: int) -> Batch | GeofixError:
        try:
            return self._pairs[step]
        except GeofixError as error:
            return error


def _begin_worker(_: int) -> None:
    """Decoding processes leave the cores to the training, and their end to it as well."""
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
