"""The SQL page's history: of the person where one is known, else of this session."""

from __future__ import annotations

import time

import streamlit as st

from geofix_dashboard import access, history
from geofix_dashboard.history import Entry

SESSION = "sql_history"
SHOWN = 30
SHOWN_CHARACTERS = 2_000


def remember(statement: str, rows: int, seconds: float) -> None:
    """Keep a statement that ran."""
    entry = Entry(statement, rows, seconds, time.time())
    person = access.person_of_history()
    if person is None:
        st.session_state[SESSION] = history.with_entry(st.session_state.get(SESSION, []), entry)
        return
    try:
        history.remember(person, entry)
    except OSError as error:  # a full or read-only home is no reason to withhold the answer
        st.toast(f"The statement was not remembered: {error.strerror}.", icon=":material/history_toggle_off:")


def render() -> None:
    """Draw the statements, the newest first; a button puts one back into the editor."""
    person = access.person_of_history()
    known = st.session_state.get(SESSION, []) if person is None else history.read(person)
    st.caption(told(person))
    for number, entry in enumerate(known[:SHOWN]):
        cut = len(entry.statement) > SHOWN_CHARACTERS
        st.code(entry.statement[:SHOWN_CHARACTERS] + (" ..." if cut else ""), language="sql")
        left, right = st.columns([3, 1])
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(entry.at))
        left.caption(f"{when} · {entry.rows:,} rows in {entry.seconds:.2f} s")
        right.button("Use", key=f"history-{number}", on_click=_use, args=(entry.statement,), width="stretch")
    if known:
        st.button(
            "Forget all of them", key="history_forget", on_click=_forget, icon=":material/delete_history:"
        )


def told(person: str | None) -> str:
    """Whose history this is."""
    if person is None:
        return "Statements of this session appear here; they go with it."
    if not person:
        return "Statements of everyone who uses this machine's dashboard appear here."
    return f"Statements of {person} appear here; nobody else sees them."


def _use(statement: str) -> None:
    st.session_state["sql_text"] = statement


def _forget() -> None:
    person = access.person_of_history()
    if person is None:
        st.session_state.pop(SESSION, None)
    else:
        history.forget(person)
