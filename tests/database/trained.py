"""A model as training writes it, for the small world: two encoders and prototypes of its training photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pgvector import HalfVector
from small_world import DIMENSION, LEVEL, SmallWorld

from geofix.codes.embed_store import embed_all
from geofix.codes.means import cell_means
from geofix.codes.register import register_model
from geofix.database.engine import Connection
from geofix.database.queries import codes as code_queries
from geofix.database.queries import models as model_queries
from geofix.database.queries import snapshots as snapshot_queries
from geofix.database.queries.models import ModelRow
from geofix.models.encoder import EncoderConfig, build_encoder
from geofix.models.registry import Model, save_model
from geofix.snapshots.build import stored_snapshot

PROTOTYPE_LEVEL = 15


def encoder(seed: int, size: int = 64):
    config = EncoderConfig(
        trunk="mobilenetv3_small_050",
        dimension=DIMENSION,
        projection="random",
        image_size=size,
        seed=seed,
    )
    return build_encoder(config)


def photo_means(conn: Connection, small: SmallWorld, level: int = PROTOTYPE_LEVEL):
    """Means of the training photos by the world's own model, whose ground encoder the trained one has too."""
    model = model_queries.find_model(conn, "tiny")
    frozen = stored_snapshot(conn, small.snapshot).snapshot_id
    ids, vectors = model_queries.read_split_embeddings(conn, model, frozen, ["train"])
    photos = snapshot_queries.snapshot_photos(conn, frozen, ["train"]).set_index("photo_id").loc[ids]
    return cell_means(vectors, photos.s2_id.to_numpy(np.int64), level)


def tensors(ids: np.ndarray, vectors: np.ndarray, photos: np.ndarray) -> dict[str, torch.Tensor]:
    return {
        "prototypes.s2_id": torch.from_numpy(ids.astype(np.int64)),
        "prototypes.weight": torch.from_numpy(vectors.astype(np.float32)),
        "prototypes.photos": torch.from_numpy(photos.astype(np.int32)),
    }


def metadata(conn: Connection, small: SmallWorld, *terms: str) -> dict[str, object]:
    sha256 = stored_snapshot(conn, small.snapshot).sha256
    known = {"snapshot_sha256": sha256, "terms": list(terms), "tile_side_m": 154.0}
    return {**known, "prototype_level": PROTOTYPE_LEVEL} if "ground_prototype" in terms else known


def make_trained(
    conn: Connection,
    small: SmallWorld,
    directory: Path,
    *,
    prototypes: bool = True,
    aerial: bool = True,
    leave_out: int | None = None,
) -> ModelRow:
    """Write, register under the directory's name, and embed everything.

    Args:
        conn: Open connection.
        small: The world.
        directory: New.
        prototypes: With prototypes: photo means, a little off.
        aerial: With an aerial encoder, of another input size than the ground encoder's.
        leave_out: A cell that gets no prototype although photos were taken there.
    """
    encoders = {"ground": encoder(3)} | ({"aerial": encoder(8, 48)} if aerial else {})
    terms = (["ground_prototype"] if prototypes else []) + (["ground_aerial"] if aerial else [])
    made = {}
    if prototypes:
        ids, means, counts = photo_means(conn, small)
        keep = ids != leave_out
        noise = np.random.default_rng(2).normal(0, 0.05, means.shape)
        off = (means + noise) / np.linalg.norm(means + noise, axis=1, keepdims=True)
        made = tensors(ids[keep], off[keep], counts[keep])
    model = Model(directory.name, encoders, made, metadata(conn, small, *terms))
    save_model(model, directory)
    row = register_model(conn, directory, directory.name)
    embed_all(conn, row, "photos", workers=1)
    if aerial:
        embed_all(conn, row, "aerial", workers=1)
        teach(conn, row)
    return row


def teach(conn: Connection, model: ModelRow) -> None:
    """What training would do: the tile of a cell with photos is embedded near these photos."""
    tiles = dict(conn.execute("SELECT s2_id, aerial_tile_id FROM aerial_tile").fetchall())
    photos = conn.execute(
        "SELECT p.s2_id, e.embedding FROM photo_embedding e JOIN photo_record p USING (photo_id)"
        " WHERE e.model_id = %s ORDER BY photo_id",
        (model.model_id,),
    ).fetchall()
    vectors = np.stack([row[1].to_numpy() for row in photos])
    ids, means, _ = cell_means(vectors, np.array([row[0] for row in photos]), LEVEL)
    noise = np.random.default_rng(4).normal(0, 0.08, means.shape)
    for cell, vector in zip(ids.tolist(), means + noise, strict=True):
        if cell in tiles:
            learned = HalfVector(vector / np.linalg.norm(vector))
            conn.execute(
                "UPDATE aerial_embedding SET embedding = %s WHERE model_id = %s AND aerial_tile_id = %s",
                (learned, model.model_id, tiles[cell]),
            )
    conn.commit()


def drop_trained(conn: Connection, name: str) -> None:
    """Remove a model with everything that was built from it."""
    model = model_queries.find_model(conn, name)
    for row in code_queries.list_code_sets(conn):
        if row["model_id"] == model.model_id:
            code_queries.drop_code_set(conn, code_queries.find_code_set(conn, row["name"]))
            conn.commit()
    model_queries.delete_model(conn, model)
    conn.commit()
