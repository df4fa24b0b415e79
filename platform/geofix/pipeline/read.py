"""YAML files of pipelines and benchmarks: read, their variables filled in, and checked."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.settings import get_settings

# Training configurations of the project.
CONFIGS = Path(__file__).resolve().parents[3] / "configs"
_VARIABLE = re.compile(r"\$\{(\w+)\}")
Form = TypeVar("Form", bound=BaseModel)


def checked_file(form: type[Form], raw: Any, path: Path) -> Form:
    """What a file said, checked.

    Raises:
        BadInputError: It says something unknown or wrong; the message names the field.
    """
    try:
        return form.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInputError(
            f"{path}: {where}: {first['msg']} ({first.get('input')!r}).",
            hint="See docs/data-formats.md for the stages and their fields.",
        ) from error


def read_filled(
    path: Path,
    variables: Mapping[str, str] | None = None,
    home: Path | None = None,
    *,
    prepare: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> tuple[dict[str, Any], Path]:
    """What a named YAML file says with its variables filled in, and its output folder below the home.

    Args:
        path: YAML file.
        variables: As of `load_pipeline`; `name` is the file's own.
        home: In place of GEOFIX_HOME.
        prepare: What is done to the document before.

    Raises:
        NotFoundError: There is no such file.
        BadInputError: It is no YAML, or has no name.
        UsageError: A variable is unknown.
    """
    if not path.is_file():
        raise NotFoundError(f"No pipeline file at {path}.", hint="There are some in examples/.")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} is no YAML: {error}.") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
        raise BadInputError(f"{path} has no name.", hint="A pipeline file begins with `name: ...`.")
    settings = get_settings()
    home = home or settings.home_dir
    known = {
        "shared": os.fspath(settings.shared_dir),
        "home": os.fspath(home),
        "here": os.fspath(path.resolve().parent),
        "configs": os.fspath(CONFIGS),
        **(variables or {}),
    }
    name = _filled(raw["name"], known)
    out = home / "runs" / name
    known |= {"out": os.fspath(out), "name": name}
    return _filled(prepare(raw), known), out


def _filled(value: Any, known: Mapping[str, str]) -> Any:
    """Replace ${name} in every string."""
    if isinstance(value, dict):
        return {key: _filled(item, known) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, known) for item in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise UsageError(f"Unknown variable ${{{match[1]}}}.", hint=f"Known: {', '.join(sorted(known))}.")
        return known[match[1]]

    return _VARIABLE.sub(fill, value)
