"""Errors of libraries and of the system as errors of ours, so that they end with the right exit code."""

from __future__ import annotations

import errno
import sys

from geofix.errors import BadInputError, GeofixError, ServiceError, SpaceError


def own_error(error: BaseException) -> GeofixError | None:
    """The error of ours that a foreign one stands for, or None: a fault of the program.

    Libraries that no command has loaded are not loaded here.
    """
    if isinstance(error, MemoryError):
        return SpaceError("The memory does not suffice.", hint="Close other programs or give less at a time.")
    if isinstance(error, OSError) and error.filename is not None:
        return _of_system(error)
    return _of_postgres(error) or _of_redis(error)


def _of_system(error: OSError) -> GeofixError | None:
    text = f"{error.filename}: {error.strerror}."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SpaceError(text, hint="Free some space and run the same command again.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return BadInputError(text, hint="Give a path that you may read and write.")
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError | FileExistsError):
        return BadInputError(text, hint="Check the path.")
    return None


def _of_postgres(error: BaseException) -> GeofixError | None:
    psycopg = sys.modules.get("psycopg")
    if psycopg is None or not isinstance(error, psycopg.Error):
        return None
    text = f"PostgreSQL says: {str(error).splitlines()[0] if str(error) else type(error).__name__}."
    if isinstance(error, psycopg.errors.QueryCanceled):
        return ServiceError(text, hint="Run the same command again, or ask for less.")
    if isinstance(error, psycopg.errors.DiskFull | psycopg.errors.OutOfMemory):
        return SpaceError(text, hint="Give the server space and run the same command again.")
    if "shard" in text and isinstance(error, psycopg.OperationalError):
        return ServiceError(text.replace("geofix_shard_", "shard "), hint="Ask `geofix shards check`.")
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return ServiceError(text, hint="Ask `geofix status`; `geofix up` starts the embedded server.")
    if isinstance(error, psycopg.DataError):
        return BadInputError(text, hint="Check the values given.")
    return None


def _of_redis(error: BaseException) -> GeofixError | None:
    redis = sys.modules.get("redis")
    if redis is None or not isinstance(error, redis.exceptions.ConnectionError):
        return None
    return ServiceError(
        f"The broker does not answer: {error}.",
        hint="Ask `geofix status`; `geofix up` starts the embedded one.",
    )
