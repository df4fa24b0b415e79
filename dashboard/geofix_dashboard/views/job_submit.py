"""A form for every kind of job, made from its specification."""

from __future__ import annotations

import inspect
from typing import Any

import streamlit as st

from geofix.errors import GeofixError
from geofix.jobs.specs import QUEUES, Specification
from geofix_dashboard import actions, job_data, job_forms, links, theme

BY_KIND = "by kind"


def render() -> None:
    """Draw the form of the chosen kind."""
    forms = job_forms.forms()
    first, second, third = st.columns([2, 2, 3])
    with first:
        kind = str(links.choose("submit", "Kind", list(forms), default="snapshot"))
    names = [name for name in forms[kind] if name]
    form = next(iter(forms[kind]))
    if names:
        with second:
            form = str(links.choose("form", "Of what", names))
    model = forms[kind][form]
    theme.section(f"{kind} {form}".strip(), _told(model))
    with third:
        queue = st.selectbox(
            "Queue",
            [BY_KIND, *QUEUES],
            key="job_queue",
            help=f"Of this kind: {model.queue}. A worker must serve it.",
        )
    _form(kind, form, model, None if queue == BY_KIND else str(queue))


def _told(model: type[Specification]) -> str:
    """The first paragraph of a specification's description, without the marks around code."""
    return " ".join(inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].replace("`", "").split())


def _form(kind: str, form: str, model: type[Specification], queue: str | None) -> None:
    fields = job_forms.fields_of(model)
    known = job_data.suggestions()
    values: dict[str, Any] = {}
    with st.form(f"job-{kind}-{form}", border=True):
        needed = [field for field in fields if field.required]
        other = [field for field in fields if not field.required]
        _draw(needed, values, known, kind, form)
        if other:
            with st.expander(f"{len(other)} more parameters, each with a default", expanded=not needed):
                _draw(other, values, known, kind, form)
        pressed = st.form_submit_button("Submit", type="primary", icon=":material/send:")
    if not pressed:
        st.caption("Star: needed. Paths are those of the machine that runs the worker.")
        return
    try:
        given = job_forms.parameters(fields, values)
        row = actions.submit(kind, {**({"what": form} if form else {}), **given}, queue)  # type: ignore[arg-type]
    except GeofixError as error:
        st.error(str(error), icon=":material/error:")
        return
    links.put("view", None)
    links.forget("view")
    links.put("id", str(row.job_id))
    st.rerun()


def _draw(
    fields: list[job_forms.Field], values: dict[str, Any], known: dict[str, list[str]], kind: str, form: str
) -> None:
    for start in range(0, len(fields), 3):
        for column, field in zip(st.columns(3), fields[start : start + 3], strict=False):
            with column:
                values[field.name] = job_forms.ask(
                    field, f"job_{kind}_{form}_{field.name}", known.get(field.name, [])
                )
