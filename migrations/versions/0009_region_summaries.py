"""Accuracy by region as evaluations count it, and a log of what has changed since.

Evaluations of before have no summary: they are counted from rows, until `geofix evaluate summarize` writes one.

Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# The functions write into the log; their triggers go with them.
DROP_TRIGGERS = """
DROP VIEW IF EXISTS geofix.fitting_summary;
DROP FUNCTION IF EXISTS geofix.note_answers, geofix.note_regions, geofix.note_photos, geofix.note_truncation CASCADE
"""


# Any vacuum, PostgreSQL's own against wraparound too, keeps out of HNSW graphs; `geofix gc` asks for the others.
CLEANUP = """
DO $$ DECLARE leaf text; BEGIN
  FOR leaf IN SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('geofix_leaf') AND relkind = 'r'
    AND reloptions @> '{{autovacuum_enabled=false}}' AND NOT starts_with(relname, 'cell_code_making_')
  LOOP EXECUTE format('ALTER TABLE geofix_leaf.%I {change} (vacuum_index_cleanup{value})', leaf); END LOOP;
END $$
"""


def upgrade() -> None:
    op.execute(CLEANUP.format(change="SET", value=" = off"))
    op.create_table(
        "accuracy_change",
        sa.Column("change_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("evaluation_id", sa.BigInteger(), nullable=True),
        sa.Column(
            "level", sa.Text(), nullable=True, comment="of regions that photos were given; null: of all"
        ),
        sa.Column("first_photo_id", sa.BigInteger(), nullable=True, comment="null: any photo"),
        sa.Column("last_photo_id", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["evaluation_id"],
            ["geofix.evaluation.evaluation_id"],
            name=op.f("accuracy_change_evaluation_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("change_id", name=op.f("accuracy_change_pkey")),
        schema="geofix",
        comment="Statements that changed what accuracy is counted from, written by triggers: of one evaluation, else "
        "of a range of photos",
    )
    op.create_index(
        op.f("accuracy_change_evaluation_id_idx"),
        "accuracy_change",
        ["evaluation_id"],
        unique=False,
        schema="geofix",
    )
    op.create_table(
        "region_summary",
        sa.Column("evaluation_id", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False, comment="of the regions; empty: everywhere"),
        sa.Column("distances_m", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("comparison", sa.Text(), nullable=False, comment="of the evaluation when it was counted"),
        sa.Column(
            "missing_policy", sa.Text(), nullable=False, comment="of the evaluation when it was counted"
        ),
        sa.Column("changes", sa.BigInteger(), nullable=False, comment="rows of the log that concerned it"),
        sa.Column(
            "first_photo_id", sa.BigInteger(), nullable=True, comment="of the photos asked; null: none"
        ),
        sa.Column("last_photo_id", sa.BigInteger(), nullable=True),
        sa.Column("west", sa.Double(), nullable=True, comment="box around the photos that count, in degrees"),
        sa.Column("south", sa.Double(), nullable=True),
        sa.Column("east", sa.Double(), nullable=True),
        sa.Column("north", sa.Double(), nullable=True),
        sa.Column("written_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["evaluation_id"],
            ["geofix.evaluation.evaluation_id"],
            name=op.f("region_summary_evaluation_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("evaluation_id", "level", name=op.f("region_summary_pkey")),
        schema="geofix",
        comment="What accuracy by region was counted from; it fits while no further change is in the log",
    )
    op.create_table(
        "region_accuracy",
        sa.Column("evaluation_id", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("distance_m", sa.Double(), nullable=False),
        sa.Column("region_id", sa.BigInteger(), nullable=False, comment="0: outside every region"),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("hits", sa.BigInteger(), nullable=False),
        sa.Column("answered", sa.BigInteger(), nullable=False),
        sa.Column("median_m", sa.Double(), nullable=False, comment="infinite where half are not answered"),
        sa.ForeignKeyConstraint(
            ["evaluation_id", "level"],
            ["geofix.region_summary.evaluation_id", "geofix.region_summary.level"],
            name=op.f("region_accuracy_evaluation_id_level_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "evaluation_id", "level", "distance_m", "region_id", name=op.f("region_accuracy_pkey")
        ),
        schema="geofix",
        comment="Photos, hits and median per region and distance, as accuracy_by_region counts them",
    )
    # Every accuracy leaves out photos of a poor position: few, and else looked for in all of them.
    op.create_index(
        "photo_record_gps_accuracy_m_idx",
        "photo_record",
        ["gps_accuracy_m"],
        schema="geofix",
        postgresql_where=sa.text("gps_accuracy_m IS NOT NULL"),
    )


def downgrade() -> None:
    op.execute(CLEANUP.format(change="RESET", value=""))
    op.execute(DROP_TRIGGERS)
    op.drop_index("photo_record_gps_accuracy_m_idx", table_name="photo_record", schema="geofix")
    op.drop_table("region_accuracy", schema="geofix")
    op.drop_table("region_summary", schema="geofix")
    op.drop_index(op.f("accuracy_change_evaluation_id_idx"), table_name="accuracy_change", schema="geofix")
    op.drop_table("accuracy_change", schema="geofix")
