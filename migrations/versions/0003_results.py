"""The first schema: queries, evaluations and predictions.

Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from geoalchemy2 import Geometry
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "evaluation",
        sa.Column("evaluation_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("localizer", sa.Text(), nullable=False),
        sa.Column("model_id", sa.BigInteger(), nullable=True),
        sa.Column("code_set_id", sa.BigInteger(), nullable=True),
        sa.Column("snapshot_id", sa.BigInteger(), nullable=True),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("level", sa.SmallInteger(), nullable=True),
        sa.Column("search_method", sa.Text(), nullable=False),
        sa.Column(
            "region_geom",
            Geometry(
                srid=4326, dimension=2, spatial_index=False, from_text="ST_GeomFromEWKT", name="geometry"
            ),
            nullable=True,
        ),
        sa.Column("radius_km", sa.Double(), server_default="6371.0", nullable=False),
        sa.Column("comparison", sa.Text(), nullable=False),
        sa.Column("missing_policy", sa.Text(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column(
            "metrics",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "config",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("software_version", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["code_set_id"],
            ["geofix.code_set.code_set_id"],
            name=op.f("evaluation_code_set_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["model_id"],
            ["geofix.model.model_id"],
            name=op.f("evaluation_model_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["snapshot_id"],
            ["geofix.snapshot.snapshot_id"],
            name=op.f("evaluation_snapshot_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("evaluation_id", name=op.f("evaluation_pkey")),
        sa.UniqueConstraint("name", name=op.f("evaluation_name_key")),
        schema="geofix",
        comment="One localizer judged on one split; the protocol is part of the row",
    )
    op.create_table(
        "query",
        sa.Column("query_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("photo_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("photo_name", sa.Text(), nullable=True),
        sa.Column("code_set_id", sa.BigInteger(), nullable=True),
        sa.Column("localizer", sa.Text(), nullable=False),
        sa.Column("k", sa.Integer(), nullable=False),
        sa.Column(
            "region_geom",
            Geometry(
                srid=4326, dimension=2, spatial_index=False, from_text="ST_GeomFromEWKT", name="geometry"
            ),
            nullable=True,
        ),
        sa.Column("search_method", sa.Text(), nullable=False),
        sa.Column("cells_in_scope", sa.BigInteger(), nullable=False),
        sa.Column("in_coverage", sa.Boolean(), nullable=True),
        sa.Column("software_version", sa.Text(), nullable=False),
        sa.Column(
            "answer",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("asked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["code_set_id"],
            ["geofix.code_set.code_set_id"],
            name=op.f("query_code_set_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("query_id", name=op.f("query_pkey")),
        schema="geofix",
        comment="Photos that users localized, without their pixels unless asked",
    )
    op.create_table(
        "evaluation_photo",
        sa.Column("evaluation_id", sa.BigInteger(), nullable=False),
        sa.Column("photo_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "nearest_training_m", sa.REAL(), nullable=True, comment="distance to the nearest training photo"
        ),
        sa.Column("training_photos_in_cell", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["evaluation_id"],
            ["geofix.evaluation.evaluation_id"],
            name=op.f("evaluation_photo_evaluation_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["photo_id"],
            ["geofix.photo_record.photo_id"],
            name=op.f("evaluation_photo_photo_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("evaluation_id", "photo_id", name=op.f("evaluation_photo_pkey")),
        schema="geofix",
        comment="Every photo asked, answered or not, so that a missing answer stays in n",
    )
    op.create_index(
        op.f("evaluation_photo_photo_id_idx"), "evaluation_photo", ["photo_id"], unique=False, schema="geofix"
    )
    op.create_table(
        "prediction",
        sa.Column("evaluation_id", sa.BigInteger(), nullable=False),
        sa.Column("photo_id", sa.BigInteger(), nullable=False),
        sa.Column("rank", sa.SmallInteger(), nullable=False),
        sa.Column("s2_id", sa.BigInteger(), nullable=False),
        sa.Column("score", sa.REAL(), nullable=False),
        sa.Column("probability", sa.REAL(), nullable=True),
        sa.Column("error_m", sa.Double(), nullable=False),
        sa.Column(
            "geom",
            Geometry(
                geometry_type="POINT",
                srid=4326,
                dimension=2,
                spatial_index=False,
                from_text="ST_GeomFromEWKT",
                name="geometry",
                nullable=False,
            ),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["evaluation_id"],
            ["geofix.evaluation.evaluation_id"],
            name=op.f("prediction_evaluation_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["photo_id"],
            ["geofix.photo_record.photo_id"],
            name=op.f("prediction_photo_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("evaluation_id", "photo_id", "rank", name=op.f("prediction_pkey")),
        schema="geofix",
        comment="One row per photo and rank",
    )
    op.create_index(
        op.f("prediction_photo_id_idx"), "prediction", ["photo_id"], unique=False, schema="geofix"
    )


def downgrade() -> None:
    op.drop_index(op.f("prediction_photo_id_idx"), table_name="prediction", schema="geofix")
    op.drop_table("prediction", schema="geofix")
    op.drop_index(op.f("evaluation_photo_photo_id_idx"), table_name="evaluation_photo", schema="geofix")
    op.drop_table("evaluation_photo", schema="geofix")
    op.drop_table("query", schema="geofix")
    op.drop_table("evaluation", schema="geofix")
