"""What maps draw, sent beside the page and not in it.

Streamlit reads a map in the browser with JSON5, a parser written in JavaScript, and deck.gl then walks
through all of it, again at every change. Data that stands at an address of its own is read by the browser's
parser, kept while its address stays, and leaves the map before it on the screen until it is there.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pydeck as pdk
from streamlit import runtime

LEAST = 2_000  # bytes; less stays in the page


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
    """Where the browser finds a document, relative to the page, while this visitor's page stands.

    Args:
        document: JSON.
        place: Whose it is; the document before it there goes with the last page that shows it.
    """
    # Of large files the manager hashes parts alone; the name is hashed with them.
    name = hashlib.blake2b(document, digest_size=16).hexdigest()
    url = runtime.get_instance().media_file_mgr.add(document, "application/json", place, file_name=name)
    return url.lstrip("/")
