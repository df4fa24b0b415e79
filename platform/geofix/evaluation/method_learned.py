"""Whether the models of the method's table learned from the photos that judge them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from geofix.codes.trained_on import SHOWN, trained_on
from geofix.database.engine import Connection
from geofix.database.queries.models import ModelRow
from geofix.database.queries.snapshots import SnapshotRow, learned_photos
from geofix.log import get_logger

_log = get_logger(__name__)


def learned(
    conn: Connection,
    models: Sequence[ModelRow],
    snapshot: SnapshotRow,
    splits: Sequence[str],
    with_prototypes: Collection[str],
) -> tuple[dict[str, Any], list[str]]:
    """What each model was trained on, and a note for each that was not trained on this snapshot.

    A snapshot with a smaller share of the training photos is another one, too, and judges fairly: what counts
    is how many of the photos asked, and of val, stand in the other's training set.

    Args:
        conn: Open connection.
        models: Of the table.
        snapshot: The one that judges.
        splits: What is asked.
        with_prototypes: Names of models that have prototypes, which come from training.

    Returns:
        By model: `snapshot` (its content hash, None where the model says none), `judged` (whether it is this
        one) and `learned` (photos by split that it learned from; None where nobody here can tell). And notes.
    """
    found: dict[str, Any] = {}
    notes = []
    asked = [*dict.fromkeys([*splits, "val"])]
    for model in models:
        theirs = trained_on(conn, model)
        same = theirs == snapshot.sha256
        counts = dict.fromkeys(asked, 0) if same else None
        if theirs is not None and not same:
            counts = learned_photos(conn, theirs, snapshot.snapshot_id, asked)
        found[model.name] = {"snapshot": theirs, "judged": same, "learned": counts}
        if theirs is None and model.name in with_prototypes:
            notes.append(
                f"Model {model.name} does not say which snapshot it was trained on: photos it learned from "
                "may be among those asked, and among those of val, on which everything is fitted."
            )
        elif theirs is not None and not same:
            notes.append(_note(model.name, theirs, snapshot.sha256, counts))
    for note in notes:
        _log.warning(note)
    return found, notes


def _note(name: str, theirs: str, ours: str, counts: dict[str, int] | None) -> str:
    said = f"Model {name} was trained on snapshot {theirs[:SHOWN]}, not on {ours[:SHOWN]}, which judges it"
    if counts is None:
        return (
            f"{said}, and this database does not know that one: photos it learned from may be among those "
            "asked, and among those of val, on which everything is fitted."
        )
    if not any(counts.values()):
        return f"{said}; none of the photos asked, nor of val, is one that it learned from."
    shown = ", ".join(f"{n:,} of {split}" for split, n in counts.items() if n)
    return f"{said}; it learned from {shown}: its figures are too high, and what is fitted on val too sure."
