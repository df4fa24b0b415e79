"""What benchmarks/dashboard.py tells: tables in Markdown, and the same figures as one document."""

from __future__ import annotations

import math
import os
import platform
import statistics
import sys
from dataclasses import dataclass, field
from typing import Any

from _dashboard_browser import Took
from _dashboard_sql import LOGGED_MS, Slow

FIRST_MS, CHANGE_MS, QUERY_MS = 2_000, 1_000, 300
MARKS = (1, 50, 100, 200)  # page views after which memory is told


@dataclass
class Measured:
    """Times of first views by view, of changes by view and control, slow statements, memory in MB.

    Attributes:
        memory: Resident memory of the server after each page view.
        load: The machine's load when the measurement began and ended.
    """

    firsts: dict[str, list[Took]] = field(default_factory=dict)
    changes: dict[tuple[str, str], list[Took]] = field(default_factory=dict)
    statements: list[Slow] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)


def say(text: str) -> None:
    """A line on standard output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def percentile(values: list[float], share: float) -> float:
    """The smallest value that so many are not above; of few values p95 is the largest."""
    return sorted(values)[max(0, math.ceil(share * len(values) - 1e-9) - 1)]


def times(measured: Measured) -> None:
    """First views, then changes; what misses its target is marked."""
    views = list(measured.firsts.items())
    changes = [(f"{view}: {name}", values) for (view, name), values in measured.changes.items()]
    for head, rows, target in (("first view", views, FIRST_MS), ("change", changes, CHANGE_MS)):
        if not rows:
            continue
        columns = "answered p50 ms | p95 ms | done p50 ms | p95 ms | n"
        say(f"\n| {head} (target {target:,} ms) | {columns} |\n| --- | --- | --- | --- | --- | --- |")
        for name, values in [*rows, ("all", _all(rows))]:
            told = _spread(values, target)
            cells = []
            for kind in ("answered", "done"):
                mark = "" if told[f"{kind}_met"] else " **missed**"
                cells += [f"{told[f'{kind}_p50_ms']:,.0f}", f"{told[f'{kind}_p95_ms']:,.0f}{mark}"]
            say(f"| {name} | {' | '.join(cells)} | {told['n']} |")


def statements(measured: Measured) -> None:
    """Every statement above the limit and those next to it, the slowest first."""
    found = measured.statements
    above = [item for item in found if max(item.took) > QUERY_MS]
    say(f"\n{len(above)} statements took more than {QUERY_MS} ms; logged from {LOGGED_MS} ms")
    say("\n| statement | longest ms | median ms | n |\n| --- | --- | --- | --- |")
    for item in found[: max(20, len(above))]:
        most, middle = max(item.took), statistics.median(item.took)
        mark = " **over**" if item in above else ""
        say(f"| {item.name} | {most:,.0f}{mark} | {middle:,.0f} | {len(item.took)} |")


def memory(measured: Measured) -> None:
    """Memory after so many page views, the largest, and the slope of the second half."""
    told = _memory(measured.memory)
    say("\n| memory of the server | MB |\n| --- | --- |")
    for views, size in told["after_views_mb"].items():
        say(f"| after {views} page views | {size:.0f} |")
    say(f"| largest | {told['largest_mb']:.0f} |")
    say(f"| slope of the second half, per 100 page views | {told['slope_mb_per_100_views']:+.1f} |")


def document(measured: Measured, size: dict[str, int]) -> dict[str, Any]:
    """Everything as JSON holds it, with the single values."""
    found: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": measured.load},
        "size": size,
        "targets_ms": {"first_view": FIRST_MS, "change": CHANGE_MS, "statement": QUERY_MS},
        "first_views": [
            {"view": view, **_spread(values, FIRST_MS), **_single(values)}
            for view, values in measured.firsts.items()
        ],
        "changes": [
            {"view": view, "change": name, **_spread(values, CHANGE_MS), **_single(values)}
            for (view, name), values in measured.changes.items()
        ],
        "statements": [
            {"name": item.name, "over": max(item.took) > QUERY_MS, "ms": _rounded(item.took)}
            for item in measured.statements
        ],
    }
    if measured.memory:
        found["memory"] = {**_memory(measured.memory), "mb": _rounded(measured.memory)}
    return found


def _all(rows: list[tuple[str, list[Took]]]) -> list[Took]:
    return [value for _, values in rows for value in values]


def _spread(values: list[Took], target: int) -> dict[str, Any]:
    told: dict[str, Any] = {"n": len(values)}
    for kind in ("answered", "done"):
        times = [getattr(value, kind) for value in values]
        high = percentile(times, 0.95)
        told |= {
            f"{kind}_p50_ms": round(statistics.median(times), 1),
            f"{kind}_p95_ms": round(high, 1),
            f"{kind}_met": high <= target,
        }
    return told


def _single(values: list[Took]) -> dict[str, list[float]]:
    return {
        "answered_ms": _rounded([value.answered for value in values]),
        "done_ms": _rounded([value.done for value in values]),
    }


def _memory(sizes: list[float]) -> dict[str, Any]:
    half = sizes[len(sizes) // 2 :]
    slope = statistics.linear_regression(range(len(half)), half).slope if len(half) > 1 else 0.0
    marks = sorted({mark for mark in (*MARKS, len(sizes)) if mark <= len(sizes)})
    return {
        "after_views_mb": {mark: round(sizes[mark - 1], 1) for mark in marks},
        "largest_mb": round(max(sizes), 1),
        "slope_mb_per_100_views": round(100 * slope, 2),
    }


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 1) for value in values]
