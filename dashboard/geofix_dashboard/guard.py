"""What a page says when the database does not answer, also while it refreshes itself."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

import psycopg
import streamlit as st

from geofix.errors import GeofixError
from geofix_dashboard import data, theme

Arguments = ParamSpec("Arguments")


def guarded(draw: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """The same function, which says what is wrong and what mends it where it would fail."""

    @functools.wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            draw(*args, **kwargs)
        except (GeofixError, psycopg.Error) as error:
            unreachable(error)

    return drawn


def unreachable(error: Exception) -> None:
    """Say why something cannot be shown, and what mends it."""
    known = isinstance(error, GeofixError)
    st.error(
        str(error) if known else f"The database refused the page's question: {error}",
        icon=":material/cloud_off:",
    )
    theme.empty(
        "Nothing can be shown until the database answers.",
        "Start the embedded servers, bring the schema up to date, then try again.",
        "geofix up",
        "geofix db migrate",
    )
    if st.button("Try again", type="primary"):
        data.forget()
        st.rerun()
