"""Partitions, their classes and their cells.

Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from geoalchemy2 import Geometry
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def geometry(kind: str) -> Geometry:
    return Geometry(
        kind, srid=4326, dimension=2, spatial_index=False, from_text="ST_GeomFromEWKT", name="geometry"
    )


def ids(name: str, comment: str) -> sa.Column:  # type: ignore[type-arg]
    return sa.Column(
        name, postgresql.ARRAY(sa.BigInteger()), server_default="{}", nullable=False, comment=comment
    )


def upgrade() -> None:
    op.create_table(
        "partition",
        sa.Column("partition_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("snapshot_id", sa.BigInteger(), nullable=True),
        ids("dataset_ids", "whose photos it was made from"),
        sa.Column("coarser_id", sa.BigInteger(), nullable=True),
        ids("set_ids", "partitions that a combinatorial one is the intersection of"),
        sa.Column(
            "region_level", sa.Text(), nullable=True, comment="level of the regions; administrative alone"
        ),
        sa.Column(
            "parameters",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("classes", sa.Integer(), nullable=False),
        sa.Column("photos", sa.BigInteger(), nullable=False, comment="photos in a class when it was made"),
        sa.Column(
            "stale_reason", sa.Text(), nullable=True, comment="why it should be made again; null: it need not"
        ),
        sa.Column("software_version", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "kind IN ('uniform','adaptive','geoclass','combinatorial','administrative','listed')",
            name=op.f("partition_kind_check"),
        ),
        sa.ForeignKeyConstraint(
            ["coarser_id"],
            ["geofix.partition.partition_id"],
            name=op.f("partition_coarser_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["snapshot_id"],
            ["geofix.snapshot.snapshot_id"],
            name=op.f("partition_snapshot_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("partition_id", name=op.f("partition_pkey")),
        sa.UniqueConstraint("name", name=op.f("partition_name_key")),
        schema="geofix",
        comment="How the earth is cut into classes (views: partition_summary, partition_map)",
    )
    op.create_table(
        "partition_class",
        sa.Column("partition_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "class",
            sa.Integer(),
            nullable=False,
            comment="0 .. classes - 1, the index a classifier answers with",
        ),
        sa.Column("s2_id", sa.BigInteger(), nullable=True, comment="the class's cell, where it is one"),
        sa.Column("region_code", sa.Text(), nullable=True, comment="administrative alone"),
        sa.Column("photos", sa.Integer(), nullable=False),
        sa.Column(
            "parent_class",
            sa.Integer(),
            nullable=True,
            comment="class of the coarser partition that holds this one",
        ),
        sa.Column(
            "members",
            postgresql.ARRAY(sa.Integer()),
            nullable=True,
            comment="class of each of set_ids, -1 for none; combinatorial alone",
        ),
        sa.Column("mean_geom", geometry("POINT"), nullable=False),
        sa.Column("geom", geometry("MULTIPOLYGON"), nullable=True),
        sa.CheckConstraint("photos > 0", name=op.f("partition_class_photos_check")),
        sa.ForeignKeyConstraint(
            ["partition_id"],
            ["geofix.partition.partition_id"],
            name=op.f("partition_class_partition_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("partition_id", "class", name=op.f("partition_class_pkey")),
        schema="geofix",
        comment="Classes of a partition; mean_geom is what a class answers, geom is for maps",
    )
    op.create_index(
        "partition_class_geom_idx",
        "partition_class",
        ["geom"],
        unique=False,
        schema="geofix",
        postgresql_using="gist",
    )
    op.create_table(
        "partition_cell",
        sa.Column("partition_id", sa.BigInteger(), nullable=False),
        sa.Column("s2_id", sa.BigInteger(), nullable=False),
        sa.Column("leaf_first", sa.BigInteger(), nullable=False, comment="first leaf id of the cell"),
        sa.Column("leaf_last", sa.BigInteger(), nullable=False, comment="last leaf id of the cell"),
        sa.Column("class", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["partition_id"],
            ["geofix.partition.partition_id"],
            name=op.f("partition_cell_partition_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("partition_id", "s2_id", name=op.f("partition_cell_pkey")),
        schema="geofix",
        comment="Disjoint S2 cells of a partition; labels are made from these, never from polygons",
    )
    op.create_index(
        "partition_cell_leaf_first_idx",
        "partition_cell",
        ["partition_id", "leaf_first"],
        unique=True,
        schema="geofix",
    )


def downgrade() -> None:
    op.drop_table("partition_cell", schema="geofix")
    op.drop_table("partition_class", schema="geofix")
    op.drop_table("partition", schema="geofix")
