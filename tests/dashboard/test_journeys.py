"""What people do, in a real browser with a real worker: localize, drill down, run a job, ask SQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_world
from small_world import SmallWorld
from test_browser import CHROMIUM, FLAGS, drawn, free_port, settled, wait_for

from geofix.database.cluster import broker_url
from geofix.database.engine import connect
from geofix.settings import get_settings
from servers import Servers

pytestmark = pytest.mark.browser
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def served(
    embedded: SmallWorld, cluster: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, SmallWorld]]:
    """The dashboard over the eight towns, with one worker for interactive and cpu jobs."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: install Debian's package `chromium`")
    folder = tmp_path_factory.mktemp("served")
    port = free_port()
    geofix = str(Path(sys.executable).with_name("geofix"))
    started = []
    with small_world.pointed_at(embedded.database, embedded.folder / "home") as patch:
        patch.setenv("GEOFIX_BROKER_URL", broker_url(cluster.settings))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("HOME", str(folder))
        get_settings.cache_clear()
        evaluate()
        lines = (
            [geofix, "worker", "--queues", "interactive,cpu"],
            [geofix, "dashboard", "--port", str(port), "--address", "127.0.0.1"],
        )
        try:
            for line in lines:
                log = (folder / f"{line[1]}.log").open("wb")
                started.append(
                    subprocess.Popen(
                        line, stdout=log, stderr=log, env=dict(os.environ), start_new_session=True
                    )
                )
            wait_for(f"http://127.0.0.1:{port}/_stcore/health", started[1], folder / "dashboard.log")
            yield f"http://127.0.0.1:{port}", embedded
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(30)


def evaluate() -> None:
    """One evaluation of the test photos."""
    from geofix.evaluation.service import evaluate as judge

    with connect("owner") as conn:
        row = conn.execute("SELECT uri FROM snapshot LIMIT 1").fetchone()
        known = conn.execute("SELECT count(*) FROM evaluation WHERE name = 'towns'").fetchone()[0]
        if not known:
            judge(
                conn,
                localizer="cellmean",
                snapshot=Path(row[0]),
                split="test_seen",
                name="towns",
                model=None,
                code_set="means",
                level=small_world.LEVEL,
                within=None,
                k=20,
                replace=False,
            )


@pytest.fixture
def browser() -> Iterator[Any]:
    """A page of a new browser."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = chromium.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(WAIT_MS)
        yield page
        chromium.close()


def coloured(pixels: np.ndarray) -> float:
    """Share of a map's pixels that are strongly coloured: cells, not ground, land or outlines."""
    values = pixels.astype(int)
    return float((values.max(axis=2) - values.min(axis=2) > 60).mean())


def test_localize_a_photo_and_see_its_candidates_on_the_map(served, browser):
    address, towns = served
    browser.goto(f"{address}/localize")
    browser.locator("input[type=file]").first.set_input_files(str(towns.photo(3, 1, 2)))
    browser.get_by_role("button", name="Find where").click()
    browser.get_by_text("Best position").wait_for()
    with connect("reader") as conn:
        answer = conn.execute(
            "SELECT result -> 'answers' -> 0 FROM job WHERE kind = 'localize'"
            " ORDER BY submitted_at DESC LIMIT 1"
        ).fetchone()[0]
    best = answer["candidates"][0]
    browser.get_by_text("Evidence for rank 1").wait_for()
    assert settled(browser).get_by_text(f"{best['lat']:.5f}, {best['lon']:.5f}").first.is_visible()
    browser.get_by_text("Around rank 1").click()
    chart = settled(browser).get_by_test_id("stDeckGlJsonChart").first
    chart.locator("canvas").first.wait_for()
    assert coloured(drawn(browser, chart)) > 0.01, "no candidate is drawn"
    largest = 100 * max(item["probability"] for item in answer["candidates"])
    shown = browser.locator(".gx-legend .gx-ticks span").last.inner_text()
    assert float(shown.removesuffix("%")) == pytest.approx(largest, rel=0.06)
    with browser.expect_download() as download:
        settled(browser).get_by_role("button", name="Download as GeoJSON").click()
    document = json.loads(Path(download.value.path()).read_text())
    cells = [item for item in document["features"] if item["properties"]["what"] == "candidate"]
    assert len(cells) == len(answer["candidates"])
    left = get_settings().home_dir / "uploads"
    assert not left.exists() or not list(left.iterdir()), "the photo is still on the disk"


def test_drill_from_a_country_to_a_wrong_photo_and_share_it(served, browser):
    address, _ = served
    browser.goto(f"{address}/accuracy?evaluation=towns&threshold=25&level_by=country&in=country%3ADEU")
    browser.get_by_text("country DEU").first.wait_for()
    browser.get_by_role("button", name="Photos here, worst first").click()
    browser.get_by_role("button", name="Its answers on a map").first.click()
    browser.get_by_text("Photo and answer").wait_for()
    told = browser.get_by_text("from the truth").first.inner_text()
    assert "photo_id=" in browser.url and "DEU" in browser.url
    with connect("reader") as conn:
        photo = int(browser.url.partition("photo_id=")[2].partition("&")[0])
        code = conn.execute(
            "SELECT r.code FROM photo_region p JOIN region r USING (region_id) WHERE p.photo_id = %s",
            (photo,),
        ).fetchone()[0]
    assert code == "DEU"
    colleague = browser.context.browser.new_page(viewport={"width": 1440, "height": 1000})
    colleague.goto(browser.url)
    colleague.get_by_text("Photo and answer").wait_for(timeout=WAIT_MS)
    assert colleague.get_by_text("from the truth").first.inner_text() == told


def test_submit_a_job_watch_it_end_and_cancel_another(served, browser):
    address, _ = served
    browser.goto(f"{address}/jobs?view=submit&submit=recall_check")
    browser.get_by_label("code_set *").click()
    browser.get_by_role("option", name="means").click()
    browser.get_by_role("button", name="Submit").last.click()
    browser.get_by_text("recall_check · ✓ succeeded").wait_for()
    browser.goto(f"{address}/jobs?view=submit&submit=index")
    browser.get_by_label("code_set *").click()
    browser.get_by_role("option", name="air").click()
    browser.get_by_label("Queue").last.click()
    browser.get_by_role("option", name="gpu").click()  # nobody serves it: the job waits
    browser.get_by_role("button", name="Submit").last.click()
    browser.get_by_text("index · ○ queued").wait_for()
    browser.get_by_role("button", name="Cancel").click()
    browser.get_by_role("button", name="Yes, cancel it").click()
    browser.get_by_text("index · ⊘ cancelled").wait_for()
    with connect("reader") as conn:
        states = dict(conn.execute("SELECT kind, state FROM job WHERE kind IN ('recall_check', 'index')"))
    assert states == {"recall_check": "succeeded", "index": "cancelled"}


def test_run_a_query_of_the_cookbook_and_download_geojson(served, browser):
    address, _ = served
    browser.goto(f"{address}/sql?example=Coverage+of+cells")
    browser.get_by_role("button", name="Run").click()
    browser.get_by_text("shapes drawn").wait_for()
    with browser.expect_download() as download:
        settled(browser).get_by_role("button", name="Download as GeoJSON").click()
    document = json.loads(Path(download.value.path()).read_text())
    with connect("reader") as conn:
        cells = conn.execute("SELECT count(*) FROM coverage(15)").fetchone()[0]
    assert len(document["features"]) == min(cells, 500)
