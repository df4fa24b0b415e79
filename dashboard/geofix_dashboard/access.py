"""Who is looking, and what they may do: decided by the server for every page and again for every action."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import streamlit as st

from geofix.errors import UsageError
from geofix.settings import get_settings, is_loopback

Role = Literal["viewer", "operator"]


@dataclass(frozen=True)
class Visitor:
    """Someone before the dashboard.

    Attributes:
        role: What they may do; None: not even look.
        person: E-mail address of who signed in; None where nobody signs in, or nobody has yet.
        refused: Why someone who signed in may not look.
    """

    role: Role | None
    person: str | None = None
    refused: str = ""


def visitor() -> Visitor:
    """Who this session's page is drawn for, asked anew on every run."""
    access = get_settings().access_at(address())
    return _signed_in() if access == "oidc" else Visitor(access)


def may_operate() -> bool:
    """Whether this session may submit and cancel jobs, and change or drop things."""
    return visitor().role == "operator"


def require(role: Role, what: str) -> None:
    """Go on only for who may do it; operators may do all that viewers may.

    Args:
        role: The least role.
        what: The deed at the beginning of a sentence, for example `Cancelling a job`.

    Raises:
        UsageError: This session's role is not enough.
    """
    known = visitor()
    if known.role is None:
        raise UsageError(f"{what} is for those who signed in.", hint="Sign in first.")
    if role == "operator" and known.role != "operator":
        raise UsageError(
            f"{what} is for operators; {known.person or 'this dashboard'} may look and localize.",
            hint="Who operates is set by GEOFIX_DASHBOARD_ACCESS and GEOFIX_DASHBOARD_OPERATORS.",
        )


def person_of_history() -> str | None:
    """Under whose name statements are remembered; None where strangers could share one name.

    Without sign-in this is the one name of a machine that alone reaches its dashboard.
    """
    known = visitor()
    if known.person is not None:
        return known.person
    return "" if known.role is not None and is_loopback(address()) else None


def address() -> str | None:
    """The address that the dashboard listens on; None: on all of them."""
    given = st.get_option("server.address")
    return str(given) if given else None


def missing() -> str:
    """What keeps people from signing in here; empty where nothing does."""
    if find_spec("authlib") is None:
        return "Signing in needs Authlib: `pip install 'geofix[dashboard]'`."
    if "is_logged_in" not in st.user:  # Streamlit says so where its secrets have a section [auth]
        return "No provider is configured: the section [auth] of Streamlit's secrets.toml is missing."
    settings = get_settings()
    if not (settings.dashboard_operators or settings.dashboard_viewers):
        return "Nobody is on the lists GEOFIX_DASHBOARD_OPERATORS and GEOFIX_DASHBOARD_VIEWERS."
    return ""


def _signed_in() -> Visitor:
    """The role of an address that the provider has not called unverified, by both lists."""
    if st.user.get("is_logged_in") is not True:
        return Visitor(None)
    given = st.user.get("email")
    if not isinstance(given, str) or "@" not in given:
        return Visitor(None, None, "The provider gave no e-mail address.")
    person = given.strip().casefold()
    if st.user.get("email_verified") in (False, "false"):
        return Visitor(None, person, f"The provider has not verified {person}.")
    settings = get_settings()
    if listed(person, settings.dashboard_operators):
        return Visitor("operator", person)
    if listed(person, settings.dashboard_viewers):
        return Visitor("viewer", person)
    return Visitor(None, person, f"{person} is on neither list of this dashboard.")


def listed(person: str, entries: str | None) -> bool:
    """Whether an address is on a list of addresses, @domains and *, separated by commas."""
    domain = "@" + person.rpartition("@")[2]
    return any(
        entry in ("*", person, domain)
        for entry in (text.strip().casefold() for text in (entries or "").split(","))
    )
