"""Which snapshot a model learned from, against the one that its codes are fitted on."""

from __future__ import annotations

from geofix.database.engine import Connection
from geofix.database.queries.models import ModelRow
from geofix.database.queries.snapshots import snapshot_sha256
from geofix.errors import UsageError

SHOWN = 12  # characters of a content hash


def trained_on(conn: Connection, model: ModelRow) -> str | None:
    """Content hash of the snapshot that a model learned from; None where it learned from none, or says none.

    The model brings it from where it was trained, so that it is known where that snapshot is not.
    """
    brought = model.metrics.get("snapshot_sha256")
    if brought is not None or model.snapshot_id is None:
        return None if brought is None else str(brought)
    return snapshot_sha256(conn, model.snapshot_id)


def require_trained_on(conn: Connection, model: ModelRow, snapshot_id: int) -> None:
    """Refuse another snapshot than the model learned from, whose validation photos it may have learned.

    Raises:
        UsageError: It says both hashes, and what can be done.
    """
    theirs, ours = trained_on(conn, model), snapshot_sha256(conn, snapshot_id)
    if theirs is None or theirs == ours:
        return
    raise UsageError(
        f"Model {model.name} was trained on snapshot {theirs[:SHOWN]}, not on snapshot {str(ours)[:SHOWN]}, "
        "whose validation photos it may have learned from.",
        hint="Give the snapshot that it was trained on, or train on this one. Where that snapshot is not in "
        "this database, leave --snapshot out; a hybrid then takes --kappa with a number.",
    )
