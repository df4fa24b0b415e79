"""Reading several things at once for one page: the server answers on one core, the page counts on another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from streamlit.runtime.scriptrunner import add_script_run_ctx, get_script_run_ctx


@contextmanager
def meanwhile(workers: int = 2) -> Iterator[ThreadPoolExecutor]:
    """Threads that may ask for what is cached as this page may; they draw nothing, and end with the block."""
    visitor = get_script_run_ctx()

    def begin() -> None:
        if visitor is not None:
            add_script_run_ctx(threading.current_thread(), visitor)

    pool = ThreadPoolExecutor(workers, initializer=begin)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
