"""Put a model directory into the database: its dimension, hash, configuration and input transform."""

from __future__ import annotations

from pathlib import Path

from geofix.database.engine import Connection
from geofix.database.queries.models import ModelRow, find_model, insert_model
from geofix.models.manifest import read_manifest


def register_model(conn: Connection, directory: Path, name: str, *, place: Path | None = None) -> ModelRow:
    """Register a model directory under a name; the same weights twice is one model. The caller commits.

    Args:
        conn: Open connection of the writer or owner.
        directory: Where its description is read.
        name: Name in the database.
        place: Where the directory will be before the caller commits; None: where it is.

    Raises:
        NotFoundError: There is no model in the directory.
        UsageError: The name is taken by another model.
    """
    manifest = read_manifest(directory)
    ground = manifest.encoders["ground"]
    insert_model(
        conn,
        {
            "name": name,
            "kind": "encoder",
            "dimension": manifest.dimensions["ground"],
            "directory_uri": str((place or directory).resolve()),
            "weights_sha256": manifest.weights_sha256,
            "config": {role: config.model_dump(mode="json") for role, config in manifest.encoders.items()},
            "input_transform": ground.input.as_dict() if ground.input else {},
            "snapshot_id": None,
            "metrics": dict(manifest.metadata),
        },
    )
    return find_model(conn, name)
