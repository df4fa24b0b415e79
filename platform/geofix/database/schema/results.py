"""Queries, evaluations and predictions: what was answered."""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from geofix.database.schema.columns import (
    SCHEMA,
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


accuracy_change = Table(
    "accuracy_change",
    metadata,
    identifier("change_id"),
    reference("evaluation_id", "evaluation.evaluation_id", nullable=True, index=True),
    Column("level", Text, comment="of regions that photos were given; null: of all"),
    Column("first_photo_id", BigInteger, comment="null: any photo"),
    Column("last_photo_id", BigInteger),
    comment="Statements that changed what accuracy is counted from, written by triggers: of one evaluation, else of a "
    "range of photos",
)


region_summary = Table(
    "region_summary",
    metadata,
    reference("evaluation_id", "evaluation.evaluation_id"),
    Column("level", Text, nullable=False, comment="of the regions; empty: everywhere"),
    Column("distances_m", ARRAY(Double), nullable=False),
    Column("comparison", Text, nullable=False, comment="of the evaluation when it was counted"),
    Column("missing_policy", Text, nullable=False, comment="of the evaluation when it was counted"),
    Column("changes", BigInteger, nullable=False, comment="rows of the log that concerned it"),
    Column("first_photo_id", BigInteger, comment="of the photos asked; null: none"),
    Column("last_photo_id", BigInteger),
    Column("west", Double, comment="box around the photos that count, in degrees"),
    Column("south", Double),
    Column("east", Double),
    Column("north", Double),
    stamp("written_at"),
    PrimaryKeyConstraint("evaluation_id", "level"),
    comment="What accuracy by region was counted from; it fits while no further change is in the log",
)


region_accuracy = Table(
    "region_accuracy",
    metadata,
    Column("evaluation_id", BigInteger, nullable=False),
    Column("level", Text, nullable=False),
    Column("distance_m", Double, nullable=False),
    Column("region_id", BigInteger, nullable=False, comment="0: outside every region"),
    Column("n", BigInteger, nullable=False),
    Column("hits", BigInteger, nullable=False),
    Column("answered", BigInteger, nullable=False),
    Column("median_m", Double, nullable=False, comment="infinite where half are not answered"),
    PrimaryKeyConstraint("evaluation_id", "level", "distance_m", "region_id"),
    ForeignKeyConstraint(
        ["evaluation_id", "level"],
        [f"{SCHEMA}.region_summary.evaluation_id", f"{SCHEMA}.region_summary.level"],
        ondelete="CASCADE",
    ),
    comment="Photos, hits and median per region and distance, as accuracy_by_region counts them",
)
