"""The photos with the largest errors: the photo, the place it was put, and what that place looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from geofix_dashboard import accuracy_data, data, links, theme
from geofix_dashboard.views import accuracy_photo

if TYPE_CHECKING:
    from geofix_dashboard.views.accuracy_choice import Choice

PER_PAGE = 6


def render(choice: Choice) -> None:
    """Draw one page of photos, or the one that the URL names."""
    named = links.get("photo_id")
    if named and named.isdigit() and len(named) < 19:
        accuracy_photo.render(choice, int(named))
        return
    page = _page()
    rows = accuracy_data.worst(choice.name, choice.created, choice.focus, PER_PAGE, page * PER_PAGE)
    if rows.empty:
        theme.empty("No photo lies here.", "Choose another place, or go back to the first page.")
        if page:
            _turn(0)
        return
    total = int(rows["photos"].iloc[0])
    theme.section(
        "Largest errors first",
        f"Photos {page * PER_PAGE + 1:,} to {page * PER_PAGE + len(rows):,} of {total:,}; unanswered first",
    )
    for start in range(0, len(rows), 2):
        for column, row in zip(
            st.columns(2, gap="medium"), rows.iloc[start : start + 2].itertuples(), strict=False
        ):
            with column.container(border=True):
                card(row)
                st.button(
                    "Its answers on a map",
                    icon=":material/zoom_in:",
                    key=f"open-{row.photo_id}",
                    on_click=links.put,
                    args=("photo_id", str(row.photo_id)),
                )
    _pager(page, total)


def card(row: Any) -> None:
    """A photo beside what the answered place looks like, with credit."""
    st.markdown(
        f"**{theme.metres(row.error_m)}** from the truth" if not pd.isna(row.error_m) else "**No answer**"
    )
    asked, answered = st.columns(2)
    with asked:
        _picture(row.uri)
        st.caption(f"**The photo** `{row.source_key}`  \nat {row.true_lat:.5f}, {row.true_lon:.5f}")
    with answered:
        if pd.isna(row.lat):
            st.caption("The localizer gave no answer for this photo.")
        else:
            _picture(row.near_uri)
            where = "none with pixels"
            if not pd.isna(row.near_m):
                where = f"`{row.near_key}`, {theme.metres(row.near_m)} away"
            st.caption(f"**The answer** {row.lat:.5f}, {row.lon:.5f}  \nnearest photo there {where}")
    facts = [f"nearest training photo {theme.metres(_number(row.nearest_training_m))}"]
    if not pd.isna(row.training_photos_in_cell):
        facts.append(f"{int(row.training_photos_in_cell):,} training photos in its cell")
    if not pd.isna(row.probability):
        facts.append(f"probability {100 * row.probability:.1f} %")
    if not pd.isna(row.score):
        facts.append(f"score {row.score:.3f}")
    st.caption(" · ".join(facts))
    credit = ", ".join(str(text) for text in (row.dataset, row.attribution, row.licence) if not pd.isna(text))
    st.caption(f":material/copyright: {credit}")


def _picture(uri: str | None) -> None:
    found = data.picture(None if pd.isna(uri) else uri)
    if isinstance(found, str):
        theme.empty("No picture", found)
    else:
        st.image(found, width="stretch")


def _number(value: Any) -> float:
    return float("nan") if pd.isna(value) else float(value)


def _page() -> int:
    text = links.get("page") or "0"
    return int(text) if text.isdigit() and len(text) < 7 else 0


def _turn(page: int) -> None:
    links.put("page", str(page) if page else None)


def _pager(page: int, total: int) -> None:
    left, _, right = st.columns([1, 4, 1])
    left.button(
        "Larger errors",
        icon=":material/chevron_left:",
        disabled=page == 0,
        on_click=_turn,
        args=(page - 1,),
        width="stretch",
    )
    right.button(
        "Smaller errors",
        icon=":material/chevron_right:",
        disabled=(page + 1) * PER_PAGE >= total,
        on_click=_turn,
        args=(page + 1,),
        width="stretch",
    )
