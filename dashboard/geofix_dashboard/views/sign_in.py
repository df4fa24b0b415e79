"""Signing in and out by Streamlit's own OpenID Connect; until then there is no other page."""

from __future__ import annotations

import streamlit as st
from streamlit.errors import Error as StreamlitError

from geofix_dashboard import access, theme

# Streamlit ends a sign-in on the start page. The address that was asked for waits in the browser, in this tab
# alone. It is taken only with the dashboard's own origin: the path of an address may begin with two slashes.
_KEEP = """<script>try { sessionStorage.setItem("geofix_asked", location.href); } catch (error) {}</script>"""
_RETURN = """<script>
try {
  const asked = sessionStorage.getItem("geofix_asked");
  sessionStorage.removeItem("geofix_asked");
  if (asked && asked !== location.href && new URL(asked).origin === location.origin) location.replace(asked);
} catch (error) {}
</script>"""


def render(visitor: access.Visitor) -> None:
    """Draw what stands before every page: the way in, or why there is none."""
    theme.header("Sign in", "This dashboard shows itself to those it knows.")
    problem = access.missing()
    if problem:
        st.error(problem, icon=":material/lock:")
        theme.empty(
            "Nobody can sign in.",
            "Whoever runs this dashboard completes its settings; docs/dashboard.md says how.",
            "GEOFIX_DASHBOARD_OPERATORS=anna@example.org geofix dashboard",
        )
        return
    if visitor.refused:
        st.error(visitor.refused, icon=":material/lock:")
        st.caption("Ask whoever runs this dashboard, or sign in as somebody else.")
        st.button("Sign out", icon=":material/logout:", on_click=st.logout, key="sign_out")
        return
    st.html(_KEEP, unsafe_allow_javascript=True)
    if st.button("Sign in", type="primary", icon=":material/login:", key="sign_in"):
        try:
            st.login()
        except StreamlitError as error:
            st.error(f"The provider's settings are not complete: {error}", icon=":material/lock:")


def who(visitor: access.Visitor) -> None:
    """The sidebar's line about who is looking, with the way out; who just came goes where they were going."""
    if visitor.person is not None:
        st.html(_RETURN, unsafe_allow_javascript=True)
        st.caption(f":material/person: {visitor.person} · {visitor.role}")
        st.button("Sign out", icon=":material/logout:", on_click=st.logout, width="stretch", key="sign_out")
    elif visitor.role == "viewer":
        st.caption(":material/visibility: You may look, ask and localize; operators do the rest.")
