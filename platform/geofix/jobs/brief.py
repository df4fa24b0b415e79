"""Short transactions that lock rows of jobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from geofix.database.engine import Connection, connect
from geofix.database.queries.jobs import keep_brief
from geofix.jobs.settings import JobSettings


@contextmanager
def connect_briefly(settings: JobSettings | None = None) -> Iterator[Connection]:
    """The writer's connection for one transaction, which the server ends after a lease of silence.

    Claims, renewals, outcomes, sums over chunks and the sweep lock rows that others pass over or wait for: a
    process that falls asleep before its commit must not keep them.
    """
    with connect("writer") as conn:
        keep_brief(conn, (settings or JobSettings()).lease_s)
        yield conn
