"""Memory that pages have used and freed goes back to the machine.

The C library keeps what was freed, in pieces between what is still used, for the next one who asks, and has
a heap for every thread that met another one asking. A page asks for tens of megabytes in pieces of all sizes
from several threads, so what was kept grew with the page views, to nearly half of the heap after forty,
although what was used did not.
"""

from __future__ import annotations

import ctypes
import threading
import time

EVERY_S = 20.0
HEAPS = 2
LARGE = 1 << 18  # bytes; what is larger is asked of the machine itself, and is given back when it is freed
_ARENA_MAX, _MMAP_THRESHOLD = -8, -3  # of mallopt in GNU's malloc.h


def give_back(every_s: float = EVERY_S) -> threading.Thread | None:
    """Keep to few heaps, and hand back what is free in them now and then, in a thread.

    To be called before other threads have asked for memory. None where the C library is not GNU's.
    """
    try:
        library = ctypes.CDLL(None)
        trim, option = library.malloc_trim, library.mallopt
    except (AttributeError, OSError):
        return None
    option(_ARENA_MAX, HEAPS)
    option(_MMAP_THRESHOLD, LARGE)

    def work() -> None:
        while True:
            time.sleep(every_s)
            trim(0)

    thread = threading.Thread(target=work, name="give memory back", daemon=True)
    thread.start()
    return thread
