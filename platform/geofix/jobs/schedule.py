"""What beat asks for by itself, each piece once per period, however many beats there are."""

from __future__ import annotations

from collections.abc import Callable

from geofix.database.engine import Connection, connect
from geofix.database.queries import job_health
from geofix.jobs import service
from geofix.jobs.settings import JobSettings
from geofix.jobs.specs import Specification, parse
from geofix.log import get_logger

_HOUR_S = 3600.0
_done: dict[str, int] = {}  # name -> period in which this process has looked

_log = get_logger(__name__)


def submit_due(settings: JobSettings) -> int:
    """Queue what its period has not seen yet; how many jobs were new.

    Periods are counted by the database's clock, and the key of a job names its period: the second of two
    beats finds the first one's job.
    """
    found = 0
    for name, hours, make in (
        ("recall", settings.recall_every_h, _recall_checks),
        ("retention", settings.retention_every_h, _retention),
    ):
        if hours:
            found += _submit(name, hours * _HOUR_S, make)
    return found


def _submit(name: str, every_s: float, make: Callable[[Connection], dict[str, Specification]]) -> int:
    with connect("writer") as conn:
        period = job_health.period(conn, every_s)
        if _done.get(name) == period:
            return 0
        made = {f"schedule/{name}/{period}/{key}": spec for key, spec in make(conn).items()}
        known = job_health.known_keys(conn, list(made))
    for key, specification in made.items():
        if key not in known:
            row = service.submit(specification, idempotency_key=key)
            _log.info("scheduled", what=name, job_id=str(row.job_id))
    _done[name] = period
    return len(made.keys() - known)


def _recall_checks(conn: Connection) -> dict[str, Specification]:
    return {
        str(code_set_id): parse("recall_check", {"code_set": name})
        for code_set_id, name in job_health.indexed_code_sets(conn)
    }


def _retention(_: Connection) -> dict[str, Specification]:
    return {"all": parse("retention", {})}
