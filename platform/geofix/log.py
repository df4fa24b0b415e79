"""Structured logs to stderr, and the one progress bar of the product."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO, cast

import structlog
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_console = Console(stderr=True)


class ProgressSink(Protocol):
    """Where progress goes: a bar on a terminal, a job row, or nowhere."""

    def __call__(self, done: int, total: int | None, message: str = "", unit: str = "") -> None:
        """Report that `done` of `total` are finished, counted in `unit`."""


class Advance(Protocol):
    """What `progress` yields."""

    def __call__(self, n: int = 1, message: str = "") -> None:
        """Report `n` more units; a message (figures of the moment) stands beside the label."""


_sinks: list[ProgressSink] = []


# Lines of libraries that use the standard library's logging: Celery, SQLAlchemy, rasterio.
_JSON_OF_OTHERS = structlog.stdlib.ProcessorFormatter(
    foreign_pre_chain=[
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso"),
    ],
    processors=[
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ],
)


class _Stderr:
    """Whatever sys.stderr is at the moment of writing; a test or a caller may have replaced it since."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure(level: str = "INFO", *, json: bool = False) -> None:
    """Send all logs to stderr, as lines for people or as JSON for machines."""
    lines = structlog.dev.ConsoleRenderer(colors=_console.is_terminal)
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer() if json else lines
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if not json else "iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper(), logging.INFO)),
        logger_factory=structlog.PrintLoggerFactory(file=cast(TextIO, _Stderr())),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(cast(TextIO, _Stderr()))
    if json:
        handler.setFormatter(_JSON_OF_OTHERS)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger that carries the module's name."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(module=name)
    return logger


@contextmanager
def progress_to(sink: ProgressSink) -> Iterator[None]:
    """While inside, every `progress` also reports to `sink` (a job row, a test)."""
    _sinks.append(sink)
    try:
        yield
    finally:
        _sinks.remove(sink)


@contextmanager
def progress(label: str, total: int | None, unit: str = "") -> Iterator[Advance]:
    """Show a bar for a piece of work and yield `advance(n)`.

    The bar appears on a terminal only; registered sinks hear of every step.

    Args:
        label: What is being done.
        total: Number of units, or None when unknown.
        unit: What is counted, shown after the numbers.
    """
    done = 0
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=_console,
        transient=True,
        disable=not _console.is_terminal,
    ) as bar:
        task = bar.add_task(label, total=total)

        def advance(n: int = 1, message: str = "") -> None:
            nonlocal done
            done += n
            text = f"{label}: {message}" if message else label
            bar.update(task, advance=n, description=text)
            for sink in list(_sinks):
                sink(done, total, text, unit)

        yield advance
