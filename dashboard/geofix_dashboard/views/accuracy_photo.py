"""One photo of an evaluation: truth and answers on a map, their errors, the photo beside its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from geofix_dashboard import accuracy_data, accuracy_tables, links, maps, theme

if TYPE_CHECKING:
    from geofix_dashboard.views.accuracy_choice import Choice

SCALE = theme.CIVIDIS[::-1]


def render(choice: Choice, photo_id: int) -> None:
    """Draw one photo."""
    from geofix_dashboard.views.accuracy_photos import card

    st.button(
        "All photos here",
        icon=":material/arrow_back:",
        on_click=links.put,
        args=("photo_id", None),
    )
    found, answers = accuracy_data.one_photo(choice.name, choice.created, photo_id)
    if found.empty:
        dropped = ", or leaves it out because it has no answer" * (choice.row["missing_policy"] == "drop")
        theme.empty(
            f"This evaluation did not ask about this photo{dropped}.", "Go back and choose another one."
        )
        return
    row = next(found.itertuples())
    left, right = st.columns([1, 1], gap="large")
    with left:
        theme.section("Photo and answer")
        card(row)
    with right:
        if answers.empty:
            theme.empty("No answer", "The localizer gave none for this photo; it counts as wrong.")
        else:
            _map(row, answers, choice)
            _table(answers, choice)


def _map(row: Any, answers: pd.DataFrame, choice: Choice) -> None:
    theme.section("Where", f"Its first {len(answers):,} answers; dark dot: where it was taken")
    most = max(len(answers) - 1, 1)
    shown = answers.sort_values("rank", ascending=False)  # the first answer lies on top
    rgba = [theme.colour((rank - 1) / most, SCALE, 230) for rank in shown["rank"]]
    drawn = shown.assign(
        true_lon=row.true_lon,
        true_lat=row.true_lat,
        rgba=pd.Series(rgba, index=shown.index, dtype=object),
    )
    bounds = (
        float(min(drawn["lon"].min(), row.true_lon)),
        float(min(drawn["lat"].min(), row.true_lat)),
        float(max(drawn["lon"].max(), row.true_lon)),
        float(max(drawn["lat"].max(), row.true_lat)),
    )
    maps.draw("photo-map", maps.lines(drawn, _tip), bounds, height=380)
    theme.legend(
        "Rank of the answer", SCALE, ["1", f"{len(answers):,}"], f"cells of {choice.row['localizer']}"
    )


def _tip(answer: Any) -> str:
    return maps.tip_of(
        f"Rank {answer.rank} · cell {answer.code}",
        {"error": theme.metres(answer.error_m), "score": f"{answer.score:.3f}"},
    )


def _table(answers: pd.DataFrame, choice: Choice) -> None:
    errors = answers["error_m"].to_numpy(float)
    right = accuracy_tables.within(errors, choice.threshold_m, choice.row["comparison"])
    shown = pd.DataFrame(
        {
            "rank": answers["rank"],
            "cell": answers["code"],
            "error": [theme.metres(float(value)) for value in errors],
            "right": ["✓" if hit else "" for hit in right],
            "probability": [
                "–" if pd.isna(value) else f"{100 * value:.1f} %" for value in answers["probability"]
            ],
            "score": answers["score"],
        }
    )
    st.dataframe(
        shown,
        hide_index=True,
        width="stretch",
        height=theme.table_height(len(shown), 330),
        column_config={
            "rank": "#",
            "cell": "Cell",
            "error": "Error",
            "right": f"Within {theme.radius(choice.threshold_m)}",
            "probability": "Probability",
            "score": st.column_config.NumberColumn("Score", format="%.3f"),
        },
    )
