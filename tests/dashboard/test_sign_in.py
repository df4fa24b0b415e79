"""Signing in with a real provider and a real browser: what a viewer and an operator then see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sign_in_provider import provider
from test_browser import CHROMIUM, FLAGS, free_port, settled, wait_for

pytestmark = pytest.mark.browser
WAIT_MS = 60_000
SECRETS = """
[auth]
redirect_uri = "{address}/oauth2callback"
cookie_secret = "a secret of this test alone, long enough"
client_id = "geofix"
client_secret = "s"
server_metadata_url = "{provider}/.well-known/openid-configuration"
"""


def test_sign_in_look_and_leave(filled, tmp_path):
    if CHROMIUM is None:
        pytest.skip("no Chromium: install Debian's package `chromium`")
    playwright = pytest.importorskip("playwright.sync_api")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    geofix = str(Path(sys.executable).with_name("geofix"))
    line = [geofix, "dashboard", "--port", str(port), "--address", "127.0.0.1"]
    log = tmp_path / "server.log"
    with provider() as known, log.open("wb") as out, playwright.sync_playwright() as driver:
        secrets = tmp_path / "secrets.toml"
        secrets.write_text(SECRETS.format(address=address, provider=known.url))
        environment = {
            **os.environ,
            "HOME": str(tmp_path),
            "STREAMLIT_SECRETS_FILES": str(secrets),
            "GEOFIX_DASHBOARD_ACCESS": "oidc",
            "GEOFIX_DASHBOARD_VIEWERS": "@example.org",
            "GEOFIX_DASHBOARD_OPERATORS": "olga@example.org",
        }
        with subprocess.Popen(line, stdout=out, stderr=out, env=environment) as server:
            try:
                wait_for(f"{address}/_stcore/health", server, log)
                browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
                for person, role in (("eve@evil.net", ""), ("anna@example.org", "viewer")):
                    visit(browser, address, known, person, role)
                visit(browser, address, known, "Olga@example.org", "operator")
                browser.close()
            finally:
                server.terminate()
                server.wait(20)


def visit(browser, address, known, person, role) -> None:
    """Sign in as somebody in a browser that knows nobody, come to the page asked for, see the jobs, leave."""
    from playwright.sync_api import expect

    known.who = {"email": person, "email_verified": True}
    page = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(f"{address}/data?part=regions")
    page.get_by_role("button", name="Sign in").wait_for()
    for hidden in ("Arland", "Overview"):
        expect(settled(page).get_by_text(hidden)).to_have_count(0)
    page.get_by_role("button", name="Sign in").click()
    if not role:
        page.get_by_text(f"{person} is on neither list").wait_for()
    else:
        page.get_by_text("n = 3 regions").wait_for()  # what was asked for before, not the start page
        assert page.url == f"{address}/data?part=regions"
        page.get_by_text(f"{person.lower()} · {role}").wait_for()
        page.get_by_role("link", name="Jobs").click()
        page.get_by_text("No job was submitted yet.").wait_for()
        may_submit(page, role == "operator")
        page.goto(f"{address}/jobs?view=submit")  # the cookie keeps who it is
        page.get_by_text(f"{person.lower()} · {role}").wait_for()
        page.get_by_text("Workers and queues").wait_for()
        may_submit(page, role == "operator")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("button", name="Sign in").wait_for()
    page.context.close()


def may_submit(page, wanted: bool) -> None:
    """The way to submit a job is there, or is not once all of the page is."""
    from playwright.sync_api import expect

    way = settled(page).get_by_text("Submit", exact=True)
    if wanted:
        expect(way.first).to_be_visible(timeout=WAIT_MS)
    else:
        expect(way).to_have_count(0)
