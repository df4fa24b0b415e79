"""Jobs that are held, that wait before they are tried again, and that are split into chunks.

Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def columns() -> list[sa.Column]:  # type: ignore[type-arg]
    return [
        sa.Column("pause_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("is_container", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("chunk", sa.Integer(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
    ]


def upgrade() -> None:
    for column in columns():
        op.add_column("job", column, schema="geofix")
    op.execute("UPDATE geofix.job SET is_container = true WHERE kind = 'pipeline'")
    op.create_index(op.f("job_submitted_at_idx"), "job", ["submitted_at"], unique=False, schema="geofix")


def downgrade() -> None:
    op.drop_index(op.f("job_submitted_at_idx"), table_name="job", schema="geofix")
    for column in reversed(columns()):
        op.drop_column("job", column.name, schema="geofix")
