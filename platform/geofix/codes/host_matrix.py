"""The exact matrix of a code set, once per host: processes that search the same set map the same file."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geofix.codes.matrix import CellMatrix
from geofix.database.engine import Connection
from geofix.database.queries import codes as code_queries
from geofix.database.queries.codes import CodeSet
from geofix.errors import BadInputError, NotFoundError, SpaceError
from geofix.log import get_logger
from geofix.settings import get_settings
from geofix.storage import require_free

FOLDER = "matrices"  # below GEOFIX_HOME
SMALL_BYTES = 16 << 20  # below that a copy in every process is cheaper than files
_PAGE_BYTES = 32 << 20

_log = get_logger(__name__)


def host_matrix(conn: Connection, code_set: CodeSet) -> CellMatrix:
    """All codes of a set, of which this host holds one copy however many processes ask.

    The first process writes `GEOFIX_HOME/matrices/<key>-<time it became ready>`, others wait for it; all map
    it read-only, so its pages are the system's to share and to give back. When a refresh replaces codes, the
    set has a new time too, so files are never out of date; those that no set has any more are removed when
    the next is written. A small set, one refreshed at this moment, or a disk without space for the file,
    gives a matrix in this process's own memory.

    Raises:
        BadInputError: A stored code is not finite.
    """
    size = code_set.cells * (8 + 2 * code_set.dimension)
    if size < SMALL_BYTES:
        return _own(conn, code_set)
    folder = get_settings().home_dir / FOLDER
    where = folder / code_queries.ready_stamp(conn, code_set)
    found = _opened(where, code_set)
    if found is not None:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{where.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = _opened(where, code_set)  # by whoever held the lock
        if found is not None:
            return found
        _remove_gone(conn, folder, where.name)
        try:
            require_free(folder, size)
        except SpaceError as error:
            _log.warning("no file for the matrix", code_set=code_set.name, reason=error.message)
            return _own(conn, code_set)
        try:
            CellMatrix.write(where, _pages(conn, code_set, where.name))
        except _ChangedError:
            _log.warning("codes were replaced while they were read", code_set=code_set.name)
            return _own(conn, code_set)
    found = _opened(where, code_set)
    return found if found is not None else _own(conn, code_set)


class _ChangedError(Exception):
    """Pages of a code set belong to two of its states."""


def _pages(
    conn: Connection, code_set: CodeSet, stamp: str
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
    """All codes, page by page: each page is a statement of its own, and sees what was committed before it."""
    yield from code_queries.code_pages(conn, code_set, max(1, _PAGE_BYTES // (8 + 2 * code_set.dimension)))
    if code_queries.ready_stamp(conn, code_set) != stamp:
        raise _ChangedError


def _own(conn: Connection, code_set: CodeSet) -> CellMatrix:
    return CellMatrix.from_rows(*code_queries.read_codes(conn, code_set))


def _opened(where: Path, code_set: CodeSet) -> CellMatrix | None:
    """The files, when they are there and whole."""
    try:
        found = CellMatrix.open(where)
    except NotFoundError:
        return None
    except BadInputError as error:
        _log.warning("matrix is written again", code_set=code_set.name, reason=error.message)
        return None
    whole = (len(found), found.dimension) == (code_set.cells, code_set.dimension)
    return found if whole else None


def _remove_gone(conn: Connection, folder: Path, keep: str) -> None:
    """Files of code sets that are no longer there; a process that still maps them keeps its pages."""
    known = code_queries.ready_stamps(conn)
    for path in folder.iterdir():
        name = path.name.removeprefix(".").removesuffix(".lock")
        if name == keep or name in known:
            continue
        if path.is_dir() and not path.name.startswith("."):
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix == ".lock":
            path.unlink(missing_ok=True)
