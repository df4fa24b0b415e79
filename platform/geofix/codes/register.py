"""Put a model directory into the database: what defines its encoders, its prototypes, its snapshot."""

from __future__ import annotations

from pathlib import Path

from geofix.database.engine import Connection
from geofix.database.queries.models import ModelRow, find_model, insert_model
from geofix.database.queries.prototypes import link_snapshot, store_prototypes
from geofix.models.manifest import model_directory, read_manifest
from geofix.models.prototype_tensors import read_prototypes


def register_model(conn: Connection, directory: Path, name: str, *, place: Path | None = None) -> ModelRow:
    """Register a model directory under a name; the same weights twice is one model. The caller commits.

    A trained model brings its prototypes, which fill its leaf, and is tied to the snapshot it was trained
    on where this database knows that one (also by a later registration under the same name).

    Args:
        conn: Open connection of the writer or owner.
        directory: Where its description is read, or the directory of the training run that made it.
        name: Name in the database.
        place: Where the directory will be before the caller commits; None: where it is.

    Raises:
        NotFoundError: There is no model in the directory.
        UsageError: The name is taken by another model.
        BadInputError: The prototypes do not fit the encoders, or the weights are damaged.
    """
    directory = model_directory(directory)
    manifest = read_manifest(directory)
    ground = manifest.encoders["ground"]
    prototypes = read_prototypes(directory, manifest)
    model_id = insert_model(
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
    if prototypes is not None:
        store_prototypes(conn, model_id, prototypes.ids, prototypes.vectors, prototypes.photos)
    trained_on = manifest.metadata.get("snapshot_sha256")
    if trained_on:
        link_snapshot(conn, model_id, str(trained_on))
    return find_model(conn, name)
