"""A connection that commits only while the claim of a job stands.

A worker that was paused longer than its lease wakes up as a zombie: somebody else has the job by then. Every
commit asks the job's row first, and holds that row until the commit is through, so nothing of a zombie lands.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
from pgvector.psycopg import register_vector
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from geofix.database.cluster import database_url
from geofix.database.engine import Role
from geofix.database.queries import jobs
from geofix.settings import get_settings


class FencedOutError(BaseException):
    """The claim is lost; what was not committed is rolled back.

    No `Exception`, so that code which goes on after a bad item does not go on after this.
    """


class FencedConnection(psycopg.Connection[tuple[Any, ...]]):
    """A psycopg connection bound to one claim of one job."""

    job_id: UUID | None = None
    token: int = 0
    silent_s: float | None = None

    def commit(self) -> None:
        """Commit, or roll back when the claim is lost.

        Raises:
            FencedOutError: Another process has the job now.
        """
        if self.info.transaction_status == TransactionStatus.INTRANS:
            try:
                self._require_claim()
            except psycopg.errors.QueryCanceled:
                # The heartbeat cancels what runs when a job is to stop, which may be this very question. A job
                # that was taken away must end as such: ask again.
                self.rollback()
                self._require_claim()
                self.rollback()
                raise
        super().commit()

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        """A transaction block that ends under the same condition as `commit`."""
        outermost = self.info.transaction_status == TransactionStatus.IDLE
        with super().transaction(savepoint_name, force_rollback) as block:
            yield block
            if outermost and not force_rollback:
                self._require_claim(roll_back=False)

    def _require_claim(self, *, roll_back: bool = True) -> None:
        if self.job_id is None:
            return
        if self.silent_s is not None:
            jobs.keep_brief(self, self.silent_s)
        if not jobs.holds(self, self.job_id, self.token):
            if roll_back:
                self.rollback()
            raise FencedOutError(f"job {self.job_id} was taken from this process")


@contextmanager
def connect_fenced(
    job_id: UUID, token: int, role: Role = "owner", *, silent_s: float | None = None
) -> Iterator[FencedConnection]:
    """A connection of its own for the work of one claim; the caller commits, an exception rolls back.

    Args:
        job_id: The job.
        token: Fencing token of the claim.
        role: Whose rights it has.
        silent_s: Between the question for the claim and the end of the commit, this process may be silent for
            so many seconds; then the server ends the transaction.

    Raises:
        psycopg.OperationalError: No server answers.
    """
    url = database_url(get_settings(), role)
    given = conninfo_to_dict(url).get("options") or ""
    with psycopg_connection(url, f"{given} -c search_path=geofix,public".strip()) as conn:
        conn.job_id, conn.token, conn.silent_s = job_id, token, silent_s
        yield conn


@contextmanager
def psycopg_connection(url: str, options: str) -> Iterator[FencedConnection]:
    """Open and always close; unlike psycopg's own `with`, leave the commit to the caller."""
    conn = FencedConnection.connect(url, options=options)
    try:
        register_vector(conn)
        conn.rollback()
        yield conn
    finally:
        conn.close()
