"""Remove what nothing refers to any more: leaves, half-built code sets, lost embeddings, old rows and files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, get_args

from geofix.database import leftovers, shard_pieces
from geofix.database.engine import Connection
from geofix.database.queries import cells, code_ranges, codes, localizations, region_summary
from geofix.database.queries import garbage as queries
from geofix.errors import TransientError
from geofix.settings import Settings

State = Literal["removed", "found", "kept"]

_MOST_NOTES = 1000  # of changes that summaries and cells are compared with; each read counts them


@dataclass(frozen=True)
class Item:
    """One finding.

    Attributes:
        kind: What it is, for example "orphan leaf".
        name: Which one: a table, a code set, a path.
        rows: Rows it holds, 0 where that says nothing.
        bytes: Space it takes; of deleted rows the space that is used again, on disk only after a vacuum.
        state: removed, found (nothing was changed) or kept.
        note: Why it was kept.
    """

    kind: str
    name: str
    rows: int
    bytes: int
    state: State
    note: str = ""


def collect(conn: Connection, settings: Settings, *, dry_run: bool = False) -> list[Item]:
    """Find and remove; commits step by step, so that an interrupted run has done a part and the next the rest.

    Args:
        conn: Open connection of the owner.
        settings: How long rows, backups and logs are kept, and where files are.
        dry_run: Only find.

    Raises:
        TransientError: Another collection is at work, or a table stays locked.
    """
    if not queries.lock(conn):
        raise TransientError("Another `geofix gc` is at work in this database.", hint="Wait until it ends.")
    try:
        items = [*_database(conn, settings, dry_run), *_files(settings, dry_run)]
        removed = [item for item in items if item.state == "removed"]
        if removed:
            detail = {"items": len(removed), "bytes": sum(item.bytes for item in removed)}
            localizations.audit(conn, "gc", "database", conn.info.dbname, detail)
        conn.commit()
        return items
    finally:
        with _quietly(conn):
            queries.unlock(conn)


@contextmanager
def _quietly(conn: Connection) -> Iterator[None]:
    """Leave a connection usable whatever happened: a failed transaction takes no statement."""
    if not conn.closed:
        conn.rollback()
        yield
        conn.commit()


def _database(conn: Connection, settings: Settings, dry_run: bool) -> Iterator[Item]:
    state: State = "found" if dry_run else "removed"
    grace = timedelta(hours=settings.gc_grace_hours)
    for name, stage, size in queries.unfinished_code_sets(conn, grace):
        if not dry_run:
            codes.drop_code_set(conn, codes.find_code_set(conn, name))
            conn.commit()
        yield Item(f"code set left {stage}", name, 0, int(size), state)
    for table, about, size in code_ranges.unfinished(conn, grace):
        gone = dry_run or code_ranges.drop_unfinished(conn, table)
        conn.commit()
        note = "" if gone else "another session reads it, as a backup does"
        kind = "codes left in the making"
        yield Item(kind, table, int(about), int(size), state if gone else "kept", note)
    for evaluation_id, name, photos in queries.unfinished_evaluations(conn, grace):
        if not dry_run:
            queries.delete_evaluation(conn, evaluation_id)
            conn.commit()
        yield Item("evaluation left in the making", name, int(photos), 0, state)
    for leaf in queries.orphan_leaves(conn):
        if leaf.foreign and not leaf.is_piece:
            note = "it lives on another server"
            yield Item("orphan leaf", leaf.name, 0, 0, "kept", note)
            continue
        if not dry_run:
            queries.drop_orphan(conn, leaf)
        yield Item("orphan leaf", leaf.name, 0, leaf.bytes, state)
    tables = 0 if dry_run else shard_pieces.clean(conn)
    if tables:
        yield Item("tables of dropped codes on shards", f"{tables} tables", 0, 0, state)
    lost = queries.lost_embeddings(conn)
    if lost and not dry_run:
        queries.delete_lost_embeddings(conn)
        conn.commit()
    for table, model_id, rows, size in lost:
        yield Item("embedding without its picture", f"{table}_{model_id}", int(rows), int(size), state)
    days = {
        "query": settings.keep_queries_days,
        "audit": settings.keep_audit_days,
        "job_event": settings.keep_job_logs_days,
    }
    for kept in get_args(queries.Dated):
        if days[kept]:
            yield from _dated(conn, kept, timedelta(days=days[kept]), state)
    logs = {"noted changes of answers": region_summary.log, "noted changes of cells": cells.log}
    for kind, log in logs.items():
        rows, size = log.size(conn)
        if rows > _MOST_NOTES:
            emptied = dry_run or log.forget(conn)
            conn.commit()
            note = "" if emptied else "another session is writing into it"
            yield Item(kind, "all", rows, size, state if emptied else "kept", note)
    for name, dead, _ in queries.bloated_leaves(conn):
        freed = 0 if dry_run else queries.vacuum_leaf(conn, name)
        yield Item("deleted rows in a leaf", name, int(dead), freed, state)


def _dated(conn: Connection, table: queries.Dated, age: timedelta, state: State) -> Iterator[Item]:
    rows, size = queries.older_than(conn, table, age)
    if not rows:
        return
    if state == "removed":
        queries.delete_older(conn, table, age)
        conn.commit()
    yield Item(f"{table} rows", f"older than {age.days} days", rows, size, state)


def _files(settings: Settings, dry_run: bool) -> Iterator[Item]:
    for found in leftovers.find(settings):
        if found.reason:
            yield Item(found.kind, str(found.path), 0, found.bytes, "kept", found.reason)
            continue
        if not dry_run:
            leftovers.remove(found)
        yield Item(found.kind, str(found.path), 0, found.bytes, "found" if dry_run else "removed")
