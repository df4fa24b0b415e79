"""A real browser for benchmarks/dashboard.py: milliseconds from navigation or input to a page that is done.

Times are taken in the browser (`performance.now()`, which begins with the navigation). A page is answered
when the message arrives that its script has ended, and done when also everything it must show stands in the
document, what maps fetch was read, and the next frames are drawn. Without a GPU Chromium draws maps in
software, a second or two of both cores for a first one: that is in the second time and not in the first.

That a script ran to its end is read from the messages of the server (Streamlit's `ForwardMsg`, field
`script_finished`): the mark in the document, `data-test-script-state`, does not tell. Begin and end of a run
of a few milliseconds reach the page in one turn, and React draws the second of them alone.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
PATIENCE_MS = 300_000
# The ends of runs and the last input, with their times. A message is a row of fields: a key
# (8 * number + kind), then a number (kind 0) or a length and so many bytes (kind 2). Number 6
# is script_finished: 0 after a whole run, 3 after a fragment.
WATCH = """
window.bench = {ends: [], input: 0, seen: 0, open: 0, calm: 0, told: [], read: new Set()};
const fetched = window.fetch;
window.fetch = (...given) => held(fetched.apply(window, given));
const held = answer => {
  window.bench.open++;
  const done = () => { window.bench.open--; window.bench.calm = 0; };
  answer.then(done, done);
  return answer;
};
for (const name of ['text', 'json', 'arrayBuffer', 'blob']) {
  const read = Response.prototype[name];
  Response.prototype[name] = function () {
    return held(read.call(this).then(body => {
      if (this.url) window.bench.read.add(new URL(this.url).pathname.slice(1));
      return body;
    }));
  };
}
for (const kind of ['mousedown', 'keydown'])
  document.addEventListener(kind, () => { window.bench.input = performance.now(); }, true);
const ended = bytes => {
  let at = 0;
  const number = () => {
    let value = 0, scale = 1, byte;
    do { byte = bytes[at++]; value += (byte & 127) * scale; scale *= 128; } while (byte & 128);
    return value;
  };
  while (at < bytes.length) {
    const key = number();
    if (key % 8 === 2) { const length = number(); at += length; continue; }
    if (key % 8 !== 0) return false;
    const value = number();
    if (key === 48) return value === 0 || value === 3;
  }
  return false;
};
window.WebSocket = class extends window.WebSocket {
  constructor(...given) {
    super(...given);
    this.addEventListener('message', ({data}) => {
      if (!(data instanceof ArrayBuffer)) return;
      if (ended(new Uint8Array(data))) window.bench.ends.push(performance.now());
      const text = new TextDecoder('latin1').decode(data);
      for (const [address] of text.matchAll(/media\\/[0-9a-f]+\\.json/g)) window.bench.told.push(address);
    });
  }
};
"""
# What seems done is looked at again one frame later: a message is there before what it changes is drawn. What
# a map draws is fetched from addresses that a message told; it is drawn in the frame after it was read.
DONE = """
([shown, says, since]) => {
  const now = performance.now(), bench = window.bench;
  bench.calm = bench.open ? 0 : bench.calm + 1;
  const done = () => {
    if (bench.calm < 1 || !bench.told.every(address => bench.read.has(address))) return false;
    if (!bench.ends.some(at => at >= since)) return false;
    if (!document.querySelector('[data-test-script-state="notRunning"]')) return false;
    const main = document.querySelector('[data-testid="stMain"]');
    if (!main || !main.querySelector('h1')) return false;
    if (document.querySelector('[data-testid="stSkeleton"], [data-stale="true"]')) return false;
    if (!shown.every(selector => main.querySelector(selector))) return false;
    const address = decodeURIComponent(location.search.replaceAll('+', ' '));
    return !says || address.includes(says) || main.innerText.includes(says);
  };
  const before = bench.seen;
  bench.seen = done() ? before || now : 0;
  if (!before || !bench.seen || now === before) return false;
  bench.seen = 0;
  return [now, Math.max(...bench.ends.filter(at => at >= since))];
}
"""


@dataclass(frozen=True)
class Took:
    """Milliseconds until a page is done, and until the server's last message for it had arrived."""

    done: float
    answered: float


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


def first_view(page: Any, address: str, view: View) -> Took:
    """Times from the navigation on."""
    page.goto(f"{address}/{view.path}", wait_until="commit")
    return _done(page, view.shown, "", 0.0)


def changed(page: Any, change: Change) -> Took:
    """Times from the last input on."""
    page.evaluate("() => { window.bench.input = window.bench.seen = 0; window.bench.told = [] }")
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
    took = _done(page, change.shown, change.says, began)
    return Took(took.done - began, took.answered - began)


def forget(page: Any, address: str) -> None:
    """Empty the server's caches by the button that every page has."""
    page.goto(f"{address}/sql", wait_until="commit")
    _done(page, (), "", 0.0)
    since = float(page.evaluate("() => performance.now()"))
    page.get_by_test_id("stSidebar").get_by_role("button", name="Refresh").click()
    _done(page, (), "", since)


def _done(page: Any, shown: tuple[str, ...], says: str, since: float) -> Took:
    from playwright.sync_api import TimeoutError as TooLong

    try:
        handle = page.wait_for_function(DONE, arg=[list(shown), says, since], polling="raf")
    except TooLong:
        lacks = [item for item in shown if not page.get_by_test_id("stMain").locator(item).count()]
        ends = page.evaluate("() => window.bench.ends.slice(-3)")
        sys.exit(f"{page.url} is not done: lacks {lacks}, is to say {says!r}, ends {ends}, since {since}")
    return Took(*map(float, handle.json_value()))
