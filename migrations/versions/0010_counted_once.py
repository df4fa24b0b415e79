"""Counts that the dashboard would make again for every page: per split of a snapshot, and cells that still fit.

A snapshot is frozen, so its sequences, cells and blocks are counted when it is stored; those of before are counted
here, of the photos that are still there. Cells counted before are not known to fit: `geofix cells refresh` counts anew.

Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

COUNT = """
INSERT INTO geofix.snapshot_split (snapshot_id, split, photos, sequences, cells_l15, blocks_l13)
WITH place AS MATERIALIZED (
  SELECT sp.snapshot_id, sp.split, p.sequence_id, (p.s2_id & -(1::bigint << 30)) | (1::bigint << 30) AS cell,
         count(*) AS photos
  FROM geofix.snapshot_photo sp JOIN geofix.photo_record p USING (photo_id) GROUP BY 1, 2, 3, 4
), cell AS MATERIALIZED (
  SELECT snapshot_id, split, cell FROM place GROUP BY 1, 2, 3
), photos AS (
  SELECT snapshot_id, split, sum(photos) AS photos FROM place GROUP BY 1, 2
), sequences AS (
  SELECT snapshot_id, split, count(sequence_id) AS sequences
  FROM (SELECT snapshot_id, split, sequence_id FROM place GROUP BY 1, 2, 3) AS s GROUP BY 1, 2
), cells AS (
  SELECT snapshot_id, split, count(*) AS cells FROM cell GROUP BY 1, 2
), blocks AS (
  SELECT snapshot_id, split, count(*) AS blocks
  FROM (SELECT snapshot_id, split, (cell & -(1::bigint << 34)) | (1::bigint << 34) FROM cell GROUP BY 1, 2, 3) AS b
  GROUP BY 1, 2
)
SELECT snapshot_id, split, photos, sequences, cells, blocks
FROM photos JOIN sequences USING (snapshot_id, split) JOIN cells USING (snapshot_id, split)
JOIN blocks USING (snapshot_id, split)
"""
# The functions write into the log; their triggers go with them.
DROP_TRIGGERS = """
DROP VIEW IF EXISTS geofix.fitting_grid;
DROP FUNCTION IF EXISTS geofix.note_cells, geofix.note_emptied_cells, geofix.note_moved_photos, geofix.note_moved_tiles CASCADE
"""


def upgrade() -> None:
    op.create_table(
        "snapshot_split",
        sa.Column("snapshot_id", sa.BigInteger(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("photos", sa.BigInteger(), nullable=False),
        sa.Column("sequences", sa.BigInteger(), nullable=False),
        sa.Column(
            "cells_l15", sa.BigInteger(), nullable=False, comment="S2 cells of level 15 that hold them"
        ),
        sa.Column(
            "blocks_l13", sa.BigInteger(), nullable=False, comment="S2 cells of level 13 that hold them"
        ),
        sa.ForeignKeyConstraint(
            ["snapshot_id"],
            ["geofix.snapshot.snapshot_id"],
            name=op.f("snapshot_split_snapshot_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("snapshot_id", "split", name=op.f("snapshot_split_pkey")),
        schema="geofix",
        comment="What the splits of a snapshot held when it was stored",
    )
    op.execute(COUNT)
    op.create_table(
        "cell_change",
        sa.Column("change_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.PrimaryKeyConstraint("change_id", name=op.f("cell_change_pkey")),
        schema="geofix",
        comment="Statements that changed what cells are counted from, photos and aerial tiles, written by triggers",
    )
    op.create_table(
        "grid_level",
        sa.Column("level", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("changes", sa.BigInteger(), nullable=False, comment="rows of the log"),
        sa.Column(
            "tile_levels", postgresql.ARRAY(sa.SmallInteger()), nullable=False, comment="of aerial tiles"
        ),
        sa.Column("written_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("level", name=op.f("grid_level_pkey")),
        schema="geofix",
        comment="What the cells of a level were counted from; they fit while no further change is in the log",
    )
    op.add_column(
        "grid_cell",
        sa.Column("last_aerial", sa.Date(), nullable=True, comment="newest date of its tiles"),
        schema="geofix",
    )
    # How many photos a data set has, and of when: every page of data sets asks, and would read all of them.
    op.create_index(
        "photo_record_dataset_id_captured_at_idx",
        "photo_record",
        ["dataset_id", "captured_at"],
        schema="geofix",
    )


def downgrade() -> None:
    op.execute(DROP_TRIGGERS)
    op.drop_index("photo_record_dataset_id_captured_at_idx", table_name="photo_record", schema="geofix")
    op.drop_column("grid_cell", "last_aerial", schema="geofix")
    op.drop_table("grid_level", schema="geofix")
    op.drop_table("cell_change", schema="geofix")
    op.drop_table("snapshot_split", schema="geofix")
