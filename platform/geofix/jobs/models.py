"""Encoders and code sets that stay loaded in a worker from one job to the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING

from geofix.database.engine import Connection
from geofix.database.queries.codes import CodeSet, find_ready
from geofix.database.queries.models import ModelRow, find_model_by_id, split_stamp
from geofix.jobs.service import as_json
from geofix.jobs.settings import JobSettings
from geofix.jobs.warm import Shelf

if TYPE_CHECKING:
    from geofix.localize.service import Searcher
    from geofix.localizers.fit import Fitted
    from geofix.models.encoder import Encoder


@lru_cache(maxsize=1)
def shelf() -> Shelf:
    """The shelf of this process."""
    settings = JobSettings()
    return Shelf(settings.warm_models, settings.warm_s)


@contextmanager
def warm_encoder(model: ModelRow, role: str) -> Iterator[Encoder]:
    """An encoder of a model, checked by its hash when it was loaded."""
    from geofix.codes.embed_store import load_encoder

    stamp = (model.weights_sha256, model.directory_uri)
    with shelf().lend(("encoder", model.name, role), stamp, lambda: load_encoder(model, role)) as encoder:
        yield encoder


def warm_localizer(
    conn: Connection,
    name: str,
    model: ModelRow,
    snapshot_id: int,
    *,
    level: int = 16,
    code_set: CodeSet | None = None,
) -> Fitted:
    """A fitted localizer; fitted again when its code set or its embedded training photos have changed.

    Raises:
        UsageError: As `fit_localizer`.
        BadInputError: As `fit_localizer`.
    """
    from geofix.localizers.fit import fit_localizer

    if code_set is None:
        stamp: object = split_stamp(conn, model.model_id, snapshot_id, "train")
    else:
        stamp = as_json(asdict(code_set))
    key = (
        "localizer",
        conn.info.dbname,
        name,
        model.model_id,
        snapshot_id,
        level,
        code_set and code_set.name,
    )

    def load() -> Fitted:
        return fit_localizer(conn, name, model, snapshot_id, level=level, code_set=code_set)

    with shelf().lend(key, (model.weights_sha256, stamp), load) as fitted:
        return fitted


@contextmanager
def warm_searcher(conn: Connection, name: str) -> Iterator[Searcher]:
    """A code set with its matrix and its encoder; loaded again when its row or its model has changed.

    Raises:
        NotFoundError: No ready code set has the name.
    """
    from geofix.localize.service import Searcher

    row = find_ready(conn, name)
    stamp = (as_json(asdict(row)), find_model_by_id(conn, row.model_id).weights_sha256)
    with shelf().lend(("code set", name), stamp, lambda: Searcher.load(conn, name)) as searcher:
        yield searcher
