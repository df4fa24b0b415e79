"""Snapshots, models, vectors and code sets: what was made from it."""

from __future__ import annotations

from typing import Any

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
)

from geofix.database.schema.columns import (
    document,
    gist_index,
    identifier,
    metadata,
    reference,
    shape,
    stamp,
)

snapshot = Table(
    "snapshot",
    metadata,
    identifier("snapshot_id"),
    Column("uri", Text, nullable=False),
    Column("sha256", Text, nullable=False, unique=True),
    document("config"),
    document("counts"),
    stamp("created_at"),
    comment="Frozen training sets",
)


snapshot_photo = Table(
    "snapshot_photo",
    metadata,
    reference("snapshot_id", "snapshot.snapshot_id"),
    reference("photo_id", "photo_record.photo_id", index=True),
    Column(
        "split",
        Text,
        CheckConstraint("split IN ('train','val','test_seen','test_unseen')", name="split"),
        nullable=False,
    ),
    PrimaryKeyConstraint("snapshot_id", "photo_id"),
    comment="Which photo is in which split",
)


snapshot_split = Table(
    "snapshot_split",
    metadata,
    reference("snapshot_id", "snapshot.snapshot_id"),
    Column("split", Text, nullable=False),
    Column("photos", BigInteger, nullable=False),
    Column("sequences", BigInteger, nullable=False),
    Column("cells_l15", BigInteger, nullable=False, comment="S2 cells of level 15 that hold them"),
    Column("blocks_l13", BigInteger, nullable=False, comment="S2 cells of level 13 that hold them"),
    PrimaryKeyConstraint("snapshot_id", "split"),
    comment="What the splits of a snapshot held when it was stored",
)


model = Table(
    "model",
    metadata,
    identifier("model_id"),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False, comment="encoder, or the name of a trained localizer"),
    Column("dimension", Integer, nullable=False),
    Column("directory_uri", Text, nullable=False),
    Column("weights_sha256", Text, nullable=False),
    document("config"),
    document("input_transform"),
    reference("snapshot_id", "snapshot.snapshot_id", nullable=True, cascade=False),
    document("metrics"),
    stamp("created_at"),
    comment="Encoders and trained localizers, with all that is needed to rebuild them",
)


def vector_table(name: str, key: str, parent: str, vector: str, comment: str, *more: Column[Any]) -> Table:
    """A vector table, LIST-partitioned by its parent; PRIMARY KEY and FOREIGN KEY would bar foreign partitions."""
    return Table(
        name,
        metadata,
        Column(parent, BigInteger, nullable=False),
        Column(key, BigInteger, nullable=False),
        Column(vector, HALFVEC(), nullable=False),
        *more,
        Index(f"{name}_{parent}_{key}_idx", parent, key),
        postgresql_partition_by=f"LIST ({parent})",
        comment=comment,
    )


photo_embedding = vector_table(
    "photo_embedding", "photo_id", "model_id", "embedding", "Ground embeddings, one leaf per model"
)


aerial_embedding = vector_table(
    "aerial_embedding", "aerial_tile_id", "model_id", "embedding", "Aerial embeddings, one leaf per model"
)


prototype = vector_table(
    "prototype",
    "s2_id",
    "model_id",
    "embedding",
    "Learned ground prototypes, one leaf per model",
    Column("photos", Integer, nullable=False),
)


cell_code = vector_table(
    "cell_code",
    "s2_id",
    "code_set_id",
    "code",
    "Cell codes of dimension D + 2 (bias and norm completion), one leaf per code set",
    Column("has_prototype", Boolean, nullable=False),
    Column("has_aerial", Boolean, nullable=False),
)


code_set = Table(
    "code_set",
    metadata,
    identifier("code_set_id"),
    Column("name", Text, nullable=False, unique=True),
    reference("model_id", "model.model_id"),
    reference("snapshot_id", "snapshot.snapshot_id", nullable=True, cascade=False),
    Column("recipe", Text, nullable=False, comment="cellmean, aerial, prototype or hybrid"),
    Column("level", SmallInteger, nullable=False),
    Column("dimension", Integer, nullable=False, comment="D + 2"),
    Column(
        "state",
        Text,
        CheckConstraint("state IN ('building','ready','stale','dropping')", name="state"),
        nullable=False,
        server_default="building",
    ),
    Column("stale_reason", Text),
    Column("scale", Double, nullable=False, server_default="1", comment="M: score = M * inner product"),
    Column("kappa", Double),
    Column("temperature", Double),
    Column("cells", BigInteger, nullable=False, server_default="0"),
    Column("with_prototype", BigInteger, nullable=False, server_default="0"),
    Column("with_aerial", BigInteger, nullable=False, server_default="0"),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("block_level", SmallInteger, nullable=False, server_default="9"),
    document("index_parameters"),
    document("calibration"),
    document("config"),
    stamp("created_at"),
    Column("ready_at", DateTime(timezone=True)),
    comment="All cell codes of one model by one recipe",
)


cell_block = Table(
    "cell_block",
    metadata,
    reference("code_set_id", "code_set.code_set_id"),
    Column("s2_id", BigInteger, nullable=False),
    Column("lo", BigInteger, nullable=False, comment="first leaf id of the block"),
    Column("hi", BigInteger, nullable=False, comment="last leaf id of the block"),
    Column("cells", Integer, nullable=False),
    shape("GEOMETRY"),
    PrimaryKeyConstraint("code_set_id", "s2_id"),
    gist_index("cell_block"),
    comment="Coarse blocks with their number of codes: what a region covers, without touching the codes",
)


recall_check = Table(
    "recall_check",
    metadata,
    identifier("recall_check_id"),
    reference("code_set_id", "code_set.code_set_id", index=True),
    Column("k", Integer, nullable=False),
    Column("queries", Integer, nullable=False),
    Column("ef_search", Integer),
    Column("scope", Text, nullable=False, comment="everywhere, or a description of the region"),
    Column("cells_in_scope", BigInteger, nullable=False),
    Column("recall", REAL, nullable=False, comment="share of the exact top k that HNSW also returned"),
    stamp("checked_at"),
    comment="ANN against exact search, as a time series",
)
