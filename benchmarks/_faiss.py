"""FAISS and threadpoolctl where they are installed; the benchmarks go on without them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

HOW = "FAISS is not installed, its columns are left out; .venv/bin/pip install -e '.[bench]' brings it."


def faiss_or_none() -> Any:
    """The module, or None."""
    try:
        import faiss
    except ImportError:
        return None
    return faiss


def limited(threads: int) -> AbstractContextManager[Any]:
    """So many threads for every BLAS and OpenMP; without threadpoolctl as many as they take."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    limits: AbstractContextManager[Any] = threadpool_limits(limits=threads)
    return limits
