"""The dashboard at size: how long pages and controls take in a real browser, its memory, its slow statements.

Its own PostgreSQL and Redis with made photos, codes, evaluations and jobs; the real dashboard; Chromium.

    .venv/bin/python benchmarks/dashboard.py
    .venv/bin/python benchmarks/dashboard.py --keep /var/tmp/geofix-bench --only pages --repeats 3
    .venv/bin/python benchmarks/dashboard.py --keep /var/tmp/geofix-bench --json dashboard.json
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from _dashboard_report import Measured, say
from _dashboard_views import View

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
SEEDED = "seeded.json"
ONE_JOB = (
    "SELECT job_id::text FROM job WHERE kind = %s AND state = 'succeeded' ORDER BY submitted_at DESC LIMIT 1"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=("seed", "pages", "memory"))
    parser.add_argument("--pages", default="", help="Only views whose name holds this text.")
    parser.add_argument("--photos", type=int, default=1_000_000)
    parser.add_argument("--predictions", type=int, default=1_000_000)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=10, help="Of every first view and every change.")
    parser.add_argument("--views", type=int, default=200, help="Page views of the memory measurement.")
    parser.add_argument("--keep", type=Path, help="Folder of the filled cluster, made or used again.")
    parser.add_argument("--json", type=Path, help="File that all figures are written to as well.")
    options = parser.parse_args()
    if options.json is not None:
        options.json = options.json.resolve()
    for name in list(os.environ):
        if name.startswith(("PG", "GEOFIX_")):
            del os.environ[name]
    from servers import new_home

    home = new_home() if options.keep is None else options.keep.resolve()
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)
    os.environ.update(GEOFIX_HOME=str(home), GEOFIX_MIN_FREE_BYTES="0", GEOFIX_LOG_LEVEL="WARNING")
    os.chdir(home)  # no `.env` of the caller
    with servers(home, keep=options.keep is not None) as log:
        seed(home, options)
        if options.only != "seed":
            measure(home, log, options)


@contextmanager
def servers(home: Path, *, keep: bool) -> Iterator[Path]:
    """PostgreSQL and Redis of a home, slow statements logged; yields the folder of the log."""
    from _dashboard_sql import CONF

    from geofix.database import cluster, engine
    from geofix.database.embedded.paths import locate
    from geofix.settings import get_settings
    from servers import remove_home

    settings = get_settings()
    try:
        cluster.start(settings)
        local = locate(settings).data / "local.conf"
        if not local.exists() or local.read_text() != CONF:
            cluster.stop(settings)
            local.write_text(CONF)
            local.chmod(0o644)
            cluster.start(settings)
        yield locate(settings).log
    finally:
        engine.dispose()
        if keep:
            cluster.stop(settings)
        else:
            remove_home(settings)


def seed(home: Path, options: argparse.Namespace) -> None:
    """Bring the schema up to date, and fill the database unless it is."""
    import _dashboard_jobs
    from _dashboard_seed import Size, fill

    from geofix.database.cluster import database_url
    from geofix.database.engine import connect
    from geofix.database.migrate import migrate
    from geofix.log import configure
    from geofix.settings import get_settings

    configure("WARNING")
    migrate(database_url(get_settings()))
    size = Size(options.photos, options.cells, options.predictions, options.jobs)
    done = home / SEEDED
    if done.exists():
        say(f"the cluster in {home} is filled: {done.read_text().strip()}")
        return
    began = time.monotonic()
    with connect() as conn:
        fill(conn, size, home / "files", lambda text: say(f"[{time.monotonic() - began:5.0f} s] {text}"))
        _dashboard_jobs.fill(conn, size.jobs)
        conn.execute("ANALYZE job")
        conn.execute("ANALYZE job_event")
    done.write_text(f"{json.dumps(vars(size))}\n")
    say(f"[{time.monotonic() - began:5.0f} s] filled")


@contextmanager
def dashboard(home: Path) -> Iterator[tuple[str, int]]:
    """The real dashboard by its command; yields address and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    line = [str(Path(sys.executable).with_name("geofix")), "dashboard", "--port", str(port)]
    line += ["--address", "127.0.0.1"]
    environment = {**os.environ, "HOME": str(home)}
    with (
        (home / "dashboard.log").open("wb") as out,
        subprocess.Popen(line, stdout=out, stderr=out, env=environment, cwd=home) as server,
    ):
        try:
            for _ in range(600):
                try:
                    with urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2):
                        break
                except (URLError, OSError):
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}", server.pid
        finally:
            server.terminate()
            server.wait(30)


def measure(home: Path, log: Path, options: argparse.Namespace) -> None:
    """Pages and memory; tables at the end, and the file that was asked for."""
    import _dashboard_report as report
    from _dashboard_browser import chromium, first_view, visitor
    from _dashboard_sql import position, slow

    views = chosen(options.pages)
    found = report.Measured(load=[os.getloadavg()[0]])
    with dashboard(home) as (address, pid), chromium() as browser:
        with visitor(browser) as page:
            say(f"very first page of a new server: {first_view(page, address, views[0]).done:.0f} ms")
        with visitor(browser) as page:
            took = first_view(page, address, views[0])
            say(f"a browser with an empty cache, warm server: {took.done:.0f} ms")
            for view in views:
                first_view(page, address, view)
            since = position(log)
            if options.only in (None, "pages"):
                pages(page, address, views, options.repeats, found)
                found.statements = slow(log, since)
                report.times(found)
                report.statements(found)
        if options.only in (None, "memory"):
            memory(browser, address, pid, views, options.views, found)
            report.memory(found)
    found.load.append(os.getloadavg()[0])
    say(f"\nload of the machine: {found.load[0]:.1f} before, {found.load[1]:.1f} after")
    if options.json is not None:
        document = report.document(found, json.loads((home / SEEDED).read_text()))
        options.json.write_text(f"{json.dumps(document, indent=1)}\n")


def chosen(text: str) -> list[View]:
    """Views whose name holds a text, with the ids of jobs that are there."""
    from _dashboard_views import VIEWS

    from geofix.database.engine import connect

    with connect("reader") as conn:
        jobs = {kind: conn.execute(ONE_JOB, (kind,)).fetchone() for kind in ("pipeline", "train")}
    ids = {kind: row[0] if row else "" for kind, row in jobs.items()}
    views = [replace(view, path=view.path.format(**ids)) for view in VIEWS if text in view.name]
    if not views:
        sys.exit(f"No view's name holds {text!r}: {', '.join(view.name for view in VIEWS)}.")
    return views


def pages(page: Any, address: str, views: list[View], repeats: int, found: Measured) -> None:
    """Times of first views and of changes, the server's caches emptied before every view."""
    from _dashboard_browser import changed, first_view, forget

    for turn in range(repeats):
        for view in views:
            forget(page, address)
            took = first_view(page, address, view)
            found.firsts.setdefault(view.name, []).append(took)
            told = [f"{took.done:.0f}"]
            for change in view.changes:
                took = changed(page, change)
                name = f"{change.label} {change.value}".strip()
                found.changes.setdefault((view.name, name), []).append(took)
                told.append(f"{name} {took.done:.0f}")
            say(f"{turn + 1}/{repeats} {view.name}: {', '.join(told)} ms")


def memory(browser: Any, address: str, pid: int, views: list[View], count: int, found: Measured) -> None:
    """Resident memory of the server over page views, each of a visitor of its own."""
    from _dashboard_browser import first_view, visitor

    for turn in range(count):
        with visitor(browser) as page:
            first_view(page, address, views[turn % len(views)])
        found.memory.append(resident_mb(pid))
        if (turn + 1) % 20 == 0:
            say(f"memory after {turn + 1} page views: {found.memory[-1]:.0f} MB")


def resident_mb(pid: int) -> float:
    """VmRSS of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    return 0.0


if __name__ == "__main__":
    main()
