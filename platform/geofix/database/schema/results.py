"""Queries, evaluations and predictions: what was answered."""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)

from geofix.database.schema.columns import (
    document,
    identifier,
    metadata,
    reference,
    shape,
    stamp,
)

query = Table(
    "query",
    metadata,
    identifier("query_id"),
    Column("photo_sha256", LargeBinary, nullable=False),
    Column("photo_name", Text),
    reference("code_set_id", "code_set.code_set_id", nullable=True, cascade=False),
    Column("localizer", Text, nullable=False),
    Column("k", Integer, nullable=False),
    shape("GEOMETRY", nullable=True, name="region_geom"),
    Column("search_method", Text, nullable=False),
    Column("cells_in_scope", BigInteger, nullable=False),
    Column("in_coverage", Boolean),
    Column("software_version", Text, nullable=False),
    document("answer"),
    stamp("asked_at"),
    comment="Photos that users localized, without their pixels unless asked",
)


evaluation = Table(
    "evaluation",
    metadata,
    identifier("evaluation_id"),
    Column("name", Text, nullable=False, unique=True),
    Column("localizer", Text, nullable=False),
    reference("model_id", "model.model_id", nullable=True, cascade=False),
    reference("code_set_id", "code_set.code_set_id", nullable=True, cascade=False),
    reference("snapshot_id", "snapshot.snapshot_id", nullable=True, cascade=False),
    Column("split", Text, nullable=False),
    Column("level", SmallInteger),
    Column("search_method", Text, nullable=False),
    shape("GEOMETRY", nullable=True, name="region_geom"),
    Column("radius_km", Double, nullable=False, server_default="6371.0"),
    Column(
        "comparison", Text, CheckConstraint("comparison IN ('<=','<')", name="comparison"), nullable=False
    ),
    Column(
        "missing_policy",
        Text,
        CheckConstraint("missing_policy IN ('wrong','drop')", name="missing"),
        nullable=False,
    ),
    Column("n", Integer, nullable=False),
    document("metrics"),
    document("config"),
    Column("software_version", Text, nullable=False),
    stamp("created_at"),
    comment="One localizer judged on one split; the protocol is part of the row",
)


evaluation_photo = Table(
    "evaluation_photo",
    metadata,
    reference("evaluation_id", "evaluation.evaluation_id"),
    reference("photo_id", "photo_record.photo_id", index=True),
    Column("nearest_training_m", REAL, comment="distance to the nearest training photo"),
    Column("training_photos_in_cell", Integer),
    PrimaryKeyConstraint("evaluation_id", "photo_id"),
    comment="Every photo asked, answered or not, so that a missing answer stays in n",
)


prediction = Table(
    "prediction",
    metadata,
    reference("evaluation_id", "evaluation.evaluation_id"),
    reference("photo_id", "photo_record.photo_id", index=True),
    Column("rank", SmallInteger, nullable=False),
    Column("s2_id", BigInteger, nullable=False),
    Column("score", REAL, nullable=False),
    Column("probability", REAL),
    Column("error_m", Double, nullable=False),
    shape("POINT"),
    PrimaryKeyConstraint("evaluation_id", "photo_id", "rank"),
    # First answers alone: every accuracy asks for them, and the primary key would read all ranks.
    Index(
        "prediction_first_idx",
        "evaluation_id",
        "photo_id",
        postgresql_include=["error_m"],
        postgresql_where=text("rank = 1"),
    ),
    comment="One row per photo and rank",
)
