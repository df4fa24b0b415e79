"""One look for every page: colour scales, words for numbers, legends, headers and empty states."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import ArrayLike

SMALL_N = 30  # below this many photos a share is shown pale
CATEGORIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
GREY_TEXT = "#9aa7b1"

# Anchors of matplotlib's scales at equal steps; both are even in lightness and safe for colour-blind readers.
VIRIDIS = (
    "#440154",
    "#482475",
    "#414487",
    "#355f8d",
    "#2a788e",
    "#21918c",
    "#22a884",
    "#44bf70",
    "#7ad151",
    "#bddf26",
    "#fde725",
)
CIVIDIS = (
    "#00224e",
    "#123570",
    "#3b496c",
    "#575d6d",
    "#707173",
    "#8a8678",
    "#a59c74",
    "#c3b369",
    "#e1cc55",
    "#fee838",
)
# Fill and ink of a job's state; colour never stands alone, the word is beside it.
STATE_COLOURS = {
    "queued": ("#e8eef1", "#1b2733"),
    "running": ("#56b4e9", "#0b2233"),
    "paused": ("#f0e3b0", "#1b2733"),
    "succeeded": ("#009e73", "#ffffff"),
    "failed": ("#d55e00", "#ffffff"),
    "cancelled": ("#9aa7b1", "#1b2733"),
    "lost": ("#e69f00", "#1b2733"),
    "parked": ("#cc79a7", "#1b2733"),
}
STATE_MARKS = {
    "queued": "○",
    "running": "◐",
    "paused": "‖",
    "succeeded": "✓",
    "failed": "✕",
    "cancelled": "⊘",
    "lost": "?",
    "parked": "▪",
    "alive": "✓",
    "silent": "?",
    "ready": "✓",
    "stale": "!",
    "building": "◐",
    "dropping": "⊘",
}
# Orange for losses, blue for gains, grey for no difference.
DIVERGING = ("#b35806", "#e08214", "#fdb863", "#d9dde1", "#92c5de", "#4393c3", "#2166ac")

_STYLE = Path(__file__).with_name("style.css")

LOGO = Path(__file__).with_name("logo.svg")
ICON = Path(__file__).with_name("icon.svg")


def install() -> None:
    """Put the style sheet into the page."""
    st.html(_STYLE)


def header(title: str, lead: str) -> None:
    """The head of a page: its name and one sentence of what it answers."""
    st.title(title, anchor=False)
    st.html(f'<p class="gx-lead">{html.escape(lead)}</p>')


def section(title: str, note: str = "") -> None:
    """The head of a part of a page."""
    below = f'<div class="gx-note">{html.escape(note)}</div>' if note else ""
    st.html(f'<h3 class="gx-section">{html.escape(title)}</h3>{below}')


def empty(title: str, why: str, *commands: str) -> None:
    """What a page says when there is nothing to show: why, and the commands that change it."""
    lines = "".join(f"<code>{html.escape(command)}</code>" for command in commands)
    st.html(f'<div class="gx-empty"><b>{html.escape(title)}</b><p>{html.escape(why)}</p>{lines}</div>')


def facts(rows: Sequence[Sequence[str]]) -> None:
    """A small table of three columns, name, value and remark, whose text wraps."""
    lines = "".join(f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in row)}</tr>" for row in rows)
    st.html(f'<table class="gx-facts">{lines}</table>')


def colour(share: float, scale: Sequence[str] = VIRIDIS, alpha: int = 225) -> list[int]:
    """RGBA (0-255) at a place between 0 and 1 of a scale, straight between its anchors."""
    place = min(max(share, 0.0), 1.0) * (len(scale) - 1)
    low = min(int(place), len(scale) - 2)
    rest = place - low
    ends = [[int(code[i : i + 2], 16) for i in (1, 3, 5)] for code in (scale[low], scale[low + 1])]
    return [round(a + (b - a) * rest) for a, b in zip(*ends, strict=True)] + [alpha]


def colours(shares: ArrayLike, scale: Sequence[str] = VIRIDIS, alpha: ArrayLike = 225) -> list[list[int]]:
    """`colour` of many places at once, (n,), with one opacity or one for each."""
    anchors = np.array([[int(code[i : i + 2], 16) for i in (1, 3, 5)] for code in scale], np.float64)
    place = np.clip(np.asarray(shares, np.float64), 0.0, 1.0) * (len(scale) - 1)
    low = np.minimum(place.astype(np.int64), len(scale) - 2)
    rest = (place - low)[:, None]
    rgb = np.rint(anchors[low] + (anchors[low + 1] - anchors[low]) * rest)
    opaque = np.broadcast_to(np.asarray(alpha, np.float64), place.shape)
    found: list[list[int]] = np.column_stack([rgb, opaque]).astype(np.int64).tolist()
    return found


def legend(title: str, scale: Sequence[str], ticks: Sequence[str], note: str = "") -> None:
    """A colour bar with its ticks at equal steps."""
    marks = "".join(f"<span>{html.escape(tick)}</span>" for tick in ticks)
    rest = f'<div class="gx-note">{html.escape(note)}</div>' if note else ""
    st.html(
        f'<div class="gx-legend">{html.escape(title)}'
        f'<div class="gx-bar" style="background:linear-gradient(90deg,{",".join(scale)})"></div>'
        f'<div class="gx-ticks">{marks}</div>{rest}</div>'
    )


def key_of(items: Sequence[tuple[str, str]], note: str = "") -> None:
    """A legend of single colours: (CSS colour, meaning)."""
    dots = "".join(
        f'<span class="gx-dot" style="background:{code}"></span>{html.escape(text)}' for code, text in items
    )
    st.html(f'<div class="gx-legend">{dots} <span class="gx-note">{html.escape(note)}</span></div>')


def grey_where_few(shown: pd.DataFrame) -> Any:
    """The table with its rows of fewer than 30 photos (column n) in grey.

    What pandas would find out cell by cell, 400 ms for 5,000 rows, is told at once: one rule for every cell
    of those rows. Cells show their value as text where a column sets no format of its own.
    """
    few = np.flatnonzero((shown["n"] < SMALL_N).to_numpy()).tolist()
    if not few:
        return shown
    cells = [f"row{row}_col{column}" for row in few for column in range(len(shown.columns))]
    found: Any = shown.style.set_uuid("few")
    found._compute = lambda: found
    found._translate = lambda *_: {
        "cellstyle": [{"props": [("color", GREY_TEXT)], "selectors": cells}],
        "body": [],
    }
    return found


def table_height(rows: int, most: int = 520) -> int | Literal["auto"]:
    """Height of a table: as its rows up to ten, then in pixels up to a limit."""
    return "auto" if rows <= 10 else min(most, 33 * (rows + 1) + 3)


def state_mark(state: str) -> str:
    """A state with its sign before it."""
    return f"{STATE_MARKS.get(state, '')} {state}".strip()


def duration(seconds: float | None) -> str:
    """A time for people: 0.4 s, 12 s, 3 min 20 s, 2 h 05 min; a dash where there is none."""
    if seconds is None or math.isnan(seconds):
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def size(value: float | None) -> str:
    """Bytes for people: 512 B, 80 kB, 1.2 GB."""
    if value is None or math.isnan(value):
        return "–"
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.0f} B"


def days(values: pd.Series) -> pd.Series:
    """`day` of a whole column."""
    return pd.to_datetime(values, utc=True).dt.strftime("%Y-%m-%d").fillna("–")


def utc(value: Any) -> Any:
    """A moment in UTC, whatever zone the server speaks in; a date as it is."""
    return value.astimezone(UTC) if getattr(value, "tzinfo", None) is not None else value


def day(value: Any) -> str:
    """A date, of a moment in UTC, as ISO text, which also sorts; a dash where there is none."""
    return "–" if value is None or pd.isna(value) else f"{utc(value):%Y-%m-%d}"


def minute(value: Any) -> str:
    """A moment as text."""
    return f"{utc(value):%Y-%m-%d %H:%M} UTC"


def count(value: int) -> str:
    """A number of things that fits a narrow tile: 12,345, then 123 k, and 1.22 M above a million."""
    if value < 100_000:
        return f"{value:,}"
    return f"{value / 1e3:,.0f} k" if value < 999_500 else f"{value / 1e6:,.2f} M"


def radius(value: float) -> str:
    """A threshold as it was chosen: 200 m, 25 km."""
    return f"{value / 1000:g} km" if value >= 1000 else f"{value:g} m"


def metres(value: float | None) -> str:
    """A distance for people: 12.5 m, 340 m, 4.2 km; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "no answer"
    if value < 100:
        return f"{value:.1f} m" if value >= 0.05 else "0 m"
    if value < 1000:
        return f"{value:.0f} m"
    return f"{value / 1000:,.1f} km" if value < 100_000 else f"{value / 1000:,.0f} km"


def interval(low: float | None, high: float | None) -> str:
    """A 95 % interval in percent: 27.0–55.5 %."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return "–"
    return f"{low:.1f}–{high:.1f} %"


def percent(value: float | None) -> str:
    """A share: 40.5 %."""
    return "–" if value is None or math.isnan(value) else f"{value:.1f} %"
