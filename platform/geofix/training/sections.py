"""What all training configurations have in common: typed sections, and errors that name the key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from geofix.errors import BadInputError

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Unit = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of a file; unknown keys are refused, and so are infinity and what is no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Form = TypeVar("Form", bound=BaseModel)


def checked(form: type[Form], raw: Any, where: str) -> Form:
    """What came from `where`, checked.

    Raises:
        BadInputError: A key is unknown or out of range; the message names it, and the keys that exist there.
    """
    try:
        return form.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        known = ""
        if first["type"] == "extra_forbidden":
            known = f"Keys there: {', '.join(_keys_beside(form, first['loc']))}."
        raise BadInputError(
            f"{where}: {place}: {first['msg']} ({str(first.get('input'))[:80]!r}).", hint=known
        ) from error


def _keys_beside(form: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Names that are allowed where an unknown one was found."""
    section = form
    for part in place[:-1]:
        item = section.model_fields.get(str(part))
        section = next(_sections_in(None if item is None else item.annotation), section)
    return [item.alias or name for name, item in section.model_fields.items()]


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Sections that a field may hold: itself, or within an optional one, a list, or a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections_in(part)
