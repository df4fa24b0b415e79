"""SQL: one read-only statement as the reader role, its answer as table, map and file."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from geofix.database.queries.dashboard_examples import EXAMPLES
from geofix.database.sandbox import ask
from geofix.errors import GeofixError
from geofix.settings import get_settings
from geofix_dashboard import links, maps, theme
from geofix_dashboard.views import sql_answer, sql_history

MOST_ROWS = 10_000  # a browser's table; `geofix sql` hands out more
MOST_BYTES = 32_000_000  # of texts, shapes and documents; more than this no browser's table takes
OWN = "your own"


@dataclass(frozen=True)
class Result:
    """An answer as it is kept for this session."""

    statement: str
    rows: pd.DataFrame
    geometry: list[str]
    cut: bool
    too_large: bool
    seconds: float
    attribution: list[str]


def render() -> None:
    """Draw the page."""
    theme.header("SQL", "Ask the database anything. You are the reader: nothing you send here can change it.")
    settings = get_settings()
    limit = min(MOST_ROWS, settings.sql_max_rows)
    _example()
    if "sql_text" not in st.session_state:
        st.session_state["sql_text"] = links.get("q") or EXAMPLES[links.get("example") or ""]
    st.text_area("Statement", key="sql_text", height=230)
    left, middle, last, right = st.columns([2, 2, 2, 7], vertical_alignment="center")
    run = left.button("Run", type="primary", icon=":material/play_arrow:", width="stretch")
    explain = middle.button("Explain", icon=":material/account_tree:", width="stretch", key="sql_explain")
    right.caption(
        f"Read-only · one statement · at most {settings.sql_timeout_s:g} s and {limit:,} rows · "
        "schema `geofix`: views `photo`, `cell`, `prediction_top1`, `evaluation_summary`, `job_status`"
    )
    if run:
        _run(st.session_state["sql_text"], limit)
    with last.popover("History", icon=":material/history:", width="stretch"):
        sql_history.render()
    if explain:
        _explain(st.session_state["sql_text"])
        return
    if (problem := st.session_state.get("sql_problem")) is not None:
        st.error(problem, icon=":material/error:")
    elif (result := st.session_state.get("sql_result")) is not None:
        _show(result)
    else:
        theme.empty(
            "No answer yet.",
            "Choose an example or write a statement, then run it. The same on the command line:",
            'geofix sql "SELECT count(*) FROM photo"',
        )


def _example() -> None:
    names = [*EXAMPLES, OWN]
    if st.session_state.get("kept_example") not in names:
        wanted = links.get("example")
        first = OWN if links.get("q") else wanted if wanted in EXAMPLES else names[0]
        st.session_state["kept_example"] = first
    if "url_example" not in st.session_state:
        st.session_state["url_example"] = st.session_state["kept_example"]
    st.selectbox("Example", names, key="url_example", on_change=_load)
    links.put("example", st.session_state["url_example"])


def _load() -> None:
    chosen = st.session_state["url_example"]
    if chosen in EXAMPLES:
        st.session_state["sql_text"] = EXAMPLES[chosen]
        links.put("q", None)


def _run(statement: str, limit: int) -> None:
    """Ask, and keep the answer or the problem for this session; the statement goes into the URL."""
    text = statement.strip().rstrip(";")
    st.session_state["sql_problem"] = st.session_state["sql_result"] = None
    if not text:
        st.session_state["sql_problem"] = "The statement is empty."
        return
    links.put("q", None if text in EXAMPLES.values() or len(text) > 1500 else text)
    try:
        with st.spinner("The database works on it"):
            result = answer(text, limit)
        st.session_state["sql_result"] = result
        sql_history.remember(text, len(result.rows), result.seconds)
    except GeofixError as error:
        st.session_state["sql_problem"] = str(error)


def _explain(statement: str) -> None:
    """The server's plan; the statement is not run."""
    text = statement.strip().rstrip(";")
    try:
        plan = sql_answer.plan(text) if text else "The statement is empty."
    except GeofixError as error:
        st.error(str(error), icon=":material/error:")
        return
    theme.section("Plan", "How the server would run it, with its estimates; it was not run")
    st.code(plan, language=None)


def answer(statement: str, limit: int) -> Result:
    """Run one statement in the sandbox.

    Raises:
        UsageError: It is not a single statement that reads, it fails, or takes too long.
        ServiceError: No database answers.
    """
    began = time.monotonic()
    with ask(statement, get_settings(), max_rows=limit, max_bytes=MOST_BYTES) as found:
        rows = [row for batch in found.batches() for row in batch]
        names = [column.name for column in found.columns]
        frame = pd.DataFrame(rows, columns=names)
        for column in found.columns:
            # JavaScript rounds above 2^53, so S2 ids are shown as text.
            if column.type_name == "int8" and frame[column.name].abs().max() > 2**53:
                frame[column.name] = frame[column.name].map(lambda x: None if pd.isna(x) else str(x))
            elif column.type_name not in _PLAIN and not column.is_geometry:
                frame[column.name] = frame[column.name].map(lambda x: None if x is None else str(x))
        return Result(
            statement,
            frame,
            [column.name for column in found.columns if column.is_geometry],
            found.cut,
            found.too_large,
            time.monotonic() - began,
            [
                f"{item.dataset}: {item.licence or 'no licence given'}"
                + (f", {item.attribution}" if item.attribution else "")
                for item in found.attribution
            ],
        )


_PLAIN = {
    "int2",
    "int4",
    "int8",
    "float4",
    "float8",
    "numeric",
    "text",
    "varchar",
    "bool",
    "date",
    "timestamptz",
    "timestamp",
}


def _show(result: Result) -> None:
    cut = f" – more rows exist, the answer was cut at {len(result.rows):,}" if result.cut else ""
    if result.too_large:
        cut = (
            f" – cut there: a page takes {MOST_BYTES / 1e6:.0f} MB of text; `geofix sql --out FILE` takes all"
        )
    st.markdown(f"**{len(result.rows):,} rows** in {result.seconds:.2f} s{cut}")
    if result.geometry and len(result.rows):
        _map(result)
    plain = result.rows.drop(columns=result.geometry)
    st.dataframe(plain, hide_index=True, width="stretch", height="auto" if len(plain) < 12 else 420)
    shapes = _in_degrees(result) if result.geometry else None
    sql_answer.downloads(_with_text(result), plain, shapes)
    with st.expander("Chart", icon=":material/bar_chart:"):
        sql_answer.chart(plain)
    if result.attribution:
        st.caption("Data: " + " · ".join(result.attribution))


def _with_text(result: Result) -> pd.DataFrame:
    """The rows with geometry as WKT."""
    import shapely

    texts = {
        name: [
            None if shape is None else shapely.to_wkt(shape, rounding_precision=7)
            for shape in _shapes(result, name)
        ]
        for name in result.geometry
    }
    rows = result.rows.copy()
    for name, values in texts.items():
        rows[name] = values
    return rows


def _shapes(result: Result, name: str) -> list[Any]:
    import shapely

    return list(shapely.from_wkb([value if isinstance(value, str) else None for value in result.rows[name]]))


def _in_degrees(result: Result) -> list[Any] | None:
    """Shapes of the first geometry column; None where one is in another reference system than EPSG:4326."""
    import shapely

    shapes = _shapes(result, result.geometry[0])
    strange = any(shape is not None and shapely.get_srid(shape) not in (0, 4326) for shape in shapes)
    return None if strange else shapes


def _map(result: Result) -> None:
    """The first geometry column, flat.

    Shapes in another reference system than 4326, and those with a coordinate that is no finite number, are
    left out and said so.
    """
    import shapely

    name = result.geometry[0]
    shapes = list(shapely.force_2d(_shapes(result, name)))
    known = sql_answer.finite(shapes)
    plain = result.rows.drop(columns=result.geometry)
    features: list[dict[str, Any]] = []
    kept: list[Any] = []
    strange = nowhere = 0
    for shape, finite, facts in zip(shapes, known, plain.head(len(shapes)).to_dict("records"), strict=True):
        if shape is None or shape.is_empty:
            continue
        if shapely.get_srid(shape) not in (0, 4326):
            strange += 1
            continue
        if not finite:
            nowhere += 1
            continue
        kept.append(shape)
        if len(features) < maps.MAX_FEATURES:
            shown = {str(key): str(value) for key, value in list(facts.items())[:6]}
            # Not its mapping, which fails at an empty point among others.
            geometry = json.loads(shapely.to_geojson(shape))
            features.append(
                {"type": "Feature", "geometry": geometry, "properties": {"tip": maps.tip_of("", shown)}}
            )
    lost = f"; {nowhere:,} with a coordinate that is no finite number left out" if nowhere else ""
    if not features:
        st.caption(f"No map: column `{name}` holds no shape in EPSG:4326{lost}.")
        return
    bounds = tuple(float(value) for value in shapely.total_bounds(kept))
    maps.draw("sql-map", [maps.shapes(features, bounds, 960)], bounds, height=430, width=960)  # type: ignore[arg-type]
    more = (
        f"; {strange:,} in another reference system left out (use ST_Transform(..., 4326))" if strange else ""
    )
    theme.key_of([("#21918c", f"{name}: {len(features):,} shapes drawn")], more + lost)
