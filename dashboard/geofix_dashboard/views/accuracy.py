"""Accuracy: where a localizer is right, how wrong it is elsewhere, and whether another one is better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from geofix.database.queries.dashboard_accuracy import Focus
from geofix.database.queries.region_summary import DISTANCES_M
from geofix.errors import GeofixError
from geofix.spatial import s2
from geofix_dashboard import accuracy_data, data, links, maps, theme
from geofix_dashboard.views import accuracy_compare, accuracy_errors, accuracy_photos, accuracy_places
from geofix_dashboard.views.accuracy_choice import Choice, go_to, steps

VIEWS = {"places": "Map and table", "errors": "Errors", "photos": "Worst photos", "compare": "Compare"}
THRESHOLDS_M = DISTANCES_M  # those that evaluations are summarized for
NONE = "none"


def render() -> None:
    """Draw the page."""
    theme.header(
        "Accuracy", "How often the first answer is near enough, place by place, with the photos it rests on."
    )
    rows = accuracy_data.evaluations()
    if rows.empty:
        theme.empty(
            "Nothing was evaluated yet.",
            "Build a snapshot, embed its photos, then let a localizer answer the test split.",
            "geofix snapshot build --dataset NAME --out DIR",
            "geofix embed photos --model NAME",
            "geofix evaluate run --localizer knn --model NAME --snapshot DIR --split test_seen",
        )
        return
    choice = _choose(rows)
    if choice is None:
        return
    _summary(choice)
    view = links.choose("view", "Show", list(VIEWS), kind="segments", show=VIEWS.__getitem__)
    if view == "places":
        accuracy_places.render(choice)
    elif view == "errors":
        accuracy_errors.render(choice)
    elif view == "photos":
        accuracy_photos.render(choice)
    else:
        accuracy_compare.render(choice)


def focus_of(place: str | None) -> Focus:
    """The focus that a place of the URL names; everywhere when it names none."""
    found = Focus()
    for kind, code in steps(place):
        if kind != "s2":
            found = replace(found, region_level=kind, region_code=code)
            continue
        try:
            lo, hi = s2.range_of(s2.from_token(np.array([code])))
        except (GeofixError, ValueError):
            return Focus()
        found = replace(found, lo=int(lo[0]), hi=int(hi[0]))
    return found


def _first(rows: pd.DataFrame) -> str:
    """The evaluation to begin with: the newest of the method on photos of known cells, or just the newest."""
    told = rows[(rows["localizer"] == "cellcode") & (rows["split"] == "test_seen")]
    return str((told if len(told) else rows)["evaluation"].iloc[-1])


def _choose(rows: pd.DataFrame) -> Choice | None:
    labels = {row.evaluation: f"{row.evaluation} (n = {row.n:,})" for row in rows.itertuples()}
    names = list(labels)[::-1]
    first, second, third, fourth = st.columns([4, 4, 2, 3])
    with first:
        name = str(
            links.choose("evaluation", "Evaluation", names, default=_first(rows), show=labels.__getitem__)
        )
    row = rows[rows["evaluation"] == name].iloc[0]
    with second:
        others = [NONE, *(other for other in names if other != name)]
        other = links.choose("with", "Compare with", others, show=lambda x: labels.get(x, "–"))
    with third:
        threshold = float(links.choose("threshold", "Within", THRESHOLDS_M, default=200, show=theme.radius))
    created = str(row["created_at"])
    everywhere = accuracy_data.bounds(name, created, Focus())
    if everywhere is None:
        _nothing(name, created)
        return None
    place = links.get("in")
    if focus_of(place) == Focus():  # nothing that is a place
        place = None
    bounds = accuracy_data.bounds(name, created, focus_of(place))
    if bounds is None:  # the place of another evaluation
        place = None
        bounds = everywhere
    with fourth:
        level = _level(bounds, place)
    _breadcrumb(place)
    return Choice(
        name,
        created,
        None if other == NONE else str(other),
        threshold,
        level,
        focus_of(place),
        place,
        bounds,
        {str(key): value for key, value in row.items()},
    )


def _nothing(name: str, created: str) -> None:
    """Say why an evaluation has no photo to count."""
    if accuracy_data.has_photos(name, created):
        theme.empty(
            "No photo was answered.",
            "This evaluation leaves out photos without an answer, and none of its photos has one.",
            f"geofix evaluate run --name {name} --replace ...",
        )
    else:
        theme.empty(
            "This evaluation has no photos any more.",
            "They were deleted, or the split was empty. Run it again on a snapshot that has some.",
            f"geofix evaluate run --name {name} --replace ...",
        )


def _level(bounds: maps.Bounds, place: str | None) -> str | int:
    """How places are cut; the default is finer than the place one looks into."""
    regions = list(data.table("region_levels")["level"])
    options = [*regions, *(f"s2-{level}" for level in range(6, 17))]
    wide = max(bounds[2] - bounds[0], bounds[3] - bounds[1]) > 5  # degrees: several countries
    usual = f"s2-{maps.level_for(bounds, cells_across=8)}"
    if regions and wide and place is None:
        usual = regions[0]
    chosen = str(links.choose("level_by", "By", options, default=usual, show=_level_text))
    return int(chosen[3:]) if chosen.startswith("s2-") else chosen


def _level_text(level: str) -> str:
    from geofix_dashboard.views.coverage import cell_size

    return f"S2 level {level[3:]} (about {cell_size(int(level[3:]))})" if level.startswith("s2-") else level


def _breadcrumb(place: str | None) -> None:
    """The way here, and back."""
    links.put("in", place)
    if place is None:
        return
    way = steps(place)
    with st.container(horizontal=True, vertical_alignment="center"):
        for i in range(len(way) + 1):
            kind, code = ("", "All photos") if i == 0 else way[i - 1]
            label = f"{'cell' if kind == 's2' else kind} {code}".strip().replace("`", "")
            st.button(
                label,
                key=f"crumb-{i}",
                type="tertiary" if i < len(way) else "secondary",
                icon=":material/public:" if i == 0 else ":material/chevron_right:",
                on_click=go_to,
                args=(way[:i],),
            )


def _summary(choice: Choice) -> None:
    found = accuracy_data.overall(choice.name, choice.created, choice.threshold_m, choice.focus)
    best, plain = (_bound(choice, name) for name in ("oracle", "trivial"))
    n = int(found["n"])
    note = f"95 % Wilson interval over n = {n:,} photos"
    cells = st.columns(6)
    cells[0].metric("Photos", f"{n:,}", help=f"{int(found['answered']):,} of them answered", border=True)
    cells[1].metric(
        f"Within {theme.radius(choice.threshold_m)}",
        theme.percent(found["accuracy"]),
        help=note,
        border=True,
    )
    cells[2].metric("95 % interval", theme.interval(found["low"], found["high"]), help=note, border=True)
    cells[3].metric("Median error", theme.metres(found["median_m"]), help="Of the first answer", border=True)
    cells[4].metric(
        "Oracle",
        theme.percent(best),
        help="The best any answer in these cells could reach, over all photos of the evaluation",
        border=True,
    )
    cells[5].metric(
        "Trivial",
        theme.percent(plain),
        help="Always answering the most photographed cell, over all photos of the evaluation",
        border=True,
    )
    row = choice.row
    st.caption(
        f"{row['localizer']} on {row['split']} · search {row['search_method']} · "
        f"distance {row['comparison']} threshold on a sphere of {row['radius_km']:g} km · "
        f"missing answers: {row['missing_policy']} · geofix {row['software_version']}"
    )
    if 0 < n < theme.SMALL_N:
        st.caption(f":material/info: Fewer than {theme.SMALL_N} photos: read the interval, not the share.")


def _bound(choice: Choice, name: str) -> float | None:
    """What the oracle or the trivial answer reaches at the threshold; None where it was not measured."""
    measured = choice.row["metrics"].get(name) or {}
    metres = (measured.get("recall") or {}).get("1") or {}
    kilometres = measured.get("accuracy_km") or {}
    value = metres.get(f"{choice.threshold_m:g}", kilometres.get(f"{choice.threshold_m / 1000:g}"))
    return None if value is None else float(value)
