"""One real browser: the page is served, the map is drawn, nothing is asked of the internet."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
from filled_database import COUNTRIES, OUTSIDE
from PIL import Image

from geofix.cli.dashboard import command_line

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def address(request, tmp_path) -> Iterator[str]:
    """The dashboard of the database that the test asked for before (else the filled one), by the command."""
    if "towns" not in request.fixturenames:
        request.getfixturevalue("filled")
    port = free_port()
    line = [
        str(Path(sys.executable).with_name("geofix")),
        "dashboard",
        "--port",
        str(port),
        "--address",
        "127.0.0.1",
    ]
    log = tmp_path / "server.log"
    environment = {**os.environ, "HOME": str(tmp_path)}
    with log.open("wb") as out, subprocess.Popen(line, stdout=out, stderr=out, env=environment) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/_stcore/health", server, log)
            assert f"http://127.0.0.1:{port}" in log.read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(20)


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        assert server.poll() is None, log.read_text()
        try:
            with urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"{url} did not answer: {log.read_text()}")


def settled(page: Any) -> Any:
    """The page, once its script has run to its end: until then buttons come, go and are replaced."""
    page.locator('[data-test-script-state="notRunning"]').first.wait_for()
    return page


@pytest.mark.browser
def test_the_map_is_drawn_without_internet(address):
    if CHROMIUM is None:
        pytest.skip("no Chromium: install Debian's package `chromium`")
    playwright = pytest.importorskip("playwright.sync_api")
    asked: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{address}/accuracy?evaluation=first&level_by=country&threshold=200")
        chart = page.get_by_test_id("stDeckGlJsonChart")
        chart.locator("canvas").first.wait_for(timeout=60_000)
        total = sum(n for _, _, n in COUNTRIES.values()) + OUTSIDE
        assert settled(page).get_by_text(f"n = {total} photos").count()
        pixels = drawn(page, chart)
        browser.close()
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {address.split("/")[2]}
    ground = np.array([230, 237, 242])
    filled = np.abs(pixels.astype(int) - ground).max(axis=2) > 40
    assert filled.mean() > 0.05, "the map shows hardly anything but its ground"
    assert len(np.unique(pixels.reshape(-1, 3) // 32, axis=0)) > 5, "the map has hardly any colours"


@pytest.mark.browser
def test_a_file_of_200_mb_is_refused_and_the_next_one_is_taken(towns, address, tmp_path):
    if CHROMIUM is None:
        pytest.skip("no Chromium: install Debian's package `chromium`")
    playwright = pytest.importorskip("playwright.sync_api")
    large = tmp_path / "large.jpg"
    with large.open("wb") as file:
        file.truncate(200_000_000)
    text = tmp_path / "<img src=x onerror=alert(1)>.jpg"
    text.write_text("<script>alert(2)</script>")
    said: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(60_000)
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.goto(f"{address}/localize")
        drop = page.locator("input[type=file]").first
        drop.set_input_files(str(large))
        page.get_by_text("200.0MB").wait_for()  # in red; the words below say why
        assert settled(page).get_by_text("20 photos of 20 MB. A file in red was not taken").is_visible()
        page.wait_for_timeout(2_000)
        assert page.get_by_role("button", name="Find where").is_disabled()
        drop.set_input_files(str(text))
        page.get_by_text("is not an image").first.wait_for()
        drop.set_input_files(str(towns.photo()))
        page.get_by_role("button", name="Find where it was taken").wait_for()
        page.get_by_test_id("stImage").first.wait_for()
        browser.close()
    assert not said


@pytest.mark.browser
def test_an_area_is_drawn_by_hand_and_by_corners(towns, address):
    if CHROMIUM is None:
        pytest.skip("no Chromium: install Debian's package `chromium`")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(120_000)
        page.goto(f"{address}/localize")
        page.get_by_text("Draw", exact=True).click()
        plan = page.get_by_label("Map to draw on")
        plan.wait_for()
        assert settled(page).get_by_text("Nothing is drawn").is_visible()
        plan.scroll_into_view_if_needed()
        box = plan.bounding_box()
        middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

        def at(dx: float, dy: float) -> tuple[float, float]:
            return middle[0] + dx, middle[1] + dy

        page.mouse.move(*at(-60, -60))
        page.mouse.down()
        for dx, dy in ((60, -60), (60, 60), (-60, 60), (-60, -50)):
            page.mouse.move(*at(dx, dy), steps=6)
        page.mouse.up()
        page.get_by_text("km² drawn").wait_for()
        by_hand = area(page)
        plan_path = plan.locator("path.drawn")
        assert len(plan_path.get_attribute("d").split("M")) == 2
        for dx, dy in ((-150, 80), (-110, 80), (-110, 120), (-150, 120), (-150, 80)):
            page.mouse.click(*at(dx, dy))
        page.wait_for_function("a => !document.body.innerText.includes(a)", arg=f"{by_hand:,.1f} km² drawn")
        page.get_by_text("km² drawn").wait_for()
        both = area(page)
        assert 1.05 < both / by_hand < 1.4  # 40 by 40 pixels more than 120 by 120, and Mercator's stretch
        page.get_by_role("button", name="Undo").click()
        page.get_by_text(f"{by_hand:,.1f} km² drawn").wait_for()
        page.get_by_role("button", name="Zoom in").click()
        page.get_by_role("button", name="Clear").click()
        page.get_by_text("Nothing is drawn").wait_for()
        browser.close()


def area(page) -> float:
    """Square kilometres that the page says were drawn."""
    return float(page.get_by_text("km² drawn").inner_text().split("km²")[0].split()[-1].replace(",", ""))


def drawn(page, chart) -> np.ndarray:
    """The map's pixels once two looks at it agree, (h, w, 3)."""
    from playwright.sync_api import Error

    before = None
    for _ in range(40):
        page.wait_for_timeout(500)
        try:
            picture = chart.screenshot()
        except Error as error:
            if "not attached" not in str(error):
                raise
            continue  # the page ran again meanwhile and put another map in its place
        now = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
        if before is not None and before.shape == now.shape and (before == now).all() and now.std() > 5:
            return now
        before = now
    return before


def test_the_command_serves_this_package_with_its_settings(monkeypatch):
    monkeypatch.delenv("STREAMLIT_THEME_PRIMARY_COLOR", raising=False)
    line = command_line(8599, "localhost")
    assert line[1:4] == ["-m", "geofix_dashboard", "run"] and Path(line[4]).name == "app.py"
    assert {"--server.port=8599", "--server.address=localhost"} <= set(line)
    assert {"--browser.gatherUsageStats=false", "--server.fileWatcherType=none"} <= set(line)
    assert any(flag.startswith("--theme.primaryColor=") for flag in line)
    monkeypatch.setenv("STREAMLIT_THEME_PRIMARY_COLOR", "#000000")
    assert not any(flag.startswith("--theme.primaryColor=") for flag in command_line(8599, "localhost"))


def test_port_and_address_come_from_the_environment_too(monkeypatch):
    from typer.testing import CliRunner

    from geofix.cli import dashboard

    seen = {}
    monkeypatch.setattr(
        dashboard, "serve", lambda port, address: seen.update(port=port, address=address) or 0
    )
    runner = CliRunner()
    environment = {"STREAMLIT_SERVER_PORT": "9000", "STREAMLIT_SERVER_ADDRESS": "0.0.0.0"}
    assert runner.invoke(dashboard.app, [], env=environment).exit_code == 0
    assert seen == {"port": 9000, "address": "0.0.0.0"}
    assert runner.invoke(dashboard.app, ["--port", "8502"], env=environment).exit_code == 0
    assert seen["port"] == 8502
    assert "Example: geofix dashboard" in runner.invoke(dashboard.app, ["--help"]).output
