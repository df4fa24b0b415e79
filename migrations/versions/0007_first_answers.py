"""An index of first answers: every accuracy reads one row in ten or in a hundred of the predictions.

Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "prediction_first_idx",
        "prediction",
        ["evaluation_id", "photo_id"],
        schema="geofix",
        postgresql_include=["error_m"],
        postgresql_where=sa.text("rank = 1"),
    )


def downgrade() -> None:
    op.drop_index("prediction_first_idx", table_name="prediction", schema="geofix")
