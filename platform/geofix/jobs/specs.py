"""What a job is asked to do: one pydantic model per kind, versioned, checked before anything is queued."""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from geofix.database.engine import Connection
from geofix.errors import UsageError

Queue = Literal["interactive", "cpu", "gpu"]
QUEUES: tuple[Queue, ...] = get_args(Queue)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _decoded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error})") from None


def _absolute(value: str) -> str:
    return value if "://" in value or value.startswith("/vsi") else str(Path(value).expanduser().absolute())


# A worker has another working directory than whoever submits: paths are made absolute at once.
AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
PathOrUri = Annotated[str, AfterValidator(_absolute)]
Item = TypeVar("Item")
Several = Annotated[list[Item], BeforeValidator(_listed)]  # a single value may stand for a list of one
Structured = Annotated[Item, BeforeValidator(_decoded)]  # may be given as JSON text
Level = Annotated[int, Field(ge=1, le=24)]  # of S2


@dataclass(frozen=True)
class Work:
    """What a running job may use.

    Attributes:
        conn: Connection of the owner that commits only while the claim stands. What is not yet committed
            when `run` returns is committed together with the job's success: both or neither.
        job_id: The job.
        attempt: 1 for the first; an attempt that was given back or paused does not count.
        check: Raises when the job is to stop; `geofix.log.progress` calls it at every step.
    """

    conn: Connection
    job_id: UUID
    attempt: int
    check: Callable[[], None]


@dataclass(frozen=True)
class Chunks:
    """Work that was split.

    Attributes:
        parts: What each chunk does, and how many units that is.
        unit: What is counted.
        last: What is done once when all chunks have succeeded, as one chunk more.
    """

    parts: list[tuple[Specification, int]]
    unit: str
    last: Specification | None = None


class Specification(BaseModel, ABC):
    """Base of every kind; a subclass has a field `kind`, and `what` where a kind has several forms."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_min_length=1)

    version: ClassVar[int] = 1
    queue: ClassVar[Queue] = "cpu"
    resumable: ClassVar[bool] = False  # stopped anywhere, it goes on from there: it can be paused

    def chunks(self, work: Work) -> Chunks | None:
        """Split the work into jobs of their own, when there is enough of it; None: `run` does it all."""
        return None

    def join(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """The result of the whole from those of its chunks, in order."""
        return {"chunks": results}

    @abstractmethod
    def run(self, work: Work) -> dict[str, Any]:
        """Do it and return the result, which must be writable as JSON."""


_registry: dict[str, dict[str, type[Specification]]] = {}
Spec = TypeVar("Spec", bound=Specification)


def register(cls: type[Spec]) -> type[Spec]:
    """Offer a kind: a class decorator."""
    fields = cls.model_fields
    forms = get_args(fields["what"].annotation) if "what" in fields else ("",)
    _registry.setdefault(fields["kind"].default, {}).update(dict.fromkeys(forms, cls))
    return cls


MODULES = (
    "codes_stage",
    "distribute_stage",
    "embed_stage",
    "evaluate_stage",
    "ingest_stages",
    "pipeline",
    "refresh_stage",
    "retention_stage",
    "run_stage",
    "stages",
    "train_stage",
)


def kinds() -> list[str]:
    """Kinds that can be submitted."""
    for module in MODULES:
        importlib.import_module(f"geofix.jobs.{module}")
    return sorted(_registry)


def resumable_kinds() -> list[str]:
    """Kinds that can be paused while they run."""
    return [kind for kind in kinds() if all(form.resumable for form in _registry[kind].values())]


def parse(kind: str, parameters: Mapping[str, Any]) -> Specification:
    """The checked specification of a kind.

    Raises:
        UsageError: No such kind, or a parameter is unknown, missing or wrong; the message names the field.
    """
    if kind not in kinds():
        raise UsageError(
            f"There is no job of kind {kind!r}.", hint=f"Kinds of this version: {', '.join(kinds())}."
        )
    forms = _registry[kind]
    form = parameters.get("what", "") if "" not in forms else ""
    if form not in forms:
        raise UsageError(
            f"Job {kind}: parameter what is {form!r}." if form else f"Job {kind}: parameter what is missing.",
            hint=f"Give one of {', '.join(sorted(forms))}.",
        )
    model = forms[form]
    try:
        return model.model_validate({"kind": kind, **parameters})
    except ValidationError as error:
        raise UsageError(f"Job {kind}: {_explain(error)}.", hint=f"Parameters: {describe(model)}.") from None


def stored(kind: str, version: int, document: Mapping[str, Any]) -> Specification:
    """The specification of a row, as this version of the software understands it.

    Raises:
        UsageError: It was written by another version of the software in a form unknown here.
    """
    made = parse(kind, document)
    if made.version != version:
        raise UsageError(
            f"Job {kind} was submitted in version {version} of its form; this worker reads {made.version}.",
            hint="Submit it again, or run it with a worker of the version that submitted it.",
        )
    return made


def describe(model: type[Specification]) -> str:
    """Names of the parameters, required ones first, with a star."""
    fields = {name: item for name, item in model.model_fields.items() if name != "kind"}
    required = [f"{name}*" for name, item in fields.items() if item.is_required()]
    return ", ".join([*required, *(name for name, item in fields.items() if not item.is_required())])


def _explain(error: ValidationError) -> str:
    found = []
    for item in error.errors(include_url=False, include_context=False):
        place = ".".join(str(part) for part in item["loc"]) or "parameters"
        text = item["msg"].removeprefix("Value error, ")
        value = "" if item["type"] == "missing" else f" (given: {str(item['input'])[:80]!r})"
        found.append(f"parameter {place}: {text[:1].lower()}{text[1:]}{value}")
    return "; ".join(found)
