"""One evaluation by many hands: begun once, answered range by range of S2 ids, completed once.

What is not complete has another name and is listed nowhere.
"""

from __future__ import annotations

from dataclasses import replace as changed
from typing import Any

from geofix.database.engine import Connection
from geofix.database.queries import evaluations as queries
from geofix.errors import UsageError
from geofix.evaluation.run import BATCH, measure, predict, register_evaluation
from geofix.evaluation.service import Prepared
from geofix.localizers.base import PhotoLocalizer

Span = tuple[int, int, int]  # first id, last id, photos


def spans(conn: Connection, found: Prepared, size: int) -> list[Span]:
    """Ranges with about `size` photos to ask each, in whole batches: what is asked together stays so."""
    whole = -(-size // BATCH) * BATCH
    request = found.request
    # Who looks at the photos themselves asks those without an embedding, too.
    model = None if isinstance(request.localizer, PhotoLocalizer) else found.model.model_id
    return queries.spans_to_ask(conn, model, found.snapshot.snapshot_id, request.split, whole)


def begin(conn: Connection, found: Prepared, job: str, *, replace: bool) -> int:
    """Register an evaluation in the making, with all photos that it asks; returns its id.

    Args:
        conn: Open connection.
        found: What is judged.
        job: Id of the job that will complete it.
        replace: Whether its name may be taken; that one stays until this one is complete.

    Raises:
        UsageError: The name is taken and `replace` is off.
        BadInputError: The split is empty.
    """
    request = found.request
    if not replace:
        queries.require_free(conn, request.name)
    making = changed(
        request,
        name=f"{request.name} (in the making by job {job})",
        config={**request.config, "in_the_making": job},
    )
    return register_evaluation(conn, making, found.model, found.snapshot, replace=True)


def answer(conn: Connection, evaluation_id: int, found: Prepared, span: tuple[int, int]) -> int:
    """Ask the photos of one range, in place of what is stored for it; returns their number.

    Raises:
        UsageError: The evaluation has been removed, or its code set has other codes by now.
    """
    begun = queries.made_with(conn, evaluation_id)
    if begun is not None and begun != found.request.config.get("codes"):
        raise UsageError(
            f"The codes of evaluation {found.request.name} were replaced after it had begun.",
            hint="Submit the evaluation again.",
        )
    queries.forget_span(conn, evaluation_id, *span)
    return predict(conn, evaluation_id, found.request, found.model, found.snapshot, span=span)


def complete(conn: Connection, evaluation_id: int, name: str, *, replace: bool) -> dict[str, Any]:
    """Measure an evaluation whose photos have all been asked, and give it its name.

    Returns:
        The result document of `geofix evaluate run`.

    Raises:
        UsageError: The name is taken and `replace` is off, or the evaluation has been removed.
    """
    queries.made_with(conn, evaluation_id)
    queries.take_name(conn, evaluation_id, name, replace=replace)
    result = measure(conn, name)
    queries.let_go_of_replaced_codes(conn, evaluation_id)
    return result
