"""One look for every page: colour scales, words for numbers, legends, headers and empty states."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import streamlit as st

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
# Orange for losses, blue for gains, grey for no difference.
DIVERGING = ("#b35806", "#e08214", "#fdb863", "#d9dde1", "#92c5de", "#4393c3", "#2166ac")

_CSS = """
<style>
[data-testid="stMainBlockContainer"] { padding-top: 2.6rem; max-width: 1500px; }
[data-testid="stDeckGlJsonChart"] { background: #e6edf2; border: 1px solid #dbe3e8; border-radius: 6px; overflow: hidden; }
[data-testid="stMetric"] { background: #f8fafb; }
.gx-lead { color: #5a6b78; margin: -0.6rem 0 0.4rem 0; max-width: 60rem; }
.gx-legend { font-size: 0.82rem; color: #45545f; margin: 0.1rem 0 0.6rem 0; }
.gx-bar { height: 10px; border-radius: 3px; border: 1px solid #c9d3da; margin: 3px 0 2px 0; }
.gx-ticks { display: flex; justify-content: space-between; }
.gx-note { color: #6b7a85; }
.gx-dot { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin: 0 4px 0 10px; vertical-align: -1px; }
.gx-empty { border: 1px dashed #b9c7d0; border-radius: 8px; background: #f8fafb; padding: 1.1rem 1.3rem; margin: 0.4rem 0 1rem 0; }
.gx-empty b { font-size: 1.02rem; }
.gx-empty p { color: #5a6b78; margin: 0.25rem 0 0.5rem 0; }
.gx-empty code { display: block; background: #132a3a; color: #e8eff3; padding: 0.5rem 0.8rem; border-radius: 6px; margin-top: 0.35rem; white-space: pre-wrap; }
.gx-state { font-weight: 600; }
</style>
"""

LOGO = """
<svg xmlns="http://www.w3.org/2000/svg" width="150" height="36" viewBox="0 0 150 36">
<path d="M16 3c-6 0-10.500 4.500-10.500 10.300C5.500 21 16 33 16 33s10.500-12 10.500-19.700C26.500 7.500 22 3 16 3z" fill="#fde725"/>
<path d="M16 3c-6 0-10.500 4.500-10.500 10.300C5.500 21 16 33 16 33z" fill="#21918c"/>
<circle cx="16" cy="13.500" r="4.200" fill="#132a3a"/>
<text x="36" y="25.500" font-family="Source Sans Pro, Source Sans, Helvetica, Arial, sans-serif" font-size="23" font-weight="700" fill="#ffffff">geofix</text>
</svg>
"""


def install() -> None:
    """Put the style sheet into the page."""
    st.html(_CSS)


def header(title: str, lead: str) -> None:
    """The head of a page: its name and one sentence of what it answers."""
    st.title(title, anchor=False)
    st.html(f'<p class="gx-lead">{html.escape(lead)}</p>')


def section(title: str, note: str = "") -> None:
    """The head of a part of a page."""
    st.subheader(title, anchor=False)
    if note:
        st.html(f'<div class="gx-note" style="margin-top:-0.7rem">{html.escape(note)}</div>')


def empty(title: str, why: str, *commands: str) -> None:
    """What a page says when there is nothing to show: why, and the commands that change it."""
    lines = "".join(f"<code>{html.escape(command)}</code>" for command in commands)
    st.html(f'<div class="gx-empty"><b>{html.escape(title)}</b><p>{html.escape(why)}</p>{lines}</div>')


def colour(share: float, scale: Sequence[str] = VIRIDIS, alpha: int = 225) -> list[int]:
    """RGBA (0-255) at a place between 0 and 1 of a scale, straight between its anchors."""
    place = min(max(share, 0.0), 1.0) * (len(scale) - 1)
    low = min(int(place), len(scale) - 2)
    rest = place - low
    ends = [[int(code[i : i + 2], 16) for i in (1, 3, 5)] for code in (scale[low], scale[low + 1])]
    return [round(a + (b - a) * rest) for a, b in zip(*ends, strict=True)] + [alpha]


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


def metres(value: float | None) -> str:
    """A distance for people: 12.5 m, 340 m, 4.2 km; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "no answer"
    if value < 100:
        return f"{value:.1f} m"
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
