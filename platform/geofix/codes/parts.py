"""One code set by many hands: planned once, made range by range of S2 ids, completed once.

Until it is complete nothing but its job knows of it: the codes wait in a table named after the job.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from geofix.codes.build import finish, register
from geofix.codes.ingredients import Ingredients
from geofix.codes.plan import Plan
from geofix.codes.ranges import Span
from geofix.database.engine import Connection
from geofix.database.queries import code_ranges as queries
from geofix.errors import BadInputError, UsageError
from geofix.log import progress


def begin(conn: Connection, job_id: UUID) -> None:
    """Make room for the codes; the caller commits, together with the jobs that will make them."""
    queries.create_making(conn, job_id)


def make(conn: Connection, job_id: UUID, plan: Plan, span: Span, region_ewkb: bytes | None) -> int:
    """Make the codes of one range, in place of what is there; returns their number. The caller commits.

    Raises:
        UsageError: What was made so far has been removed.
        BadInputError: Something that they are made of has come or gone since the ranges were cut.
    """
    _require(conn, job_id)
    asked = Ingredients.planned(conn, plan, region_ewkb)
    with progress("codes", span.cells, "cells") as advance:
        made = queries.add_to_making(conn, job_id, span.first, span.last, asked.codes(plan, span))
        advance(made)
    return made


def complete(conn: Connection, job_id: UUID, plan: Plan, name: str) -> dict[str, Any]:
    """Make a code set of all ranges and publish it; the caller commits, all or nothing.

    Returns:
        As `geofix.codes.build.build_code_set`.

    Raises:
        UsageError: The name is taken, or what was made so far has been removed.
        BadInputError: Codes are missing.
    """
    _require(conn, job_id)
    code_set_id = register(conn, name, plan)
    with progress("code set", plan.cells, "cells") as advance:
        held = queries.assemble(conn, job_id, code_set_id, plan.dimension)
        advance(held)
    if held != plan.cells:
        raise BadInputError(
            f"Code set {name} was to have {plan.cells:,} cells; its chunks made {held:,}.",
            hint="Submit the job again.",
        )
    return finish(conn, name, code_set_id, plan)


def _require(conn: Connection, job_id: UUID) -> None:
    if not queries.has_making(conn, job_id):
        raise UsageError(
            f"What job {job_id} had made so far has been removed, or its code set is complete.",
            hint="Submit the job again.",
        )
