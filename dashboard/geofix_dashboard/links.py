"""The state of a page lives in its URL, so that a view can be sent to a colleague."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import streamlit as st

Kind = Literal["select", "segments"]


def put(name: str, value: str | None) -> None:
    """Write one parameter of the URL, or take it away; also remembered for the way back to this page."""
    st.session_state[f"kept_{name}"] = value
    if value is None:
        if name in st.query_params:
            del st.query_params[name]
    elif st.query_params.get(name) != value:
        st.query_params[name] = value


def get(name: str) -> str | None:
    """One parameter of the URL, else what this session last chose."""
    if name in st.query_params:
        return st.query_params[name]
    kept = st.session_state.get(f"kept_{name}")
    return None if kept is None else str(kept)


def choose(
    name: str,
    label: str,
    options: Sequence[Any],
    *,
    default: Any = None,
    kind: Kind = "select",
    show: Callable[[Any], str] = str,
    help: str | None = None,
) -> Any:
    """A choice whose value is the URL parameter `name`; the default stays out of the URL.

    An unknown value in the URL counts as the default.
    """
    first = options[0] if default is None or default not in options else default
    key = f"url_{name}"
    if st.session_state.get(key) not in options:
        wanted = get(name)
        st.session_state[key] = next((option for option in options if str(option) == wanted), first)
    if kind == "select":
        picked = st.selectbox(label, options, format_func=show, key=key, help=help)
    else:
        picked = st.segmented_control(label, options, format_func=show, key=key, help=help)
    value = first if picked is None else picked
    put(name, None if value == first else str(value))
    return value


def forget(name: str) -> None:
    """Let a choice fall back to its default; to be called before it is drawn, or from a callback."""
    st.session_state.pop(f"url_{name}", None)
    put(name, None)
