"""Which faults may pass by themselves, so that another attempt is worth its time."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

import psycopg
from sqlalchemy.exc import OperationalError

from geofix.errors import GeofixError

# A disk that somebody clears, a network that comes back, a server that restarts.
PASSING_ERRNO = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.ESTALE,
        errno.EAGAIN,
        errno.ETIMEDOUT,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
    }
)
# The server ends a transaction whose process slept (`keep_brief`).
_SERVER = (psycopg.OperationalError, OperationalError, psycopg.errors.IdleInTransactionSessionTimeout)


def is_passing(error: BaseException) -> bool:
    """Whether a fault, or what it says it was caused by, may be gone at the next attempt.

    A deliberate error speaks for itself. Of others a full disk, a broken connection and a server that went
    away count; a library may have put its own error over them.
    """
    if isinstance(error, GeofixError):
        return error.job_state == "queued"
    return any(isinstance(item, _SERVER) or _number(item) in PASSING_ERRNO for item in _chain(error))


def told(error: BaseException) -> str:
    """An unexpected error in one line, with the fault of the machine that a library may have hidden in it."""
    text = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".rstrip(": ")
    for item in _chain(error.__cause__ or error.__context__):
        number = _number(item)
        if number in PASSING_ERRNO:
            return f"{os.strerror(number)} ({text})"
    return text


def _number(error: BaseException) -> int:
    """The system's number of a fault, or 0; libraries written in Rust (safetensors) give it in their text."""
    if isinstance(error, OSError):
        return error.errno or 0
    said = re.search(r"\(os error (\d+)\)", str(error))
    return int(said[1]) if said else 0


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
