"""Who may look and who may operate: by setting, address and lists; asked of the server, not of buttons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import streamlit as st
from page_tests import page, text_of, well
from streamlit import user_info
from streamlit.testing.v1 import AppTest

from geofix.database.engine import connect
from geofix.errors import UsageError
from geofix.jobs import broker, service
from geofix.jobs.specs import parse
from geofix.settings import Settings, get_settings, is_loopback
from geofix_dashboard import access, actions, app, place_data

ANNA = {"is_logged_in": True, "email": "Anna@Example.org", "email_verified": True}


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Sets GEOFIX_DASHBOARD_* for the rest of the test."""

    def set_to(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"GEOFIX_DASHBOARD_{name.upper()}", value)
        get_settings.cache_clear()

    yield set_to
    get_settings.cache_clear()


@pytest.fixture
def signed_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes Streamlit say who signed in; without claims somebody who has not."""

    def be(claims: dict[str, Any]) -> None:
        monkeypatch.setattr(user_info, "_get_user_info", lambda: {"is_logged_in": False, **claims})

    return be


@pytest.fixture
def unpublished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "publish", lambda ready: [])


def refused(kind: str) -> list[tuple[str, str]]:
    """Actor and key of refusals."""
    with connect("owner") as conn:
        return conn.execute(
            "SELECT actor, object_id FROM audit WHERE action = 'refuse' AND object_kind = %s", (kind,)
        ).fetchall()


# -- the role


@pytest.mark.parametrize(
    ("address", "role"),
    [("localhost", "operator"), ("127.0.0.1", "operator"), ("::1", "operator"), ("127.8.0.1", "operator")]
    + [(name, "viewer") for name in ("0.0.0.0", "::", "192.168.1.4", "maps.example.org", None)],
)
def test_only_who_sits_at_the_machine_operates_by_default(address, role):
    assert Settings(_env_file=None).access_at(address) == role
    assert Settings(_env_file=None, dashboard_access="viewer").access_at(address) == "viewer"
    assert is_loopback(address) == (role == "operator")


def test_the_address_is_that_of_the_server(given):
    st.config.set_option("server.address", "0.0.0.0")
    assert access.visitor() == access.Visitor("viewer") and access.person_of_history() is None
    given(access="operator")
    assert access.may_operate() and access.person_of_history() is None
    st.config.set_option("server.address", "localhost")
    assert access.person_of_history() == ""


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ("anna@example.org", True),
        (" bob@example.org , ANNA@Example.Org", True),
        ("@example.org", True),
        ("*", True),
        ("example.org", False),
        ("@ample.org", False),
        ("anna", False),
        ("anna@example.org.evil.net", False),
        ("", False),
        (",", False),
        (None, False),
    ],
)
def test_lists_hold_whole_addresses_and_domains(entries, found):
    assert access.listed("anna@example.org", entries) is found


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({}, None),
        (ANNA, "operator"),
        ({**ANNA, "email": "bob@elsewhere.org"}, "viewer"),
        ({**ANNA, "email": "eve@elsewhere.org"}, None),
        ({**ANNA, "email": "x@evil.net@elsewhere.org"}, None),
        ({**ANNA, "email_verified": False}, None),
        ({"is_logged_in": True, "email": "anna@example.org"}, "operator"),
        ({"is_logged_in": True, "name": "Anna"}, None),
        ({"is_logged_in": "yes", "email": "anna@example.org"}, None),
    ],
)
def test_both_lists_decide_after_signing_in(given, signed_in, claims, role):
    given(access="oidc", operators="anna@example.org", viewers="bob@elsewhere.org")
    signed_in(claims)
    assert access.visitor().role == role
    if role == "operator":
        assert access.person_of_history() == access.visitor().person == "anna@example.org"


# -- what is not allowed is refused


DEEDS = {
    "submit": lambda job: actions.submit("recall_check", {"code_set": "means"}),
    "cancel": lambda job: actions.cancel(job),
    "retry": lambda job: actions.retry(job),
    "pause": lambda job: actions.pause(job),
    "resume": lambda job: actions.resume(job),
    "mark": lambda job: actions.mark("means", "stale"),
    "drop": lambda job: actions.drop("means"),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_a_viewer_is_refused_by_the_server(towns, unpublished, given, signed_in, deed):
    row = service.submit(parse("recall_check", {"code_set": "means"}), publish=False)
    given(access="oidc", viewers="@example.org")
    signed_in(ANNA)
    before = len(refused("job") + refused("code_set"))
    with connect("owner") as conn:
        jobs = conn.execute("SELECT count(*) FROM job").fetchone()
    with pytest.raises(UsageError, match=r"is for operators; anna@example\.org may look"):
        DEEDS[deed](str(row.job_id))
    with connect("owner") as conn:
        assert conn.execute("SELECT count(*) FROM job").fetchone() == jobs
        assert conn.execute("SELECT state FROM code_set WHERE name = 'means'").fetchone() == ("ready",)
    found = place_data.job(str(row.job_id))
    assert found is not None and found.state == "queued"
    noted = refused("job") + refused("code_set")
    assert len(noted) == before + 1 and noted[-1][0] == "anna@example.org"
    service.cancel(row.job_id)


def test_who_has_not_signed_in_may_do_nothing(towns, unpublished, given, signed_in):
    given(access="oidc", viewers="*")
    signed_in({})
    with pytest.raises(UsageError, match="Sign in first"):
        actions.localize({"photos": [], "code_set": "means", "k": 5})


def test_a_viewer_localizes_only_what_was_uploaded(towns, unpublished, given):
    given(access="viewer")
    for path in (towns.photo(), towns.folder / "home" / "uploads" / "x" / ".." / ".." / "secret"):
        with pytest.raises(UsageError, match="Only photos that were uploaded"):
            actions.localize({"photos": [str(path)], "code_set": "means", "k": 5})


# -- what is not allowed is not shown


def test_a_viewer_sees_no_buttons_of_operators(towns, unpublished, given):
    row = service.submit(parse("recall_check", {"code_set": "means"}), publish=False)
    shown = {}
    for role in ("operator", "viewer"):
        given(access=role)
        pages = [page("jobs", id=str(row.job_id)), page("models", code_set="means")]
        shown[role] = {button.key for test in pages for button in well(test).button if button.key}
    assert {"job_cancel", "job_pause", "mark_yes", "drop_yes"} <= shown["operator"]
    assert not shown["viewer"] & {"job_cancel", "job_pause", "job_retry", "mark_yes", "drop_yes"}
    test = well(page("jobs", view="submit", submit="recall_check"))  # an address that an operator sent
    assert not any(button.label == "Submit" for button in test.button)
    assert "Submit" not in [option for group in test.segmented_control for option in group.options]
    service.cancel(row.job_id)


def test_a_viewer_cancels_the_search_of_this_session_alone(towns, unpublished, given):
    given(access="viewer")
    rows = [
        service.submit(
            parse("localize", {"photos": [str(towns.photo())], "code_set": "means"}), publish=False
        )
        for _ in range(2)
    ]
    own, other = (str(row.job_id) for row in rows)
    script = "from geofix_dashboard.views import localize\nlocalize.render()\n"
    test = AppTest.from_string(script, default_timeout=30)
    test.session_state[actions.OWN] = {own}
    test.query_params["job"] = other
    assert not [button for button in well(test.run()).button if button.key == "localize_cancel"]
    test.query_params["job"] = own
    well(well(test.run()).button(key="localize_cancel").click().run())
    states = [found.state for found in map(place_data.job, (own, other)) if found is not None]
    assert states == ["cancelled", "queued"]
    service.cancel(rows[1].job_id)


# -- before the pages


def opened() -> AppTest:
    return well(AppTest.from_file(app.__file__, default_timeout=30).run())


def test_nothing_is_shown_before_signing_in(filled, given, signed_in):
    given(access="oidc", operators="anna@example.org")
    signed_in({})
    test = opened()
    assert test.title[0].value == "Sign in" and not test.metric and not test.dataframe
    assert [button.key for button in test.button] == ["sign_in"]
    signed_in({**ANNA, "email": "eve@example.org"})
    test = opened()
    assert "eve@example.org is on neither list" in test.error[0].value and not test.metric
    assert [button.key for button in test.button] == ["sign_out"]


def test_who_signed_in_is_named_and_can_leave(filled, given, signed_in):
    given(access="oidc", operators="anna@example.org")
    signed_in(ANNA)
    test = opened()
    assert test.title[0].value == "Overview"
    assert "anna@example.org · operator" in " ".join(item.value for item in test.sidebar.caption)
    assert "sign_out" in [button.key for button in test.sidebar.button]


def test_what_is_missing_for_signing_in_is_said(filled, given, monkeypatch):
    given(access="oidc")
    monkeypatch.setattr(user_info, "_get_user_info", lambda: {})
    assert "[auth]" in opened().error[0].value
    monkeypatch.setattr(user_info, "_get_user_info", lambda: {"is_logged_in": False})
    assert "Nobody is on the lists" in opened().error[0].value
    monkeypatch.setattr(access, "find_spec", lambda name: None)
    assert "needs Authlib" in opened().error[0].value


def test_settings_of_a_provider_that_are_not_complete_are_told(filled, given, signed_in):
    given(access="oidc", viewers="*")
    signed_in({})
    test = opened()
    assert "not complete" in well(test.button(key="sign_in").click().run()).error[0].value


def test_the_audit_names_who_signed_in(towns, unpublished, given, signed_in):
    given(access="oidc", operators="*")
    signed_in(ANNA)
    row = actions.submit("recall_check", {"code_set": "means"})
    actions.cancel(str(row.job_id))
    with connect("owner") as conn:
        found = conn.execute(
            "SELECT action, actor FROM audit WHERE object_id = %s ORDER BY audit_id", (str(row.job_id),)
        ).fetchall()
    assert found == [("submit", "anna@example.org"), ("cancel", "anna@example.org")]
    assert "anna" not in text_of(well(page("jobs")))
