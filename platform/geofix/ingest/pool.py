"""Checking files on all cores, surviving a decoder that crashes and a parent that is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.connection import wait
from types import TracebackType

from geofix.imagery.photo import PhotoInfo
from geofix.ingest.checks import Limits, Refusal, check_files
from geofix.settings import get_settings

Outcome = PhotoInfo | Refusal
CHUNK_FILES = 32
# Below this many files, starting processes costs more than it saves.
POOL_FILES = 128


def worker_count(wanted: int) -> int:
    """Processes to use: `wanted`, else the settings' number, else one per core this process may use."""
    return wanted or get_settings().workers or len(os.sched_getaffinity(0))


class FileChecker:
    """A pool of processes that decode photos; start-up is put off until there is enough to do.

    Processes are spawned, never forked (decoders and database sockets do not survive a fork). Inside a
    daemonic process, which may have no children, threads are used: decoders release the interpreter lock.

    Args:
        limits: What a file may be.
        workers: Number of processes; 0: see `worker_count`.
    """

    def __init__(self, limits: Limits, workers: int = 0) -> None:
        self._limits = limits
        self._workers = worker_count(workers)
        self._executor: Executor | None = None

    def __enter__(self) -> FileChecker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def submit(self, paths: Sequence[str]) -> Callable[[], list[Outcome]]:
        """Begin to check files; call the result to wait for one outcome per path, in order."""
        if self._workers == 1 or (self._executor is None and len(paths) < POOL_FILES):
            return lambda: check_files(paths, self._limits)
        chunks = [paths[i : i + CHUNK_FILES] for i in range(0, len(paths), CHUNK_FILES)]
        futures = [self._start(chunk) for chunk in chunks]
        return lambda: [
            outcome
            for chunk, future in zip(chunks, futures, strict=True)
            for outcome in self._collect(chunk, future)
        ]

    def _start(self, chunk: Sequence[str]) -> Future[list[Outcome]]:
        try:
            return self._running().submit(check_files, chunk, self._limits)
        except BrokenExecutor:
            self._stop()
            return self._running().submit(check_files, chunk, self._limits)

    def _collect(self, chunk: Sequence[str], future: Future[list[Outcome]]) -> list[Outcome]:
        try:
            return future.result()
        except BrokenExecutor:
            return [self._alone(path) for path in chunk]

    def _alone(self, path: str) -> Outcome:
        """Check one file in a process of its own, after a process died over its chunk."""
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin) as single:
            try:
                return single.submit(check_files, [path], self._limits).result()[0]
            except BrokenExecutor:
                return Refusal("unreadable", "the decoder crashed on this file")

    def _running(self) -> Executor:
        if self._executor is None:
            if multiprocessing.current_process().daemon:
                self._executor = ThreadPoolExecutor(self._workers)
            else:
                context = multiprocessing.get_context("spawn")
                self._executor = ProcessPoolExecutor(self._workers, context, _begin)
        return self._executor

    def _stop(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None


def _begin() -> None:
    """Leave Ctrl-C to the parent, and end when the parent is gone, even killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
