"""Which faults may pass by themselves, so that another attempt is worth its time."""

from __future__ import annotations

import errno
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
_SERVER = (psycopg.OperationalError, OperationalError)


def is_passing(error: BaseException) -> bool:
    """Whether a fault, or what it says it was caused by, may be gone at the next attempt.

    A deliberate error speaks for itself. Of others a full disk, a broken connection and a server that went
    away count; a library may have put its own error over them.
    """
    if isinstance(error, GeofixError):
        return error.job_state == "queued"
    return any(
        isinstance(item, _SERVER) or (isinstance(item, OSError) and item.errno in PASSING_ERRNO)
        for item in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
