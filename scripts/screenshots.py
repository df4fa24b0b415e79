"""Pictures of every dashboard page at desk and phone size, from a dashboard that is running.

Example: python scripts/screenshots.py http://localhost:8501 docs/images --evaluation NAME --photo PHOTO.jpg
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

SIZES = {"": (1440, 900), "-phone": (390, 844)}
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
TALLEST = 3_000  # px; longer pages are cut
SETTLE_MS = 4_000


def main() -> int:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="Of the running dashboard; `local`: port 8501 of this machine.")
    parser.add_argument("out", type=Path, help="Folder of the pictures.")
    parser.add_argument("--evaluation", default="", help="Shown on the accuracy page.")
    parser.add_argument("--other", default="", help="Evaluation it is compared with in a picture of its own.")
    parser.add_argument("--photo", type=Path, help="Localized for the picture of that page; needs a worker.")
    parser.add_argument("--only", nargs="*", default=[], help="Names of pictures, for example: sql models.")
    given = parser.parse_args()
    address = "http://localhost:8501" if given.address == "local" else given.address
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.stderr.write("No Chromium: install Debian's package `chromium`.\n")
        return 4
    from playwright.sync_api import sync_playwright

    given.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        for suffix, (width, height) in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(120_000)
            for name, path in pages(given.evaluation, given.other):
                if given.only and name not in given.only:
                    continue
                page.goto(f"{address}/{path}")
                page.get_by_test_id("stMain").locator("h1").first.wait_for()
                if name == "localize" and given.photo is not None:
                    localize(page, given.photo)
                if name == "sql":
                    page.get_by_role("button", name="Run", exact=True).click()
                    page.get_by_text("shapes drawn").wait_for()
                whole(page, width, height).screenshot(path=given.out / f"dashboard-{name}{suffix}.png")
                page.set_viewport_size({"width": width, "height": height})
            page.close()
        browser.close()
    return 0


def pages(evaluation: str, other: str) -> Iterator[tuple[str, str]]:
    """Name of the picture, and the page with what it is to show."""
    chosen = {"evaluation": evaluation} if evaluation else {}
    yield "overview", ""
    yield "localize", "localize"
    yield "accuracy", f"accuracy?{urlencode(chosen)}"
    yield "errors", f"accuracy?{urlencode({**chosen, 'view': 'errors'})}"
    if other:
        yield "compare", f"accuracy?{urlencode({**chosen, 'view': 'compare', 'with': other})}"
    yield "coverage", "coverage"
    yield "space", "space?zoom=near"
    yield "jobs", "jobs"
    yield "submit", "jobs?view=submit"
    yield "models", "models"
    yield "sql", "sql?example=Coverage+of+cells"
    yield "data", "data?part=regions"  # its first part shows where files of the data sets lie
    yield "partitions", "data?part=partitions"


def localize(page: Any, photo: Path) -> None:
    """Ask about a photo and wait for the answer."""
    page.locator("input[type=file]").first.set_input_files(str(photo))
    page.get_by_role("button", name="Find where").click()
    page.get_by_text("Evidence for rank 1").wait_for()
    page.get_by_text("Around rank 1").click()


def whole(page: Any, width: int, height: int) -> Any:
    """The page, its window as tall as what it holds."""
    settle(page)
    tall = page.get_by_test_id("stMain").evaluate("element => element.scrollHeight")
    page.set_viewport_size({"width": width, "height": int(min(max(tall, height), TALLEST))})
    page.get_by_test_id("stMain").evaluate("element => { element.scrollTop = 0 }")
    settle(page)
    return page


def settle(page: Any) -> None:
    """Wait until the page's script has ended, then for maps and charts to be drawn."""
    page.locator('[data-test-script-state="notRunning"]').first.wait_for()
    page.wait_for_timeout(SETTLE_MS)


if __name__ == "__main__":
    sys.exit(main())
