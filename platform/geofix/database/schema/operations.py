"""Jobs, workers, rejects, audit and bookkeeping: how it ran."""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from geofix.database.schema.columns import (
    SCHEMA,
    document,
    identifier,
    metadata,
    reference,
    stamp,
)

job = Table(
    "job",
    metadata,
    Column("job_id", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("kind", Text, nullable=False),
    Column("queue", Text, nullable=False, server_default="cpu"),
    Column(
        "state",
        Text,
        CheckConstraint(
            "state IN ('queued','running','paused','succeeded','failed','cancelled','lost','parked')",
            name="state",
        ),
        nullable=False,
        server_default="queued",
    ),
    document("specification"),
    Column("specification_version", SmallInteger, nullable=False, server_default="1"),
    Column("idempotency_key", Text, unique=True),
    Column("parent_job_id", Uuid, ForeignKey(f"{SCHEMA}.job.job_id", ondelete="CASCADE"), index=True),
    Column("depends_on", ARRAY(Uuid), nullable=False, server_default=text("'{}'::uuid[]")),
    Column("progress_done", BigInteger, nullable=False, server_default="0"),
    Column("progress_total", BigInteger),
    Column("progress_unit", Text, nullable=False, server_default=""),
    Column("progress_message", Text, nullable=False, server_default=""),
    Column("attempts", SmallInteger, nullable=False, server_default="0"),
    Column("max_attempts", SmallInteger, nullable=False, server_default="3"),
    Column("lease_owner", Text),
    Column("lease_expires_at", DateTime(timezone=True)),
    Column("fencing_token", BigInteger, nullable=False, server_default="0"),
    Column("cancel_requested", Boolean, nullable=False, server_default=text("false")),
    Column("pause_requested", Boolean, nullable=False, server_default=text("false")),
    Column("not_before", DateTime(timezone=True)),
    Column("claimed_at", DateTime(timezone=True)),
    Column("is_container", Boolean, nullable=False, server_default=text("false")),
    Column("chunk", Integer),
    Column("size", BigInteger),
    Column("submitted_by", Text, nullable=False, server_default=text("session_user")),
    stamp("submitted_at"),
    Column("published_at", DateTime(timezone=True)),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Column("result", JSONB),
    Column("error", Text),
    Index("job_state_submitted_at_idx", "state", "submitted_at"),
    Index("job_submitted_at_idx", "submitted_at"),
    comment="The truth about queued work; the broker only delivers",
)


job_event = Table(
    "job_event",
    metadata,
    identifier("job_event_id"),
    Column(
        "job_id", Uuid, ForeignKey(f"{SCHEMA}.job.job_id", ondelete="CASCADE"), nullable=False, index=True
    ),
    stamp("at"),
    Column("kind", Text, nullable=False, comment="state, log or progress"),
    Column("message", Text, nullable=False),
    document("data"),
    comment="What happened to a job, in order",
)


worker = Table(
    "worker",
    metadata,
    Column("name", Text, primary_key=True),
    Column("queues", ARRAY(Text), nullable=False),
    Column("device", Text, nullable=False),
    Column("software_version", Text, nullable=False),
    Column("job_id", Uuid),
    stamp("started_at"),
    stamp("seen_at"),
    comment="Heartbeat of every worker process",
)


reject = Table(
    "reject",
    metadata,
    identifier("reject_id"),
    reference("dataset_id", "dataset.dataset_id"),
    Column("kind", Text, CheckConstraint("kind IN ('photo','aerial','region')", name="kind"), nullable=False),
    Column("source_key", Text, nullable=False),
    Column("reason", Text, nullable=False, comment="short code, for example no_gps"),
    Column("detail", Text, nullable=False),
    stamp("seen_at"),
    UniqueConstraint("dataset_id", "kind", "source_key", "reason"),
    comment="Bad input, with its reason; the rest of the data set was loaded",
)


audit = Table(
    "audit",
    metadata,
    identifier("audit_id"),
    stamp("at"),
    Column("actor", Text, nullable=False, server_default=text("session_user")),
    Column("action", Text, nullable=False),
    Column("object_kind", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    document("detail"),
    comment="Who localized, deleted or changed what",
)


stage_run = Table(
    "stage_run",
    metadata,
    Column("pipeline", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("inputs_sha256", Text, nullable=False),
    Column("result", JSONB, nullable=False),
    Column("seconds", REAL, nullable=False),
    stamp("finished_at"),
    PrimaryKeyConstraint("pipeline", "stage"),
    comment="Finished stages of pipelines; a stage is skipped while its inputs are the same",
)


sql_file = Table(
    "sql_file",
    metadata,
    Column("name", Text, primary_key=True),
    Column("sha256", Text, nullable=False),
    stamp("applied_at"),
    comment="Repeatable SQL files as they were applied, for the drift check",
)
