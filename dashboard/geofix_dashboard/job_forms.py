"""Forms made from job specifications: each parameter's widget follows from its type, default and bounds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import streamlit as st

from geofix.errors import UsageError
from geofix.jobs.specs import Specification, kinds

Shape = Literal["choice", "flag", "integer", "number", "text", "list", "json"]


@dataclass(frozen=True)
class Field:
    """One parameter.

    Attributes:
        name: As the specification calls it.
        shape: Decides the widget.
        required: It has no default.
        default: What is used when nothing is given.
        options: Values of a choice.
        least: Smallest number.
        most: Largest number.
        note: Help text.
    """

    name: str
    shape: Shape
    required: bool
    default: Any
    options: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    note: str = ""


def forms() -> dict[str, dict[str, type[Specification]]]:
    """Kind -> form -> specification; kinds of one form have it under the empty text."""
    known = kinds()
    found: dict[str, dict[str, type[Specification]]] = {}
    waiting = list(Specification.__subclasses__())
    while waiting:
        model = waiting.pop(0)
        waiting += model.__subclasses__()
        fields = model.model_fields
        if "kind" not in fields or fields["kind"].default not in known:
            continue
        names = get_args(fields["what"].annotation) if "what" in fields else ("",)
        found.setdefault(str(fields["kind"].default), {}).update(dict.fromkeys(map(str, names), model))
    return {kind: found[kind] for kind in sorted(found)}


def fields_of(model: type[Specification]) -> list[Field]:
    """Parameters of a specification, required ones first."""
    schema = model.model_json_schema()
    required = set(schema.get("required", ()))
    made = [
        _field(name, described, name in required)
        for name, described in schema["properties"].items()
        if name not in ("kind", "what")
    ]
    return sorted(made, key=lambda field: not field.required)


def _field(name: str, described: Mapping[str, Any], required: bool) -> Field:
    variants = [item for item in described.get("anyOf", [described]) if item.get("type") != "null"]
    first = variants[0]
    fixed = [str(item["const"]) for item in variants if "const" in item]
    note = str(described.get("description", ""))
    if len(variants) > 1:
        types = [str(item["type"]) for item in variants if "const" not in item]
        note = f"{note} One of: {', '.join([*fixed, *types])}.".strip()
        return Field(name, "text", required, described.get("default"), note=note)
    if "enum" in first:
        options = tuple(map(str, first["enum"]))
        return Field(name, "choice", required, described.get("default"), options, note=note)
    return Field(
        name,
        _shape(first),
        required,
        described.get("default"),
        least=first.get("minimum", first.get("exclusiveMinimum")),
        most=first.get("maximum", first.get("exclusiveMaximum")),
        note=note,
    )


def _shape(described: Mapping[str, Any]) -> Shape:
    kind = described.get("type")
    if kind == "array":
        return "list" if described.get("items", {}).get("type") == "string" else "json"
    if kind == "object" or "$ref" in described:
        return "json"
    return {"boolean": "flag", "integer": "integer", "number": "number"}.get(str(kind), "text")  # type: ignore[return-value]


def ask(field: Field, key: str, known: Sequence[str]) -> Any:
    """Draw the widget of a parameter; its value, or None where nothing was given.

    Args:
        field: The parameter.
        key: Of the widget.
        known: Values to suggest: names of models, code sets, data sets ...
    """
    label = f"{field.name} *" if field.required else field.name
    note = field.note or None
    if field.shape == "flag":
        return st.checkbox(label, value=bool(field.default), key=key, help=note)
    if field.shape == "choice":
        usual = field.options.index(field.default) if field.default in field.options else None
        return st.selectbox(label, field.options, index=usual, key=key, help=note, placeholder="by itself")
    if field.shape in ("integer", "number"):
        return _number(field, label, key)
    if field.shape == "json":
        text = "" if field.default is None else json.dumps(field.default)
        return st.text_area(label, value=text, key=key, height=100, help=note or "JSON") or None
    if field.shape == "list":
        return st.multiselect(label, list(known), key=key, accept_new_options=True, help=note) or None
    if known:
        return st.selectbox(
            label,
            list(known),
            index=None,
            key=key,
            accept_new_options=True,
            help=note,
            placeholder="choose or type",
        )
    return (
        st.text_input(label, value="" if field.default is None else str(field.default), key=key, help=note)
        or None
    )


def _number(field: Field, label: str, key: str) -> Any:
    kind: Any = int if field.shape == "integer" else float
    bounds = {
        name: kind(value)
        for name, value in (("min_value", field.least), ("max_value", field.most))
        if value is not None
    }
    value = None if field.default is None else kind(field.default)
    step = 1 if field.shape == "integer" else None
    text = None if field.shape == "integer" else "%g"
    return st.number_input(
        label, value=value, step=step, format=text, key=key, help=field.note or None, **bounds
    )


def parameters(fields: Sequence[Field], values: Mapping[str, Any]) -> dict[str, Any]:
    """What is sent: given values that differ from the default, JSON read.

    Raises:
        UsageError: A text that should be JSON is none, or a required parameter is missing.
    """
    sent: dict[str, Any] = {}
    for field in fields:
        value = values.get(field.name)
        if field.shape == "json" and isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError as error:
                raise UsageError(
                    f"Parameter {field.name} is no JSON ({error}).", hint="Write [..] or {..}."
                ) from None
        if value is None:
            if field.required:
                raise UsageError(f"Parameter {field.name} is missing.", hint="It has a star.")
        elif value != field.default:
            sent[field.name] = value
    return sent
