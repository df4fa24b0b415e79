"""What is expensive to load stays loaded between the jobs of a process, and goes when nobody asks for it."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from geofix.log import get_logger

Value = TypeVar("Value")

_log = get_logger(__name__)


@dataclass
class _Item:
    stamp: Any
    value: Any
    users: int = 0
    used: float = field(default_factory=time.monotonic)


class Shelf:
    """Loaded things by key. Each carries a stamp (a hash, a row); under another stamp it is loaded anew."""

    def __init__(self, keep: int, idle_s: float) -> None:
        self.keep = keep
        self.idle_s = idle_s
        self._items: dict[Hashable, _Item] = {}
        self._lock = threading.Lock()
        self._watch: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._items)

    @contextmanager
    def lend(self, key: Hashable, stamp: Any, load: Callable[[], Value]) -> Iterator[Value]:
        """The thing of a key, loaded when it is not there; it is not unloaded while lent."""
        with self._lock:
            item = self._items.get(key)
            if item is None or item.stamp != stamp:
                self._items.pop(key, None)
                item = _Item(stamp, load())
                self._items[key] = item
            item.users += 1
        try:
            yield item.value
        finally:
            with self._lock:
                item.users -= 1
                item.used = time.monotonic()
            self._make_room()
            self._begin_watch()

    def drop_idle(self, idle_s: float | None = None) -> int:
        """Unload what nobody has asked for so long; how many."""
        limit = time.monotonic() - (self.idle_s if idle_s is None else idle_s)
        return self._drop(lambda item, _: item.used <= limit)

    def _make_room(self) -> None:
        self._drop(lambda _, place: place >= self.keep)

    def _drop(self, unwanted: Callable[[_Item, int], bool]) -> int:
        """Unload items that are not lent, judged by themselves and their place, the newest first."""
        with self._lock:
            newest = sorted(self._items, key=lambda key: self._items[key].used, reverse=True)
            gone = [
                key
                for place, key in enumerate(newest)
                if not self._items[key].users and unwanted(self._items[key], place)
            ]
            for key in gone:
                del self._items[key]
        if gone:
            _give_memory_back()
            _log.info("unloaded", models=[str(key) for key in gone], kept=len(self._items))
        return len(gone)

    def _begin_watch(self) -> None:
        if self._watch is None or not self._watch.is_alive():  # threads do not survive a fork
            self._watch = threading.Thread(target=self._look, name="unload", daemon=True)
            self._watch.start()

    def _look(self) -> None:
        while len(self):
            time.sleep(max(0.05, self.idle_s / 10))
            self.drop_idle()


def _give_memory_back() -> None:
    """Collect what was dropped, on the GPU too; torch is asked only where somebody has loaded it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
