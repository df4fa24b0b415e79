"""A real browser for benchmarks/dashboard.py: milliseconds from navigation or input to a page that is done.

Times are taken in the browser (`performance.now()`, which begins with the navigation). A page is done when
its script has ended, everything it must show stands in the document, and the next frame is drawn.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from _dashboard_views import Change, View

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
PATIENCE_MS = 60_000
# Every change of the script's state and the last input, with their times.
WATCH = """
window.bench = {runs: [], input: 0};
for (const kind of ['mousedown', 'keydown'])
  document.addEventListener(kind, () => { window.bench.input = performance.now(); }, true);
new MutationObserver(() => {
  const app = document.querySelector('[data-test-script-state]');
  const state = app && app.getAttribute('data-test-script-state');
  const last = window.bench.runs.at(-1);
  if (state && (!last || last[0] !== state)) window.bench.runs.push([state, performance.now()]);
}).observe(document, {
  subtree: true, childList: true, attributes: true, attributeFilter: ['data-test-script-state']});
"""
DONE = """
([shown, says, since]) => {
  const runs = window.bench.runs, last = runs.at(-1);
  if (!last || last[0] !== 'notRunning' || last[1] < since) return false;
  if (!runs.some(([state, at]) => state === 'running' && at >= since)) return false;
  const main = document.querySelector('[data-testid="stMain"]');
  if (!main || !main.querySelector('h1')) return false;
  if (document.querySelector('[data-testid="stSkeleton"], [data-stale="true"]')) return false;
  if (!shown.every(selector => main.querySelector(selector))) return false;
  const address = decodeURIComponent(location.search.replaceAll('+', ' '));
  if (says && !address.includes(says) && !main.innerText.includes(says)) return false;
  return performance.now();
}
"""


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium; the program ends where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        sys.exit("No Chromium: install Debian's package `chromium`.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visitor(browser: Any) -> Iterator[Any]:
    """A page of a browser whose cache is empty: no cookies, no files of the dashboard."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.add_init_script(WATCH)
    try:
        yield page
    finally:
        context.close()


def first_view(page: Any, address: str, view: View) -> float:
    """Milliseconds from the navigation to the page that is done."""
    page.goto(f"{address}/{view.path}", wait_until="commit")
    return _done(page, view.shown, "", 0.0)


def changed(page: Any, change: Change) -> float:
    """Milliseconds from the last input to the page that shows the change."""
    page.evaluate("() => { window.bench.input = 0 }")
    if change.kind == "select":
        box = page.get_by_test_id("stSelectbox").filter(has=page.get_by_text(change.label, exact=True)).first
        field = box.get_by_role("combobox")
        field.click()
        field.fill(change.value)
        page.get_by_role("option").filter(has_text=change.value).first.wait_for()
        field.press("Enter")
    elif change.kind == "segment":
        group = page.get_by_test_id("stMain").get_by_test_id("stButtonGroup").get_by_role("radio")
        group.filter(has_text=change.value).first.click()
    else:
        page.get_by_test_id("stMain").get_by_role("button", name=change.value, exact=True).first.click()
    began = float(page.evaluate("() => window.bench.input"))
    return _done(page, change.shown, change.says, began) - began


def forget(page: Any, address: str) -> None:
    """Empty the server's caches by the button that every page has."""
    page.goto(f"{address}/sql", wait_until="commit")
    _done(page, (), "", 0.0)
    since = float(page.evaluate("() => performance.now()"))
    page.get_by_test_id("stSidebar").get_by_role("button", name="Refresh").click()
    _done(page, (), "", since)


def _done(page: Any, shown: tuple[str, ...], says: str, since: float) -> float:
    from playwright.sync_api import TimeoutError as TooLong

    try:
        handle = page.wait_for_function(DONE, arg=[list(shown), says, since], polling="raf")
    except TooLong:
        lacks = [item for item in shown if not page.get_by_test_id("stMain").locator(item).count()]
        runs = page.evaluate("() => window.bench.runs.slice(-3)")
        sys.exit(f"{page.url} is not done: lacks {lacks}, is to say {says!r}, script {runs}, since {since}")
    return float(handle.json_value())
