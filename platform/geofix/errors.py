"""One error base, and one table from error to exit code and job state.

Every message says what went wrong, where, with which value, and what to do next.
"""

from __future__ import annotations


class GeofixError(Exception):
    """Base of every error that geofix raises on purpose.

    Args:
        message: What went wrong, where, and the offending value.
        hint: The next step, shown after the message.
    """

    exit_code = 1
    job_state = "failed"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip() if self.hint else self.message


class UsageError(GeofixError):
    """The command or call was wrong: an unknown name, an option out of range."""

    exit_code = 2


class BadInputError(GeofixError):
    """The data handed in cannot be used."""

    exit_code = 3


class NotFoundError(BadInputError):
    """A named thing (data set, model, code set, evaluation, file) does not exist."""


class SplitLeakError(BadInputError):
    """A snapshot would let test photos leak into training."""


class ServiceError(GeofixError):
    """A service is missing, not started, or not ready."""

    exit_code = 4


class SchemaError(ServiceError):
    """The database schema, an extension or a SQL file is not what this version needs."""


class SpaceError(ServiceError):
    """Too little disk or memory for what was asked; nothing was begun."""


class JobFailedError(GeofixError):
    """A job ended in failure."""

    exit_code = 5


class TransientError(ServiceError):
    """A fault that may pass by itself (connection lost, lock timeout); worth a retry."""

    job_state = "queued"


EXIT_INTERRUPT = 130
