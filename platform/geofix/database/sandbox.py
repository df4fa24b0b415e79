"""One statement of an analyst, as the reader role: read-only, alone, within a time and a number of rows.

The boundary is what the reader role may do (`sql/900_grants.sql`); what is done here on top keeps mistakes
cheap. The statement is prepared and described before anything runs: two statements, and statements that
return no rows (INSERT, SET, DO, COPY), end there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from threading import Event, Timer
from typing import Any

import psycopg
from psycopg.pq import ExecStatus

from geofix.database.cluster import database_url
from geofix.database.engine import PARTIAL_ANSWERS, Connection, check_once
from geofix.database.queries.ownership import Licence, licences
from geofix.database.urls import without_secret
from geofix.errors import GeofixError, ServiceError, UsageError
from geofix.settings import Settings

BATCH = 5_000  # rows handed on together
NETWORK_ROWS = 500  # rows that libpq holds at a time
NETWORK_ROWS_MEASURED = (
    20  # the same where the bytes of an answer are limited: what may arrive above the limit
)
SEARCH_PATH = "SET search_path = geofix, public"
TYPE_NAMES = """
SELECT u.n, t.typname FROM unnest(%(oids)s::oid[]) WITH ORDINALITY AS u(oid, n) JOIN pg_catalog.pg_type t ON t.oid = u.oid
ORDER BY u.n
"""


@dataclass(frozen=True)
class Column:
    """A column of an answer with the name of its PostgreSQL type; names are unique within an answer."""

    name: str
    type_name: str

    @property
    def is_geometry(self) -> bool:
        """Whether the values are shapes, as hexadecimal EWKB."""
        return self.type_name in ("geometry", "geography")


@dataclass
class Answer:
    """A statement that is ready to run; rows are streamed while they are asked for.

    Attributes:
        columns: The columns, known before the first row.
        attribution: Licence and attribution of every data set in the database.
        max_rows: Rows that are handed out at most.
        max_bytes: Characters and bytes of texts, lists and documents after which no row is handed out; None: any.
        rows: Rows handed out so far.
        bytes: Of them, counted as in `max_bytes`; not counted where that is None.
        cut: Whether there were more rows, or might have been; known when the rows have been read.
    """

    columns: list[Column]
    attribution: list[Licence]
    max_rows: int
    _stream: Iterator[tuple[Any, ...]]
    _clock: _Clock
    max_bytes: int | None = None
    rows: int = 0
    bytes: int = 0
    cut: bool = field(default=False)

    @property
    def too_large(self) -> bool:
        """Whether the answer was cut because of its bytes."""
        return self.max_bytes is not None and self.bytes > self.max_bytes

    def batches(self) -> Iterator[list[tuple[Any, ...]]]:
        """Rows in batches, in the order of the statement.

        Raises:
            UsageError: The statement fails, is not allowed, or takes too long.
        """
        while not self.cut:
            wanted = min(BATCH, self.max_rows - self.rows)
            with self._clock.running():
                # One row more than wanted at the end tells whether the answer was cut.
                batch = self._take(wanted if wanted else 1)
            if not batch:
                return
            if not wanted:
                self.cut = True
                return
            self.rows += len(batch)
            self.cut = self.too_large
            yield batch

    def _take(self, wanted: int) -> list[tuple[Any, ...]]:
        """At most so many rows; fewer where the bytes run out."""
        if self.max_bytes is None:
            return list(islice(self._stream, wanted))
        batch: list[tuple[Any, ...]] = []
        for row in islice(self._stream, wanted):
            batch.append(row)
            self.bytes += sum(map(_size, row))
            if self.too_large:
                break
        return batch


def _size(value: Any) -> int:
    """Characters or bytes of what can be long; other values count as nothing, the rows are limited too."""
    if isinstance(value, str | bytes):
        return len(value)
    return len(repr(value)) if isinstance(value, list | dict) else 0


@contextmanager
def ask(
    statement: str,
    settings: Settings,
    *,
    max_rows: int | None = None,
    timeout_s: float | None = None,
    max_bytes: int | None = None,
) -> Iterator[Answer]:
    """Prepare one statement as the reader and lend its answer; the connection ends with the block.

    Args:
        statement: One SQL statement that returns rows.
        settings: Where the reader's connection and the limits are read.
        max_rows: Instead of the setting `sql_max_rows`.
        timeout_s: Instead of the setting `sql_timeout_s`: time spent waiting for the server.
        max_bytes: The answer is cut after the row with which its texts, lists and documents exceed this.

    Raises:
        UsageError: It is no single statement that returns rows, it fails, is not allowed, or takes too long.
        ServiceError: No database answers.
        SchemaError: The database is not what this version needs.
    """
    url = database_url(settings, "reader")
    try:
        conn = psycopg.connect(url, application_name="geofix sql", client_encoding="utf8")
    except psycopg.OperationalError as error:
        raise ServiceError(
            f"No database answers at {without_secret(url)}: {str(error).splitlines()[0]}.",
            hint="Start the embedded one with `geofix up`, or check GEOFIX_READER_URL.",
        ) from error
    clock = _Clock(conn, settings.sql_timeout_s if timeout_s is None else timeout_s)
    try:
        check_once(conn, url)
        conn.execute(SEARCH_PATH)
        if settings.partial_answers:
            conn.execute(PARTIAL_ANSWERS)
        conn.commit()
        conn.read_only = True
        with clock.running():
            attribution = licences(conn)
            columns = _describe(conn, statement)
        with _rows_of(
            conn, statement, NETWORK_ROWS if max_bytes is None else NETWORK_ROWS_MEASURED
        ) as stream:
            yield Answer(columns, attribution, max_rows or settings.sql_max_rows, stream, clock, max_bytes)
    finally:
        conn.close()


@contextmanager
def _rows_of(conn: Connection, statement: str, network_rows: int) -> Iterator[Iterator[tuple[Any, ...]]]:
    """Rows of a statement as they arrive; what is left of them is cancelled at the end."""
    size = network_rows if psycopg.capabilities.has_stream_chunked() else 1
    with conn.cursor() as cursor:
        # The extended protocol takes one statement only, and no parameters means that % is not special.
        stream = cursor.stream(statement.encode(), size=size)
        try:
            yield stream
        finally:
            with suppress(psycopg.Error):
                stream.close()  # type: ignore[attr-defined]


def _describe(conn: Connection, statement: str) -> list[Column]:
    """Columns of a statement without running it."""
    if "\0" in statement:
        raise UsageError("The statement holds a zero byte.", hint="Give plain text.")
    prepared = conn.pgconn.prepare(b"", statement.encode())
    if prepared.status != ExecStatus.COMMAND_OK:
        raise psycopg.errors.error_from_result(prepared)
    described = conn.pgconn.describe_prepared(b"")
    if described.status != ExecStatus.COMMAND_OK:
        raise psycopg.errors.error_from_result(described)
    if described.nparams:
        raise UsageError(
            "The statement has parameters ($1 ...) without values.", hint="Write the values into it."
        )
    if not described.nfields:
        raise UsageError(
            "The statement returns no rows: `geofix sql` only reads.",
            hint="Give a SELECT; data are changed by `geofix ingest`, `delete` and `gc`.",
        )
    oids = [described.ftype(i) for i in range(described.nfields)]
    types = [row[1] for row in conn.execute(TYPE_NAMES, {"oids": oids})]
    names = [(described.fname(i) or b"").decode() for i in range(described.nfields)]
    return [Column(name, kind) for name, kind in zip(_unique(names), types, strict=True)]


def _unique(names: list[str]) -> list[str]:
    """Names of which none stands twice: `a, a` becomes `a, a_2`."""
    given: list[str] = []
    for name in names:
        shown, n = name, 1
        while shown in given:
            n += 1
            shown = f"{name}_{n}"
        given.append(shown)
    return given


class _Clock:
    """Cancels the connection's statement when the server has been waited for too long, by our own clock."""

    def __init__(self, conn: Connection, limit_s: float) -> None:
        self._conn, self._limit_s, self._left_s = conn, limit_s, limit_s
        self._fired = Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time inside; errors of the server leave as errors of the product."""
        timer = Timer(max(0.0, self._left_s), self._cancel)
        timer.daemon = True
        began = time.monotonic()
        timer.start()
        try:
            yield
        except psycopg.Error as error:
            raise self._explained(error) from error
        finally:
            timer.cancel()
            self._left_s -= time.monotonic() - began
        if self._fired.is_set():
            raise self._too_slow()

    def _cancel(self) -> None:
        self._fired.set()
        with suppress(psycopg.Error):
            self._conn.cancel_safe(timeout=5)

    def _too_slow(self) -> UsageError:
        return UsageError(
            f"The statement took longer than {self._limit_s:g} s and was cancelled.",
            hint="Ask for less, or raise GEOFIX_SQL_TIMEOUT_S.",
        )

    def _explained(self, error: psycopg.Error) -> GeofixError:
        said = error.diag.message_primary or str(error).strip() or type(error).__name__
        if self._fired.is_set() and isinstance(
            error, psycopg.errors.QueryCanceled | psycopg.OperationalError
        ):
            return self._too_slow()
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction | psycopg.errors.InsufficientPrivilege):
            return UsageError(f"Refused: {said}.", hint="`geofix sql` asks as the reader role, read-only.")
        if isinstance(error, psycopg.errors.SyntaxError) and "multiple commands" in said:
            return UsageError("Refused: more than one statement.", hint="Give one statement at a time.")
        if isinstance(error, psycopg.OperationalError) and error.sqlstate in (
            None,
            "57P01",
            "57P02",
            "57P03",
        ):
            return ServiceError(f"The database went away: {said}.", hint="Ask again; see `geofix status`.")
        if isinstance(error, psycopg.DataError) and not error.sqlstate:
            return UsageError(f"A value cannot be shown: {said}.", hint="Cast that column to text.")
        place = f" (at character {error.diag.statement_position})" if error.diag.statement_position else ""
        more = [part for part in (error.diag.message_detail, error.diag.message_hint) if part]
        return UsageError(f"PostgreSQL says: {said}{place}.", hint=" ".join(more))
