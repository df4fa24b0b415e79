"""The first schema: snapshots, models, vectors and code sets.

Revises: 0001
"""

from __future__ import annotations

import pgvector.sqlalchemy
import sqlalchemy as sa
from alembic import op
from geoalchemy2 import Geometry
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SCHEMA IF NOT EXISTS geofix_leaf")
    op.create_table(
        "aerial_embedding",
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("aerial_tile_id", sa.BigInteger(), nullable=False),
        sa.Column("embedding", pgvector.sqlalchemy.HALFVEC(), nullable=False),
        schema="geofix",
        comment="Aerial embeddings, one leaf per model",
        postgresql_partition_by="LIST (model_id)",
    )
    op.create_index(
        "aerial_embedding_model_id_aerial_tile_id_idx",
        "aerial_embedding",
        ["model_id", "aerial_tile_id"],
        unique=False,
        schema="geofix",
    )
    op.create_table(
        "cell_code",
        sa.Column("code_set_id", sa.BigInteger(), nullable=False),
        sa.Column("s2_id", sa.BigInteger(), nullable=False),
        sa.Column("code", pgvector.sqlalchemy.HALFVEC(), nullable=False),
        sa.Column("has_prototype", sa.Boolean(), nullable=False),
        sa.Column("has_aerial", sa.Boolean(), nullable=False),
        schema="geofix",
        comment="Cell codes of dimension D + 2 (bias and norm completion), one leaf per code set",
        postgresql_partition_by="LIST (code_set_id)",
    )
    op.create_index(
        "cell_code_code_set_id_s2_id_idx",
        "cell_code",
        ["code_set_id", "s2_id"],
        unique=False,
        schema="geofix",
    )
    op.create_table(
        "photo_embedding",
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("photo_id", sa.BigInteger(), nullable=False),
        sa.Column("embedding", pgvector.sqlalchemy.HALFVEC(), nullable=False),
        schema="geofix",
        comment="Ground embeddings, one leaf per model",
        postgresql_partition_by="LIST (model_id)",
    )
    op.create_index(
        "photo_embedding_model_id_photo_id_idx",
        "photo_embedding",
        ["model_id", "photo_id"],
        unique=False,
        schema="geofix",
    )
    op.create_table(
        "prototype",
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("s2_id", sa.BigInteger(), nullable=False),
        sa.Column("embedding", pgvector.sqlalchemy.HALFVEC(), nullable=False),
        sa.Column("photos", sa.Integer(), nullable=False),
        schema="geofix",
        comment="Learned ground prototypes, one leaf per model",
        postgresql_partition_by="LIST (model_id)",
    )
    op.create_index(
        "prototype_model_id_s2_id_idx", "prototype", ["model_id", "s2_id"], unique=False, schema="geofix"
    )
    op.create_table(
        "snapshot",
        sa.Column("snapshot_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column(
            "config",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "counts",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("snapshot_id", name=op.f("snapshot_pkey")),
        sa.UniqueConstraint("sha256", name=op.f("snapshot_sha256_key")),
        schema="geofix",
        comment="Frozen training sets",
    )
    op.create_table(
        "model",
        sa.Column("model_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="encoder, or the name of a trained localizer"),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.Column("directory_uri", sa.Text(), nullable=False),
        sa.Column("weights_sha256", sa.Text(), nullable=False),
        sa.Column(
            "config",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "input_transform",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("snapshot_id", sa.BigInteger(), nullable=True),
        sa.Column(
            "metrics",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["snapshot_id"],
            ["geofix.snapshot.snapshot_id"],
            name=op.f("model_snapshot_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("model_id", name=op.f("model_pkey")),
        sa.UniqueConstraint("name", name=op.f("model_name_key")),
        schema="geofix",
        comment="Encoders and trained localizers, with all that is needed to rebuild them",
    )
    op.create_table(
        "code_set",
        sa.Column("code_set_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("snapshot_id", sa.BigInteger(), nullable=True),
        sa.Column("recipe", sa.Text(), nullable=False, comment="cellmean, aerial, prototype or hybrid"),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("dimension", sa.Integer(), nullable=False, comment="D + 2"),
        sa.Column("state", sa.Text(), server_default="building", nullable=False),
        sa.Column("stale_reason", sa.Text(), nullable=True),
        sa.Column(
            "scale", sa.Double(), server_default="1", nullable=False, comment="M: score = M * inner product"
        ),
        sa.Column("kappa", sa.Double(), nullable=True),
        sa.Column("temperature", sa.Double(), nullable=True),
        sa.Column("cells", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("with_prototype", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("with_aerial", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("block_level", sa.SmallInteger(), server_default="9", nullable=False),
        sa.Column(
            "index_parameters",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "calibration",
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
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["model_id"], ["geofix.model.model_id"], name=op.f("code_set_model_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["snapshot_id"],
            ["geofix.snapshot.snapshot_id"],
            name=op.f("code_set_snapshot_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("code_set_id", name=op.f("code_set_pkey")),
        sa.UniqueConstraint("name", name=op.f("code_set_name_key")),
        schema="geofix",
        comment="All cell codes of one model by one recipe",
    )
    op.create_table(
        "cell_block",
        sa.Column("code_set_id", sa.BigInteger(), nullable=False),
        sa.Column("s2_id", sa.BigInteger(), nullable=False),
        sa.Column("lo", sa.BigInteger(), nullable=False, comment="first leaf id of the block"),
        sa.Column("hi", sa.BigInteger(), nullable=False, comment="last leaf id of the block"),
        sa.Column("cells", sa.Integer(), nullable=False),
        sa.Column(
            "geom",
            Geometry(
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
            ["code_set_id"],
            ["geofix.code_set.code_set_id"],
            name=op.f("cell_block_code_set_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("code_set_id", "s2_id", name=op.f("cell_block_pkey")),
        schema="geofix",
        comment="Coarse blocks with their number of codes: what a region covers, without touching the codes",
    )
    op.create_index(
        "cell_block_geom_idx", "cell_block", ["geom"], unique=False, schema="geofix", postgresql_using="gist"
    )
    op.create_table(
        "recall_check",
        sa.Column("recall_check_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("code_set_id", sa.BigInteger(), nullable=False),
        sa.Column("k", sa.Integer(), nullable=False),
        sa.Column("queries", sa.Integer(), nullable=False),
        sa.Column("ef_search", sa.Integer(), nullable=True),
        sa.Column("scope", sa.Text(), nullable=False, comment="everywhere, or a description of the region"),
        sa.Column("cells_in_scope", sa.BigInteger(), nullable=False),
        sa.Column(
            "recall", sa.REAL(), nullable=False, comment="share of the exact top k that HNSW also returned"
        ),
        sa.Column("checked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["code_set_id"],
            ["geofix.code_set.code_set_id"],
            name=op.f("recall_check_code_set_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("recall_check_id", name=op.f("recall_check_pkey")),
        schema="geofix",
        comment="ANN against exact search, as a time series",
    )
    op.create_index(
        op.f("recall_check_code_set_id_idx"), "recall_check", ["code_set_id"], unique=False, schema="geofix"
    )
    op.create_table(
        "snapshot_photo",
        sa.Column("snapshot_id", sa.BigInteger(), nullable=False),
        sa.Column("photo_id", sa.BigInteger(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["photo_id"],
            ["geofix.photo_record.photo_id"],
            name=op.f("snapshot_photo_photo_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["snapshot_id"],
            ["geofix.snapshot.snapshot_id"],
            name=op.f("snapshot_photo_snapshot_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("snapshot_id", "photo_id", name=op.f("snapshot_photo_pkey")),
        schema="geofix",
        comment="Which photo is in which split",
    )
    op.create_index(
        op.f("snapshot_photo_photo_id_idx"), "snapshot_photo", ["photo_id"], unique=False, schema="geofix"
    )


def downgrade() -> None:
    op.drop_index(op.f("snapshot_photo_photo_id_idx"), table_name="snapshot_photo", schema="geofix")
    op.drop_table("snapshot_photo", schema="geofix")
    op.drop_index(op.f("recall_check_code_set_id_idx"), table_name="recall_check", schema="geofix")
    op.drop_table("recall_check", schema="geofix")
    op.drop_index("cell_block_geom_idx", table_name="cell_block", schema="geofix", postgresql_using="gist")
    op.drop_table("cell_block", schema="geofix")
    op.drop_table("code_set", schema="geofix")
    op.drop_table("model", schema="geofix")
    op.drop_table("snapshot", schema="geofix")
    op.drop_index("prototype_model_id_s2_id_idx", table_name="prototype", schema="geofix")
    op.drop_table("prototype", schema="geofix")
    op.drop_index("photo_embedding_model_id_photo_id_idx", table_name="photo_embedding", schema="geofix")
    op.drop_table("photo_embedding", schema="geofix")
    op.drop_index("cell_code_code_set_id_s2_id_idx", table_name="cell_code", schema="geofix")
    op.drop_table("cell_code", schema="geofix")
    op.drop_index(
        "aerial_embedding_model_id_aerial_tile_id_idx", table_name="aerial_embedding", schema="geofix"
    )
    op.drop_table("aerial_embedding", schema="geofix")
    op.execute("DROP SCHEMA IF EXISTS geofix_leaf CASCADE")
