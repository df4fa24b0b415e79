"""Reading several things at once for one page: the server answers on one core, the page counts on another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from streamlit.runtime.scriptrunner import add_script_run_ctx, get_script_run_ctx


@contextmanager
def meanwhile(workers: int = 2, *, wait: bool = True) -> Iterator[ThreadPoolExecutor]:
    """Threads that may ask for what is cached as this page may; they draw nothing.

    Args:
        workers: How many.
        wait: The block ends when they have ended. Without, what has begun goes on beside the page and is
            cached for the next one. What has not begun is given up either way.
    """
    visitor = get_script_run_ctx()

    def begin() -> None:
        if visitor is not None:
            add_script_run_ctx(threading.current_thread(), visitor)

    pool = ThreadPoolExecutor(workers, initializer=begin)
    try:
        yield pool
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)
