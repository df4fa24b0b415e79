"""The first schema: jobs, workers, rejects, audit and bookkeeping.

Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("audit_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("actor", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object_kind", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column(
            "detail",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("audit_id", name=op.f("audit_pkey")),
        schema="geofix",
        comment="Who localized, deleted or changed what",
    )
    op.create_table(
        "job",
        sa.Column("job_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), server_default="cpu", nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column(
            "specification",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("specification_version", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("parent_job_id", sa.Uuid(), nullable=True),
        sa.Column(
            "depends_on", postgresql.ARRAY(sa.Uuid()), server_default=sa.text("'{}'::uuid[]"), nullable=False
        ),
        sa.Column("progress_done", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("progress_total", sa.BigInteger(), nullable=True),
        sa.Column("progress_unit", sa.Text(), server_default="", nullable=False),
        sa.Column("progress_message", sa.Text(), server_default="", nullable=False),
        sa.Column("attempts", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("max_attempts", sa.SmallInteger(), server_default="3", nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fencing_token", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("submitted_by", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        sa.Column(
            "submitted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["parent_job_id"], ["geofix.job.job_id"], name=op.f("job_parent_job_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", name=op.f("job_pkey")),
        sa.UniqueConstraint("idempotency_key", name=op.f("job_idempotency_key_key")),
        schema="geofix",
        comment="The truth about queued work; the broker only delivers",
    )
    op.create_index(op.f("job_parent_job_id_idx"), "job", ["parent_job_id"], unique=False, schema="geofix")
    op.create_index(
        "job_state_submitted_at_idx", "job", ["state", "submitted_at"], unique=False, schema="geofix"
    )
    op.create_table(
        "sql_file",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("sql_file_pkey")),
        schema="geofix",
        comment="Repeatable SQL files as they were applied, for the drift check",
    )
    op.create_table(
        "stage_run",
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("inputs_sha256", sa.Text(), nullable=False),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("seconds", sa.REAL(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "stage", name=op.f("stage_run_pkey")),
        schema="geofix",
        comment="Finished stages of pipelines; a stage is skipped while its inputs are the same",
    )
    op.create_table(
        "worker",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("queues", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("software_version", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("worker_pkey")),
        schema="geofix",
        comment="Heartbeat of every worker process",
    )
    op.create_table(
        "job_event",
        sa.Column("job_event_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="state, log or progress"),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column(
            "data",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["geofix.job.job_id"], name=op.f("job_event_job_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_event_id", name=op.f("job_event_pkey")),
        schema="geofix",
        comment="What happened to a job, in order",
    )
    op.create_index(op.f("job_event_job_id_idx"), "job_event", ["job_id"], unique=False, schema="geofix")
    op.create_table(
        "reject",
        sa.Column("reject_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("dataset_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("source_key", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False, comment="short code, for example no_gps"),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["geofix.dataset.dataset_id"],
            name=op.f("reject_dataset_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("reject_id", name=op.f("reject_pkey")),
        sa.UniqueConstraint(
            "dataset_id",
            "kind",
            "source_key",
            "reason",
            name=op.f("reject_dataset_id_kind_source_key_reason_key"),
        ),
        schema="geofix",
        comment="Bad input, with its reason; the rest of the data set was loaded",
    )


def downgrade() -> None:
    op.drop_table("reject", schema="geofix")
    op.drop_index(op.f("job_event_job_id_idx"), table_name="job_event", schema="geofix")
    op.drop_table("job_event", schema="geofix")
    op.drop_table("worker", schema="geofix")
    op.drop_table("stage_run", schema="geofix")
    op.drop_table("sql_file", schema="geofix")
    op.drop_index("job_state_submitted_at_idx", table_name="job", schema="geofix")
    op.drop_index(op.f("job_parent_job_id_idx"), table_name="job", schema="geofix")
    op.drop_table("job", schema="geofix")
    op.drop_table("audit", schema="geofix")
