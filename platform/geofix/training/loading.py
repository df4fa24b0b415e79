"""Batches decoded ahead of the computation, in worker processes, with their errors as they are."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import current_process

import torch
from torch.utils.data import DataLoader, Dataset

from geofix.errors import GeofixError, ServiceError
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


@contextmanager
def told_if_killed(step: Callable[[], int]) -> Iterator[None]:
    """Around a training: says so when a process that decodes was killed.

    Args:
        step: Steps that are done.

    Raises:
        ServiceError: A process that decodes ended.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        # DataLoader says it so, or its pipe breaks; files that cannot be read never come here.
        if isinstance(error, RuntimeError) and "DataLoader worker (pid" not in str(error):
            raise
        raise ServiceError(
            f"A process that decodes pictures ended at step {step()}: {error}",
            hint="Memory may be short: lower `workers` or `batch.photos`, then go on with --resume.",
        ) from error


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
