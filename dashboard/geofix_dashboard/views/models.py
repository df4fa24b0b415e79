"""Models and code sets: where each comes from, how large and how good it is, and whether it is in use."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from geofix.database.engine import connect
from geofix.database.queries import dashboard_models
from geofix.errors import GeofixError
from geofix.evaluation.metrics import wilson
from geofix_dashboard import actions, charts, data, links, theme

PARTS = {"codes": "Code sets", "models": "Models"}
TIME = "YYYY-MM-DD HH:mm"


def render() -> None:
    """Draw the page."""
    theme.header(
        "Models", "Which models and code sets there are, what they were made from, and how good they are."
    )
    part = str(links.choose("part", "Show", list(PARTS), kind="segments", show=PARTS.__getitem__))
    if part == "models":
        _models()
    else:
        _code_sets()


@data.cached
def model_rows() -> pd.DataFrame:
    """Models."""
    with connect("reader") as conn:
        return dashboard_models.model_rows(conn)


@data.cached
def code_set_rows() -> pd.DataFrame:
    """Code sets."""
    with connect("reader") as conn:
        return dashboard_models.code_set_rows(conn)


@data.cached
def recall_history(code_set: str | None) -> pd.DataFrame:
    """Recall checks of a code set, or of all."""
    with connect("reader") as conn:
        return dashboard_models.recall_history(conn, code_set)


@data.cached
def evaluations_of(code_set: str | None, model: str | None) -> pd.DataFrame:
    """Evaluations of a code set or a model."""
    with connect("reader") as conn:
        return dashboard_models.evaluations_of(conn, code_set=code_set, model=model)


def _code_sets() -> None:
    rows = code_set_rows()
    if rows.empty:
        theme.empty(
            "No code set was built yet.",
            "A code set holds one code per cell, made by one model with one recipe; searches read it.",
            "geofix codes build --model NAME --name CODES --snapshot DIR",
            "geofix codes index CODES",
        )
        return
    theme.section(
        "Compare", "Choose a row for everything about it. Recall: share of the exact best k the index finds"
    )
    names = list(rows["name"])
    st.dataframe(
        compared(rows),
        key="code-sets-table",
        hide_index=True,
        width="stretch",
        height=theme.table_height(len(rows), 400),
        on_select=lambda: _open("code-sets-table", "code_set", names),
        selection_mode="single-row",
        column_config=_columns(),
    )
    asked = links.get("code_set")
    name = str(asked if asked in names else names[0])
    _code_set(rows[rows["name"] == name].iloc[0])


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per code set; every share with the n it rests on."""
    return pd.DataFrame(
        {
            "name": rows["name"],
            "state": [theme.state_mark(state) for state in rows["state"]],
            "model": rows["model"],
            "recipe": rows["recipe"],
            "level": rows["level"],
            "cells": rows["cells"],
            "prototypes": rows["with_prototype"],
            "aerial": rows["with_aerial"],
            "kappa": pd.to_numeric(rows["kappa"]),
            "size": [theme.size(value) for value in rows["bytes"]],
            "index": [index_text(value) for value in rows["index_parameters"]],
            "recall": [recall_text(row) for row in rows.itertuples()],
            "within": [within_text(row) for row in rows.itertuples()],
            "created": rows["created_at"],
        }
    )


def _columns() -> dict[str, Any]:
    number = st.column_config.NumberColumn
    return {
        "name": "Code set",
        "state": "State",
        "model": "Model",
        "recipe": "Recipe",
        "level": number("Level", format="%d"),
        "cells": number("Cells", format="localized"),
        "prototypes": number("With prototype", format="localized"),
        "aerial": number("With aerial", format="localized"),
        "kappa": number("κ", format="%.2f", help="Weight of the prototype in a hybrid"),
        "size": "Size",
        "index": "Index",
        "recall": "Recall (n)",
        "within": st.column_config.TextColumn(
            "Within 200 m (95 %, n)", help="Newest evaluation with these codes"
        ),
        "created": st.column_config.DatetimeColumn("Built", format=TIME),
    }


def index_text(parameters: dict[str, Any]) -> str:
    """An index in a few letters."""
    if not parameters:
        return "none: exact"
    return f"{str(parameters.get('method', 'hnsw')).upper()} m {parameters.get('m')}, ef {parameters.get('ef_construction')}"


def recall_text(row: Any) -> str:
    """The last recall check with its number of queries."""
    if pd.isna(row.recall):
        return "–"
    return f"{100 * row.recall:.1f} % @{int(row.recall_k)} (n = {int(row.recall_queries):,})"


def within_text(row: Any) -> str:
    """The newest evaluation within 200 m with its interval."""
    if pd.isna(row.recall_200m_percent) or not row.evaluation_n:
        return "–"
    n = int(row.evaluation_n)
    low, high = wilson(round(float(row.recall_200m_percent) * n / 100), n)
    return f"{row.recall_200m_percent:.1f} % ({float(low):.0f}–{float(high):.0f}, n = {n:,})"


def _open(table: str, parameter: str, names: list[str]) -> None:
    picked = st.session_state[table]["selection"]["rows"]
    if picked:
        links.put(parameter, names[picked[0]])


def _code_set(row: pd.Series) -> None:
    name = str(row["name"])
    theme.section(f"{name} · {theme.state_mark(str(row['state']))}", str(row["stale_reason"] or ""))
    _use(name, str(row["state"]), int(row["cells"]))
    left, right = st.columns([1, 1], gap="large")
    with left:
        calibration = row["calibration"] or {}
        coverage = calibration.get("coverage") or {}
        theme.facts(
            [
                ("Model", str(row["model"]), f"D = {int(row['dimension']) - 2}"),
                ("Recipe", str(row["recipe"]), f"S2 level {row['level']}, {int(row['cells']):,} cells"),
                ("Snapshot", str(row["snapshot"] or "–"), "first digits of its hash; what it was fitted on"),
                ("Size", theme.size(row["bytes"]), "codes and index on disk"),
                ("Norm M", f"{row['scale']:.4f}", "codes are completed to this norm"),
                (
                    "Temperature",
                    _number(row["temperature"]),
                    f"fitted on n = {calibration.get('queries', 0):,} photos",
                ),
                (
                    "Coverage threshold",
                    _number(coverage.get("threshold")),
                    f"{coverage.get('covered', 0):,} photos inside, {coverage.get('uncovered', 0):,} outside",
                ),
                ("Index", index_text(row["index_parameters"]), _estimate(row["index_parameters"])),
            ]
        )
        with st.expander("Configuration"):
            st.json({"config": row["config"], "calibration": calibration, "index": row["index_parameters"]})
    with right:
        _recall(name)
    _evaluations(evaluations_of(name, None), f"geofix evaluate run --code-set {name} --snapshot DIR")


def _number(value: Any) -> str:
    return "–" if value is None or pd.isna(value) else f"{float(value):.4g}"


def _estimate(parameters: dict[str, Any]) -> str:
    known = parameters.get("estimated_bytes")
    return "" if known is None else f"graph estimated at {theme.size(float(known))}"


def _use(name: str, state: str, cells: int) -> None:
    """Mark ready or stale, or drop; each asks once more."""
    columns = st.columns([1, 1, 5])
    if state in ("ready", "stale"):
        other = "stale" if state == "ready" else "ready"
        with columns[0].popover(f"Mark {other}", icon=":material/flag:", width="stretch"):
            told = (
                "Searches still use it, and say that it is stale."
                if other == "stale"
                else "It counts as current."
            )
            st.markdown(told)
            if st.button(f"Yes, mark it {other}", type="primary", key="mark_yes"):
                _do(lambda: actions.mark(name, other))
        with columns[1].popover("Drop", icon=":material/delete:", width="stretch"):
            st.markdown(f"Removes {cells:,} codes and their index for good. Evaluations keep their rows.")
            typed = st.text_input("Type the name of the code set", key="drop_name")
            if st.button("Drop it", type="primary", disabled=typed != name, key="drop_yes"):
                _do(lambda: actions.drop(name))


def _do(action: Any) -> None:
    try:
        action()
    except GeofixError as error:
        st.error(str(error), icon=":material/error:")
        return
    data.forget()
    links.put("code_set", None)
    st.rerun()


def _recall(name: str) -> None:
    theme.section("Recall of the index over time", "Against exact search on stored photos")
    rows = recall_history(name)
    if rows.empty:
        theme.empty(
            "Never measured.",
            "Without an index every search is exact. With one, a check compares both.",
            f"geofix codes index {name}",
            f"geofix jobs submit recall_check -p code_set={name}",
        )
        return
    charts.recall_points(rows)
    last = rows.iloc[0]
    st.caption(
        f"Last: {100 * last['recall']:.1f} % of the exact best {int(last['k'])}, n = {int(last['queries']):,} photos, "
        f"{int(last['cells_in_scope']):,} cells in scope ({last['scope']})"
    )


def _evaluations(rows: pd.DataFrame, command: str) -> None:
    theme.section("Evaluations", "Percent of photos within a distance, 95 % Wilson interval")
    if rows.empty:
        theme.empty("Never evaluated.", "Let it answer the test photos of a snapshot.", command)
        return
    shown = rows[["evaluation", "localizer", "split", "n"]].copy()
    for metres in (100, 200):
        shown[f"within {metres} m"] = [
            _interval(value, int(n))
            for value, n in zip(rows[f"recall_{metres}m_percent"], rows["n"], strict=True)
        ]
    shown["median error"] = [
        theme.metres(None if pd.isna(value) else float(value)) for value in rows["median_m"]
    ]
    shown["oracle 100 m"] = [
        theme.percent(None if pd.isna(v) else float(v)) for v in rows["oracle_100m_percent"]
    ]
    grey = shown.style.apply(
        lambda row: [f"color: {theme.GREY_TEXT}" if row["n"] < theme.SMALL_N else ""] * len(row), axis=1
    )
    st.dataframe(grey, hide_index=True, width="stretch", height=theme.table_height(len(shown), 360))


def _interval(percent: Any, n: int) -> str:
    if pd.isna(percent) or not n:
        return "–"
    low, high = wilson(round(float(percent) * n / 100), n)
    return f"{float(percent):.1f} ({float(low):.0f}–{float(high):.0f})"


def _models() -> None:
    rows = model_rows()
    if rows.empty:
        theme.empty(
            "No model was registered yet.",
            "Train one from a snapshot, or register the weights of any timm trunk.",
            "geofix train --config FILE --snapshot DIR --out DIR",
            "geofix models register DIR --name NAME",
        )
        return
    theme.section("Compare", "Choose a row for everything about it")
    names = list(rows["name"])
    number = st.column_config.NumberColumn
    st.dataframe(
        pd.DataFrame(
            {
                "name": rows["name"],
                "kind": rows["kind"],
                "trained": [", ".join(value.get("terms") or []) or "no" for value in rows["metrics"]],
                "D": rows["dimension"],
                "photos": rows["photos"],
                "tiles": rows["tiles"],
                "prototypes": rows["prototypes"],
                "code sets": rows["code_sets"],
                "evaluations": rows["evaluations"],
                "vectors": [theme.size(value) for value in rows["vector_bytes"]],
                "snapshot": rows["snapshot"].fillna("–"),
                "created": rows["created_at"],
            }
        ),
        key="models-table",
        hide_index=True,
        width="stretch",
        height=theme.table_height(len(rows), 400),
        on_select=lambda: _open("models-table", "model", names),
        selection_mode="single-row",
        column_config={
            "name": "Model",
            "kind": "Kind",
            "trained": "Trained terms",
            "photos": number("Photos embedded", format="localized"),
            "tiles": number("Tiles embedded", format="localized"),
            "prototypes": number("Prototypes", format="localized"),
            "code sets": "Code sets",
            "evaluations": "Evaluations",
            "vectors": "Vectors",
            "snapshot": "Snapshot",
            "created": st.column_config.DatetimeColumn("Registered", format=TIME),
        },
    )
    asked = links.get("model")
    name = str(asked if asked in names else names[0])
    _model(rows[rows["name"] == name].iloc[0])


def _model(row: pd.Series) -> None:
    name = str(row["name"])
    theme.section(name, "Provenance, configuration and what training measured")
    left, right = st.columns([1, 1], gap="large")
    with left:
        counts = row["snapshot_counts"] or {}
        theme.facts(
            [
                ("Weights", str(row["weights_sha256"])[:16], "first digits of their sha256"),
                ("Directory", "", str(row["directory_uri"])),
                (
                    "Snapshot",
                    str(row["snapshot"] or "–"),
                    str(row["snapshot_uri"] or "not trained from a snapshot"),
                ),
                (
                    "Photos of the snapshot",
                    "",
                    ", ".join(f"{key} {value:,}" for key, value in counts.items()) or "–",
                ),
                ("Embedded", f"{int(row['photos']):,} photos", f"{int(row['tiles']):,} aerial tiles"),
                ("Prototypes", f"{int(row['prototypes']):,}", "one per cell with training photos"),
                ("Vectors on disk", theme.size(row["vector_bytes"]), "with their keys"),
            ]
        )
    with right:
        measured = (row["metrics"] or {}).get("val") or {}
        theme.section("Validation at the end of training", "Percent of validation photos within metres")
        values = {
            key: value for key, value in measured.items() if "." in key and isinstance(value, int | float)
        }
        if values:
            parts = [(*key.rpartition(".")[::2], float(value)) for key, value in values.items()]
            table = pd.DataFrame(parts, columns=["localizer", "metres", "percent"])
            st.dataframe(
                table.pivot(index="localizer", columns="metres", values="percent")
                .pipe(lambda frame: frame[sorted(frame.columns, key=float)])
                .rename(columns=lambda metres: theme.radius(float(metres)))
                .round(1),
                width="stretch",
            )
        else:
            theme.empty(
                "Nothing was measured.", "Registered weights have no validation; evaluate them instead."
            )
        with st.expander("Configuration, input and metrics"):
            st.json({key: row[key] for key in ("config", "input_transform", "metrics")}, expanded=1)
    _evaluations(
        evaluations_of(None, name), f"geofix evaluate run --localizer knn --model {name} --snapshot DIR"
    )
