"""What maps draw, sent beside the page and not in it.

Streamlit reads a map in the browser with JSON5, a parser written in JavaScript, and deck.gl then walks
through all of it, again at every change. Data that stands at an address of its own is read by the browser's
parser, kept while its address stays, and leaves the map before it on the screen until it is there.

Streamlit removes a file once no page refers to it: at the next run of any page after the one that drew it has
begun anew, maybe before the browser has asked. deck.gl asks once. So `Recent` holds what was drawn lately.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pydeck as pdk
from streamlit import runtime
from streamlit.runtime.media_file_manager import MediaFileManager
from streamlit.runtime.scriptrunner import add_script_run_ctx

LEAST = 2_000  # bytes; less stays in the page
KEPT_S = 60.0  # a browser has asked by then
MOST, MOST_BYTES = 500, 64_000_000  # of what is held for that long
_KIND = "application/json"
# An address asks for no cookie: who knows a document must not learn from it whether someone looks at it.
_SALT = secrets.token_bytes(16)


class Recent:
    """Documents that files are kept of for a while after they were drawn, whatever becomes of their pages."""

    def __init__(
        self,
        seconds: float = KEPT_S,
        most: int = MOST,
        most_bytes: int = MOST_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Bounds in seconds, documents and bytes; the last document is held even if it alone is too large."""
        self._seconds, self._most, self._most_bytes, self._clock = seconds, most, most_bytes, clock
        self._held: OrderedDict[tuple[MediaFileManager, str], tuple[float, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def hold(self, files: MediaFileManager, document: bytes, name: str) -> None:
        """Keep the file of a document, from now on for the time."""
        with self._lock:
            if (files, name) in self._held:
                self._bytes -= self._held.pop((files, name))[1]
            else:
                _add_as(_session(name), files, document, name)
            self._held[files, name] = (self._clock() + self._seconds, len(document))
            self._bytes += len(document)
            while len(self._held) > 1 and (len(self._held) > self._most or self._bytes > self._most_bytes):
                self._let_go()
            self._wake()

    def sweep(self) -> None:
        """Let go of what was held for long enough; files that no page refers to either are removed."""
        with self._lock:
            managers = set()
            while self._held and next(iter(self._held.values()))[0] <= self._clock():
                managers.add(self._let_go())
            self._wake()
        for files in managers:
            files.remove_orphaned_files()

    def _let_go(self) -> MediaFileManager:
        (files, name), (_, size) = self._held.popitem(last=False)
        self._bytes -= size
        files.clear_session_refs(_session(name))
        return files

    def _wake(self) -> None:
        """See to it that the oldest goes in time, though nobody draws any more."""
        if self._held and self._timer is None:
            left = next(iter(self._held.values()))[0] - self._clock()
            self._timer = threading.Timer(max(left, 0.0) + 0.1, self._ring)
            self._timer.daemon = True
            self._timer.start()

    def _ring(self) -> None:
        with self._lock:
            self._timer = None
        self.sweep()


_recent = Recent()


def encoded(data: Any) -> bytes:
    """Data of a layer as short JSON."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).encode()


def put(key: str, layer: pdk.Layer) -> pdk.Layer:
    """The layer of a map, its data (encoded, or to be) at an address if it is large."""
    document = layer.data if isinstance(layer.data, bytes) else encoded(layer.data)
    if len(document) < LEAST:
        layer.data = json.loads(document)
    else:
        layer.data = address(document, f"{key}/{layer.id}")
    return layer


def address(document: bytes, place: str) -> str:
    """Where the browser finds a document, relative to the page, while this page stands and a while longer.

    The same document has the same address while this process runs.

    Args:
        document: JSON.
        place: Whose it is; the document before it there goes with the last page that shows it.
    """
    # Of large files the manager hashes parts alone; the name is hashed with them.
    name = hashlib.blake2b(document, digest_size=16, key=_SALT).hexdigest()
    files = runtime.get_instance().media_file_mgr
    url = files.add(document, _KIND, place, file_name=name)
    _recent.hold(files, document, name)
    return url.lstrip("/")


def _session(name: str) -> str:
    """A session of a document alone, which ends when it is let go."""
    return f"geofix beside {name}"


def _add_as(session_id: str, files: MediaFileManager, document: bytes, name: str) -> None:
    """Refer to a document's file as a session; the manager takes the one of the thread that asks."""
    thread = threading.Thread(
        target=files.add, args=(document, _KIND, "held"), kwargs={"file_name": name}, daemon=True
    )
    visitor: Any = SimpleNamespace(session_id=session_id)  # all that the manager asks it for
    add_script_run_ctx(thread, visitor)
    thread.start()
    thread.join()
