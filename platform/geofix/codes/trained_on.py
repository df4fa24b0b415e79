"""Which snapshot a model learned from, against the one that its codes are fitted on."""

from __future__ import annotations

from geofix.database.engine import Connection
from geofix.database.queries.models import ModelRow
from geofix.database.queries.snapshots import learned_photos, snapshot_sha256
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


def learned_from_val(conn: Connection, model: ModelRow, snapshot_id: int) -> str | None:
    """Why a snapshot's validation photos are no judges of a model; None where it learned from none.

    Another snapshot than the model's own will do where this database knows both and no photo stands in the
    one's training set and in the other's `val`: one with a smaller share of the training photos, say.
    """
    theirs, ours = trained_on(conn, model), snapshot_sha256(conn, snapshot_id)
    if theirs is None or theirs == ours:
        return None
    counts = learned_photos(conn, theirs, snapshot_id, ["val"])
    if counts is not None and not counts["val"]:
        return None
    many = "may have learned from" if counts is None else f"learned {counts['val']:,} of"
    return (
        f"Model {model.name} was trained on snapshot {theirs[:SHOWN]}, not on snapshot {str(ours)[:SHOWN]}, "
        f"and {many} its validation photos."
    )


def require_trained_on(conn: Connection, model: ModelRow, snapshot_id: int) -> None:
    """Refuse to fit codes on validation photos that the model may have learned.

    Raises:
        UsageError: It says both hashes, and what can be done.
    """
    why = learned_from_val(conn, model, snapshot_id)
    if why is not None:
        raise UsageError(
            why,
            hint="Name the directory of the snapshot that it was trained on, or train on this one. Without "
            "either, `codes build` without --snapshot makes codes that have no probabilities (a hybrid with "
            "--kappa and a number).",
        )
