"""The first schema: photos, regions, rasters and the grid.

Revises: nothing
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from geoalchemy2 import Geometry
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dataset",
        sa.Column("dataset_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("licence", sa.Text(), nullable=True),
        sa.Column("attribution", sa.Text(), nullable=True),
        sa.Column("source_uri", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("dataset_id", name=op.f("dataset_pkey")),
        sa.UniqueConstraint("name", name=op.f("dataset_name_key")),
        schema="geofix",
        comment="One source of photos, rasters or regions, with its licence and attribution",
    )
    op.create_table(
        "grid_cell",
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("s2_id", sa.BigInteger(), nullable=False),
        sa.Column("photos", sa.Integer(), nullable=False),
        sa.Column("first_captured_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_captured_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("aerial_tiles", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("level", "s2_id", name=op.f("grid_cell_pkey")),
        schema="geofix",
        comment="Working area: cells with photos or aerial tiles, counted per level (view: cell)",
    )
    op.create_table(
        "aerial_raster",
        sa.Column("aerial_raster_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("dataset_id", sa.BigInteger(), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=True),
        sa.Column("file_bytes", sa.BigInteger(), nullable=True),
        sa.Column("file_mtime_ns", sa.BigInteger(), nullable=True),
        sa.Column("crs", sa.Text(), nullable=False, comment="EPSG:n or WKT"),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("bands", sa.SmallInteger(), nullable=True),
        sa.Column("dtype", sa.Text(), nullable=True),
        sa.Column("gsd_m", sa.REAL(), nullable=False, comment="metres per pixel at the raster's centre"),
        sa.Column("captured_at", sa.Date(), nullable=True),
        sa.Column(
            "reading",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "geom",
            Geometry(
                geometry_type="MULTIPOLYGON",
                srid=4326,
                dimension=2,
                spatial_index=False,
                from_text="ST_GeomFromEWKT",
                name="geometry",
                nullable=False,
            ),
            nullable=False,
        ),
        sa.Column("ingested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["geofix.dataset.dataset_id"],
            name=op.f("aerial_raster_dataset_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("aerial_raster_id", name=op.f("aerial_raster_pkey")),
        sa.UniqueConstraint("dataset_id", "uri", name=op.f("aerial_raster_dataset_id_uri_key")),
        schema="geofix",
        comment="Aerial imagery on disk; reading holds what is needed to show it as RGB (stretch, zooms, transform)",
    )
    op.create_index(
        "aerial_raster_geom_idx",
        "aerial_raster",
        ["geom"],
        unique=False,
        schema="geofix",
        postgresql_using="gist",
    )
    op.create_table(
        "aerial_tile",
        sa.Column("aerial_tile_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("dataset_id", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("s2_id", sa.BigInteger(), nullable=False),
        sa.Column("captured_at", sa.Date(), nullable=True),
        sa.Column("side_m", sa.REAL(), nullable=False),
        sa.Column("coverage", sa.REAL(), nullable=False),
        sa.Column("aerial_raster_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["geofix.dataset.dataset_id"],
            name=op.f("aerial_tile_dataset_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("aerial_tile_id", name=op.f("aerial_tile_pkey")),
        sa.UniqueConstraint(
            "dataset_id",
            "s2_id",
            "captured_at",
            name=op.f("aerial_tile_dataset_id_s2_id_captured_at_key"),
            postgresql_nulls_not_distinct=True,
        ),
        schema="geofix",
        comment="One north-up tile per cell, source and date; pixels are cut from the rasters when needed",
    )
    op.create_index("aerial_tile_s2_id_idx", "aerial_tile", ["s2_id"], unique=False, schema="geofix")
    op.create_table(
        "region",
        sa.Column("region_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("dataset_id", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False, comment="country, admin1 or a user's own level"),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("area_km2", sa.Double(), nullable=False),
        sa.Column(
            "repaired",
            sa.Text(),
            nullable=True,
            comment="why the polygon was repaired on loading; null: it was valid",
        ),
        sa.Column(
            "geom",
            Geometry(
                geometry_type="MULTIPOLYGON",
                srid=4326,
                dimension=2,
                spatial_index=False,
                from_text="ST_GeomFromEWKT",
                name="geometry",
                nullable=False,
            ),
            nullable=False,
        ),
        sa.Column("loaded_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["geofix.dataset.dataset_id"],
            name=op.f("region_dataset_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("region_id", name=op.f("region_pkey")),
        sa.UniqueConstraint("level", "code", name=op.f("region_level_code_key")),
        schema="geofix",
        comment="Named polygons: countries, admin-1, the user's own",
    )
    op.create_index(
        "region_geom_idx", "region", ["geom"], unique=False, schema="geofix", postgresql_using="gist"
    )
    op.create_table(
        "sequence",
        sa.Column("sequence_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("dataset_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False, comment="name of the sequence in its source"),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["geofix.dataset.dataset_id"],
            name=op.f("sequence_dataset_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("sequence_id", name=op.f("sequence_pkey")),
        sa.UniqueConstraint("dataset_id", "key", name=op.f("sequence_dataset_id_key_key")),
        schema="geofix",
        comment="Photos taken in one go; never split between training and test",
    )
    op.create_table(
        "photo_record",
        sa.Column("photo_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("dataset_id", sa.BigInteger(), nullable=False),
        sa.Column("sequence_id", sa.BigInteger(), nullable=True),
        sa.Column(
            "source_key", sa.Text(), nullable=False, comment="path below the data set, or the source's own id"
        ),
        sa.Column("uri", sa.Text(), nullable=True, comment="fsspec URI of the pixels; null: position only"),
        sa.Column("sha256", sa.LargeBinary(), nullable=True, comment="hash of the file"),
        sa.Column("file_bytes", sa.BigInteger(), nullable=True),
        sa.Column(
            "file_mtime_ns",
            sa.BigInteger(),
            nullable=True,
            comment="with file_bytes: lets a second ingest skip unchanged files",
        ),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("s2_id", sa.BigInteger(), nullable=False, comment="leaf cell (level 30), two's complement"),
        sa.Column("gps_accuracy_m", sa.REAL(), nullable=True),
        sa.Column("heading_deg", sa.REAL(), nullable=True),
        sa.Column("captured_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("author", sa.Text(), nullable=True),
        sa.Column("licence", sa.Text(), nullable=True),
        sa.Column("extra", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
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
        sa.Column("ingested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["geofix.dataset.dataset_id"],
            name=op.f("photo_record_dataset_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["sequence_id"],
            ["geofix.sequence.sequence_id"],
            name=op.f("photo_record_sequence_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("photo_id", name=op.f("photo_record_pkey")),
        sa.UniqueConstraint("dataset_id", "source_key", name=op.f("photo_record_dataset_id_source_key_key")),
        schema="geofix",
        comment="Photo metadata; pixels stay in files (view: photo)",
    )
    op.create_index(
        "photo_record_geom_idx",
        "photo_record",
        ["geom"],
        unique=False,
        schema="geofix",
        postgresql_using="gist",
    )
    op.create_index("photo_record_s2_id_idx", "photo_record", ["s2_id"], unique=False, schema="geofix")
    op.create_index(
        op.f("photo_record_sequence_id_idx"), "photo_record", ["sequence_id"], unique=False, schema="geofix"
    )
    op.create_index(
        "photo_record_sha256_idx", "photo_record", ["dataset_id", "sha256"], unique=True, schema="geofix"
    )
    op.create_table(
        "region_part",
        sa.Column("region_part_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("region_id", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column(
            "geom",
            Geometry(
                geometry_type="POLYGON",
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
            ["region_id"],
            ["geofix.region.region_id"],
            name=op.f("region_part_region_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("region_part_id", name=op.f("region_part_pkey")),
        schema="geofix",
        comment="region cut by ST_Subdivide, so that point-in-polygon reads few vertices",
    )
    op.create_index(
        "region_part_geom_idx",
        "region_part",
        ["geom"],
        unique=False,
        schema="geofix",
        postgresql_using="gist",
    )
    op.create_index(
        op.f("region_part_region_id_idx"), "region_part", ["region_id"], unique=False, schema="geofix"
    )
    op.create_table(
        "photo_region",
        sa.Column("photo_id", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("region_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "distance_m", sa.REAL(), nullable=False, comment="0 inside; else distance to the nearest region"
        ),
        sa.ForeignKeyConstraint(
            ["photo_id"],
            ["geofix.photo_record.photo_id"],
            name=op.f("photo_region_photo_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["region_id"],
            ["geofix.region.region_id"],
            name=op.f("photo_region_region_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("photo_id", "level", name=op.f("photo_region_pkey")),
        schema="geofix",
        comment="Region of every photo per level: inside, else nearest within 25 km",
    )
    op.create_index(
        op.f("photo_region_region_id_idx"), "photo_region", ["region_id"], unique=False, schema="geofix"
    )


def downgrade() -> None:
    op.drop_index(op.f("photo_region_region_id_idx"), table_name="photo_region", schema="geofix")
    op.drop_table("photo_region", schema="geofix")
    op.drop_index(op.f("region_part_region_id_idx"), table_name="region_part", schema="geofix")
    op.drop_index("region_part_geom_idx", table_name="region_part", schema="geofix", postgresql_using="gist")
    op.drop_table("region_part", schema="geofix")
    op.drop_index("photo_record_sha256_idx", table_name="photo_record", schema="geofix")
    op.drop_index(op.f("photo_record_sequence_id_idx"), table_name="photo_record", schema="geofix")
    op.drop_index("photo_record_s2_id_idx", table_name="photo_record", schema="geofix")
    op.drop_index(
        "photo_record_geom_idx", table_name="photo_record", schema="geofix", postgresql_using="gist"
    )
    op.drop_table("photo_record", schema="geofix")
    op.drop_table("sequence", schema="geofix")
    op.drop_index("region_geom_idx", table_name="region", schema="geofix", postgresql_using="gist")
    op.drop_table("region", schema="geofix")
    op.drop_index("aerial_tile_s2_id_idx", table_name="aerial_tile", schema="geofix")
    op.drop_table("aerial_tile", schema="geofix")
    op.drop_index(
        "aerial_raster_geom_idx", table_name="aerial_raster", schema="geofix", postgresql_using="gist"
    )
    op.drop_table("aerial_raster", schema="geofix")
    op.drop_table("grid_cell", schema="geofix")
    op.drop_table("dataset", schema="geofix")
