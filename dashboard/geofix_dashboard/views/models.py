"""Models and code sets: where each comes from, how large and how good it is, and whether it is in use."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from geofix_dashboard import links, theme
from geofix_dashboard.views import code_sets, model_parts

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
        code_sets.render()


def _models() -> None:
    rows = model_parts.model_rows()
    if rows.empty:
        theme.empty(
            "No model was registered yet.",
            "Train one from a snapshot, or register the weights of any timm trunk.",
            "geofix train FILE --snapshot DIR --out DIR",
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
        on_select=lambda: model_parts.open_row("models-table", "model", names),
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
                    model_parts.text(row["snapshot"], "–"),
                    model_parts.text(row["snapshot_uri"], "not trained from a snapshot"),
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
        n = (row["snapshot_counts"] or {}).get("val", 0)
        theme.section("Validation at the end of training", f"Percent of n = {n:,} validation photos within")
        values = {
            key: value for key, value in measured.items() if "." in key and isinstance(value, int | float)
        }
        if values:
            parts = [(*key.rpartition(".")[::2], float(value)) for key, value in values.items()]
            table = pd.DataFrame(parts, columns=["localizer", "metres", "percent"])
            st.dataframe(
                table.assign(metres=pd.to_numeric(table["metres"]))
                .pivot(index="localizer", columns="metres", values="percent")
                .rename(columns=theme.radius)
                .round(1),
                width="stretch",
            )
        else:
            theme.empty(
                "Nothing was measured.", "Registered weights have no validation; evaluate them instead."
            )
        with st.expander("Configuration, input and metrics"):
            st.json({key: row[key] for key in ("config", "input_transform", "metrics")}, expanded=1)
    model_parts.evaluations(
        model_parts.evaluations_of(None, name),
        f"geofix evaluate run --localizer knn --model {name} --snapshot DIR",
    )
